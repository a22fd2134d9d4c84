// SPDX-License-Identifier: Apache-2.0
#include <thread>
#include <vector>

#include <larder/runtime.h>
#include <larder/task_group.h>

#include "base/check.h"
#include "base/registry.h"
#include "cache/span.h"
#include "os/clock.h"
#include "os/cpu.h"
#include "os/waiting.h"
#include "task/completion.h"
#include "task/task_report.h"
#include "task/worker.h"

namespace larder {

using task_layer::task_block;
using task_layer::worker;

struct runtime::state {
  std::string name;
  memory_budget* budget = nullptr;
  task_layer::shared_state shared;
  std::unique_ptr<object_cache<task_layer::completion>> completions;
  budget_charge rings;
  base::atomic<unsigned> next_worker{0};
  std::unique_ptr<base::registration> registered;
};

task& task::operator=(task&& other) noexcept {
  task taken(std::move(other));
  std::swap(completion_, taken.completion_);
  return *this;
}

task::~task() {
  if (completion_ == nullptr) return;
  completion_->wait(false);
  completion_->release();
}

bool task::join() {
  LARDER_CHECK(joinable(), "join of a task that was joined, detached or moved from");
  completion_->wait(true);
  task_layer::completion* shared = std::exchange(completion_, nullptr);
  const std::exception_ptr thrown = std::exchange(shared->thrown, nullptr);
  const bool whole = !shared->ended_early;
  shared->release();
  if (thrown) std::rethrow_exception(thrown);
  return whole;
}

void task::cancel() {
  LARDER_CHECK(joinable(), "cancel of a task that was joined, detached or moved from");
  completion_->cancel();
}

void task::detach() {
  LARDER_CHECK(joinable(), "detach of a task that was joined, detached or moved from");
  std::exchange(completion_, nullptr)->detach();
}

bool task::done() const { return completion_ == nullptr || completion_->ended(); }

namespace {
constexpr unsigned blocking_threads_limit = 4096;
}  // namespace

runtime::runtime(std::unique_ptr<state> ready) : state_(std::move(ready)) { state_->shared.owner = this; }

result<std::unique_ptr<runtime>> runtime::create(std::string_view name, options chosen) {
  auto fresh = std::make_unique<state>();
  state& made = *fresh;
  made.name = name;
  made.budget = chosen.budget != nullptr ? chosen.budget : &memory_budget::process();
  const unsigned workers = chosen.workers != 0 ? chosen.workers : static_cast<unsigned>(os::available_cpus());

  LARDER_CHECK(chosen.blocking_threads_max >= 1 && chosen.blocking_threads_max <= blocking_threads_limit,
               "runtime \"%s\": blocking_threads_max is %u: expected 1 to %u", made.name.c_str(),
               chosen.blocking_threads_max, blocking_threads_limit);
  made.shared.helpers = std::make_unique<task_layer::helper_pool>(made.name + "/b", chosen.blocking_threads_max);

  const bytes ring_memory = os::ring::memory_of(chosen.ring_entries) * workers;
  if (!cache::charge_now(*made.budget, ring_memory)) return error_from(ENOMEM);
  made.rings = budget_charge(*made.budget, ring_memory);
  auto stacks = coro::stack_cache<task_block>::create(made.name + "/stacks", {.stack_size = chosen.stack_size,
                                                                              .reservation = chosen.stacks_reserved,
                                                                              .limit = chosen.task_limit,
                                                                              .budget = made.budget});
  if (!stacks) return stacks.error();
  made.shared.stacks = std::move(*stacks);
  try {
    made.completions = std::make_unique<object_cache<task_layer::completion>>(
        made.name + "/completions", object_cache_options{.budget = made.budget});
  } catch (const std::exception&) {
    return error_from(ENOMEM);
  }
  for (unsigned number = 0; number < workers; ++number) {
    made.shared.workers.push_back(std::make_unique<worker>(made.shared, number, chosen.ring_entries));
    made.shared.group.queues.push_back(made.shared.workers.back().get());
  }
  for (const auto& each : made.shared.workers) each->join_group();
  std::unique_ptr<runtime> whole(new runtime(std::move(fresh)));
  std::size_t running = 0;
  for (const auto& each : made.shared.workers) {
    const std::string thread_name = made.name + "/" + std::to_string(running);
    if (const auto started = each->start(thread_name.c_str()); !started) {
      // Those that did not start are not joined.
      made.shared.stopping = true;
      for (std::size_t i = 0; i < running; ++i) {
        made.shared.workers[i]->wake();
        made.shared.workers[i]->join();
      }
      made.shared.workers.clear();
      return started.error();
    }
    ++running;
  }
  made.registered =
      std::make_unique<base::registration>([&made, component = "runtime/" + made.name](const base::stat_visitor& show) {
        show({component, "workers", made.shared.workers.size()});
        show({component, "tasks", made.shared.live()});
        show({component, "blocking_threads", made.shared.helpers->helpers()});
        show({component, "blocking_threads_idle", made.shared.helpers->idle_helpers()});
        show({component, "tasks_started", made.shared.started()});
        show({component, "stack_high_water_bytes", made.shared.stacks->high_water_seen().count});
      });
  return whole;
}

runtime::~runtime() {
  LARDER_CHECK(current() != this, "runtime \"%s\" is destroyed by one of its own tasks", state_->name.c_str());
  state_->registered.reset();
  state_->shared.stopping = true;
  for (const auto& each : state_->shared.workers) each->wake();
  for (const auto& each : state_->shared.workers) each->join();
  for (const auto& each : state_->shared.workers) each->wait_for_visitors();
  state_->shared.workers.clear();
  state_->shared.helpers.reset();
}

runtime::launch runtime::prepare(const start_options& chosen, std::size_t size, std::size_t alignment) {
  auto& shared = state_->shared;
  unsigned chosen_worker = chosen.worker;
  LARDER_CHECK(chosen_worker == any_worker || chosen_worker < shared.workers.size(), "runtime \"%s\": worker %u of %zu",
               state_->name.c_str(), chosen_worker, shared.workers.size());
  auto* block = chosen.deadline == time_point::min() ? shared.stacks->try_get() : shared.stacks->get(chosen.deadline);
  if (block == nullptr) {
    if (chosen.deadline == no_deadline) throw std::bad_alloc();
    return {};
  }
  if (chosen.joinable || chosen.group != nullptr) {
    task_layer::completion* completion = state_->completions->get();
    if (completion == nullptr) {
      shared.stacks->put(block);
      throw std::bad_alloc();
    }
    completion->begin(state_->completions.get(), block->parker, chosen.group);
    block->completion = completion;
    block->parker.cancel = &completion->cancellation;
  }
  block->pinned = block->bound = chosen_worker != any_worker;
  worker* here = worker::current();
  if (here != nullptr && &here->owner() != this) here = nullptr;
  if (chosen_worker == any_worker) {
    chosen_worker =
        here != nullptr ? here->number() : state_->next_worker++ % static_cast<unsigned>(shared.workers.size());
  }
  // Nothing fails from here to its start.
  if (here != nullptr) {
    here->count_start();
  } else {
    ++shared.started_outside;
  }
  block->parker.home.store(shared.workers[chosen_worker].get(), base::memory_order_relaxed);
  const auto end = reinterpret_cast<std::uintptr_t>(block) - size;
  auto* place = reinterpret_cast<std::byte*>(end & ~(std::uintptr_t{alignment} - 1));
  block->top = reinterpret_cast<std::byte*>(reinterpret_cast<std::uintptr_t>(place) & ~std::uintptr_t{15});
  return {block, place};
}

task_layer::completion* runtime::begin(launch prepared, void* closure, void (*body)(void*)) {
  auto& block = *static_cast<task_block*>(prepared.block);
  block.closure = closure;
  block.name = task_layer::task_name::unnamed;
  block.parker.label.reset();
  // Release: a report that sees it sees where the task belongs.
  block.parker.lives_in.store(&state_->shared, base::memory_order_release);
  block.run = body;
  task_layer::completion* completion = block.completion;
  block.start(
      [](void* argument) {
        auto& self = *static_cast<task_block*>(argument);
        if (self.completion == nullptr) {
          self.run(self.closure);  // what it throws ends the process
          return;
        }
        try {
          self.run(self.closure);
        } catch (const task::cancelled&) {
          self.completion->ended_early = true;
        } catch (...) {
          self.completion->thrown = std::current_exception();
        }
      },
      &block, block.top);
  task_layer::group_core* group = completion == nullptr ? nullptr : completion->group();
  if (group != nullptr) group->enter(*completion);
  task_layer::run_queue::make_ready(block);  // from here on the task may have ended already
  return group == nullptr ? completion : nullptr;
}

unsigned runtime::workers() const { return static_cast<unsigned>(state_->shared.workers.size()); }

runtime* runtime::current() {
  const worker* here = worker::current();
  return here == nullptr ? nullptr : &here->owner();
}

unsigned runtime::current_worker() {
  const worker* here = worker::current();
  LARDER_CHECK(here != nullptr, "runtime::current_worker outside of a task");
  return here->number();
}

bytes runtime::stack_high_water() { return state_->shared.stacks->high_water(); }
std::size_t runtime::tasks() const { return state_->shared.live(); }

void runtime::for_each_task(const std::function<void(const task_state&)>& show) const {
  task_layer::task_survey(state_->shared, state_->name).for_each(show);
}

std::string runtime::report(std::size_t tasks_max) const {
  return task_layer::task_survey(state_->shared, state_->name).report(tasks_max);
}

std::uint64_t runtime::tasks_started() const { return state_->shared.started(); }

namespace this_task {

bool inside() { return worker::current() != nullptr; }

void yield() {
  worker* here = worker::current();
  if (here == nullptr) {
    std::this_thread::yield();
  } else {
    here->yield_current();
    throw_if_cancelled();
  }
}

void sleep_until(time_point wake) {
  os::parker& self = os::parker::current();
  time_point since{};
  // A token left from an earlier wait ends a park early.
  while (os::now() < wake) {
    task_layer::heed_cancellation(self);
    const os::waiting noted(self, {.kind = "sleep", .deadline = wake}, since);
    self.park_until(wake);
  }
}

void set_name(std::string_view text) {
  const worker* here = worker::current();
  if (here == nullptr) return;
  task_block& mine = *here->running();
  mine.parker.label.set(text);
  mine.name = mine.parker.label.text();
}

std::string_view name() {
  const worker* here = worker::current();
  return here == nullptr ? std::string_view() : here->running()->parker.label.text();
}

bool cancel_requested() {
  const os::parker& self = os::parker::current();
  return self.cancel != nullptr && self.cancel->requested();
}

void throw_if_cancelled() { task_layer::heed_cancellation(os::parker::current()); }

cancellation_shield::cancellation_shield() { ++os::parker::current().cancellation_shields; }
cancellation_shield::~cancellation_shield() { --os::parker::current().cancellation_shields; }

}  // namespace this_task

}  // namespace larder
