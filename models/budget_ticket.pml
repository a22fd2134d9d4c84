/* SPDX-License-Identifier: Apache-2.0
 * The queue for memory (src/budget/ticket.cc) at one node: two holders release, two tickets of different sizes wait, a
 * third party tries without waiting.
 * mutants: WAITER_LOOKS_FIRST RELEASER_LOOKS_FIRST UNPARK_FORGOTTEN
 *
 * Nobody sleeps for ever (no invalid end state), the limit holds at every step, and memory that was handed over stays
 * charged until its owner releases it. Each step is one atomic access of the real code, but the tree's mutex is taken
 * and left in one step each.
 * WAITER_LOOKS_FIRST: a ticket looks for memory before it counts itself as waiting; RELEASER_LOOKS_FIRST: a releaser
 * looks for tickets before it subtracts; either way both may miss each other. UNPARK_FORGOTTEN: the memory is handed
 * over, but its owner is not told.
 */
#define limit 2
#define tickets 2

byte used = limit;       /* each holder begins with 1 */
byte waiting;            /* tickets in the queue */
byte blocked_here;
byte queue[tickets];     /* guarded by `locked`, oldest first */
byte queued;             /* guarded by `locked` */
byte served;             /* tickets handed over so far, in the order of the queue; guarded by `locked` */
bool locked;
bool handed_over[tickets];
bool token[tickets];
bool marked[tickets];    /* is counted in blocked_here; guarded by `locked` */

inline lock()   { atomic { !locked -> locked = true } }
inline unlock() { locked = false }

/* The compare-and-swap loop of an admission; `got` says whether it fitted. */
inline add(amount) {
  guess = used;
  do
  :: guess + (amount) > limit -> got = false; break
  :: else ->
     atomic {
       if
       :: used == guess -> used = used + (amount); assert(used <= limit); got = true; break
       :: else -> guess = used
       fi
     }
  od
}

/* A pass over the queue; the mutex is held. One node: who follows a ticket that does not fit does not fit either. */
inline scan() {
  do
  :: served == queued -> break
  :: else ->
     front = queue[served];
     add(front + 1);
     if
     :: got ->
        if :: marked[front] -> marked[front] = false; blocked_here-- :: else fi;
        served++;
        waiting--;
        handed_over[front] = true;
#ifndef MUTANT_UNPARK_FORGOTTEN
        token[front] = true
#endif
     :: else ->
        if :: !marked[front] -> marked[front] = true; blocked_here++ :: else fi;
        break
     fi
  od
}

inline release(amount) {
#ifdef MUTANT_RELEASER_LOOKS_FIRST
  look = waiting;
  used = used - (amount);
#else
  used = used - (amount);
  look = waiting;
#endif
  if
  :: look != 0 -> lock(); scan(); unlock()
  :: else
  fi
}

active [2] proctype holder() {
  byte guess, front, look;
  bool got;
  release(1)
}

/* Ticket 0 wants 1, ticket 1 wants 2: the whole limit. */
proctype ticket(byte me) {
  byte guess, front, look;
  bool got;
  lock();
#ifdef MUTANT_WAITER_LOOKS_FIRST
  got = false;
  if
  :: queued == served -> add(me + 1)
  :: else
  fi;
  if
  :: got -> unlock(); goto charged
  :: else
  fi;
  queue[queued] = me;
  queued++;
  waiting++;
  marked[me] = true;
  blocked_here++;
#else
  queue[queued] = me;
  queued++;
  waiting++;
  scan();
#endif
  unlock();
  do
  :: lock();
     got = handed_over[me];
     unlock();
     if
     :: got -> break
     :: else -> atomic { token[me] -> token[me] = false }  /* parks */
     fi
  od;
charged:
  assert(used >= me + 1);
  release(me + 1)
}

/* Tries once and does not wait: never while a ticket is known to be blocked here. */
active proctype attempt() {
  byte guess, front, look;
  bool got;
  if
  :: blocked_here != 0
  :: else ->
     add(1);
     if :: got -> release(1) :: else fi
  fi
}

init { atomic { run ticket(0); run ticket(1) } }
