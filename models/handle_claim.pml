/* SPDX-License-Identifier: Apache-2.0
 * Claims of a handle table's entry (src/handle/table_state.cc): its word is changed by plain stores on the CPU of its
 * owner while that list is biased, and by compare-and-swap anywhere once it is shared. A thread on each of two CPUs
 * erases the handle, a third on the owner's CPU pins it, reads, unpins, and list 0 is biased again, at any moment. Then
 * whoever freed the entry uses it anew, owned by either CPU, and the erasers go for that handle too. The second eraser,
 * or the third thread, may be one that cannot run sequences: it changes the word while the gate is stopped.
 * mutants: REVOKE_WITHOUT_FENCE BIAS_WITHOUT_FENCE CAS_WITHOUT_GATE UNPIN_DOES_NOT_FREE ERASE_IGNORES_PINS
 * mutants: ALONE_WITHOUT_GATE ALONE_WITHOUT_FENCE
 * compile: -DCOLLAPSE
 *
 * Of the erases of a handle one succeeds; the entry is freed once for it, and never while it is pinned. A plain store
 * waits in its CPU's store buffer, as on x86; a fence empties the buffers and restarts the sequences in progress.
 *
 * REVOKE_WITHOUT_FENCE: the bias ends while its owner may still be in a sequence; BIAS_WITHOUT_FENCE: the list is
 * biased while others may still be in theirs; CAS_WITHOUT_GATE: the compare-and-swap is an ordinary one, which no fence
 * restarts; UNPIN_DOES_NOT_FREE: the last unpin leaves an erased entry to nobody; ERASE_IGNORES_PINS: an erase frees.
 * ALONE_WITHOUT_GATE: a thread without sequences makes a compare-and-swap, whatever the gate; ALONE_WITHOUT_FENCE: it
 * stops the gate while others may still be in their sequences.
 */
#define cpus 2
#define lives 2
#define nobody 255

mtype = { biased, shared, stopped, used, erased };

mtype gate[cpus];    /* changed under the mutex */
byte running[cpus];  /* the thread whose sequence is in progress */
bool locked;

/* The entry's word; `life` stands for the generation. */
typedef value { mtype tag; byte life; byte owner; byte pins }
value word;
value buffer[cpus];  /* a plain store that the other CPU does not see yet */
bool buffered[cpus];

/* What the properties speak of. */
byte erases[lives];
byte frees[lives];
byte pinned;
byte finished;

#define copy(to, from) to.tag = from.tag; to.life = from.life; to.owner = from.owner; to.pins = from.pins
#define equal(a, b) (a.tag == b.tag && a.life == b.life && a.owner == b.owner && a.pins == b.pins)
/* Whether the word is `seen`, as this CPU sees it. */
#define unchanged (buffered[cpu] -> equal(buffer[cpu], seen) : equal(word, seen))

inline lock()   { atomic { !locked -> locked = true } }
inline unlock() { locked = false }

inline drain(which) {
  if
  :: buffered[which] -> copy(word, buffer[which]); buffered[which] = false
  :: else
  fi
}

inline fence() {
  atomic { running[0] = nobody; running[1] = nobody; drain(0); drain(1) }
}

inline load_word() {
  if
  :: buffered[cpu] -> copy(seen, buffer[cpu])
  :: else -> copy(seen, word)
  fi
}

/* Under the mutex: from whatever it is to `kind`. */
inline change_gate(which, kind) {
  gate[which] = stopped;
#ifdef MUTANT_REVOKE_WITHOUT_FENCE
  if :: kind == biased -> fence() :: else fi;
#elif defined(MUTANT_BIAS_WITHOUT_FENCE)
  if :: kind == shared -> fence() :: else fi;
#else
  fence();
#endif
  gate[which] = kind
}

inline claimed() {
  done = true;
  pinned = pinned + wanted_pins;
  pinned = pinned - seen.pins
}

/* What a thread does that cannot run sequences, and that nobody could fence off. */
inline change_alone() {
#ifdef MUTANT_ALONE_WITHOUT_GATE
  atomic {
    drain(cpu);
    if
    :: equal(word, seen) -> word.tag = wanted_tag; word.pins = wanted_pins; claimed()
    :: else
    fi
  }
#else
  lock();
  how = gate[seen.owner];
  gate[seen.owner] = stopped;
#ifndef MUTANT_ALONE_WITHOUT_FENCE
  fence();
#endif
  if
  :: unchanged ->
     /* A plain store of the whole word, but no sequence's: it drains the buffer. */
     atomic { drain(cpu); copy(word, seen); word.tag = wanted_tag; word.pins = wanted_pins; claimed() }
  :: else
  fi;
  gate[seen.owner] = how;
  unlock()
#endif
}

/* What all others do, as the gate allows; nothing if it changes meanwhile. */
inline claim_in_sequence() {
  how = gate[seen.owner];
  if
  :: how == stopped -> !locked
  :: how == biased && seen.owner != cpu ->
     lock();
     if
     :: gate[seen.owner] == biased -> change_gate(seen.owner, shared)
     :: else
     fi;
     unlock()
  :: how == biased && seen.owner == cpu ->
     /* compare_store */
     atomic { running[cpu] = _pid; how = gate[seen.owner] };
     if
     :: how == biased && unchanged ->
        atomic {
          !buffered[cpu];  /* the buffer holds one store */
          if
          :: running[cpu] == _pid ->
             copy(buffer[cpu], seen);
             buffer[cpu].tag = wanted_tag;
             buffer[cpu].pins = wanted_pins;
             buffered[cpu] = true;
             running[cpu] = nobody;
             claimed()
          :: else
          fi
        }
     :: else
     fi
  :: how == shared ->
     /* gated_compare_exchange */
     atomic { running[cpu] = _pid; how = gate[seen.owner] };
     if
     :: how == shared ->
        atomic {
          if
#ifdef MUTANT_CAS_WITHOUT_GATE
          :: true ->
#else
          :: running[cpu] == _pid ->
#endif
             drain(cpu);
             if
             :: equal(word, seen) -> word.tag = wanted_tag; word.pins = wanted_pins; claimed()
             :: else
             fi
          :: else
          fi;
          if :: running[cpu] == _pid -> running[cpu] = nobody :: else fi
        }
     :: else
     fi
  fi
}

/* Changes the word from `seen` to `wanted`, in which only tag and pins differ; `done` says whether it did. */
inline claim() {
  done = false;
  if
  :: alone -> change_alone()
  :: else -> claim_in_sequence()
  fi
}

/* Whoever claimed the entry without pins owns it: frees it, and in the first life uses it anew. */
inline free_entry() {
  atomic {
    assert(pinned == 0);
    frees[mine]++;
    assert(frees[mine] == 1)
  };
  if
  :: mine + 1 < lives ->
     atomic {
       copy(look, seen);
       look.tag = used;
       look.life = mine + 1;
       look.pins = 0;
       if :: look.owner = 0 :: look.owner = 1 fi
     };
     /* An ordinary release store. */
     atomic { !buffered[cpu]; copy(buffer[cpu], look); buffered[cpu] = true }
  :: else
  fi
}

inline erase() {
  do
  :: atomic { load_word(); wanted_tag = erased; wanted_pins = seen.pins };
     if
     :: seen.tag != used || seen.life != mine -> break
     :: else ->
        claim();
        if
        :: done ->
           atomic { erases[mine]++; assert(erases[mine] == 1) };
#ifdef MUTANT_ERASE_IGNORES_PINS
           free_entry();
#else
           if :: wanted_pins == 0 -> free_entry() :: else fi;
#endif
           break
        :: else
        fi
     fi
  od
}

proctype eraser(byte cpu; bool alone) {
  value seen, look;
  byte mine, wanted_pins;
  mtype how, wanted_tag;
  bool done;
  erase();
  mine++;
  erase();
  finished++
}

proctype pinner(byte cpu; bool alone) {
  value seen, look;
  byte mine, wanted_pins;
  mtype how, wanted_tag;
  bool done;
  do
  :: atomic { load_word(); wanted_tag = used; wanted_pins = seen.pins + 1 };
     if
     :: seen.tag != used || seen.life != mine -> break
     :: else ->
        claim();
        if :: done -> break :: else fi
     fi
  od;
  if
  :: done ->
     do
     :: atomic { load_word(); wanted_tag = seen.tag; wanted_pins = seen.pins - 1 };
        assert(seen.life == mine && seen.pins > 0);
        claim();
        if :: done -> break :: else fi
     od;
     if
#ifndef MUTANT_UNPIN_DOES_NOT_FREE
     :: wanted_tag == erased -> free_entry()
#endif
     :: else
     fi
  :: else
  fi;
  finished++
}

active proctype biaser() {
  lock();
  change_gate(0, biased);
  unlock();
  finished++
}

/* A store leaves its buffer at any time. */
active proctype memory() {
end:
  do
  :: atomic { buffered[0] -> drain(0) }
  :: atomic { buffered[1] -> drain(1) }
  od
}

init {
  atomic {
    gate[0] = biased;
    gate[1] = biased;
    running[0] = nobody;
    running[1] = nobody;
    word.tag = used;
    run eraser(0, false);
    if
    :: run eraser(1, true); run pinner(0, false)
    :: run eraser(1, false); run pinner(0, false)
    :: run eraser(1, false); run pinner(0, true)
    fi
  };
  finished == 4;
  assert(erases[0] == 1 && frees[0] == 1 && erases[1] == frees[1] && pinned == 0)
}
