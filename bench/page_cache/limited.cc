// SPDX-License-Identifier: Apache-2.0
#include "bench/page_cache/limited.h"

#include <sys/stat.h>
#include <sys/wait.h>

#include <chrono>
#include <fstream>
#include <span>
#include <thread>

#include <larder/runtime.h>

namespace larder::bench {
namespace {

bool write_line(const std::string& path, const std::string& line) {
  std::ofstream file(path);
  file << line << std::flush;
  return file.good();
}

// A new group with the limit, of either version of the kernel's interface; empty if there can be none.
std::string make_group() {
  const std::string name = "/larder-bench-" + std::to_string(::getpid());
  const std::string limit = std::to_string(group_limit.count);
  std::ifstream controllers("/sys/fs/cgroup/cgroup.controllers");
  std::string all;
  std::getline(controllers, all);
  const bool second_version = all.find("memory") != std::string::npos;
  const std::string root = second_version ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
  if (second_version) write_line(root + "/cgroup.subtree_control", "+memory");
  const std::string group = root + name;
  if (::mkdir(group.c_str(), 0755) != 0) return {};
  if (write_line(group + (second_version ? "/memory.max" : "/memory.limit_in_bytes"), limit)) return group;
  ::rmdir(group.c_str());
  return {};
}

std::string path_of_large_file() { return "/proc/self/fd/" + std::to_string(large_file()); }

int reopened(int flags) {
  const int descriptor = ::open(path_of_large_file().c_str(), flags);
  LARDER_CHECK(descriptor >= 0, "the benchmark's file cannot be opened with these flags: is its file system a disk's?");
  return descriptor;
}

void need(bool holds) {
  if (!holds) std::abort();
}

class by_larder {
 public:
  explicit by_larder(file_transfer how) : disk_(*file_backing::open(path_of_large_file(), false, how)) {
    cache_ = *page_cache::create("bench", {.budget = &budget_});
    file_ = *cache_->open(*disk_);
  }
  void read(std::uint64_t offset, std::span<std::byte> into) { need(static_cast<bool>(file_->read(offset, into))); }
  void write(std::uint64_t offset, std::span<const std::byte> from) {
    need(static_cast<bool>(file_->write(offset, from)));
  }
  void make_durable() { need(static_cast<bool>(file_->flush())); }
  // Calls `body` with each of the numbers below `count`, all at the same time.
  template <typename Body>
  void at_once(std::uint64_t count, const Body& body) {
    std::vector<task> tasks;
    for (std::uint64_t i = 0; i < count; ++i) tasks.push_back(runtime_->spawn([&body, i] { body(i); }));
    for (task& each : tasks) each.join();
  }

 private:
  memory_budget budget_{"bench", {.limit = pages_limit}};
  std::unique_ptr<file_backing> disk_;
  std::unique_ptr<page_cache> cache_;
  std::unique_ptr<cached_file> file_;
  std::unique_ptr<runtime> runtime_ = *runtime::create("bench", {.workers = 2});
};

// Threads take what tasks do.
struct by_threads {
  template <typename Body>
  void at_once(std::uint64_t count, const Body& body) {
    if (count == 1) return body(0);
    std::vector<std::thread> threads;
    for (std::uint64_t i = 0; i < count; ++i) threads.emplace_back([&body, i] { body(i); });
    for (std::thread& each : threads) each.join();
  }
};

// The kernel's page cache, or with O_DIRECT none.
class by_calls : public by_threads {
 public:
  by_calls(load chosen, int flags) : descriptor_(reopened(O_RDWR | flags)) {
    if (chosen != load::write_in_order) ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_RANDOM);
  }
  void read(std::uint64_t offset, std::span<std::byte> into) const {
    need(::pread(descriptor_, into.data(), into.size(), static_cast<off_t>(offset)) ==
         static_cast<ssize_t>(into.size()));
  }
  void write(std::uint64_t offset, std::span<const std::byte> from) const {
    need(::pwrite(descriptor_, from.data(), from.size(), static_cast<off_t>(offset)) ==
         static_cast<ssize_t>(from.size()));
  }
  void make_durable() const { need(::fdatasync(descriptor_) == 0); }

 private:
  int descriptor_;
};

class by_mapping : public by_threads {
 public:
  explicit by_mapping(load chosen) {
    void* at = ::mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_SHARED, reopened(O_RDWR), 0);
    need(at != MAP_FAILED);
    if (chosen != load::write_in_order) ::madvise(at, length, MADV_RANDOM);
    base_ = static_cast<std::byte*>(at);
  }
  void read(std::uint64_t offset, std::span<std::byte> into) const {
    std::memcpy(into.data(), base_ + offset, into.size());
  }
  void write(std::uint64_t offset, std::span<const std::byte> from) const {
    std::memcpy(base_ + offset, from.data(), from.size());
  }
  void make_durable() const { need(::msync(base_, length, MS_SYNC) == 0); }

 private:
  static constexpr std::size_t length = large_file_pages * page_size;
  std::byte* base_ = nullptr;
};

template <typename Way>
class worker {
 public:
  worker(Way& way, load chosen)
      : way_(way),
        chosen_(chosen),
        pages_(chosen == load::read_uniform || chosen == load::read_by_many
                   ? page_sequence::uniform(large_file_pages, 1)
                   : page_sequence::zipf(large_file_pages, 1)) {
    void* at = nullptr;
    const std::size_t length = std::max<std::size_t>(written_at_once, readers * page_size);
    need(::posix_memalign(&at, page_size, length) == 0);
    buffer_ = std::span(static_cast<std::byte*>(at), length);
    std::memset(buffer_.data(), 'w', buffer_.size());
  }

  void serve(int commands, int results) {
    for (int i = 0; i < 20 && chosen_ != load::write_in_order; ++i) run_step();  // until what is hot is in memory
    for (char command = 0; ::read(commands, &command, 1) == 1;) {
      const auto began = std::chrono::steady_clock::now();
      outcome came{.operations = run_step()};
      came.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
      if (::write(results, &came, sizeof came) != sizeof came) return;
    }
  }

 private:
  std::uint64_t run_step() {
    if (chosen_ == load::read_by_many) return read_by_many();
    std::uint64_t operations = 0;
    way_.at_once(1, [&](std::uint64_t) { operations = step(); });
    return operations;
  }
  std::uint64_t read_by_many() {
    std::vector<std::uint64_t> drawn(readers * steps_of_each_reader);
    for (std::uint64_t& page : drawn) page = pages_.next();
    way_.at_once(readers, [&](std::uint64_t reader) {
      const std::span<std::byte> into = buffer_.subspan(reader * page_size, page_size);
      for (std::uint64_t i = 0; i < steps_of_each_reader; ++i) {
        way_.read(drawn[reader * steps_of_each_reader + i] * page_size, into);
      }
    });
    return drawn.size();
  }
  std::uint64_t step() {
    if (chosen_ == load::write_in_order) {
      for (std::uint64_t at = 0; at < written_mebibytes << 20; at += written_at_once) {
        way_.write((written_from_ + at) % (large_file_pages * page_size), buffer_.first(written_at_once));
      }
      written_from_ += written_mebibytes << 20;
      way_.make_durable();
      return written_mebibytes;
    }
    for (std::uint64_t i = 0; i < steps_of_reading; ++i) {
      const std::uint64_t offset = pages_.next() * page_size;
      if (chosen_ == load::mixed_zipf && i % 10 < 3) {
        way_.write(offset, buffer_.first(page_size));
      } else {
        way_.read(offset, buffer_.first(page_size));
      }
    }
    if (chosen_ == load::mixed_zipf) way_.make_durable();
    return steps_of_reading;
  }

  Way& way_;
  const load chosen_;
  page_sequence pages_;
  std::span<std::byte> buffer_;
  std::uint64_t written_from_ = 0;
};

// A process's whole life. What is dirty at its end goes with it.
template <typename Way, typename... Arguments>
void serve(load chosen, int commands, int results, Arguments... arguments) {
  Way way(arguments...);
  worker<Way>(way, chosen).serve(commands, results);
  ::_exit(0);
}

}  // namespace

int large_file() {
  static const int descriptor = make_file(large_file_pages);
  return descriptor;
}

limited_run::limited_run(const work_function& work, load chosen) {
  ::fdatasync(large_file());
  ::posix_fadvise(large_file(), 0, 0, POSIX_FADV_DONTNEED);
  std::array<int, 2> down{};
  std::array<int, 2> up{};
  if (::pipe2(down.data(), O_CLOEXEC) != 0 || ::pipe2(up.data(), O_CLOEXEC) != 0) return;
  group_ = make_group();
  child_ = ::fork();
  if (child_ == 0) {
    ::close(down[1]);
    ::close(up[0]);
    if (!group_.empty()) need(write_line(group_ + "/cgroup.procs", std::to_string(::getpid())));
    work(chosen, down[0], up[1]);
  }
  ::close(down[0]);
  ::close(up[1]);
  commands_ = down[1];
  results_ = up[0];
}

limited_run::~limited_run() {
  ::close(commands_);
  ::close(results_);
  if (child_ > 0) ::waitpid(child_, nullptr, 0);
  // A moment may pass until the group is seen to be empty.
  for (int i = 0; !group_.empty() && ::rmdir(group_.c_str()) != 0 && i < 1000; ++i) ::usleep(1000);
}

outcome limited_run::step() {
  outcome came;
  if (::write(commands_, "s", 1) != 1 || ::read(results_, &came, sizeof came) != sizeof came) return {};
  return came;
}

void larder_direct::work(load chosen, int commands, int results) {
  serve<by_larder>(chosen, commands, results, file_transfer::direct);
}
void larder_buffered::work(load chosen, int commands, int results) {
  serve<by_larder>(chosen, commands, results, file_transfer::buffered);
}
void kernel_cache::work(load chosen, int commands, int results) {
  serve<by_calls>(chosen, commands, results, chosen, 0);
}
void kernel_mapping::work(load chosen, int commands, int results) {
  serve<by_mapping>(chosen, commands, results, chosen);
}
void device::work(load chosen, int commands, int results) {
  serve<by_calls>(chosen, commands, results, chosen, O_DIRECT);
}

}  // namespace larder::bench
