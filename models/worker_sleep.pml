/* SPDX-License-Identifier: Apache-2.0
 * A worker's sleep (src/task/inbox.h, run_queue.cc): two other threads make a task ready each, another worker ends a
 * task, and a fourth thread stops the runtime.
 * mutants: LOOK_BEFORE_SLEEPING SLEEPING_STORED_LATE PUSHER_LOOKS_FIRST WAKE_FORGOTTEN
 * mutants: STOPPER_WAKES_FIRST LAST_TELLS_NOBODY
 *
 * No wake-up is lost: the worker runs every task and then ends (no invalid end state). The worker's stores to
 * `sleeping` go through its store buffer, as on x86: a sequentially consistent one waits there until the buffer is
 * empty. All other writes are atomic read-modify-writes or calls of the kernel, which do not wait in a buffer. The
 * kernel may also end a sleep because of I/O, and the ring's event is read in any look at the ring, not only at the end
 * of a sleep.
 *
 * LOOK_BEFORE_SLEEPING: the worker looks at the inbox, then says that it sleeps; SLEEPING_STORED_LATE: it says so with
 * release order only; PUSHER_LOOKS_FIRST: a pusher looks whether the worker sleeps, then pushes; WAKE_FORGOTTEN: who
 * took the flag does not wake; STOPPER_WAKES_FIRST: the runtime wakes its workers, then says that it stops;
 * LAST_TELLS_NOBODY: the worker that ends the last task does not wake the others.
 */
#define pushers 2

bool sleeping;      /* as the other threads see it */
bool buffered;      /* a store of the worker's is on its way to `sleeping`: */
bool buffered_value;
byte inbox;         /* tasks in it */
byte live = pushers + 1;
bool stopping;
byte event;         /* wakes that the ring has not read: 0, or 1 for any number */

inline store_sleeping(value) {
  !buffered;
  atomic { buffered = true; buffered_value = value }
}

inline barrier() { !buffered }

active proctype store_buffer() {
end:
  do
  :: atomic { buffered -> sleeping = buffered_value; buffered = false }
  od
}

inline sleep() {
#ifdef MUTANT_LOOK_BEFORE_SLEEPING
  if
  :: inbox != 0 || (stopping && live == 0) -> goto round
  :: else
  fi;
  store_sleeping(true);
  barrier();
#else
  store_sleeping(true);
#ifndef MUTANT_SLEEPING_STORED_LATE
  barrier();
#endif
  if
  :: inbox != 0 -> goto awake
  :: else
  fi;
  if
  :: stopping ->
     if
     :: live == 0 -> goto awake
     :: else
     fi
  :: else
  fi;
#endif
  if
  :: atomic { event != 0 -> event = 0 }      /* the only thing that is sure to come */
  :: atomic { completions != 0 -> completions-- }
  fi;
awake:
  store_sleeping(false);
  barrier()
}

active proctype worker() {
  byte ready, completions = 1;
round:
  atomic { ready = ready + inbox; inbox = 0 };
  if
  :: ready != 0 ->
     live = live - ready;
     ready = 0;
     if
     :: event != 0 -> event = 0   /* a look at the ring */
     :: true
     fi;
     goto round
  :: else
  fi;
  if
  :: stopping ->
     if
     :: live == 0 -> goto ended
     :: else
     fi
  :: else
  fi;
  sleep();
  goto round;
ended:
  assert(inbox == 0)
}

active [pushers] proctype pusher() {
  bool seen;
#ifdef MUTANT_PUSHER_LOOKS_FIRST
  seen = sleeping;
  inbox++;
#else
  inbox++;
  seen = sleeping;
#endif
  if
  :: seen ->
     atomic { seen = sleeping; sleeping = false };
     if
#ifndef MUTANT_WAKE_FORGOTTEN
     :: seen -> event = 1
#endif
     :: else
     fi
  :: else
  fi
}

active proctype other_worker() {
  bool last;
  atomic { live--; last = (live == 0) };
#ifndef MUTANT_LAST_TELLS_NOBODY
  if
  :: last && stopping -> event = 1
  :: else
  fi
#endif
}

/* The runtime's destructor. */
active proctype stopper() {
#ifdef MUTANT_STOPPER_WAKES_FIRST
  event = 1;
  stopping = true
#else
  stopping = true;
  event = 1
#endif
}
