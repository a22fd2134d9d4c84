// SPDX-License-Identifier: Apache-2.0
//
// Waiting for an object. Getters queue in the order of their coming. The first of them looks for whatever comes first:
// an object that somebody puts back, room under the limit, or the memory of a new slab, for which it alone stands in
// the budget's queue (one slab serves several getters, so one ticket for each would ask for too much). The others only
// wait to be handed an object or to become first. Whoever leaves wakes the one who is first then.
//
// A putter hands what there is to the oldest getters (serve_queue), so nobody who comes later takes it first.
//
// No object is missed. A getter counts itself in `waiting`, then looks in the slabs and in each array under its lock; a
// putter adds its object under one of these locks, then looks at `waiting`. Whichever took that lock second sees what
// the other did. (An array is made under slabs_guard, so a getter that found none there comes before its first push.)
// Then the getter parks; a hand-over or wake-up before that leaves a token in its parker.
#include <optional>
#include <utility>

#include "base/check.h"
#include "budget/event.h"
#include "budget/ticket.h"
#include "cache/cache_state.h"
#include "os/waiting.h"

namespace larder {
namespace {

// A getter's turn at being first: what it stands for in the budget's queue.
class memory_request {
 public:
  memory_request(memory_budget& budget, bytes amount) : budget_(budget), amount_(amount) {}

  // True once the memory is charged, which is then the caller's. Otherwise it was asked for, unless it `cannot_be`.
  bool granted(time_point deadline) {
    if (!ticket_) {
      ticket_.emplace(budget_, amount_);
      cannot_be_ = !ticket_->begin();
    }
    if (cannot_be_) return false;
    if (!ticket_->granted(deadline)) {
      cannot_be_ = ticket_->refused();
      return false;
    }
    ticket_->take();
    ticket_.reset();
    return true;
  }
  bool cannot_be() const { return cannot_be_; }
  bool is_waiting() const { return ticket_.has_value() && !cannot_be_; }
  void withdraw() { ticket_.reset(); }

 private:
  memory_budget& budget_;
  const bytes amount_;
  std::optional<budget_ticket> ticket_;
  bool cannot_be_ = false;
};

}  // namespace

// A place in the queue, from its making to its end.
class raw_cache::state::queue_place {
 public:
  explicit queue_place(state& of) : cache_(of) {
    LARDER_CHECK(!me_.owner.reclaiming, "cache \"%s\": a reclaimer waits for an object", cache_.name.c_str());
    const base::lock locked(cache_.queue_guard);
    cache_.queue.push_back(me_);
    ++cache_.waiting;
    ++cache_.waits;
  }
  // Gives up: what was handed over meanwhile goes back.
  ~queue_place() {
    if (void* object = leave()) cache_.put_below_array(object);
    if (cache_.somebody_waits()) cache_.serve_queue();
  }
  queue_place(const queue_place&) = delete;
  queue_place& operator=(const queue_place&) = delete;

  struct view {
    void* handed;  // the caller's from now on
    bool first;
  };
  view look() {
    const base::lock locked(cache_.queue_guard);
    return {std::exchange(me_.handed, nullptr), cache_.queue.front() == &me_};
  }
  // Leaves the queue; returns what was handed over before that, if anything.
  void* leave() {
    const base::lock locked(cache_.queue_guard);
    if (me_.linked()) {
      base::intrusive_list<getter>::remove(me_);
      --cache_.waiting;
    }
    return std::exchange(me_.handed, nullptr);
  }
  bool park_until(time_point deadline) {
    const auto look = [](const void* object, os::wait_subject& into) {
      into.set_name(static_cast<const state*>(object)->name);
    };
    const os::waiting noted(me_.owner, {.kind = "object", .object = &cache_, .look = look, .deadline = deadline},
                            since_);
    return me_.owner.park_until(deadline);
  }

 private:
  state& cache_;
  getter me_;
  time_point since_{};
};

result<void*> raw_cache::state::wait(time_point deadline) {
  bool lacks_memory = false;
  const auto got = wait_in_queue(deadline, lacks_memory);
  if (!got && lacks_memory) budget::tell_out_of_memory(budget, geometry.shape.charge);
  return got;
}

result<void*> raw_cache::state::wait_in_queue(time_point deadline, bool& lacks_memory) {
  queue_place place(*this);
  memory_request memory(budget, geometry.shape.charge);
  do {
    const auto [handed, first] = place.look();
    if (handed != nullptr) return hand_out(handed);
    if (!first) continue;
    cache::slab_layer::taken taken = collect_and_take();
    if (taken.object == nullptr && !taken.at_limit && memory.granted(deadline)) {
      taken = take_from_new_slab();
      if (taken.object == nullptr && !taken.at_limit) return error_from(ENOMEM);  // the system's
    }
    if (taken.object != nullptr || taken.at_limit) memory.withdraw();
    if (taken.built) return hand_out(taken.object);
    if (taken.object != nullptr) {
      const attempt built = build(taken.object);
      if (built.object == nullptr) return built.error;
      return hand_out(built.object);
    }
    if (memory.cannot_be() && nothing_is_out()) {
      lacks_memory = true;
      return error_from(ENOMEM);
    }
  } while (place.park_until(deadline));

  if (void* handed = place.leave()) return hand_out(handed);
  // Others may still be in the queue, but whoever must go takes what nobody was given.
  const attempt last = take_now();
  if (last.object != nullptr) return hand_out(last.object);
  lacks_memory = memory.is_waiting();
  return last.error ? last.error : error_from(ETIMEDOUT);
}

bool raw_cache::state::nothing_is_out() {
  const base::lock locked(slabs_guard);
  return slabs.handed_out() == cpus.sum().cached + depot.objects();
}

void raw_cache::state::serve_queue() {
  const base::lock queue_locked(queue_guard);
  {
    const base::lock slabs_locked(slabs_guard);
    collect();
    while (getter* oldest = queue.front()) {
      void* object = slabs.take_spare();
      if (object == nullptr) break;
      ++gets_below;
      queue.pop_front();
      --waiting;
      oldest->handed = object;
      // Under the mutex that the getter takes before it leaves: it is still there.
      oldest->owner.unpark();
    }
  }
  // There may be room for it to build one.
  if (getter* first = queue.front()) first->owner.unpark();
}

}  // namespace larder
