/* SPDX-License-Identifier: Apache-2.0
 * A thread's parker (src/os/thread_parker.cc): the thread parks until something is there, three times with a deadline
 * that may pass at any moment and then without one; two others bring one thing each and unpark it.
 * mutants: TIMEOUT_CLEARS TOKEN_STORED KERNEL_DOES_NOT_COMPARE SLEEPS_OVER_TOKEN
 *
 * No token is lost: nobody sleeps for ever (no invalid end state), and each unpark's token was taken by a wait that
 * says so, joined another, or is still there. Each step is one atomic access of the real code, or a futex call.
 *
 * TIMEOUT_CLEARS: whose deadline passes stores `empty` without looking; TOKEN_STORED: unpark stores the token and wakes
 * nobody unless it read `asleep` before; KERNEL_DOES_NOT_COMPARE: the futex call sleeps whatever the word is;
 * SLEEPS_OVER_TOKEN: park stores `asleep` instead of exchanging it for `empty`.
 */
#define empty 0
#define token 1
#define asleep 2

byte word = empty;
bool in_kernel;      /* sleeps on the futex */
byte things;         /* what the thread waits for */
byte unparks;        /* exchanges of unpark so far */
byte answered;       /* of them, those whose token was taken, or joined a token that was there */
byte finished;

/* Sleeps if the word is `asleep`; `in_time` is false if the deadline passed. The kernel may also wake for no reason. */
inline futex_wait() {
  atomic {
    if
#ifdef MUTANT_KERNEL_DOES_NOT_COMPARE
    :: in_kernel = true
#else
    :: word == asleep -> in_kernel = true
    :: else
#endif
    fi;
    in_time = true
  };
  if
  :: !in_kernel
  :: atomic { has_deadline && in_kernel -> in_kernel = false; in_time = false }
  :: atomic { spurious > 0 && in_kernel -> in_kernel = false; spurious-- }
  fi
}

inline take_token() { atomic { assert(answered < unparks); answered++; got = true } }

inline park() {
  got = false;
  do
  :: atomic {
       if
       :: word == token -> word = empty; take_token(); break
       :: else
       fi
     };
#ifdef MUTANT_SLEEPS_OVER_TOKEN
     word = asleep;
#else
     atomic {
       if
       :: word == empty -> word = asleep
       :: else -> goto again
       fi
     };
#endif
     futex_wait();
#ifdef MUTANT_TIMEOUT_CLEARS
     if :: !in_time -> word = empty; break :: else fi;
#endif
     atomic {
       if
       :: word == asleep ->
          word = empty;
          if :: !in_time -> break :: else fi
       :: else
       fi
     };
again:
     skip
  od
}

active proctype thread() {
  bool in_time, got, has_deadline = true;
  byte spurious = 1;
  byte timeouts;
  do
  :: things == 2 -> break
  :: else ->
     park();
     if :: !got -> timeouts++ :: else fi;
     if :: timeouts == 3 -> has_deadline = false :: else fi
  od;
  finished++
}

active [2] proctype other() {
  byte seen;
  things++;
#ifdef MUTANT_TOKEN_STORED
  seen = word;
  atomic { unparks++; if :: word == token -> answered++ :: else fi; word = token };
#else
  atomic {
    seen = word;
    word = token;
    unparks++;
    if :: seen == token -> answered++ :: else fi
  };
#endif
  if
  :: seen == asleep -> in_kernel = false
  :: else
  fi;
  finished++
}

active proctype auditor() {
  finished == 3;
  assert(answered + (word == token -> 1 : 0) == unparks)
}
