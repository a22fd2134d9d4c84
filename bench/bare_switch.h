// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>

#include "coro/context.h"

namespace larder::bench {

// The floor of coroutines and tasks: nothing but a switch to a stack that is there, and one back.
class bare_switch {
 public:
  bare_switch() {
    inside_ = coro::make_context(
        stack_.get() + stack_size,
        [](void* self) {
          auto& mine = *static_cast<bare_switch*>(self);
          for (;;) coro::switch_context(mine.inside_, mine.outside_);
        },
        this);
  }
  bare_switch(const bare_switch&) = delete;
  bare_switch& operator=(const bare_switch&) = delete;

  void there_and_back() { coro::switch_context(outside_, inside_); }

 private:
  static constexpr std::size_t stack_size = 64 << 10;

  const std::unique_ptr<std::byte[]> stack_{new std::byte[stack_size]};
  coro::context inside_;
  coro::context outside_;
};

}  // namespace larder::bench
