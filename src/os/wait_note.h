// SPDX-License-Identifier: Apache-2.0
//
// What somebody waits for, in a form that others can read at any time. The owner alone writes it, before and after a
// park; reports read it. One word says how it stands:
//
//   word = 4 · version + 2 · pinned + set
//
// Each clearing makes a new version. Who reads the fields between two looks at the word that show one version, and that
// it is set, has read one note: a new field is stored with release, after the word was changed, so who sees the field
// sees the change as well.
//
// What is waited for is bound to exist only while its waiter waits. So who wants to look at it *pins* the note, by a
// compare-and-swap that fails once that version is over, and the owner does not clear a pinned note: it waits for the
// reader, of which there is one at a time, and who is about to leave. Notes of what nobody looks at are set and cleared
// by plain stores.
//
// The owner holds no lock when it clears a note, so a reader may take short locks of what is waited for.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <larder/units.h>

#include "base/atomic.h"
#include "base/mutant.h"
#include "base/yield.h"

namespace larder::os {

class parker;

// What is known of an object that somebody waits for.
struct wait_subject {
  parker* holder = nullptr;  // who has it, or is it
  char name[48] = {};

  void set_name(std::string_view text) {
    const std::size_t length = std::min(text.size(), sizeof name - 1);
    std::copy_n(text.data(), length, name);
    name[length] = '\0';
  }
};

struct wait_contents {
  const char* kind = "";  // "mutex", "sleep", ...; a literal
  const void* object = nullptr;
  int descriptor = -1;
  // Null if there is no more to be known. Called by other threads, while the owner waits; may take short locks.
  void (*look)(const void* object, wait_subject& into) = nullptr;
  time_point deadline = no_deadline;
  time_point since{};
};

class wait_note {
 public:
  using version = std::uint64_t;

  // Owner only, like all up to `read`. Not while it is set.
  void set(const wait_contents& what) {
    // Release: see above; partner: the acquiring loads in `read`.
    kind_.store(what.kind, base::memory_order_release);
    object_.store(what.object, base::memory_order_release);
    descriptor_.store(what.descriptor, base::memory_order_release);
    look_.store(what.look, base::memory_order_release);
    deadline_.store(what.deadline.time_since_epoch().count(), base::memory_order_release);
    since_.store(what.since.time_since_epoch().count(), base::memory_order_release);
    // Relaxed: the owner's own. Release: who sees it set sees all of the note, and the object.
    word_.store(word_.load(base::memory_order_relaxed) | is_set, base::memory_order_release);
  }

  void clear() {
    const std::uint64_t unpinned = word_.load(base::memory_order_relaxed) & ~pinned;  // but for the pin the owner's own
    std::uint64_t cleared = (unpinned & ~is_set) + one_version;
    if (base::is_mutant(base::mutant::note_keeps_version)) cleared -= one_version;
    if (look_.load(base::memory_order_relaxed) == nullptr || base::is_mutant(base::mutant::note_ignores_reader)) {
      word_.store(cleared, base::memory_order_relaxed);  // nobody pins it; what follows is ordered by `set`
      return;
    }
    // Acquire pairs with the end of a reader's pin: it is done with the object.
    for (std::uint64_t seen = unpinned; !word_.compare_exchange_strong(seen, cleared, base::memory_order_acquire);
         seen = unpinned) {
      base::yield();
    }
  }

  // Relaxed: the owner's own.
  bool set_now() const { return (word_.load(base::memory_order_relaxed) & is_set) != 0; }
  wait_contents contents() const { return load(); }

  // Any thread: the note as it is now, and its version. False if there is none, or it changes just now.
  bool read(wait_contents& into, version& which) const {
    const std::uint64_t before = word_.load(base::memory_order_acquire);
    if ((before & is_set) == 0) return false;
    into = load();
    which = before / one_version;
    return stands(which);
  }

  // Any thread: whether it is set, and of that version. Relaxed: ordered behind the acquiring loads before it.
  bool stands(version which) const {
    return (word_.load(base::memory_order_relaxed) & ~pinned) == which * one_version + is_set;
  }

  // Any thread, one at a time: what is known of the object of a note that was read. False if that note is over.
  bool look(const wait_contents& what, version which, wait_subject& into) {
    if (what.look == nullptr) return stands(which);
    const std::uint64_t unpinned = which * one_version + is_set;
    std::uint64_t seen = unpinned;
    // Acquire pairs with `set`: the object is seen as its waiter has left it.
    if (!word_.compare_exchange_strong(seen, unpinned | pinned, base::memory_order_acquire)) return false;
    what.look(what.object, into);
    word_.store(unpinned, base::memory_order_release);  // partner: `clear`
    return true;
  }

 private:
  static constexpr std::uint64_t is_set = 1;
  static constexpr std::uint64_t pinned = 2;
  static constexpr std::uint64_t one_version = 4;

  static time_point point(time_point::rep ticks) { return time_point(time_point::duration(ticks)); }
  // Acquire: what looks at the word again comes later.
  wait_contents load() const {
    return {kind_.load(base::memory_order_acquire),
            object_.load(base::memory_order_acquire),
            descriptor_.load(base::memory_order_acquire),
            look_.load(base::memory_order_acquire),
            point(deadline_.load(base::memory_order_acquire)),
            point(since_.load(base::memory_order_acquire))};
  }

  base::atomic<std::uint64_t> word_{0};
  base::atomic<const char*> kind_{""};
  base::atomic<const void*> object_{nullptr};
  base::atomic<int> descriptor_{-1};
  base::atomic<void (*)(const void*, wait_subject&)> look_{nullptr};
  base::atomic<time_point::rep> deadline_{0};
  base::atomic<time_point::rep> since_{0};
};

}  // namespace larder::os
