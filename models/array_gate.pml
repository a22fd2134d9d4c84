/* SPDX-License-Identifier: Apache-2.0
 * The gate of an object cache's arrays (src/cache/cpu_cache.cc, cache_wait.cc): puts and gets on two CPUs change arrays
 * in restartable sequences, look for no waiter, and find the gate by the table that they load. A getter that finds
 * nothing waits: it counts itself, closes the arrays, fences, collects, and opens them for pops only, so that from then
 * on each put comes below and looks for it. Whoever comes below while nobody waits opens them for pushes again.
 * mutants: WITHOUT_FENCE WITHOUT_CLOSING PUSHES_NOT_HELD COUNTS_ITSELF_LATE NEVER_OPENED
 * compile: -DCOLLAPSE
 *
 * Two threads on each CPU put an object that they have out, or get one at once if there is one; a getter on one of the
 * CPUs must not wait for ever while objects are free, no object is lost or there twice, and in the end pushes go on.
 * A commit waits in its CPU's store buffer, as on x86; a fence empties the buffers and restarts what is in progress, as
 * does the next thread on the CPU; taking the lock empties the taker's.
 *
 * WITHOUT_FENCE: the collector does not wait for sequences in progress; WITHOUT_CLOSING: it lets new ones begin;
 * PUSHES_NOT_HELD: it opens for pushes, too; COUNTS_ITSELF_LATE: the getter counts itself once it has collected;
 * NEVER_OPENED: nobody lets pushes go on.
 */
#define cpus 2
#define objects 2
#define nobody 255

mtype = { opened, held, closed };

mtype gate = opened;      /* what the tables lead to; changed under the lock */
byte running[cpus];       /* the thread whose sequence is in progress */
byte length[cpus];        /* of the arrays */
byte buffer[cpus];        /* a commit that the other CPU does not see yet */
bool buffered[cpus];
byte below;               /* in the slabs */
byte out = objects;       /* with users */
byte waiting;
bool queued;
bool handed;
bool locked;
byte finished;

inline drain(which) {
  if
  :: buffered[which] -> length[which] = buffer[which]; buffered[which] = false
  :: else
  fi
}
inline fence() { atomic { running[0] = nobody; running[1] = nobody; drain(0); drain(1) } }
inline lock()   { atomic { !locked -> locked = true; drain(cpu) } }
inline unlock() { locked = false }
#define own_length (buffered[cpu] -> buffer[cpu] : length[cpu])

/* Below the arrays, first. */
inline come_below() {
#ifndef MUTANT_NEVER_OPENED
  if
  :: gate == held && waiting == 0 -> gate = opened
  :: else
  fi
#endif
  skip
}

inline put() {
  done = false;
  do
  :: done -> break
  :: else ->
     running[cpu] = me;
     seen = gate;
     if
     :: running[cpu] != me -> skip
     :: running[cpu] == me && seen != opened -> break
     :: else ->
        count = own_length;
        atomic {
          if
          :: running[cpu] == me -> buffer[cpu] = count + 1; buffered[cpu] = true; out = out - 1; done = true
          :: else
          fi
        }
     fi
  od;
  if
  :: done
  :: else ->
     lock(); come_below(); below = below + 1; out = out - 1; unlock();
     if
     :: waiting > 0 ->
        lock();
        if
        :: queued && below > 0 ->
           below = below - 1; out = out + 1; queued = false; waiting = waiting - 1; handed = true
        :: else
        fi;
        unlock()
     :: else
     fi
  fi
}

/* The first rung of a get: `done` if there was one. */
inline pop() {
  done = false;
  do
  :: done -> break
  :: else ->
     running[cpu] = me;
     seen = gate;
     if
     :: running[cpu] != me -> skip
     :: running[cpu] == me && seen == closed -> break
     :: else ->
        count = own_length;
        atomic {
          if
          :: running[cpu] != me -> skip
          :: running[cpu] == me && count == 0 -> break
          :: else -> buffer[cpu] = count - 1; buffered[cpu] = true; out = out + 1; done = true
          fi
        }
     fi
  od
}

/* The lock is held. */
inline collect() {
#ifndef MUTANT_WITHOUT_CLOSING
  gate = closed;
#endif
#ifndef MUTANT_WITHOUT_FENCE
  fence();
#endif
  below = below + length[0];
  length[0] = 0;
  below = below + length[1];
  length[1] = 0;
  /* The collector's own buffer may hold what it has just taken. */
  atomic { buffered[cpu] = false }
#ifdef MUTANT_PUSHES_NOT_HELD
  gate = opened
#else
  if
  :: waiting > 0 -> gate = held
  :: else -> gate = opened
  fi
#endif
}

proctype putter(byte cpu; byte me) {
  mtype seen;
  byte count;
  bool done;
  put();
  finished++
}

proctype passer(byte cpu; byte me) {
  mtype seen;
  byte count;
  bool done;
  pop();
  if
  :: done -> put()
  :: else
  fi;
  finished++
}

proctype getter(byte cpu; byte me) {
  mtype seen;
  byte count;
  bool done;
  pop();
  if
  :: done
  :: else ->
#ifndef MUTANT_COUNTS_ITSELF_LATE
     atomic { waiting = waiting + 1; queued = true }
#endif
     lock();
     collect();
#ifdef MUTANT_COUNTS_ITSELF_LATE
     waiting = waiting + 1; queued = true;
#endif
     if
     :: queued && below > 0 -> below = below - 1; out = out + 1; queued = false; waiting = waiting - 1; unlock()
     :: else -> unlock(); handed  /* parks until then */
     fi
  fi;
  put();
  finished++
}

/* The store buffers empty at any time. */
proctype memory() {
end:
  do
  :: atomic { buffered[0] -> drain(0) }
  :: atomic { buffered[1] -> drain(1) }
  od
}

init {
  mtype seen;
  bool done;
  byte count;
  byte cpu;
  byte me = 9;
  atomic {
    running[0] = nobody;
    running[1] = nobody;
    run memory();
    run putter(0, 0);
    run putter(1, 1);
    run passer(0, 2);
    run getter(1, 3)
  }
  finished == 4;
  fence();
  assert(length[0] + length[1] + below == objects && out == 0);
  assert(waiting == 0 && !queued);
  /* One more get and put, by whoever, and pushes go on. */
  lock(); come_below(); unlock();
  assert(gate == opened)
}
