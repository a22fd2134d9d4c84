/* SPDX-License-Identifier: Apache-2.0
 * When the page daemon comes (src/budget/round.cc, memory_budget.cc): two charge past the high mark, one of them twice
 * with pages that become reclaimable before each, while the daemon reclaims down to the low mark, rests, and pauses
 * where it found nothing.
 * mutants: CLEARS_LATE NEVER_CLEARS ADDS_AFTERWARDS PAUSE_FORGETS
 *
 * When all have charged and the daemon sleeps, no more than the mark is used, unless what could be reclaimed came after
 * the last charge. Each step is one atomic access of the real code; the daemon's mutex and its sleep are `due`.
 * CLEARS_LATE: it looks what is used, and then says that no visit is due. NEVER_CLEARS: it never says so.
 * ADDS_AFTERWARDS: a charge looks at the mark before it adds. PAUSE_FORGETS: it forgets at the end of a pause what was
 * charged in it.
 */
#define high 2
#define low 1

byte used = 1;
byte reclaimable = 1;
bool daemon_called;      /* a visit is due */
bool due;                /* the daemon's list has the tree */
bool pausing;
byte charging = 3;       /* who may charge yet */

inline call_daemon() {
  if
  :: daemon_called
  :: else ->
     atomic { seen = daemon_called; daemon_called = true };
     if :: !seen -> due = true :: else fi
  fi
}

inline charge() {
#ifdef MUTANT_ADDS_AFTERWARDS
  seen = (used > high);
  used++;
  if :: seen -> call_daemon() :: else fi
#else
  used++;
  if :: used > high -> call_daemon() :: else fi
#endif
}

active [2] proctype charger() {
  bool seen;
  charge();
  charging--
}

active proctype user() {
  bool seen;
  reclaimable++;
  charge();
  reclaimable++;
  charge();
  charging--
}

/* A pause ends at any time: then a visit that was asked for in it is made. */
active proctype clock() {
end:
  do
  :: atomic {
       pausing -> pausing = false;
#ifdef MUTANT_PAUSE_FORGETS
       daemon_called = false; due = false
#else
       if :: daemon_called -> due = true :: else fi
#endif
     }
  od
}

active proctype daemon() {
  bool gave;
end:
  do
  :: atomic { due && !pausing -> due = false };
#if !defined(MUTANT_CLEARS_LATE) && !defined(MUTANT_NEVER_CLEARS)
     daemon_called = false;
#endif
     gave = false;
     do
     :: used > low && reclaimable > 0 -> atomic { reclaimable--; used--; gave = true }
     :: else -> break
     od;
     if
     :: used <= low ->
#ifdef MUTANT_CLEARS_LATE
        daemon_called = false
#else
        skip
#endif
     :: else ->
        if
        :: gave -> daemon_called = true; due = true
        :: else -> pausing = true
        fi
     fi
  od
}

active proctype judge() {
end:
  atomic { timeout -> assert(charging > 0 || used <= high || reclaimable == 0) }
}
