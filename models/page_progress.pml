/* SPDX-License-Identifier: Apache-2.0
 * Why nobody waits for ever for pages or for memory (src/page/admission.cc, frame_supply.cc, src/budget/ticket.cc).
 * mutants: HOLD_AND_WAIT SHRINK_BELOW_ADMITTED WRITE_NEEDS_MEMORY WAITER_LOOKS_ONCE MISS_KEEPS_FRAME
 * mutants: END_TELLS_NOBODY HANDOVER_FORGOTTEN WRITE_TELLS_NOBODY
 * compile: -DCOLLAPSE
 * run: -m200000
 *
 * An operation is admitted to the pages that it needs at once, one of them to two and one to one, pins them one after
 * the other, as hits or as misses, and drops them clean or dirty. A charger takes memory of the same budget and gives
 * it back. Whoever waits for memory reclaims frames for all. Each step is what one mutex or one atomic instruction
 * covers in the code; I/O ends by itself.
 *
 * The claim: no state but the last, in which everybody is done, is without a next step; and pins <= admitted <= owned
 * at every step.
 *
 * HOLD_AND_WAIT is the ancestor's deadlock (KF-51): an operation is admitted to one page at a time, and waits for the
 * second while it holds the first. WRITE_NEEDS_MEMORY: write-back takes memory that is charged when it is needed
 * (KF-52). WAITER_LOOKS_ONCE: who found no frame enters the queue of waiters, and sleeps without another look.
 * MISS_KEEPS_FRAME: a reclaimer that found nothing to give back does not put its frame back into the count of what is
 * owned. END_TELLS_NOBODY, WRITE_TELLS_NOBODY, HANDOVER_FORGOTTEN: who ends an admission, ends a write, or gives memory
 * back does not look for waiters.
 */
#ifdef MUTANT_HOLD_AND_WAIT
#define FRAMES 2                /* all that there is, so that each may hold one and want one */
#define CHARGERS 0
#else
#define FRAMES 3
#define CHARGERS 1
#endif
#define FLOOR 2
#define OPERATIONS 2
#define PROCESSES (OPERATIONS + CHARGERS)
#define CHARGES 1

/* A frame: given back, free, holding a page, in a write, or in the hands of one process. */
#define GONE 0
#define FREE 1
#define CLEAN 2
#define DIRTY 3
#define WRITING 4
#define TAKEN 5
byte frame[FRAMES];
byte owned = FLOOR, admitted = 0, pinned = 0;

byte room = FRAMES - FLOOR;     /* what the budget could still grant; a frame and a charge take one each */

bool token[PROCESSES];          /* each one's parker */
chan admissions = [OPERATIONS] of { byte };       /* who waits for credits, oldest first */
chan frame_waiters = [OPERATIONS] of { byte };    /* who waits for a frame */
chan tickets = [PROCESSES] of { byte, byte };     /* who waits for memory, and for how much */
bool in_frame_waiters[OPERATIONS];
bool granted[PROCESSES];
bool hopeful = false, leading = false, reclaim_missed = false;

#define PARK atomic { token[me] -> token[me] = false }

inline check() { assert(pinned <= admitted && admitted <= owned) }

/* Hands room to tickets, oldest first. Within an atomic step. */
inline scan_tickets() {
  do
  :: nempty(tickets) ->
     tickets?<who, need>;
     if
     :: room >= need -> tickets?who, need; room = room - need; granted[who] = true; token[who] = true
     :: else -> break
     fi
  :: empty(tickets) -> break
  od;
  who = 0; need = 0
}

inline wake_admission() {
  d_step { if :: nempty(admissions) -> admissions?<who>; token[who] = true :: empty(admissions) fi; who = 0 }
}

/* Something may be reclaimable again: the oldest who waits for memory looks. */
inline note_reclaimable() {
  d_step {
    if :: nempty(tickets) -> hopeful = true; tickets?<who, need>; token[who] = true :: empty(tickets) fi;
    who = 0; need = 0
  }
}

inline wake_frame_waiter() {
  d_step {
    if
    :: nempty(frame_waiters) -> frame_waiters?who; in_frame_waiters[who] = false; token[who] = true
    :: empty(frame_waiters)
    fi;
    who = 0
  }
}

inline note_evictable() {
  if
  :: atomic { reclaim_missed -> reclaim_missed = false }; note_reclaimable()
  :: else
  fi;
  wake_frame_waiter()
}

/* A look for a frame: at = the frame that is ours now, or FRAMES; to_write if it is to be written first. What is free,
 * or may be charged, is found in one step; pages are looked at one by one, and their pins come and go meanwhile. */
inline look_for_frame(may_grow) {
  atomic {
    at = 0; to_write = false; no_tickets = empty(tickets);
    do :: at < FRAMES && frame[at] != FREE -> at++ :: else -> break od;
    if
    :: at == FRAMES && may_grow && room > 0 && no_tickets ->
       at = 0;
       do :: at < FRAMES && frame[at] != GONE -> at++ :: else -> break od;
       if :: at < FRAMES -> room--; owned++; grew = true :: else fi
    :: else
    fi;
    no_tickets = false;
    if :: at < FRAMES -> frame[at] = TAKEN :: else fi
  };
  if
  :: at < FRAMES
  :: else ->
     at = 0;
     do
     :: at < FRAMES ->
        atomic { if :: frame[at] == CLEAN -> frame[at] = TAKEN; break :: else fi };
        if :: frame[at] == DIRTY && candidate == FRAMES -> candidate = at :: else fi;
        at++
     :: else -> break
     od;
     if
     :: at == FRAMES && candidate < FRAMES ->
        d_step {
          if :: frame[candidate] == DIRTY -> frame[candidate] = WRITING; at = candidate; to_write = true :: else fi
        }
     :: else
     fi;
     candidate = FRAMES
  fi
}

inline write_back() {
#ifdef MUTANT_WRITE_NEEDS_MEMORY
  d_step { room > 0 -> room-- };
  room++;
#endif
  frame[at] = CLEAN;
#ifndef MUTANT_WRITE_TELLS_NOBODY
  note_evictable();
#endif
  skip
}

/* What a waiter does on behalf of all: takes one frame out of `owned`, looks for it, gives its memory back. */
inline reclaim() {
  gave = false;
  d_step {
#ifdef MUTANT_SHRINK_BELOW_ADMITTED
    if :: owned > 0 -> owned--; shrunk = true :: else -> shrunk = false fi
#else
    if :: owned > FLOOR && owned > admitted -> owned--; shrunk = true :: else -> shrunk = false fi
#endif
  };
  missed = false;
  do
  :: !shrunk -> break
  :: else ->
     look_for_frame(false);
     if
     :: at < FRAMES && to_write -> write_back()
     :: at < FRAMES && !to_write ->
        d_step { frame[at] = GONE; room++ };
        gave = true;
#ifndef MUTANT_HANDOVER_FORGOTTEN
        d_step { scan_tickets() };
#endif
        break
     :: at == FRAMES && !missed ->
        missed = true;
        reclaim_missed = true
     :: at == FRAMES && missed ->
#ifndef MUTANT_MISS_KEEPS_FRAME
        owned++;
#endif
        wake_admission();
        break
     fi
  od;
  at = FRAMES; to_write = false; missed = false; shrunk = false
}

/* While the ticket is queued and not granted: reclaims if that may help and nobody does. */
inline lead() {
  do
  :: atomic { !granted[me] && hopeful && !leading -> leading = true; hopeful = false };
     reclaim();
     d_step { leading = false; if :: gave -> hopeful = true :: else fi; gave = false }
  :: else -> break
  od
}

inline leave_leading() {
  d_step {
    if
    :: hopeful && !leading && nempty(tickets) -> tickets?<who, need>; token[who] = true
    :: !hopeful || leading || empty(tickets)
    fi;
    who = 0; need = 0
  }
}

inline enter_tickets(amount) {
  d_step { granted[me] = false; tickets!me, amount; hopeful = true; scan_tickets() }
}

inline take_credits(pages) {
  d_step { if :: owned - admitted >= pages -> admitted = admitted + pages; have = true :: else fi }
}

inline admit(pages) {
  have = false;
  if :: empty(admissions) -> take_credits(pages) :: nempty(admissions) fi;
  if
  :: have
  :: else ->
     admissions!me;
     do
     :: true ->
        d_step { admissions?<who>; front = (who == me); who = 0 };
        if :: front -> break :: else -> PARK fi
     od;
     front = false;
     do
     :: have -> break
     :: else ->
        take_credits(pages);
        if
        :: have
        :: else ->
           /* The front waits for credits and for memory, whichever comes first. */
           d_step {
             lacking = 0; at = 0;
             do
             :: at < FRAMES -> if :: frame[at] == GONE && lacking < pages -> lacking++ :: else fi; at++
             :: else -> break
             od;
             at = FRAMES
           };
           if :: lacking > 0 -> enter_tickets(lacking) :: else fi;
           do
           :: true ->
              take_credits(pages);
              if :: have -> break :: else fi;
              if
              :: lacking > 0 -> lead()
              :: else
              fi;
              if
              :: lacking > 0 && granted[me] ->
                 d_step {
                   at = 0;
                   do
                   :: at < FRAMES ->
                      if :: lacking > 0 && frame[at] == GONE -> frame[at] = FREE; owned++; lacking-- :: else fi;
                      at++
                   :: else -> break
                   od;
                   at = FRAMES; room = room + lacking; lacking = 0; granted[me] = false
                 };
                 note_evictable();
                 break
              :: else
              fi;
              PARK;
              if :: lacking == 0 -> break :: else fi
           od;
           /* Leaves the budget's queue, with its grant given back if it came meanwhile. */
           if
           :: lacking > 0 ->
              d_step {
                if
                :: granted[me] -> room = room + lacking
                :: else -> tickets??eval(me), _
                fi;
                granted[me] = false; lacking = 0; scan_tickets()
              };
              leave_leading()
           :: else
           fi
        fi
     od;
     atomic { admissions?eval(me) };
     wake_admission()
  fi;
  have = false
}

inline pin() {
  entered = false;
  do
  /* A hit: a page that is in memory, whichever. */
  :: atomic { !entered && (frame[0] == CLEAN || frame[0] == DIRTY) -> frame[0] = TAKEN; at = 0 }; break
  :: atomic { !entered && (frame[1] == CLEAN || frame[1] == DIRTY) -> frame[1] = TAKEN; at = 1 }; break
  /* A miss. */
  :: true ->
     grew = false;
     look_for_frame(true);
     if :: grew -> wake_admission() :: else fi;
     if
     :: at < FRAMES && to_write -> write_back()
     :: at < FRAMES && !to_write -> break
     :: at == FRAMES && !entered ->
        entered = true; was_entered = true;
        d_step { frame_waiters!me; in_frame_waiters[me] = true }
#ifdef MUTANT_WAITER_LOOKS_ONCE
        ; PARK; entered = false
#endif
     :: at == FRAMES && entered ->
        PARK;
        entered = in_frame_waiters[me]
     fi
  od;
  atomic { pinned++; check() };
  mine[held] = at; held++;
  at = FRAMES; grew = false;
  if
  :: was_entered ->
     d_step { if :: in_frame_waiters[me] -> frame_waiters??eval(me); in_frame_waiters[me] = false :: else fi };
     wake_frame_waiter();
     entered = false; was_entered = false
  :: else
  fi
}

inline unpin() {
  held--;
  if
  :: atomic { frame[mine[held]] = CLEAN; pinned--; mine[held] = 0 }
  :: atomic { frame[mine[held]] = DIRTY; pinned--; mine[held] = 0 }
  fi;
  note_evictable()
}

inline end_admission(pages) {
  d_step { admitted = admitted - pages; check() };
#ifndef MUTANT_END_TELLS_NOBODY
  wake_admission();
  note_reclaimable();
#endif
  skip
}

proctype operation(byte me; byte pages; byte rounds) {
  byte who, need, at = FRAMES, candidate = FRAMES, held, lacking;
  byte mine[2];
  bool have, front, no_tickets, to_write, grew, entered, was_entered, gave, shrunk, missed;
  do
  :: rounds > 0 ->
     rounds--;
#ifdef MUTANT_HOLD_AND_WAIT
     admit(1);
     pin();
     admit(1);
     pin();
#else
     admit(pages);
     do :: held < pages -> pin() :: else -> break od;
#endif
     do :: held > 0 -> unpin() :: else -> break od;
     end_admission(pages)
  :: else -> break
  od
}

/* Wants a byte of memory that the pages may have taken. */
proctype charger(byte me) {
  byte who, need, at = FRAMES, candidate = FRAMES, round;
  bool no_tickets, to_write, grew, gave, shrunk, missed;
  do
  :: round < CHARGES ->
     round++;
     enter_tickets(1);
     do
     :: granted[me] -> break
     :: else ->
        lead();
        if :: granted[me] :: else -> PARK fi
     od;
     granted[me] = false;
     leave_leading();
     skip;
     d_step { room++; scan_tickets() }
  :: else -> break
  od
}

init {
  atomic {
    if :: frame[0] = FREE :: frame[0] = CLEAN :: frame[0] = DIRTY fi;
    if :: frame[1] = FREE :: frame[1] = CLEAN :: frame[1] = DIRTY fi;
#ifdef MUTANT_HOLD_AND_WAIT
    run operation(0, 2, 1);
    run operation(1, 2, 1);
#else
    run operation(0, 2, 1);
    run operation(1, 1, 1);
#endif
#if CHARGERS
    run charger(2)
#endif
  }
}
