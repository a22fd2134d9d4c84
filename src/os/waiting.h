// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "os/clock.h"
#include "os/parker.h"

namespace larder::os {

// While it exists, reports say that `who`, the caller's parker, waits for that. Waits nest: the end of the inner one
// brings the note of the outer one back. Made and destroyed with no lock held.
//
// The scheduled build keeps no notes: they change nothing of what it looks at, but would be points of every schedule.
// The simulation (tests/simulation/), which is one as well, keeps them, for its reports. The notes' own protocol is in
// tests/sched/wait_note_test.cc.
#if defined(LARDER_SCHEDULED) && !defined(LARDER_SIMULATED)
class [[maybe_unused]] waiting {
 public:
  waiting(parker&, const wait_contents&) {}
  waiting(parker&, const wait_contents&, time_point&) {}
};
#else
class waiting {
 public:
  waiting(parker& who, const wait_contents& what) : who_(who) {
    time_point since{};
    begin(what, since);
  }
  // For one wait of several parks: `since` is when it began, set by the first.
  waiting(parker& who, const wait_contents& what, time_point& since) : who_(who) { begin(what, since); }
  ~waiting() {
    who_.note.clear();
    if (nested_) who_.note.set(outer_);
  }
  waiting(const waiting&) = delete;
  waiting& operator=(const waiting&) = delete;

 private:
  void begin(wait_contents what, time_point& since) {
    nested_ = who_.note.set_now();
    if (nested_) {
      outer_ = who_.note.contents();
      who_.note.clear();
    }
    if (since == time_point{}) since = coarse_now();
    what.since = since;
    who_.note.set(what);
  }

  parker& who_;
  bool nested_ = false;
  wait_contents outer_;
};
#endif

}  // namespace larder::os
