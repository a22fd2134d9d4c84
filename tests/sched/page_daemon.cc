// SPDX-License-Identifier: Apache-2.0
//
// The page daemon without a thread, in place of src/budget/page_daemon.cc. And budgets have no marks unless they name
// them: scenarios count what they reclaim.
#include "tests/sched/page_daemon.h"

#include <algorithm>
#include <utility>

#include "budget/page_daemon.h"

namespace larder {
namespace sched {
namespace {

bool answering = false;
time_point called = no_deadline;
os::parker* woken = nullptr;
[[maybe_unused]] const bool unmarked = (budget::default_marks = {100, 100}, true);

}  // namespace

void set_page_daemon(bool answers) {
  answering = answers;
  called = no_deadline;
  woken = nullptr;
}

void set_page_daemon_sleeper(os::parker* sleeper) { woken = sleeper; }

time_point take_page_daemon_call() { return std::exchange(called, no_deadline); }

}  // namespace sched

namespace budget {

struct page_daemon::fork_hooks {};
page_daemon::page_daemon() : fork_hooks_(nullptr) {}

page_daemon& page_daemon::of_process() {
  static auto* instance = new page_daemon;
  return *instance;
}

bool page_daemon::call(tree&, time_point when) {
  if (!sched::answering) return false;
  sched::called = std::min(sched::called, when);
  if (sched::woken != nullptr) sched::woken->unpark();
  return true;
}

void page_daemon::leave(tree&) {}
void page_daemon::follow_system(tree&) {}
void page_daemon::run() {}

}  // namespace budget
}  // namespace larder
