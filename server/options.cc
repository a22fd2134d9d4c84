// SPDX-License-Identifier: Apache-2.0
#include "server/options.h"

#include <charconv>
#include <filesystem>
#include <set>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <larder/memory_budget.h>
#include <larder/version.h>

#include "os/cpu.h"
#include "server/nbd/protocol.h"
#include "server/service.h"

namespace larder::server {
namespace {

constexpr unsigned workers_most = 256;
constexpr const char* default_socket = "larder.sock";

constexpr const char* examples = R"(
Examples:
  larder serve                                  a demonstration disk of 1 GiB, on ./larder.sock
  larder serve disk.img --memory 64M            an image, in no more than 64 MiB
  larder serve --export a=a.img --export b=b.img,ro --listen 127.0.0.1:10809

Look at what is served:  nbdinfo --list 'nbd+unix://?socket=larder.sock')";

void check_names(const std::vector<serve_options::image>& images) {
  std::set<std::string> seen;
  for (const auto& image : images) {
    if (!seen.insert(image.name).second) {
      throw bad_start(fmt::format("two exports are named \"{}\"; give one another name with --export NAME={}",
                                  image.name, image.path));
    }
  }
}

}  // namespace

serve_options::image parse_export(const std::string& text) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0 || equals + 1 == text.size()) {
    throw bad_start(fmt::format("--export {}: expected NAME=PATH or NAME=PATH,ro", text));
  }
  serve_options::image image{text.substr(0, equals), text.substr(equals + 1), false};
  if (image.path.ends_with(",ro")) {
    image.read_only = true;
    image.path.resize(image.path.size() - 3);
  }
  if (image.path.empty()) throw bad_start(fmt::format("--export {}: the path is missing", text));
  if (image.name.size() > nbd::name_most) {
    throw bad_start(
        fmt::format("--export: a name of {} bytes; it can have 1 to {}", image.name.size(), nbd::name_most));
  }
  return image;
}

bytes parse_size(const char* option, const std::string& text) {
  const auto amount = parse_bytes(text);
  if (amount) return *amount;
  throw bad_start(fmt::format("{} {}: {}", option, text,
                              amount.error() == error_from(ERANGE)
                                  ? "more than there can be; give at most a few hundred T"
                                  : "not a size; give a number of bytes, or one with K, M or G, such as 16M"));
}

serve_options::tcp_address parse_address(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  serve_options::tcp_address address;
  if (colon != std::string::npos) {
    address.host = text.substr(0, colon);
    if (address.host.size() >= 2 && address.host.front() == '[' && address.host.back() == ']') {
      address.host = address.host.substr(1, address.host.size() - 2);
    } else if (address.host.find(':') != std::string::npos) {
      throw bad_start(fmt::format("--listen {}: write an IPv6 address in brackets, such as [::1]:10809", text));
    }
    const char* first = text.data() + colon + 1;
    const char* last = text.data() + text.size();
    const auto [stopped, error] = std::from_chars(first, last, address.port);
    if (error == std::errc() && stopped == last) return address;
    if (error == std::errc::result_out_of_range) {
      throw bad_start(fmt::format("--listen {}: a port is a number from 0 (any free one) to 65535", text));
    }
  }
  throw bad_start(fmt::format("--listen {}: expected ADDRESS:PORT, such as 127.0.0.1:10809 or [::1]:10809", text));
}

std::optional<command> read_command_line(int count, const char* const* words) {
  serve_options chosen;
  std::vector<std::string> paths;
  std::vector<std::string> exports;
  std::vector<std::string> addresses;
  std::string memory = "16M";
  bool read_only = false;
  unsigned workers = std::min(static_cast<unsigned>(os::available_cpus()), workers_most);

  CLI::App app(
      "Serves virtual machines' disks over NBD within a memory limit that is never exceeded, and tells how much they "
      "need.",
      "larder");
  app.set_version_flag("--version", "larder " LARDER_VERSION_STRING);
  app.require_subcommand(1);
  app.footer(examples);
  CLI::App* serve = app.add_subcommand("serve", "Serve disk images over NBD until stopped (Ctrl-C).");
  serve->add_option("IMAGE", paths, "Disk images, each exported under its file's name; none: a demonstration disk")
      ->type_name("");
  // One word each time, or an image that follows would be taken for another.
  serve->add_option("-e,--export", exports, "Export an image under a name; ro: read-only")
      ->type_name("NAME=PATH[,ro]")
      ->allow_extra_args(false);
  serve->add_option("-m,--memory", memory, "All the memory that serving may take, such as 600K, 16M or 1G")
      ->type_name("SIZE")
      ->capture_default_str();
  serve
      ->add_option("-s,--socket", chosen.sockets,
                   fmt::format("Listen on a unix socket ({} if nothing is said)", default_socket))
      ->type_name("PATH")
      ->allow_extra_args(false);
  serve->add_option("-l,--listen", addresses, "Listen on a TCP port; 0 takes a free one")
      ->type_name("ADDRESS:PORT")
      ->allow_extra_args(false);
  serve->add_option("-w,--workers", workers, "Threads that serve, 1 to 256")->type_name("N")->capture_default_str();
  serve->add_flag("-r,--read-only", read_only, "Export every image read-only");
  serve->footer(examples);
  CLI::App* replay = app.add_subcommand("replay", "Try a disk's trace against page caches: which size does it need?");
  replay::replay_words replay_words;
  replay::add_options(*replay, replay_words);
  try {
    app.parse(count, words);
  } catch (const CLI::ParseError& problem) {
    if (problem.get_exit_code() == 0) {
      app.exit(problem);
      return std::nullopt;
    }
    std::string what = problem.what();
    for (char& each : what) {
      if (each == '\n') each = ' ';
    }
    throw bad_start(what + (replay->parsed() ? "; see larder replay --help" : "; see larder serve --help"));
  }
  if (replay->parsed()) return replay::understand(replay_words);

  chosen.memory = parse_size("--memory", memory);
  if (workers < 1 || workers > workers_most) {
    throw bad_start(fmt::format("--workers {}: a number from 1 to {}", workers, workers_most));
  }
  chosen.workers = workers;
  for (const std::string& path : paths) {
    chosen.images.push_back({std::filesystem::path(path).filename().string(), path, false});
  }
  for (const std::string& text : exports) chosen.images.push_back(parse_export(text));
  for (auto& image : chosen.images) image.read_only |= read_only;
  check_names(chosen.images);
  for (const std::string& text : addresses) chosen.addresses.push_back(parse_address(text));
  if (chosen.sockets.empty() && chosen.addresses.empty()) chosen.sockets.emplace_back(default_socket);
  return chosen;
}

}  // namespace larder::server
