// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "bench/object_cache/scenario.h"

namespace larder::bench {

// The number of KiB after `name:` in a file of /proc; 0 if there is none. Takes no memory, which it would count.
inline std::uint64_t proc_kib(const char* file, const char* name) {
  char text[4096];
  const int fd = ::open(file, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return 0;
  const ssize_t length = ::read(fd, text, sizeof text - 1);
  ::close(fd);
  text[std::max<ssize_t>(length, 0)] = 0;
  const char* found = std::strstr(text, name);
  return found == nullptr ? 0 : std::strtoull(found + std::strlen(name) + 1, nullptr, 10);
}

// Exact, unlike the counters of /proc/self/statm, which every thread keeps for itself for a while.
inline double resident_bytes() { return 1024 * static_cast<double>(proc_kib("/proc/self/smaps_rollup", "\nRss")); }

// A million objects, or as many as fit in half of what the machine has left.
inline std::size_t many_objects(std::size_t size) {
  const std::uint64_t room = 1024 * proc_kib("/proc/meminfo", "\nMemAvailable") / 2;
  return std::min<std::size_t>(1'000'000, room / size);
}

// Objects that are all out at once, each written from end to end, and what the process has grown by.
template <typename Source>
class crowd {
 public:
  explicit crowd(std::size_t size) : size_(size), out_(many_objects(size)), before_(resident_bytes()) {}
  ~crowd() { empty(); }
  crowd(const crowd&) = delete;
  crowd& operator=(const crowd&) = delete;

  // False if the source has not so many.
  bool fill(answer& told) {
    source_.emplace(demand{out_.size(), 1});
    const auto start = std::chrono::steady_clock::now();
    for (; filled_ < out_.size(); ++filled_) {
      void* object = out_[filled_] = source_->get();
      if (object == nullptr) break;
      std::memset(object, 1, size_);
    }
    const std::chrono::duration<double, std::nano> passed = std::chrono::steady_clock::now() - start;
    told.ns_per_operation = passed.count() / static_cast<double>(filled_);
    if (filled_ < out_.size()) told.error = "no more than " + std::to_string(filled_) + " objects were to be had";
    return filled_ == out_.size();
  }
  void empty() {
    while (filled_ > 0) source_->put(out_[--filled_]);
  }
  double grown() const { return resident_bytes() - before_; }
  double payload() const { return static_cast<double>(out_.size() * size_); }
  double objects() const { return static_cast<double>(out_.size()); }
  Source& source() { return *source_; }

 private:
  const std::size_t size_;
  std::vector<void*> out_;
  std::size_t filled_ = 0;
  const double before_;
  std::optional<Source> source_;
};

// What an object takes beside itself.
template <typename Source>
answer memory_per_object(std::size_t size) {
  crowd<Source> all(size);
  answer told;
  if (!all.fill(told)) return told;
  const double grown = all.grown();
  told.figures = {{"objects", all.objects()},
                  {"result_bytes_per_object", grown / all.objects()},
                  {"overhead_percent", 100 * (grown / all.payload() - 1)}};
  const double charged = all.source().charged_bytes();
  if (charged > 0) told.figures.emplace_back("charged_overhead_percent", 100 * (charged / all.payload() - 1));
  return told;
}

// What stays resident when all objects have come back: at once, and when nothing was done for a while.
template <typename Source>
answer resident_after_peak(std::size_t size) {
  constexpr double mib = 1 << 20;
  crowd<Source> all(size);
  answer told;
  if (!all.fill(told)) return told;
  const double peak = all.grown();
  all.empty();
  const double at_once = all.grown();
  std::this_thread::sleep_for(std::chrono::seconds(3));
  told.figures = {{"peak_MiB", peak / mib}, {"at_once_MiB", at_once / mib}, {"result_idle_MiB", all.grown() / mib}};
  return told;
}

}  // namespace larder::bench
