// SPDX-License-Identifier: Apache-2.0
#include "bench/object_cache/peer.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <system_error>

namespace larder::bench {
namespace {

namespace fs = std::filesystem;

// The first of the libraries in the first of the usual folders that has it.
std::string find_library(const std::vector<std::string>& names) {
  for (const char* folder : {"/usr/local/lib", "/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu",
                             "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib"}) {
    for (const std::string& name : names) {
      const fs::path file = fs::path(folder) / name;
      std::error_code none;
      if (fs::exists(file, none)) return file.string();
    }
  }
  return {};
}

// The environment, with this library preloaded and no other.
std::vector<std::string> environment_with(const std::string& preloaded) {
  std::vector<std::string> made;
  for (char** each = environ; *each != nullptr; ++each) {
    if (std::strncmp(*each, "LD_PRELOAD=", 11) != 0) made.emplace_back(*each);
  }
  if (!preloaded.empty()) made.push_back("LD_PRELOAD=" + preloaded);
  return made;
}

std::vector<char*> pointers_to(std::vector<std::string>& texts) {
  std::vector<char*> made;
  for (std::string& each : texts) made.push_back(each.data());
  made.push_back(nullptr);
  return made;
}

}  // namespace

peer_process::peer_process(const peer_kind& kind) {
  const fs::path self = fs::read_symlink("/proc/self/exe");
  const fs::path program = kind.program.empty() ? self : self.parent_path() / kind.program;
  const std::string library = find_library(kind.libraries);
  if (!kind.libraries.empty() && library.empty()) {
    problem_ = kind.libraries.front() + " is not installed";
  } else if (!fs::exists(program)) {
    problem_ = "was not installed when this was built";
  } else {
    // glibc is there already, and preloading it would change the order in which names are looked up.
    start(program, kind.name, kind.name == "glibc" ? "" : library, library);
  }
  if (!problem_.empty()) return;
  const auto line = to_peer_.receive_line();
  introduction_ = line ? *line : "! " + how_it_ended();
  if (introduction_.starts_with("! ")) problem_ = introduction_.substr(2);
}

void peer_process::start(const std::string& program, const std::string& name, const std::string& preloaded,
                         const std::string& malloc_of) {
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
    problem_ = std::generic_category().message(errno);
    return;
  }
  to_peer_ = channel(ends[0]);
  std::vector<std::string> words = {program, "--peer=" + name, "--malloc-of=" + malloc_of};
  std::vector<std::string> environment = environment_with(preloaded);
  posix_spawn_file_actions_t files;
  ::posix_spawn_file_actions_init(&files);
  ::posix_spawn_file_actions_adddup2(&files, ends[1], channel::peer_fd);
  // What a library prints is no result.
  ::posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
  const int failed = ::posix_spawn(&process_, program.c_str(), &files, nullptr, pointers_to(words).data(),
                                   pointers_to(environment).data());
  ::posix_spawn_file_actions_destroy(&files);
  ::close(ends[1]);
  if (failed != 0) {
    process_ = -1;
    problem_ = std::generic_category().message(failed);
  }
}

std::string peer_process::how_it_ended() {
  int status = 0;
  to_peer_.close();
  if (process_ < 0 || ::waitpid(process_, &status, 0) != process_) return "has no process";
  process_ = -1;
  if (WIFSIGNALED(status)) return "ended by signal " + std::to_string(WTERMSIG(status));
  return "ended with status " + std::to_string(WEXITSTATUS(status));
}

peer_process::~peer_process() {
  to_peer_.close();
  if (process_ >= 0) ::waitpid(process_, nullptr, 0);
}

answer peer_process::ask(const request& asked) {
  if (!problem_.empty()) return {0, {}, problem_};
  if (to_peer_.send_line(written(asked))) {
    if (const auto line = to_peer_.receive_line()) return read_answer(*line);
  }
  problem_ = how_it_ended();
  return {0, {}, problem_};
}

}  // namespace larder::bench
