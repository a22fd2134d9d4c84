/* SPDX-License-Identifier: Apache-2.0
 * A limit that comes down while it is in use (src/budget/memory_budget.cc, ticket.cc): one lowers it, two charge
 * without waiting and release, one waits with a ticket.
 * mutants: NO_WITHHOLDING CUT_UNCOUNTED LOOK_BEFORE_RELEASE TICKET_BEFORE_CUT
 *
 * used <= limit at every step, where used = occupied - withheld and limit = ceiling - withheld; the limit does come
 * down; nobody sleeps for ever. Each step is one atomic access of the real code, but the tree's mutex is taken and left
 * in one step each, and so are the two words of a withholding, which others read only between them (limit_changes).
 * NO_WITHHOLDING: the limit is lowered by what is free without taking that from those who charge. CUT_UNCOUNTED: it is
 * lowered by what is free, and only then does the cut count as waiting: a release between the two is lost.
 * LOOK_BEFORE_RELEASE: a releaser looks for waiters before it subtracts. TICKET_BEFORE_CUT: a pass over the queue
 * serves tickets before the cut has taken what is free, so that the limit stays up though there was room.
 */
#define full 3
#define wanted 1

byte ceiling = full;
byte occupied = 1;        /* one holder begins with 1 */
byte withheld;
byte waiting;             /* tickets in the queue, and cuts */
bool blocked_here;
bool cut;                 /* guarded by `locked` */
bool locked;
bool ticket_queued;       /* guarded by `locked` */
bool handed_over;
bool token;
byte ended;

inline lock()   { atomic { !locked -> locked = true } }
inline unlock() { locked = false }

inline law() { assert(occupied - withheld <= ceiling - withheld) }

inline add(amount) {
  guess = occupied;
  do
  :: guess + (amount) > ceiling -> got = false; break
  :: else ->
     atomic {
       if
       :: occupied == guess -> occupied = occupied + (amount); law(); got = true; break
       :: else -> guess = occupied
       fi
     }
  od
}

/* Takes what is free, up to what the limit has still to come down by. The mutex is held. */
inline lower() {
#ifdef MUTANT_NO_WITHHOLDING
  guess = occupied;
  if
  :: ceiling > wanted && guess < ceiling ->
     if
     :: ceiling - guess < ceiling - wanted -> ceiling = guess
     :: else -> ceiling = wanted
     fi;
     law()
  :: else
  fi
#else
  do
  :: ceiling - withheld <= wanted -> break
  :: else ->
     guess = occupied;
     if
     :: guess >= ceiling -> break
     :: else ->
        atomic {
          if
          :: occupied == guess -> occupied++; withheld++; law()
          :: else
          fi
        }
     fi
  od
#endif
}

inline cut_now() {
  if
  :: cut ->
     lower();
     if
     :: ceiling - withheld <= wanted -> cut = false; waiting--
     :: else
     fi
  :: else
  fi
}

inline serve() {
  if
  :: ticket_queued && !cut ->
     add(1);
     if
     :: got ->
        ticket_queued = false; waiting--; blocked_here = false; handed_over = true; token = true
     :: else -> blocked_here = true
     fi
  :: else
  fi
}

inline scan() {
#ifdef MUTANT_TICKET_BEFORE_CUT
  if
  :: ticket_queued ->
     add(1);
     if
     :: got ->
        assert(!cut || ceiling - withheld <= wanted);
        ticket_queued = false; waiting--; blocked_here = false; handed_over = true; token = true
     :: else -> blocked_here = true
     fi
  :: else
  fi;
  cut_now()
#else
  cut_now();
  serve()
#endif
}

inline release() {
#ifdef MUTANT_LOOK_BEFORE_RELEASE
  look = waiting;
  occupied--;
#else
  occupied--;
  look = waiting;
#endif
  if
  :: look != 0 -> lock(); scan(); unlock()
  :: else
  fi
}

active proctype holder() {
  byte guess, look;
  bool got;
  release();
  ended++
}

active proctype cutter() {
  byte guess, look;
  bool got;
  lock();
#ifdef MUTANT_CUT_UNCOUNTED
  lower();
  if
  :: ceiling - withheld > wanted -> cut = true; waiting++
  :: else
  fi;
#else
  cut = true;
  waiting++;
  scan();
#endif
  unlock();
  ended++
}

active [2] proctype attempt() {
  byte guess, look;
  bool got;
  if
  :: blocked_here || cut
  :: else ->
     add(1);
     if :: got -> release() :: else fi
  fi;
  ended++
}

active proctype waiter() {
  byte guess, look;
  bool got;
  lock();
  ticket_queued = true;
  waiting++;
  scan();
  unlock();
  do
  :: lock();
     got = handed_over;
     unlock();
     if
     :: got -> break
     :: else -> atomic { token -> token = false }
     fi
  od;
  release();
  ended++
}

/* When nobody can go on, all have ended, and the limit is down. */
active proctype judge() {
  atomic {
    timeout -> assert(ended == 5 && occupied == withheld && ceiling - withheld == wanted && !cut && waiting == 0)
  }
}
