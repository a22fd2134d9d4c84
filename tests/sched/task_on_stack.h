// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <new>

#include "task/run_queue.h"

namespace larder::sched {

// A task with a stack of its own, for `home`.
class task_on_stack {
 public:
  static constexpr std::size_t stack_size = 64 * 1024;
  static constexpr std::size_t block_size = round_up(sizeof(task_layer::task_block), 64);

  task_on_stack(task_layer::run_queue& home, void (*run)(void*), void* argument)
      : memory_(new (std::align_val_t{64}) std::byte[stack_size]),
        block_(new (memory_.get() + stack_size - block_size) task_layer::task_block(memory_.get())) {
    block_->parker.home = &home;
    // Parkers are recycled: one may hold a token of the last schedule.
    block_->parker.unpark();
    block_->parker.park();
    block_->start(run, argument, reinterpret_cast<std::byte*>(block_));
  }
  // Before it is ready for the first time: it stays where it is.
  void bind() { block_->pinned = block_->bound = true; }
  void make_ready() { task_layer::run_queue::make_ready(*block_); }
  ~task_on_stack() { block_->~task_block(); }
  task_on_stack(const task_on_stack&) = delete;
  task_on_stack& operator=(const task_on_stack&) = delete;
  os::parker& parker() { return block_->parker; }

 private:
  struct free_aligned {
    void operator()(std::byte* memory) const { ::operator delete[](memory, std::align_val_t{64}); }
  };
  std::unique_ptr<std::byte[], free_aligned> memory_;
  task_layer::task_block* const block_;
};

}  // namespace larder::sched
