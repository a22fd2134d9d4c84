// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/atomic.h"
#include "base/schedule.h"
#include "tests/sched/engine.h"

namespace larder::sched {

// A restartable sequence in progress of the current logical thread. It is interrupted, and then does nothing, if since
// its beginning another logical thread ran on its virtual CPU, its thread was moved, or somebody fenced. Threads on
// other CPUs run between its steps as they do in earnest, so what is wrong without a fence goes wrong here. Without a
// schedule nothing interferes.
class sequence {
 public:
  sequence() {
    if (engine_ != nullptr) engine_->begin_sequence();
  }
  ~sequence() {
    if (engine_ != nullptr) engine_->end_sequence();
  }
  sequence(const sequence&) = delete;
  sequence& operator=(const sequence&) = delete;

  // The next instruction touches `object`. False if the system has sent the thread to the abort address before it.
  bool reaches(const void* object, base::schedule::access how = base::schedule::access::sequence) {
    base::schedule::point(object, how);
    return engine_ == nullptr || engine_->sequence_intact();
  }

  // As the thread itself sees it.
  template <typename T>
  T value_of(const T& word) const {
    const void* own = engine_ != nullptr ? engine_->own_store(&word) : nullptr;
    return own != nullptr ? *static_cast<const T*>(own) : word;
  }
  template <typename T>
  T value_of(const base::atomic<T>& word) const {
    return value_of(word.unscheduled());
  }
  template <typename T>
  void store(T& word, T desired) {
    if (engine_ == nullptr || !engine_->keeps_store(&word, &desired, sizeof desired)) word = desired;
  }
  template <typename T>
  void store(base::atomic<T>& word, T desired) {
    store(word.unscheduled(), desired);
  }
  // A locked instruction follows: the thread's own stores go first.
  void flush() {
    if (engine_ != nullptr) engine_->flush_own_stores();
  }

 private:
  engine* const engine_ = engine::running();
};

}  // namespace larder::sched
