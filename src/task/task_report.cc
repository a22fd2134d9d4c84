// SPDX-License-Identifier: Apache-2.0
//
// Parkers are never freed, and stand in one list with the tasks that own them. So a survey copies what it can of each
// task with that list locked, and then follows notes from parker to parker without a lock: whom a task waits for is
// asked of the mutex or the task itself, which a pinned note keeps (os/wait_note.h).
//
// A circle is found on what was seen at different times, so it may never have been one. It is a deadlock if, of every
// member in turn,
//
//   1. the note is read,          it has no deadline, and then
//   2. who holds what it waits for is asked, and is the next, and then
//   3. it is parked, and nobody has unparked it, and then
//   4. the note is the same still,
//
// each step for all before the next. For then all were inside one wait each from 1 to 4, so at 2 nobody could give up
// what he held; and who was handed what he waits for is unparked, or has left that wait, at 3 or 4. So at the end of 2
// all circle was there at once, and only a member could have opened it. (That a mutex is unlocked by whoever locked it
// is the user's to keep.)
#include "task/task_report.h"

#include <algorithm>
#include <cinttypes>
#include <cstdarg>
#include <cstdio>

#include "base/mutex.h"
#include "os/clock.h"
#include "task/run_queue.h"

namespace larder::task_layer {

using activity = task_state::activity;

namespace {

// Those that are not tasks have no name.
constexpr const char* thread_name = "a thread";

[[gnu::format(printf, 1, 2)]] std::string formatted(const char* format, ...) {
  char text[256];
  va_list values;
  va_start(values, format);
  std::vsnprintf(text, sizeof text, format, values);
  va_end(values);
  return text;
}

// Notes have one reader at a time.
base::mutex& one_survey() {
  static auto* instance = new base::mutex(base::lock_rank::task_report);
  return *instance;
}

// With three figures or so.
std::string text_of(std::chrono::nanoseconds time) {
  const double seconds = std::chrono::duration<double>(std::max(time, std::chrono::nanoseconds(0))).count();
  if (seconds < 1) return formatted("%.0f ms", seconds * 1000);
  if (seconds < 100) return formatted("%.1f s", seconds);
  if (seconds < 100 * 60) return formatted("%.1f min", seconds / 60);
  return formatted("%.1f h", seconds / 3600);
}

// Names are the user's: what would break a line is shown as a question mark.
std::string quoted(std::string_view name) {
  std::string text = "\"";
  for (const char each : name) text += static_cast<unsigned char>(each) < ' ' || each == '\x7f' ? '?' : each;
  return text + "\"";
}

}  // namespace

task_survey::task_survey(const shared_state& of, std::string_view runtime_name) : runtime_name_(runtime_name) {
  const base::lock alone(one_survey());
  collect_tasks(of);
  find_holders();
  find_circles();
  read_names();
  made_at_ = os::now();
}

void task_survey::collect_tasks(const shared_state& of) {
  task_parker::for_each_owned([this, &of](task_parker& parker) {
    // Acquire pairs with the store at its start: it has its place then.
    const shared_state* home = parker.lives_in.load(base::memory_order_acquire);
    if (home == nullptr) return;
    member one{.parker = &parker, .ours = home == &of};
    if (one.ours) {
      const auto& worker = static_cast<const task_layer::worker&>(*parker.home.load(base::memory_order_relaxed));
      one.worker = worker.number();
      if (worker.running() == parker.owner) one.now = activity::running;
    }
    if (one.now != activity::running && parker.is_parked()) one.now = activity::waiting;
    one.noted = parker.note.read(one.wait, one.version);
    one.name = parker.label.read();
    members_.push_back(std::move(one));
  });
  numbers_.reserve(members_.size());
  for (std::size_t i = 0; i < members_.size(); ++i) numbers_.emplace(members_[i].parker, i);
}

// Threads that hold something are added at the end, and looked at in turn.
void task_survey::find_holders() {
  for (std::size_t i = 0; i < members_.size(); ++i) {
    if (!members_[i].noted || members_[i].wait.look == nullptr) continue;
    os::wait_subject subject;
    if (!members_[i].parker->note.look(members_[i].wait, members_[i].version, subject)) continue;
    members_[i].subject = subject;
    if (subject.holder == nullptr) continue;
    const auto [found, is_new] = numbers_.emplace(subject.holder, members_.size());
    members_[i].holder = found->second;
    if (!is_new) continue;
    // A task that has begun only now is not known, but has nothing to do with a deadlock.
    const bool is_task = dynamic_cast<const task_parker*>(subject.holder) != nullptr;
    member added{.parker = subject.holder, .ours = false, .name = is_task ? "a new task" : thread_name};
    if (subject.holder->is_parked()) added.now = activity::waiting;
    added.noted = subject.holder->note.read(added.wait, added.version);
    members_.push_back(std::move(added));
  }
}

// Read last: who holds or waits for something by now had its name before. One that waits no more, as it was seen to,
// may be another by now, and keeps the name of before.
void task_survey::read_names() {
  task_parker::for_each_owned([this](const task_parker& parker) {
    const auto found = numbers_.find(&parker);
    if (found == numbers_.end()) return;
    member& one = members_[found->second];
    if (parker.lives_in.load(base::memory_order_acquire) == nullptr) return;
    std::string name = parker.label.read();
    if (!one.noted || parker.note.stands(one.version)) one.name = std::move(name);
  });
}

// Who waits for one has one that it waits for, so each walk ends, or comes back to where it has been.
void task_survey::find_circles() {
  std::vector<std::size_t> walk_of(members_.size(), nobody);
  for (std::size_t first = 0; first < members_.size(); ++first) {
    std::size_t at = first;
    while (at != nobody && walk_of[at] == nobody) {
      walk_of[at] = first;
      at = members_[at].holder;
    }
    if (at == nobody || walk_of[at] != first) continue;
    std::vector<std::size_t> circle;
    bool ours = false;
    for (std::size_t each = at; circle.empty() || each != at; each = members_[each].holder) {
      circle.push_back(each);
      ours = ours || members_[each].ours;
    }
    if (ours && is_deadlock(circle)) deadlocks_.push_back(std::move(circle));
  }
}

bool task_survey::is_deadlock(const std::vector<std::size_t>& circle) {
  std::vector<os::wait_contents> waits(circle.size());
  std::vector<os::wait_note::version> versions(circle.size());
  const auto of_all = [&circle, this](auto condition) {
    for (std::size_t i = 0; i < circle.size(); ++i) {
      if (!condition(i, *members_[circle[i]].parker)) return false;
    }
    return true;
  };
  const bool all_were_there = of_all([&](std::size_t i, os::parker& each) {
                                return each.note.read(waits[i], versions[i]) && waits[i].deadline == no_deadline;
                              }) &&
                              of_all([&](std::size_t i, os::parker& each) {
                                os::wait_subject subject;
                                const member& next = members_[circle[(i + 1) % circle.size()]];
                                return each.note.look(waits[i], versions[i], subject) && subject.holder == next.parker;
                              }) &&
                              of_all([](std::size_t, os::parker& each) { return each.is_parked(); }) &&
                              of_all([&](std::size_t i, os::parker& each) { return each.note.stands(versions[i]); });
  if (!all_were_there) return false;
  for (std::size_t i = 0; i < circle.size(); ++i) {
    member& one = members_[circle[i]];
    one.wait = waits[i];
    one.version = versions[i];
    one.noted = true;
    one.now = activity::waiting;  // it may not have been yet when it was first seen
    one.deadlocked = true;
  }
  return true;
}

task_state task_survey::state_of(const member& one) const {
  task_state state{.runtime = runtime_name_, .name = one.name, .worker = one.worker, .now = one.now};
  if (one.now != activity::waiting) return state;
  state.waits_for = one.noted ? one.wait.kind : "something";
  if (!one.noted) return state;
  state.object = one.wait.object;
  state.object_name = one.subject.name;
  state.descriptor = one.wait.descriptor;
  if (one.holder != nobody) state.holder = members_[one.holder].name;
  state.waited = std::max(std::chrono::nanoseconds(0), std::chrono::nanoseconds(made_at_ - one.wait.since));
  state.deadline = one.wait.deadline;
  state.deadlocked = one.deadlocked;
  return state;
}

void task_survey::for_each(const std::function<void(const task_state&)>& show) const {
  for (const member& each : members_) {
    if (each.ours) show(state_of(each));
  }
}

std::string task_survey::name_of(const member& one) const {
  return one.name == thread_name ? one.name : quoted(one.name);
}

std::string task_survey::text_of_circle(const std::vector<std::size_t>& circle) const {
  std::string text = "deadlock: ";
  for (std::size_t i = 0; i < circle.size(); ++i) {
    const member& one = members_[circle[i]];
    const member& next = members_[circle[(i + 1) % circle.size()]];
    text += i == 0 ? name_of(one) : ", which";
    if (std::string_view(one.wait.kind) == "join") {
      text += " waits for the end of " + name_of(next);
    } else {
      text += formatted(" waits for %s %p held by ", one.wait.kind, one.wait.object) + name_of(next);
    }
  }
  return text + "\n";
}

std::string task_survey::text_of_wait(const task_state& one) const {
  std::string text(one.waits_for);
  if (one.descriptor >= 0) text += formatted(", descriptor %d", one.descriptor);
  if (!one.object_name.empty()) {
    text += " of " + quoted(one.object_name);
  } else if (one.object != nullptr && one.waits_for != "join") {
    text += formatted(" %p", one.object);
  }
  if (!one.holder.empty()) {
    text += one.waits_for == "join" ? " of " : " held by ";
    text += one.holder == thread_name ? thread_name : quoted(one.holder);
  }
  if (one.deadline != no_deadline) text += ", " + text_of(one.deadline - made_at_) + " to go";
  return text;
}

std::string task_survey::report(std::size_t tasks_max) const {
  std::vector<task_state> waiting;
  std::vector<task_state> running;
  std::vector<task_state> ready;
  for_each([&](const task_state& one) {
    (one.now == activity::waiting ? waiting : one.now == activity::running ? running : ready).push_back(one);
  });
  const auto longer = [](const task_state& a, const task_state& b) { return a.waited > b.waited; };
  std::stable_sort(waiting.begin(), waiting.end(), longer);

  std::string text = "runtime " + quoted(runtime_name_) +
                     formatted(": %zu waiting, %zu running, %zu ready\n", waiting.size(), running.size(), ready.size());
  for (const auto& circle : deadlocks_) text += text_of_circle(circle);
  const auto list = [&](const char* kind, const std::vector<task_state>& tasks) {
    for (std::size_t i = 0; i < std::min(tasks.size(), tasks_max); ++i) {
      const task_state& one = tasks[i];
      text += formatted("%s, worker %u: ", kind, one.worker) + quoted(one.name);
      if (one.now == activity::waiting) text += " for " + text_of(one.waited) + ": " + text_of_wait(one);
      text += '\n';
    }
    if (tasks.size() > tasks_max) text += formatted("%s: %zu more\n", kind, tasks.size() - tasks_max);
  };
  list("waiting", waiting);
  list("running", running);
  list("ready", ready);
  return text;
}

}  // namespace larder::task_layer
