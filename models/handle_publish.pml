/* SPDX-License-Identifier: Apache-2.0
 * A frame of handles comes, is used, goes and comes again (src/handle/frame_table.h, shrink.cc). Two threads insert,
 * find what they inserted, and erase it, both erasing the first one's handle; a third finds a handle that it made up; a
 * fourth shrinks the table twice. One frame of two entries, one list, at first no frame.
 * mutants: BOUND_BEFORE_DATA INDEX_BEFORE_DATA RETIRE_WITHOUT_STOP GENERATION_FORGOTTEN FIND_LOOKS_ONCE
 * mutants: EXCHANGE_WITHOUT_LOOK
 * compile: -DCOLLAPSE
 *
 * Nobody follows a pointer that is not there; who has inserted finds; a find gives the handle's own object, and only if
 * it was in the table during the find; no handle comes twice; and nothing writes to a frame that was given back, which
 * would bring a page that nobody charged (KF-55). Such a frame reads as zeroes. The threads share a CPU. The list is a
 * chain whose word counts what was taken: how rings work is handle_list.pml's subject.
 *
 * BOUND_BEFORE_DATA (KF-24): find trusts a bound that was raised before the pointer was stored; INDEX_BEFORE_DATA: the
 * frame's entries are on the list before; RETIRE_WITHOUT_STOP: the list is taken without gate and fence;
 * GENERATION_FORGOTTEN: a new frame's handles begin again; FIND_LOOKS_ONCE: find does not read the word a second time;
 * EXCHANGE_WITHOUT_LOOK: a claim's `lock cmpxchg`, which writes also when it fails, is not preceded by a look at the
 * word in the same sequence.
 */
#define entries 2
#define end 0      /* links and heads are an entry's number + 1 */
#define nobody 255
#define depth 1    /* what a free entry's object is: no handle */
#define handles 14

bool published;         /* the directory's pointer to the frame */
bool present;           /* the frame is mapped and charged */
byte tag[entries];      /* tag and link are one word; a handle is 2 * generation + entry */
byte link[entries];
byte object[entries];   /* the handle, in place of an object */
byte start = 1;         /* the first generation of the frame's next life; guarded by the mutex */
#ifdef MUTANT_BOUND_BEFORE_DATA
bool bound;
#define is_there bound
#else
#define is_there published
#endif

bool stopped;
byte head, count;       /* the list's word */
byte running = nobody;  /* the thread whose sequence is in progress */
bool locked;

byte told;              /* the first thread's handle */

/* What the properties speak of. */
bool inserted[handles];
bool erased[handles];
byte finished;

inline lock()   { atomic { !locked -> locked = true } }
inline unlock() { locked = false }

/* Before a write to the frame. */
#define writes assert(published && present)

inline compare_store(new_head, new_count) {
  if
  :: atomic { stopped -> done = false }
  :: atomic { !stopped -> running = _pid; done = false };
     if
     :: head == top && count == pops ->
        atomic {
          if
          :: running == _pid -> head = new_head; count = new_count; running = nobody; done = true
          :: else
          fi
        }
     :: else
     fi
  fi
}

/* Puts the chain from `first` to `last` on the list. */
inline push(first, last) {
  do
  :: atomic { top = head; pops = count };
     atomic { writes; link[last - 1] = top };
     compare_store(first, pops);
     if :: done -> break :: else fi
  od;
  atomic { top = 0; pops = 0 }
}

inline pop() {
  atomic { top = head; pops = count; entry = end };
  if
  :: top == end
  :: else ->
     atomic { assert(published); next = link[top - 1] };
     compare_store(next, pops + 1);
     if :: done -> entry = top :: else fi
  fi;
  next = 0
}

/* The mutex is held. */
inline add_frame() {
  present = true;
#ifdef MUTANT_BOUND_BEFORE_DATA
  bound = true;
#endif
#ifndef MUTANT_INDEX_BEFORE_DATA
  published = true;
#endif
  link[0] = 2;
  do
  :: atomic { top = head; pops = count };
     link[1] = top;
     compare_store(1, pops);
     if :: done -> break :: else fi
  od;
#ifdef MUTANT_INDEX_BEFORE_DATA
  published = true;
#endif
  atomic { top = 0; pops = 0 }
}

/* `made` is the handle, or 0 at the limit. */
inline insert() {
  pop();
  if
  :: entry == end ->
     lock();
     do
     :: pop();
        if
        :: entry != end -> break
        :: entry == end && top == end ->
           if
           :: !present -> add_frame()
           :: else -> break
           fi
        :: else
        fi
     od;
     unlock()
  :: else
  fi;
  atomic {
    top = 0;
    pops = 0;
    if
    :: entry == end -> made = 0
    :: else ->
       /* The last handle of this entry, or if it is new, the first of the frame's life. */
       assert(published);
       made = (tag[entry - 1] == 0 -> 2 * start : ((255 - tag[entry - 1]) & 254) + 2) + entry - 1;
       assert(made < handles && !inserted[made])
    fi
  };
  if
  :: made == 0
  :: else ->
     atomic { writes; object[entry - 1] = made };
     atomic { writes; tag[entry - 1] = made; link[entry - 1] = 0; inserted[made] = true; entry = end }
  fi
}

/* `found` is the object or 0. */
inline find(which) {
  found = 0;
  gone = erased[which];
  if
  :: !is_there
  :: else ->
     atomic { assert(published); seen = tag[which & 1] };
     if
     :: seen != which
     :: else ->
        found = object[which & 1];
#ifndef MUTANT_FIND_LOOKS_ONCE
        if :: tag[which & 1] != which -> found = 0 :: else fi;
#endif
        assert(found == 0 || (found == which && inserted[which] && !gone))
     fi
  fi;
  atomic { seen = 0; gone = false }
}

inline erase(which) {
  do
  :: atomic { assert(published); seen = tag[which & 1] };
     if
     :: seen != which -> break
     :: else ->
        done = false;
        running = _pid;  /* its gate is another than the list's, and open */
#ifndef MUTANT_EXCHANGE_WITHOUT_LOOK
        if
        :: tag[which & 1] != which
        :: else ->
#endif
           atomic {
             if
             :: running == _pid ->
                running = nobody;
                writes;
                if
                :: tag[which & 1] == which -> tag[which & 1] = 255 - which; erased[which] = true; done = true
                :: else
                fi
             :: else
             fi
           }
#ifndef MUTANT_EXCHANGE_WITHOUT_LOOK
        fi;
#endif
        if
        :: done ->
           atomic { writes; object[which & 1] = depth };
           entry = (which & 1) + 1;
           push(entry, entry);
           entry = end;
           break
        :: else
        fi
     fi
  od;
  seen = 0
}

proctype first() {
  byte top, pops, next, entry, made, found, seen;
  bool done, gone;
  insert();
  told = made;
  if
  :: made != 0 ->
     erase(made)
  :: else
  fi;
  finished++
}

proctype second() {
  byte top, pops, next, entry, made, found, seen;
  bool done, gone;
  insert();
  if
  :: made != 0 ->
     find(made);
     assert(found == made);
     erase(made);
     assert(erased[made])
  :: else
  fi;
  if
  :: told != 0 -> made = told; erase(made)
  :: else
  fi;
  finished++
}

proctype finder() {
  byte which = 2;
  byte found, seen;
  bool gone;
  do
  :: which < 5 -> which++
  :: break
  od;
  find(which);
  finished++
}

proctype shrinker() {
  byte chain, times;
  for (times : 1 .. 2) {
    lock();
#ifndef MUTANT_RETIRE_WITHOUT_STOP
    stopped = true;
    running = nobody;
#endif
    chain = head;
    if
    :: chain != end && link[chain - 1] != end ->
       /* Both entries are in the chain: the frame goes. */
       atomic { head = end; count++ };
       atomic {
#ifndef MUTANT_GENERATION_FORGOTTEN
         if :: tag[0] != 0 && (255 - tag[0]) / 2 >= start -> start = (255 - tag[0]) / 2 + 1 :: else fi;
         if :: tag[1] != 0 && (255 - tag[1]) / 2 >= start -> start = (255 - tag[1]) / 2 + 1 :: else fi;
#endif
         present = false;
         tag[0] = 0; link[0] = 0; object[0] = 0;
         tag[1] = 0; link[1] = 0; object[1] = 0
       }
    :: else
    fi;
    stopped = false;
    unlock();
    chain = 0
  }
  finished++
}

init {
  atomic {
    run first();
    run second();
    run finder();
    run shrinker()
  };
  finished == 4;
  assert(!stopped && (!present || (head != end && link[head - 1] != end && link[link[head - 1] - 1] == end)))
}
