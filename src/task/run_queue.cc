// SPDX-License-Identifier: Apache-2.0
//
// A round: take what other threads left in the inbox, wake what time has come for, run the ready tasks, look for what
// they wait for. With nothing ready the owner looks for work among the other queues of its group, and then sleeps
// (inbox.h says why no wake-up is lost). A wake that comes too early stays, and ends the next sleep.
//
// A task that is made ready on a worker stays there: it goes into the ring of that worker, a store or two. Others may
// take it from there (the Cilk, Go and Tokio schedulers steal so). Two rules keep that from doing harm:
//
// - A task that waits alone is left to its worker for some microseconds, which as a rule runs it before: two tasks that
//   wake each other in turn stay together.
// - One owner at a time searches. While others work it does not sleep, but naps, longer and longer; so work that comes
//   up costs a wake-up only if nobody searches, and waits for a nap's time at most.
//
// Claim: however long a task computes, what waits in the ring or the inbox of its worker is found as long as another
// sleeps: somebody searches. Who adds a task, or runs a bound one before it, publishes it, then looks whether anybody
// is idle, then whether somebody searches; who stops searching, for work or because all rest, says so, and then looks
// into all rings and inboxes; who goes to sleep counts itself idle and says that it sleeps, then looks whether others
// work, and then takes the search unless somebody has it; who took the search to hand it on, and found nobody asleep,
// gives it back and then looks for sleepers again; and who hands it on appoints its heir before it claims the heir's
// sleep, for a sleep that ends by itself ends without a wake; and who was idle looks into its ring once it counts as
// busy, for its wait may have brought tasks while it still counted as idle. All of that is sequentially consistent, so
// of two that pass each other, one sees the other (models/worker_search.pml). What is in an overflow waits for its
// worker.
//
// A task that somebody on its worker knows of (a timer, the ring) is bound to come back to it.
//
// A thread that made the last task ready may still be inside make_ready when that task ends and the runtime goes:
// `visitors_` keeps the queues of the group until it is out.
#include "task/run_queue.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "base/mutant.h"
#include "base/pause.h"
#include "base/yield.h"
#include "os/clock.h"

namespace larder::task_layer {
namespace {

// Whose queue the calling thread runs. Not to be kept over a switch (KF-34): the tasks' way to it is `current`, out of
// line.
run_queue*& this_queue() {
#ifdef LARDER_SCHEDULED
  return *reinterpret_cast<run_queue**>(base::schedule::thread_slot());
#else
  thread_local run_queue* queue = nullptr;
  return queue;
#endif
}

// How many tasks run before the owner looks for finished I/O again: enough to share the cost of the system call, few
// enough that a completion waits some microseconds only.
constexpr unsigned tasks_between_looks = 32;

// How long an inbox that held nothing for others is left alone.
constexpr std::chrono::milliseconds inbox_rest{1};

}  // namespace

struct run_queue::observation {
  std::uint64_t taken = 0;                       // by then, from its ring
  std::uint64_t rounds = 0;                      // that its owner had begun
  const base::stack_link* given_back = nullptr;  // the newest in its inbox, if that held nothing for others
  time_point since = no_deadline;                // when nothing was taken any more; no_deadline if it held nothing
};

task_block::task_block(std::byte* stack_low) : fiber(stack_low), parker(task_parker::take()) {
  name = task_name::unnamed;
  parker.set_owner(*this);
}

task_block::~task_block() { task_parker::give_back(parker); }

stay_here::stay_here() : staying_(run_queue::current() == nullptr ? nullptr : run_queue::current()->running()) {
  if (staying_ != nullptr) before_ = std::exchange(staying_->bound, true);
}

stay_here::~stay_here() {
  if (staying_ != nullptr) staying_->bound = before_;
}

run_queue::run_queue() = default;
run_queue::~run_queue() = default;

void run_queue::join_group(queue_group& group) {
  if (group.queues.size() < 2) return;
  group_ = &group;
  nap_ = group.nap_shortest;
  observations_ = std::make_unique<observation[]>(group.queues.size());
}

[[gnu::noinline]] run_queue* run_queue::current() { return this_queue(); }

void run_queue::make_ready(task_block& ready) {
  run_queue* here = this_queue();
  run_queue& home = *ready.home();
  if (here == &home || (here != nullptr && !ready.bound && here->group_ != nullptr && here->group_ == home.group_)) {
    here->push(ready);
    return;
  }
  const bool may_leave = !ready.bound && home.group_ != nullptr;
  ++home.visitors_;
  if (home.inbox_.push(ready)) {
    home.wake();
  } else if (may_leave && home.group_->idle != 0 && !base::is_mutant(base::mutant::busy_inbox_unseen)) {
    call_searcher(*home.group_, here);  // its owner may be busy for long
  }
  --home.visitors_;
}

void run_queue::push(task_block& last) {
  if (last.bound || group_ == nullptr) {
    bound_.push_back(last);
    return;
  }
  if (!overflow_.empty() || !ring_.push(last)) overflow_.push_back(last);
  // A task that is made ready between two others is the next to run.
  if (running() != nullptr || ring_.size() > 1) tell_idle();
}

// Something is in the ring that others may run before this owner does.
void run_queue::tell_idle() {
  if (base::is_mutant(base::mutant::idle_unseen)) return;
  ring_.publish();
  if (group_->idle != 0) call_searcher(*group_, this);
}

task_block* run_queue::next() {
  if (group_ == nullptr) return bound_.pop_front();
  bound_next_ = !bound_next_;
  if (bound_next_ && !bound_.empty()) {
    if (ring_.size() != 0 && !base::is_mutant(base::mutant::bound_task_first)) tell_idle();
    return bound_.pop_front();
  }
  task_block* first = ring_.pop();
  if (!overflow_.empty()) {
    if (first == nullptr) return overflow_.pop_front();
    if (ring_.push(*overflow_.front())) overflow_.pop_front();
  }
  return first != nullptr ? first : bound_.pop_front();
}

bool run_queue::has_ready() const { return !bound_.empty() || !overflow_.empty() || ring_.size() != 0; }

void run_queue::wait_for_visitors() {
  if (base::is_mutant(base::mutant::visitors_forgotten)) return;
  while (visitors_ != 0) base::yield();
}

void run_queue::suspend_current() {
  task_block& mine = *running();
  mine.yields = false;
  mine.suspend();
}

void run_queue::yield_current() {
  task_block& mine = *running();
  mine.yields = true;
  mine.suspend();
}

void run_queue::take_inbox() {
  rounds_.store(rounds_.load(base::memory_order_relaxed) + 1, base::memory_order_relaxed);  // the owner's own
  for (base::stack_link* link = inbox_.take_all_in_order(); link != nullptr;) {
    base::stack_link* next = link->next;
    push(static_cast<task_block&>(*link));
    link = next;
  }
}

void run_queue::expire_timers() {
  if (timers_.empty()) return;
  const time_point now = os::now();
  while (!timers_.empty() && timers_.top()->deadline() <= now) timers_.pop()->expire();
}

time_point run_queue::next_timer() const { return timers_.empty() ? no_deadline : timers_.top()->deadline(); }

// Runs a task until it leaves, and says how. One that has parked may be on another worker by then, or gone.
run_queue::departure run_queue::resume(task_block& one) {
  for (;;) {
    one.resume();
    if (one.finished()) return departure::ended;
    if (one.yields) return departure::yielded;
    // It says that it parks only now that it has left its stack, where another worker may go on at once.
    if (base::is_mutant(base::mutant::park_before_switch) || one.parker.say_parked()) return departure::parked;
  }
}

// Runs the tasks that are ready now, up to a bound. True if it ran any.
bool run_queue::run_some() {
  bool ran = false;
  for (unsigned count = 0; count < tasks_between_looks; ++count) {
    task_block* one = next();
    if (one == nullptr) break;
    ran = true;
    one->parker.home.store(this, base::memory_order_relaxed);
    running_.store(one, base::memory_order_relaxed);
    os::parker::set_current(&one->parker);
    const departure left = resume(*one);
    running_.store(nullptr, base::memory_order_relaxed);
    if (left == departure::yielded) {
      push(*one);
    } else if (left == departure::ended) {
      os::parker::set_current(nullptr);  // its parker goes to the next task together with its stack
      finish(*one);
    }
  }
  os::parker::set_current(nullptr);
  return ran;
}

// Takes half of what others may have of a queue. What waits alone, and what is still in the inbox, only if that has
// been so for a while.
bool run_queue::steal_from(run_queue& victim, observation& seen) {
  const std::size_t size = victim.ring_.size();
  if (size < 2) {
    const base::stack_link* newest = victim.inbox_.newest();
    if (size == 0 && newest == nullptr) {
      seen.since = no_deadline;
      return false;
    }
    const time_point now = os::now();
    const std::uint64_t taken = victim.ring_.taken();
    // Relaxed: a guess at whether its owner is busy.
    const std::uint64_t rounds = victim.rounds_.load(base::memory_order_relaxed);
    const bool news = seen.given_back != nullptr && seen.given_back != newest;
    if (seen.since == no_deadline || seen.taken != taken || seen.rounds != rounds || news) {
      seen = {taken, rounds, nullptr, now};
    }
    if (now - seen.since < group_->alone) return false;
  }
  task_block* stolen[ring_capacity / 2];
  const std::size_t count = victim.ring_.take_half(stolen, std::size(stolen));
  for (std::size_t i = 0; i < count; ++i) push(*stolen[i]);
  if (count != 0 || size != 0) return count != 0;
  bool found = false;
  const base::stack_link* given_back = nullptr;  // the last: what comes later is news
  for (base::stack_link* link = victim.inbox_.take_all_in_order(); link != nullptr;) {
    auto& one = static_cast<task_block&>(*link);
    link = link->next;
    if (!one.bound) {
      push(one);
      found = true;
    } else {
      given_back = &one;
      if (victim.inbox_.push(one)) victim.wake();
    }
  }
  seen.since = no_deadline;
  if (!found && given_back != nullptr) {
    seen = {victim.ring_.taken(), victim.rounds_.load(base::memory_order_relaxed), given_back, os::now() + inbox_rest};
  }
  return found;
}

bool run_queue::steal() {
  const std::size_t count = group_->queues.size();
  first_victim_ = (first_victim_ + 1) % count;
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t which = (first_victim_ + i) % count;
    run_queue& victim = *group_->queues[which];
    if (&victim != this && steal_from(victim, observations_[which])) return true;
  }
  return false;
}

// Looks around for something to do, for as long as that has lately been worth it. True if there is something.
bool run_queue::search() {
  // Who was told that there is work does not give up before it may take what waits alone.
  const auto limit = std::max(search_limit_, told_ ? 2 * group_->alone : std::chrono::nanoseconds(0));
  told_ = false;
  const time_point began = os::now();
  for (time_point now = began;;) {
    look();
    if (!inbox_.empty() || has_ready() || next_timer() <= now || steal()) {
      search_limit_ = std::max(search_limit_, std::min(group_->search_longest, 2 * (now - began)));
      return true;
    }
    if (now - began >= limit) break;
    base::pause();
    now = os::now();
  }
  search_limit_ /= 2;
  return false;
}

// Gives the search back. True if there is work that somebody should look for. One's own next task is one's own.
bool run_queue::leave_search() {
  searching_ = false;
  group_->searching = false;
  if (group_->idle == 0 || base::is_mutant(base::mutant::last_look_forgotten)) return false;
  return std::any_of(group_->queues.begin(), group_->queues.end(), [this](const run_queue* each) {
    return each->ring_.size() > (each == this ? 1U : 0U) || !each->inbox_.empty();
  });
}

// There is something to run.
void run_queue::stop_searching() {
  nap_ = group_->nap_shortest;
  if (leave_search()) call_searcher(*group_, this);
}

// Has an idle owner search, unless one does. `caller` is not idle, or null.
[[gnu::noinline]] void run_queue::call_searcher(queue_group& group, const run_queue* caller) {
  for (bool somebody_sleeps = true; somebody_sleeps;) {
    if (group.searching || group.searching.exchange(true)) return;
    for (run_queue* each : group.queues) {
      if (each != caller && each->appoint()) return;
    }
    group.searching = false;
    somebody_sleeps = std::any_of(group.queues.begin(), group.queues.end(),
                                  [caller](const run_queue* each) { return each != caller && each->inbox_.asleep(); });
  }
}

// By who has the search: hands it to this owner if it sleeps. True if it is this owner's now.
bool run_queue::appoint() {
  if (!inbox_.asleep()) return false;
  if (base::is_mutant(base::mutant::appointed_late)) {
    if (!inbox_.claim_sleeper()) return false;
    appointed_ = true;
    wake();
    return true;
  }
  appointed_ = true;
  if (!inbox_.claim_sleeper()) return !appointed_.exchange(false);  // it woke; it may have seen that
  wake();
  return true;
}

void run_queue::take_search() {
  if (!searching_ && !group_->searching) searching_ = !group_->searching.exchange(true);
}

void run_queue::sleep() {
  time_point until = next_timer();
  if (group_ == nullptr) {
    if (inbox_.begin_sleep() && !may_end()) wait(until);
    inbox_.end_sleep();
    return;
  }
  [[maybe_unused]] const unsigned idle_before = ++group_->idle;
  if (inbox_.begin_sleep() && !may_end()) {
    // Read after it has said that it sleeps: who begins to work later sees that.
    unsigned idle = group_->idle;
    if (base::is_mutant(base::mutant::idle_counted_early)) idle = idle_before;
    if (idle != group_->queues.size() || (searching_ && leave_search())) take_search();
    const time_point began = os::now();
    if (searching_) {
      until = std::min(until, began + nap_);
      nap_ = std::min(2 * nap_, group_->nap_longest);
    }
    wait(until);
    // It would have been worth it to look around for so long.
    const auto slept = os::now() - began;
    if (slept < group_->search_longest) search_limit_ = std::max(search_limit_, slept);
  }
  inbox_.end_sleep();
  --group_->idle;
  if (appointed_ && appointed_.exchange(false)) searching_ = told_ = true;
  // Who went to sleep while the wait brought tasks has counted this owner among the idle.
  if (ring_.size() > 1 && !base::is_mutant(base::mutant::told_while_idle)) tell_idle();
}

// Nothing is ready.
void run_queue::rest() {
  if (group_ != nullptr) {
    take_search();
    // Who finds nothing still has the search: it may not come to sleep.
    if (searching_ && search()) return;
    if (searching_ && base::is_mutant(base::mutant::search_left_early)) {
      searching_ = false;
      group_->searching = false;
    }
  }
  sleep();
}

void run_queue::run() {
  this_queue() = this;
  for (;;) {
    take_inbox();
    expire_timers();
    if (searching_ && has_ready()) stop_searching();
    if (run_some()) {
      look();
      continue;
    }
    if (may_end()) break;
    rest();
  }
  if (searching_) stop_searching();
  this_queue() = nullptr;
}

}  // namespace larder::task_layer
