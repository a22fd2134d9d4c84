// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <bit>
#include <memory>
#include <random>
#include <thread>

#include "bench/batch_ring.h"
#include "bench/object_cache/scenario.h"

namespace larder::bench {

// The one object that is out is put back at once. With an object whose constructor is dear: what being built is worth.
template <typename Source>
class same_thread final : public scenario {
  std::uint64_t run(std::uint64_t operations) override {
    for (std::uint64_t i = 0; i < operations; ++i) {
      void* object = source_.get();
      use(object);
      source_.put(object);
      look_at_source();
    }
    return operations;
  }

  Source source_{demand{1, 1}};
};

// Many go out, then all come back in the order in which they went.
template <typename Source>
class out_then_in final : public scenario {
  std::uint64_t run(std::uint64_t operations) override {
    std::uint64_t done = 0;
    for (; done < operations; done += out_.size()) {
      for (void*& object : out_) use(object = source_.get());
      for (void* object : out_) {
        source_.put(object);
        look_at_source();
      }
    }
    return done;
  }

  std::array<void*, 1000> out_;
  Source source_{demand{out_.size(), 1}};
};

// Which of `count` objects is the next to be replaced: numbers made beforehand, because they are dearer than a get.
template <std::size_t length>
class random_order {
 public:
  explicit random_order(std::size_t count, std::uint32_t seed = 1) : order_(length) {
    static_assert(std::has_single_bit(length));
    std::mt19937 random(seed);
    for (std::uint16_t& each : order_) each = static_cast<std::uint16_t>(random() % count);
  }
  std::size_t operator[](std::size_t at) const { return order_[at % length]; }

 private:
  std::vector<std::uint16_t> order_;
};

enum class content : bool { untouched, used };

// Of many that are out, one at random comes back and another goes out. Where the content is used, the object that comes
// back is read and the one that goes out is written, as a program does; else a source that keeps its links in the free
// objects pays for their cache misses, and one that keeps them elsewhere does not.
template <typename Source, content Content>
class random_replacement : public scenario {
 public:
  random_replacement() {
    for (void*& object : out_) take(object);
  }
  ~random_replacement() override {
    for (void* object : out_) source_.put(object);
  }

 private:
  static void access(void* object) {
    if constexpr (Content == content::used) {
      auto* word = static_cast<volatile std::uint64_t*>(object);
      *word = *word + 1;
    }
  }
  void take(void*& object) {
    object = source_.get();
    use(object);
    access(object);
  }

  std::uint64_t run(std::uint64_t operations) override {
    const std::size_t end = next_ + operations;
    for (std::size_t next = next_; next < end; ++next) {
      void*& object = out_[order_[next]];
      access(object);
      source_.put(object);
      look_at_source();
      take(object);
    }
    next_ = end;
    return operations;
  }

  std::vector<void*> out_ = std::vector<void*>(10'000);
  const random_order<1 << 16> order_{out_.size()};
  std::size_t next_ = 0;
  Source source_{demand{out_.size() + 1, 1}};
};

template <typename Source>
using random_untouched = random_replacement<Source, content::untouched>;
template <typename Source>
using random_used = random_replacement<Source, content::used>;

// This thread gets, another puts what it was sent through a ring of batches.
template <typename Source>
class thread_to_thread final : public scenario {
  using ring = batch_ring<void*>;

  std::uint64_t run(std::uint64_t operations) override {
    const auto passed = std::make_unique<ring>();
    std::thread putter([&] {
      source_.enter();
      while (const ring::batch* batch = passed->begin_receive()) {
        for (void* object : *batch) {
          source_.put(object);
          look_at_source();
        }
        passed->end_receive();
      }
      source_.leave();
    });
    std::uint64_t done = 0;
    for (; done < operations; done += ring::batch_size) {
      for (void*& object : passed->begin_send()) use(object = source_.get());
      passed->end_send();
    }
    passed->close();
    putter.join();
    return done;
  }

  Source source_{demand{32 * ring::batch_size, 2}};
};

}  // namespace larder::bench
