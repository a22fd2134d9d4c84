// SPDX-License-Identifier: Apache-2.0
//
// Reads of a cached disk over NBD, one connection, `depth` requests in flight: larder serve beside nbdkit's file plugin
// and qemu-nbd, each a process of its own, with the client on the same CPUs. The client is bare sockets: it sends a new
// request for every answer that has come, those that came together in one call. Times are per request; `server_cpu` is
// what the server's process took for one, in seconds.
#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include <benchmark/benchmark.h>

#include "server/nbd/protocol.h"

namespace {

using namespace larder::nbd;
namespace fs = std::filesystem;

constexpr std::uint64_t disk_size = 64U << 20;

// A folder with the disk and the sockets, gone at exit.
struct workshop {
  fs::path folder;
  fs::path disk;

  workshop() {
    std::string name = (fs::temp_directory_path() / "larder-bench-XXXXXX").string();
    folder = ::mkdtemp(name.data());
    disk = folder / "disk.img";
    std::ofstream file(disk, std::ios::binary);
    std::mt19937_64 random(1);
    std::vector<std::uint64_t> block(1U << 17);
    for (std::uint64_t written = 0; written < disk_size; written += block.size() * sizeof block[0]) {
      for (auto& word : block) word = random();
      file.write(reinterpret_cast<const char*>(block.data()),
                 static_cast<std::streamsize>(block.size() * sizeof block[0]));
    }
  }
  ~workshop() { fs::remove_all(folder); }
};

workshop& the_workshop() {
  static workshop instance;
  return instance;
}

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "bench/serve: %s\n", what);
  std::abort();
}

int connect_to(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return socket;
  ::close(socket);
  return -1;
}

// A server that runs until this object goes; `works` is false if it is not installed.
class server_process {
 public:
  explicit server_process(const std::string& name) : socket_(the_workshop().folder / (name + ".sock")) {
    const std::string disk = the_workshop().disk;
    std::vector<std::string> words;
    if (name == "larder") {
      const fs::path self = fs::read_symlink("/proc/self/exe").parent_path().parent_path() / "larder";
      words = {self, "serve", disk, "--memory", "128M", "--socket", socket_};
    } else if (name == "nbdkit") {
      words = {"nbdkit", "-f", "-U", socket_, "file", disk};
    } else {
      words = {"qemu-nbd", "-f", "raw", "-k", socket_, "--persistent", "--aio=io_uring", "--cache=writeback", disk};
    }
    process_ = ::fork();
    if (process_ == 0) {
      const int nothing = ::open("/dev/null", O_RDWR);
      ::dup2(nothing, STDOUT_FILENO);
      ::dup2(nothing, STDERR_FILENO);
      std::vector<char*> arguments;
      for (std::string& word : words) arguments.push_back(word.data());
      arguments.push_back(nullptr);
      ::execvp(arguments[0], arguments.data());
      ::_exit(127);
    }
    for (int tries = 0; tries < 100; ++tries) {
      if (const int probe = connect_to(socket_); probe >= 0) {
        ::close(probe);
        works_ = true;
        break;
      }
      ::usleep(50'000);
    }
  }
  ~server_process() {
    ::kill(process_, SIGTERM);
    ::waitpid(process_, nullptr, 0);
  }
  server_process(const server_process&) = delete;
  server_process& operator=(const server_process&) = delete;

  bool works() const { return works_; }
  const std::string& socket() const { return socket_; }
  double cpu_seconds() const {
    std::ifstream file("/proc/" + std::to_string(process_) + "/stat");
    std::string word;
    std::array<double, 2> ticks{};
    for (int i = 1; i <= 15 && file >> word; ++i) {
      if (i >= 14) ticks[static_cast<std::size_t>(i - 14)] = std::stod(word);
    }
    return (ticks[0] + ticks[1]) / static_cast<double>(::sysconf(_SC_CLK_TCK));
  }

 private:
  std::string socket_;
  pid_t process_ = -1;
  bool works_ = false;
};

server_process& the_server(const std::string& name) {
  the_workshop();  // first, so that it goes last
  static std::map<std::string, std::unique_ptr<server_process>> running;
  auto& one = running[name];
  if (!one) one = std::make_unique<server_process>(name);
  return *one;
}

class client {
 public:
  client(const std::string& path, std::size_t depth, std::uint32_t length)
      : socket_(connect_to(path)), length_(length), input_(depth * (simple_reply_size + length)) {
    std::array<std::byte, greeting_size> greeting;
    receive(greeting.data(), greeting.size());
    std::array<std::byte, 4 + option_header_size> hello;
    std::byte* at = store_big_endian(hello.data(), std::uint32_t{flag_fixed_newstyle | flag_no_zeroes});
    at = store_big_endian(at, option_magic);
    at = store_big_endian(at, static_cast<std::uint32_t>(option::export_name));
    store_big_endian(at, std::uint32_t{0});  // the default export
    send(hello.data(), hello.size());
    std::array<std::byte, 10> facts;
    receive(facts.data(), facts.size());
    ask(depth);
  }
  // Takes the answers that are due and says good-bye: a server is judged by its speed here, not by its manners.
  ~client() {
    for (std::uint64_t due = cookie_ - answered_; due > 0;) {
      const std::uint64_t had = take_answers();
      due -= had;
    }
    std::array<std::byte, request_size> disconnect{};
    std::byte* at = store_big_endian(disconnect.data(), request_magic);
    at = store_big_endian(at, std::uint16_t{0});
    store_big_endian(at, static_cast<std::uint16_t>(command::disconnect));
    send(disconnect.data(), disconnect.size());
    ::close(socket_);
  }
  client(const client&) = delete;
  client& operator=(const client&) = delete;

  // Receives what has come, at least one answer, and asks as many again. Returns how many.
  std::size_t exchange() {
    const std::size_t answers = take_answers();
    ask(answers);
    return answers;
  }

 private:
  std::size_t take_answers() {
    const std::size_t whole = simple_reply_size + length_;
    while (filled_ < whole) {
      const ssize_t moved = ::recv(socket_, input_.data() + filled_, input_.size() - filled_, 0);
      if (moved <= 0) die("the server hung up");
      filled_ += static_cast<std::size_t>(moved);
    }
    const std::size_t answers = filled_ / whole;
    for (std::size_t i = 0; i < answers; ++i) {
      if (load_big_endian<std::uint64_t>(input_.data() + i * whole) != std::uint64_t{simple_reply_magic} << 32) {
        die("the server answered with an error");
      }
    }
    filled_ -= answers * whole;
    std::memmove(input_.data(), input_.data() + answers * whole, filled_);
    answered_ += answers;
    return answers;
  }

  void ask(std::size_t count) {
    std::vector<std::byte> output(count * request_size);
    for (std::size_t i = 0; i < count; ++i) {
      std::byte* at = store_big_endian(output.data() + i * request_size, request_magic);
      at = store_big_endian(at, std::uint32_t{0});  // READ, no flags
      at = store_big_endian(at, ++cookie_);
      at = store_big_endian(at, random_() % (disk_size / length_) * length_);
      store_big_endian(at, length_);
    }
    send(output.data(), output.size());
  }
  void send(const std::byte* from, std::size_t size) {
    while (size > 0) {
      const ssize_t moved = ::send(socket_, from, size, MSG_NOSIGNAL);
      if (moved <= 0) die("the server takes no requests");
      from += moved;
      size -= static_cast<std::size_t>(moved);
    }
  }
  void receive(std::byte* to, std::size_t size) {
    if (::recv(socket_, to, size, MSG_WAITALL) != static_cast<ssize_t>(size)) die("the handshake failed");
  }

  const int socket_;
  const std::uint32_t length_;
  std::vector<std::byte> input_;
  std::size_t filled_ = 0;
  std::uint64_t cookie_ = 0;    // requests sent
  std::uint64_t answered_ = 0;  // of these
  std::mt19937_64 random_{7};
};

void random_reads(benchmark::State& state, const std::string& name) {
  server_process& server = the_server(name);
  if (!server.works()) {
    state.SkipWithError((name + " does not start: is it installed?").c_str());
    return;
  }
  const auto depth = static_cast<std::size_t>(state.range(0));
  const auto length = static_cast<std::uint32_t>(state.range(1));
  client one(server.socket(), depth, length);
  // Once over the disk, so that each server has in memory what it can.
  for (std::uint64_t warmed = 0; warmed < 2 * disk_size / length;) warmed += one.exchange();
  const double before = server.cpu_seconds();
  std::uint64_t answered = 0;
  while (state.KeepRunningBatch(static_cast<benchmark::IterationCount>(depth))) {
    for (std::size_t had = 0; had < depth;) {
      const std::size_t now = one.exchange();
      had += now;
      answered += now;
    }
  }
  state.SetItemsProcessed(static_cast<std::int64_t>(answered));
  state.counters["server_cpu_us"] = 1e6 * (server.cpu_seconds() - before) / static_cast<double>(answered);
}

void register_all(benchmark::internal::Benchmark* one) {
  one->Args({1, 4096})->Args({32, 4096})->Args({8, 262144});
  one->ArgNames({"depth", "bytes"})->UseRealTime()->MinTime(2);
}

BENCHMARK_CAPTURE(random_reads, larder, "larder")->Apply(register_all);
BENCHMARK_CAPTURE(random_reads, nbdkit, "nbdkit")->Apply(register_all);
BENCHMARK_CAPTURE(random_reads, qemu_nbd, "qemu-nbd")->Apply(register_all);

}  // namespace
