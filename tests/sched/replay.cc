// SPDX-License-Identifier: Apache-2.0
#include "tests/sched/replay.h"

#include <algorithm>
#include <charconv>
#include <stdexcept>

namespace larder::sched {
namespace {

std::string to_text(const action& one) {
  const std::string thread = std::to_string(one.thread);
  switch (one.what) {
    case action::kind::run:
      return thread;
    case action::kind::expire:
      return thread + "e";
    case action::kind::spurious:
      return thread + "s";
    case action::kind::migrate:
      return thread + "m" + std::to_string(one.value);
    case action::kind::restart:
      return thread + "r";
    case action::kind::delay:
      return thread + "d";
    case action::kind::flush:
      return thread + "f";
    case action::kind::pick:
      break;
  }
  return "p" + std::to_string(one.value);
}

class reader {
 public:
  explicit reader(std::string_view text) : text_(text) {}
  bool at_end() const { return text_.empty(); }
  bool take(char expected) {
    if (text_.empty() || text_.front() != expected) return false;
    text_.remove_prefix(1);
    return true;
  }
  unsigned number(unsigned most) {
    unsigned value = 0;
    const auto [stopped, error] = std::from_chars(text_.data(), text_.data() + text_.size(), value);
    if (error != std::errc() || value > most) throw std::invalid_argument("not a schedule: " + std::string(text_));
    text_.remove_prefix(static_cast<std::size_t>(stopped - text_.data()));
    return value;
  }
  action one() {
    action read;
    if (take('p')) {
      read.what = action::kind::pick;
      read.value = static_cast<std::uint8_t>(number(255));
      return read;
    }
    read.thread = static_cast<std::uint8_t>(number(threads_max - 1));
    if (take('e')) {
      read.what = action::kind::expire;
    } else if (take('s')) {
      read.what = action::kind::spurious;
    } else if (take('r')) {
      read.what = action::kind::restart;
    } else if (take('d')) {
      read.what = action::kind::delay;
    } else if (take('f')) {
      read.what = action::kind::flush;
    } else if (take('m')) {
      read.what = action::kind::migrate;
      read.value = static_cast<std::uint8_t>(number(255));
    }
    return read;
  }

 private:
  std::string_view text_;
};

bool same(const action& a, const action& b) {
  return a.what == b.what && a.value == b.value && (a.what == action::kind::pick || a.thread == b.thread);
}

}  // namespace

std::string to_text(const std::vector<action>& schedule) {
  std::string text;
  for (std::size_t at = 0; at < schedule.size();) {
    std::size_t times = 1;
    while (at + times < schedule.size() && same(schedule[at + times], schedule[at])) ++times;
    if (!text.empty()) text += '.';
    text += to_text(schedule[at]);
    if (times > 1) text += "x" + std::to_string(times);
    at += times;
  }
  return text;
}

std::vector<action> from_text(std::string_view text) {
  constexpr unsigned times_max = 1'000'000;
  std::vector<action> schedule;
  for (reader rest(text); !rest.at_end();) {
    if (!schedule.empty() && !rest.take('.')) throw std::invalid_argument("not a schedule: " + std::string(text));
    const action read = rest.one();
    schedule.insert(schedule.end(), rest.take('x') ? rest.number(times_max) : 1, read);
  }
  return schedule;
}

unsigned replay::choose(const decision& open) {
  if (open.count == 1 || at_ == schedule_.size()) return 0;
  const action& wanted = schedule_[at_++];
  for (unsigned option = 0; option < open.count; ++option) {
    if (same(open.options[option], wanted)) return option;
  }
  diverged_ = true;
  return 0;
}

}  // namespace larder::sched
