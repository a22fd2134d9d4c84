/* SPDX-License-Identifier: Apache-2.0
 * The search for work among workers (src/task/run_queue.cc): three workers, of which two sleep at first and the third
 * has a task, and a thread outside that makes one ready for either of two.
 * mutants: PUBLISHED_LATE INBOX_UNSEEN IDLE_UNSEEN IDLE_COUNTED_EARLY SEARCH_KEPT SLEEPERS_SEEN_ONCE NO_LAST_LOOK
 * mutants: INBOX_NO_LAST_LOOK LEFT_EARLY APPOINTED_LATE BOUND_FIRST NOBODY_NAPS TAKEN_BY_STORE
 * mutants: TOLD_WHILE_IDLE
 * compile: -DCOLLAPSE
 * run: -m1000000
 *
 * Also one of these: a task starts another, I/O ends a sleep and makes two ready, a nap ends early, or the task from
 * outside is bound to its worker. A task may compute for as long as one waits that another worker could run, if that
 * leaves a worker.
 *
 * Every task ends: it never is so that all sleep or compute while a task waits in a ring or an inbox (no invalid end
 * state). As a rule a nap ends when there is work to be found, so naps cannot hide such a state by going on for ever.
 * At most one worker searches (assertions). Each step is one atomic access of the real code, except that these are one
 * step: a load and the exchange that it decides on, a look at all queues with the steal that comes of it, a look for a
 * sleeper with what was done just before, a claim with its wake, and what only its worker sees. Whether a bound task or
 * one of the ring runs first is left open.
 *
 * PUBLISHED_LATE: who adds a task looks for an idle worker while its store to the ring is still on its way, as x86
 * may; INBOX_UNSEEN, IDLE_UNSEEN: who adds a task to a busy worker's inbox, to a ring, calls nobody;
 * IDLE_COUNTED_EARLY: who goes to sleep counts those that work before it says that it sleeps; SEARCH_KEPT: who took
 * the search to hand it on, and found nobody asleep, keeps it; SLEEPERS_SEEN_ONCE: it gives it back without another
 * look; NO_LAST_LOOK, INBOX_NO_LAST_LOOK: who stops searching does not look into the rings, the inboxes; LEFT_EARLY:
 * who finds nothing stops searching before it sleeps, and then may not sleep; APPOINTED_LATE: the heir's sleep is
 * claimed before the heir is appointed; BOUND_FIRST: a worker that runs a bound task before what is in its ring calls
 * nobody; NOBODY_NAPS: nobody takes the search when it goes to sleep; TAKEN_BY_STORE: who takes the search looks, and
 * then writes; TOLD_WHILE_IDLE: what comes at the end of a sleep is told to others only while its worker still counts
 * as idle.
 */
#define workers 3
#define me (_pid - 1)

byte ring[workers];
byte inbox[workers];       /* tasks that any worker may run */
byte inbox_bound[workers]; /* and those that stay */
bool sleeping[workers];
bool appointed[workers];
bool event[workers];
bool searching;
byte searchers;            /* that know it */
byte idle;

byte left = 2;             /* tasks that have not ended and do not compute: those that any worker may run, */
byte left_bound;           /* and the others */
byte computing;
bool computed;             /* those that compute may end */
bool ended;                /* all of them: the run is over */

/* These happen once. */
byte spawns;               /* a task that is started by another */
byte completions;          /* I/O that ends a sleep */
bool early;                /* a nap that ends though there is nothing to do */
bool one_is_short;         /* a task that could compute does not */


#define gone 255
#define asleep(which, self) (which != self && sleeping[which])
#define asleep_from(first, which, self) (first <= which && asleep(which, self))
#define sleeper(first, self) \
  (asleep_from(first, 0, self) -> 0 : (asleep_from(first, 1, self) -> 1 : (asleep_from(first, 2, self) -> 2 : workers)))

inline choose_heir(first, self) {
  heir = sleeper(first, self);
#ifndef MUTANT_APPOINTED_LATE
  if
  :: heir != workers -> appointed[heir] = true
  :: else
  fi
#endif
}

/* Appoints a sleeper to search, unless somebody searches. `self` is no sleeper. */
inline call_searcher(self) {
  do
  :: atomic { searching -> break }
  :: atomic { !searching -> searching = true; choose_heir(0, self) };
     do
     :: atomic { heir == gone -> heir = 0; break }
#ifdef MUTANT_SEARCH_KEPT
     :: atomic { heir == workers -> heir = 0; break }
#else
     :: atomic { heir == workers -> searching = false; break }
#endif
#ifdef MUTANT_APPOINTED_LATE
     :: atomic { heir < workers && sleeping[heir] -> sleeping[heir] = false };
        atomic { appointed[heir] = true; event[heir] = true; heir = gone }
     :: atomic { heir < workers && !sleeping[heir] -> choose_heir(heir + 1, self) }
#else
     :: atomic { heir < workers && sleeping[heir] -> sleeping[heir] = false; event[heir] = true; heir = gone }
     :: heir < workers && !sleeping[heir] ->  /* it woke; it may have seen that */
        atomic {
          if
          :: appointed[heir] -> appointed[heir] = false; choose_heir(heir + 1, self)
          :: else -> heir = gone
          fi
        }
#endif
     od;
     if
     :: atomic { heir == 0 -> break }
#ifdef MUTANT_SLEEPERS_SEEN_ONCE
     :: atomic { heir == workers -> heir = 0; break }
#else
     :: atomic { heir == workers && sleeper(0, self) == workers -> heir = 0; break }
     :: atomic { heir == workers && sleeper(0, self) != workers -> heir = 0 }
#endif
     fi
  od
}

/* Adds `count` tasks to the ring, one by one. The two reads are one step: only thieves make the ring shorter. */
inline push() {
  do
  :: atomic { count == 0 -> break }
#ifdef MUTANT_PUBLISHED_LATE
  :: atomic { count != 0 -> count--; tell = (idle != 0 && (running || ring[me] > 0)) };
     ring[me]++;
     if
     :: atomic { tell -> tell = false }; call_searcher(me)
     :: else
     fi
#else
  :: atomic { count != 0 -> count--; ring[me]++ };
#ifndef MUTANT_IDLE_UNSEEN
     if
     :: idle != 0 && (running || ring[me] > 1) -> call_searcher(me)
     :: else
     fi
#endif
#endif
  od
}

inline begin_searching() {
  assert(searchers == 0);
  searchers++;
  mine = true
}

inline take_search() {
#ifdef MUTANT_TAKEN_BY_STORE
  if
  :: !mine && !searching -> atomic { searching = true; begin_searching() }
  :: else
  fi
#else
  atomic {
    if
    :: !mine && !searching -> searching = true; begin_searching()
    :: else
    fi
  }
#endif
}

inline give_search_back() { atomic { mine = false; searchers--; searching = false } }

/* What who gives the search back looks for: its own next task is its own. */
#ifdef MUTANT_NO_LAST_LOOK
#define ring_left(which) false
#else
#define ring_left(which) (ring[which] > (which == me -> 1 : 0))
#endif
#ifdef MUTANT_INBOX_NO_LAST_LOOK
#define inbox_left(which) false
#else
#define inbox_left(which) (inbox[which] + inbox_bound[which] != 0)
#endif
#define work_left(which) (ring_left(which) || inbox_left(which))
#define some_work_left (work_left(0) || work_left(1) || work_left(2))

/* A look at the own inbox, then at the others: takes half of what is in the ring of one, else what is in its inbox. Who
 * adds what it took finds that it searches itself. */
inline search() {
  atomic {
    found = (inbox[me] + inbox_bound[me] != 0);
    do
    :: victim == workers || found -> break
    :: victim == me && !found -> victim++
    :: victim != me && victim != workers && !found ->
       if
       :: ring[victim] != 0 ->
          found = true; count = ring[victim] - ring[victim] / 2; ring[victim] = ring[victim] - count
       :: ring[victim] == 0 && inbox[victim] != 0 ->
          found = true; count = inbox[victim]; inbox[victim] = 0; back = inbox_bound[victim]; inbox_bound[victim] = 0
       :: ring[victim] == 0 && inbox[victim] == 0 -> victim++
       fi
    od;
    ring[me] = ring[me] + count;
    count = 0;
    if
    :: back == 0 -> victim = 0
    :: else
    fi
  };
  if
  :: atomic { back == 0 -> skip }
  :: atomic { back != 0 -> inbox_bound[victim] = inbox_bound[victim] + back; back = 0 };
     atomic {
       if
       :: sleeping[victim] -> sleeping[victim] = false; event[victim] = true
       :: else
       fi;
       victim = 0
     }
  fi
}

#define work_at(which) (which != me && ring[which] + inbox[which] != 0)
#define there_is_work (work_at(0) || work_at(1) || work_at(2))

inline wait() {
  if
  :: atomic { event[me] -> event[me] = false }
  :: mine && there_is_work  /* the end of a nap */
  :: atomic { mine && early -> early = false }
  :: atomic { completions != 0 && !ended -> completions--; left = left + 2; count = 2 }; push()
  :: ended
  fi
}

inline go_to_sleep() {
#ifdef MUTANT_IDLE_COUNTED_EARLY
  atomic { idle++; all_idle = (idle == workers) };
#else
  idle++;
#endif
  sleeping[me] = true;
  if
  :: inbox[me] + inbox_bound[me] == 0 ->
     if
#ifdef MUTANT_IDLE_COUNTED_EARLY
     :: all_idle ->
#else
     :: idle == workers ->
#endif
        if
        :: mine ->
           give_search_back();
           if
           :: some_work_left -> take_search()
           :: else
           fi
        :: else
        fi
     :: else
#ifndef MUTANT_NOBODY_NAPS
        -> take_search()
#endif
     fi;
     wait()
  :: else
  fi
}

/* After a sleep, or instead of it. */
inline wake_up() {
  sleeping[me] = false;
  idle--;
  atomic {
    all_idle = false;
    if
    :: appointed[me] -> appointed[me] = false; begin_searching()
    :: else
    fi;
#ifndef MUTANT_TOLD_WHILE_IDLE
    told = (ring[me] <= 1)
#else
    told = true
#endif
  };
  if
  :: atomic { told -> skip }
  :: atomic { !told && idle == 0 -> skip }
  :: atomic { !told && idle != 0 -> skip }; call_searcher(me)
  fi
}

/* The task that runs: it ends at once, or after it has started another, or after it has computed. A bound one that
 * waits does so for its worker only. */
#define end_task(kind) \
  left = left - kind; left_bound = left_bound - 1 + kind; ended = (left + left_bound + computing == 0)

inline run_task(kind) {
  if
  :: atomic { spawns != 0 -> spawns--; left++; count = 1; running = true }; push(); running = false
  :: atomic { spawns == 0 -> skip }
  fi;
  if
  :: atomic { !computed && computing < workers - 1 -> computing++; left = left - kind };
     atomic { left == 0 || computed -> computed = true; computing--; left = left + kind; end_task(kind) }
  :: atomic { computed || computing == workers - 1 -> end_task(kind) }
  :: atomic { one_is_short -> one_is_short = false; end_task(kind) }
  fi
}

proctype worker(bool sleeps) {
  byte bound, count, back, victim, heir;
  bool running, ran, mine, found, all_idle, told, tell;
  if
  :: atomic { sleeps -> sleeps = false }; wait(); goto awake
  :: atomic { !sleeps && me == 0 -> count = 1 }; push()
  :: atomic { !sleeps && me != 0 -> skip }
  fi;
round:
  atomic { bound = bound + inbox_bound[me]; inbox_bound[me] = 0; count = inbox[me]; inbox[me] = 0 };
  push();
  if
  :: atomic { mine && (bound != 0 || ring[me] != 0) -> mine = false; searchers--; searching = false };
     if
     :: idle != 0 && some_work_left -> call_searcher(me)
     :: else
     fi
  :: atomic { else -> skip }
  fi;
run_some:
  if
  :: atomic { bound != 0 -> bound-- };
#ifndef MUTANT_BOUND_FIRST
     if
     :: ring[me] != 0 ->
        if
        :: idle != 0 -> call_searcher(me)
        :: else
        fi
     :: else
     fi;
#endif
     run_task(0)
  :: atomic { ring[me] != 0 -> ring[me]-- };
     run_task(1)
  :: atomic { bound == 0 && ring[me] == 0 && ran -> ran = false; goto round }
  :: atomic { bound == 0 && ring[me] == 0 && !ran -> goto rest }
  fi;
  atomic { ran = true; goto run_some };
rest:
  if
  :: atomic { ended -> goto done }
  :: atomic { !ended -> skip }
  fi;
  take_search();
  if
  :: mine ->
     search();
     if
     :: atomic { found -> found = false; goto round }
     :: else
     fi
#ifdef MUTANT_LEFT_EARLY
     ;
     give_search_back()
#endif
  :: else
  fi;
  go_to_sleep();
awake:
  wake_up();
  goto round;
done:
  if
  :: mine -> give_search_back()
  :: else
  fi
}

proctype outside(byte target; bool bound) {
  byte heir;
  if
  :: !bound -> inbox[target]++
  :: else -> atomic { inbox_bound[target]++; left--; left_bound++ }
  fi;
  if
  :: atomic { sleeping[target] -> sleeping[target] = false; event[target] = true }
  :: atomic { !sleeping[target] -> skip };
#ifndef MUTANT_INBOX_UNSEEN
     if
     :: !bound && idle != 0 -> call_searcher(workers)
     :: else
     fi
#endif
  fi
}

inline start(last_sleeps, target, bound) {
  sleeping[1] = true;
  sleeping[2] = last_sleeps;
  idle = 1 + last_sleeps;
  run worker(false);
  run worker(true);
  run worker(last_sleeps);
  run outside(target, bound)
}

init {
  atomic {
    if
    :: spawns = 1; start(false, 1, false)
    :: completions = 1; one_is_short = true; start(true, 1, false)
    :: early = true; start(true, 0, false)
    :: start(true, 0, true)
    fi
  }
}
