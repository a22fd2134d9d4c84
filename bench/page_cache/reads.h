// SPDX-License-Identifier: Apache-2.0
//
// A file whose pages are all in memory, and the ways to read 64 bytes of one. Each way is an object of one thread.
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <list>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

#include <larder/page_cache.h>

#include "base/check.h"

namespace larder::bench {

constexpr std::size_t read_length = 64;
constexpr std::size_t read_offset = 1024;  // within the page

// A nameless file of so many pages, each full of one letter.
inline int make_file(std::uint64_t pages) {
  const char* folder = std::getenv("TMPDIR");
  std::string path = std::string(folder != nullptr ? folder : "/var/tmp") + "/larder-bench-XXXXXX";
  const int descriptor = ::mkstemp(path.data());
  LARDER_CHECK(descriptor >= 0, "no file can be made like %s", path.c_str());
  ::unlink(path.c_str());
  std::vector<char> chunk(64 * page_size);
  for (std::uint64_t page = 0; page < pages; page += 64) {
    std::memset(chunk.data(), 'a' + static_cast<int>(page / 64 % 26), chunk.size());
    LARDER_CHECK(::write(descriptor, chunk.data(), chunk.size()) == static_cast<ssize_t>(chunk.size()),
                 "the disk is full: the benchmark's file takes %llu MiB", static_cast<unsigned long long>(pages / 256));
  }
  return descriptor;
}

// Which pages are read, one after the other and round again: drawn beforehand, so that drawing costs nothing.
class page_sequence {
 public:
  static constexpr std::size_t length = 1 << 16;

  static page_sequence uniform(std::uint64_t pages, std::uint64_t seed) {
    page_sequence made;
    std::mt19937_64 random(seed);
    for (std::uint32_t& each : made.numbers_) each = static_cast<std::uint32_t>(random() % pages);
    return made;
  }
  // Zipf's law with exponent 0.99 over pages in an order of their own.
  static page_sequence zipf(std::uint64_t pages, std::uint64_t seed) {
    page_sequence made;
    std::vector<double> sums(pages);
    double sum = 0;
    for (std::uint64_t rank = 0; rank < pages; ++rank) {
      sum += std::pow(static_cast<double>(rank + 1), -0.99);
      sums[rank] = sum;
    }
    std::vector<std::uint32_t> order(pages);
    std::iota(order.begin(), order.end(), 0U);
    std::shuffle(order.begin(), order.end(), std::mt19937_64(1));
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<double> below(0, sum);
    for (std::uint32_t& each : made.numbers_) {
      each = order[static_cast<std::size_t>(std::ranges::lower_bound(sums, below(random)) - sums.begin())];
    }
    return made;
  }
  std::uint64_t next() { return numbers_[at_++ % length]; }

 private:
  page_sequence() : numbers_(length) {}
  std::vector<std::uint32_t> numbers_;
  std::size_t at_ = 0;
};

// 64 MiB, more than the processor's caches hold, all in memory in each way.
struct warm_file {
  static constexpr std::uint64_t pages = 16'384;

  warm_file() : descriptor(make_file(pages)) {
    disk = *file_backing::adopt(::dup(descriptor), true);
    cache = *page_cache::create("bench", {.budget = &budget});
    file = *cache->open(*disk);
    LARDER_CHECK(file->read_ahead(0, disk->size()), "the file cannot be read");
    void* at = ::mmap(nullptr, pages * page_size, PROT_READ, MAP_SHARED | MAP_POPULATE, descriptor, 0);
    LARDER_CHECK(at != MAP_FAILED, "the file cannot be mapped");
    mapped = static_cast<const std::byte*>(at);
    for (std::uint64_t number = 0; number < pages; ++number) {
      copies.push_back(std::make_unique<page_copy>());
      std::memcpy(copies.back()->data(), mapped + number * page_size, page_size);
      recency.push_back(number);
      by_number.emplace(number, std::prev(recency.end()));
    }
  }
  ~warm_file() { ::close(descriptor); }
  static warm_file& instance() {
    static warm_file made;
    return made;
  }

  using page_copy = std::array<std::byte, page_size>;
  int descriptor;
  memory_budget budget{"bench"};
  std::unique_ptr<file_backing> disk;
  std::unique_ptr<page_cache> cache;
  std::unique_ptr<cached_file> file;
  const std::byte* mapped = nullptr;
  std::vector<std::unique_ptr<page_copy>> copies;
  std::mutex guard;  // of the next two
  std::list<std::uint64_t> recency;
  std::unordered_map<std::uint64_t, std::list<std::uint64_t>::iterator> by_number;
};

class pinned {
 public:
  explicit pinned(warm_file& warm) : file_(*warm.file), admission_(*warm.cache->admit(1, 1)) {}
  void read(std::uint64_t page, std::byte* into) {
    const auto held = file_.pin(page, access::read, admission_);
    std::memcpy(into, held->data().data() + read_offset, read_length);
  }

 private:
  cached_file& file_;
  pin_admission admission_;
};

class validated {
 public:
  explicit validated(warm_file& warm) : file_(*warm.file) {}
  void read(std::uint64_t page, std::byte* into) {
    if (!file_.try_read(page * page_size + read_offset, std::span(into, read_length))) std::abort();
  }

 private:
  cached_file& file_;
};

// pread of the kernel's page cache.
class by_pread {
 public:
  explicit by_pread(warm_file& warm) : descriptor_(warm.descriptor) {}
  void read(std::uint64_t page, std::byte* into) const {
    const auto offset = static_cast<off_t>(page * page_size + read_offset);
    if (::pread(descriptor_, into, read_length, offset) != static_cast<ssize_t>(read_length)) std::abort();
  }

 private:
  int descriptor_;
};

class mapped {
 public:
  explicit mapped(warm_file& warm) : base_(warm.mapped) {}
  void read(std::uint64_t page, std::byte* into) const {
    std::memcpy(into, base_ + page * page_size + read_offset, read_length);
  }

 private:
  const std::byte* base_;
};

// What one would write oneself: a mutex, a hash map and a list in the order of use.
class mutex_lru {
 public:
  explicit mutex_lru(warm_file& warm) : warm_(warm) {}
  void read(std::uint64_t page, std::byte* into) {
    const std::lock_guard<std::mutex> locked(warm_.guard);
    const auto found = warm_.by_number.find(page);
    if (found == warm_.by_number.end()) std::abort();
    warm_.recency.splice(warm_.recency.begin(), warm_.recency, found->second);
    std::memcpy(into, warm_.copies[*found->second]->data() + read_offset, read_length);
  }

 private:
  warm_file& warm_;
};

// The floor: an array of pages, no questions asked.
class array {
 public:
  explicit array(warm_file& warm) : copies_(warm.copies) {}
  void read(std::uint64_t page, std::byte* into) const {
    std::memcpy(into, copies_[page]->data() + read_offset, read_length);
  }

 private:
  const std::vector<std::unique_ptr<warm_file::page_copy>>& copies_;
};

}  // namespace larder::bench
