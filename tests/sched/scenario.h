// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

namespace larder::sched {

// A test of the scheduler: fresh state, some logical threads, an audit. It is built anew for every schedule; its
// constructor, its audit and its destructor run alone and are not scheduled. All that its threads share must go through
// base/atomic.h and base/mutex.h, or be guarded by that.
class scenario {
 public:
  virtual ~scenario() = default;
  scenario(const scenario&) = delete;
  scenario& operator=(const scenario&) = delete;

  // When every thread has ended: checks the whole structure.
  virtual void audit() {}

  struct body {
    const char* name;
    std::function<void()> run;
    unsigned cpu;
  };
  struct named {
    const std::byte* begin;
    std::size_t size;
    std::string name;
  };
  const std::vector<body>& bodies() const { return bodies_; }
  const std::vector<named>& names() const { return names_; }

 protected:
  scenario() = default;

  static constexpr unsigned own_cpu = ~0U;
  // Adds a logical thread: in the constructor. Up to eight of them; on a virtual CPU each (as far as there are so
  // many), unless told otherwise.
  void thread(const char* name, std::function<void()> run, unsigned cpu = own_cpu) {
    bodies_.push_back({name, std::move(run), cpu == own_cpu ? static_cast<unsigned>(bodies_.size()) : cpu});
  }
  // What traces call an object. Without it they number what they meet.
  template <typename T>
  void name(const T& object, std::string text) {
    names_.push_back({reinterpret_cast<const std::byte*>(&object), sizeof object, std::move(text)});
  }

 private:
  std::vector<body> bodies_;
  std::vector<named> names_;
};

// A law that the threads and the audit check: fails the schedule with the message.
[[gnu::format(printf, 2, 3)]] void require(bool condition, const char* format, ...);

// Moves the calling logical thread to another virtual CPU.
void move_to_cpu(unsigned cpu);

}  // namespace larder::sched
