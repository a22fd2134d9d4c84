/* SPDX-License-Identifier: Apache-2.0
 * The free list that the handle table does not have: its ancestor's. The owner takes the head, but never the last
 * element; whoever frees one swaps the tail for it, then links the old tail to it. For one consumer that is sound, and
 * verified here: an owner that takes and frees 6 times, another who frees what he is given, 3 elements. Stealing was
 * added later; each way to see what was wrong with it is a mutant that must be caught.
 * mutants: THIEF_HANDS_OUT_TWICE THIEF_LOSES_TAIL STOLEN_LINK_KEPT
 *
 * No element is out twice. At the end, who is alone makes the head a list of its own, and each element that is not out
 * is on one list, once, up to its tail.
 *
 * THIEF_HANDS_OUT_TWICE (KF-21, CVE-2017-12136): a thief takes the head by compare-and-swap, once; only that no element
 * is out twice is asked. It reads head A and next B and stalls; the owner takes A, B and more, frees A, and A comes to
 * the head; the thief's swap makes B the head, which is out. THIEF_LOSES_TAIL: the same thief; only that the list leads
 * to its tail, and nobody has that out, is asked. STOLEN_LINK_KEPT (KF-22): the head keeps its link when it becomes a
 * list of its own; no concurrency is needed.
 */
#define elements 3
#define end 255
#define nobody 0
#define given 255         /* by the owner, for the other to free */
#define me (_pid + 1)

byte head;                /* 0, 1, 2 at first */
byte tail = elements - 1;
byte next[elements] = {1, 2, end};
byte holder[elements];    /* who has it out */
byte finished;

inline take() {
  do
  :: seen = head;
     after = next[seen];
     if
     :: after == end -> break
     :: else
     fi;
     atomic {
       if
       :: head == seen ->
          head = after;
#ifndef MUTANT_THIEF_LOSES_TAIL
          assert(holder[seen] == nobody);
#endif
          holder[seen] = me;
          break
       :: else
       fi
     }
  od;
  atomic { seen = 0; after = 0 }
}

inline free(element) {
  next[element] = end;
  atomic { holder[element] = nobody; seen = tail; tail = element };
  next[seen] = element;
  seen = 0
}

active proctype owner() {
  byte seen, after, mine, step;
  for (step : 1 .. 6) {
    if
    :: take()
    :: atomic {
         if
         :: holder[0] == me -> mine = 0
         :: holder[1] == me -> mine = 1
         :: holder[2] == me -> mine = 2
         fi
       };
       if
       :: free(mine)
       :: holder[mine] = given
       fi;
       mine = 0
    fi
  }
  finished++
}

active proctype other() {
  byte seen, mine;
  do
  :: atomic {
       if
       :: holder[0] == given -> mine = 0
       :: holder[1] == given -> mine = 1
       :: holder[2] == given -> mine = 2
       fi;
       holder[mine] = me
     };
     free(mine)
  :: break
  od;
  finished++
}

#if defined(MUTANT_THIEF_HANDS_OUT_TWICE) || defined(MUTANT_THIEF_LOSES_TAIL)
active proctype thief() {
  byte seen, after;
  take();
  finished++
}
#define takers 3
#else
#define takers 2
#endif

/* Follows a list; its last element has to be `last`. */
inline walk(first, last) {
  at = first;
  do
  :: assert(!found[at]);
#ifndef MUTANT_THIEF_LOSES_TAIL
     assert(holder[at] == nobody);
#endif
     found[at] = true;
     if
     :: next[at] == end -> assert(at == last && holder[last] == nobody); break
     :: else -> at = next[at]
     fi
  od
}

init {
  byte at, stolen;
  bool found[elements];
  finished == takers;
#ifndef MUTANT_THIEF_HANDS_OUT_TWICE
  d_step {
    stolen = head;
    if
    :: next[stolen] != end ->
       head = next[stolen];
#ifndef MUTANT_STOLEN_LINK_KEPT
       next[stolen] = end;
#endif
       walk(stolen, stolen)
    :: else
    fi;
    walk(head, tail);
#ifndef MUTANT_THIEF_LOSES_TAIL
    for (at : 0 .. elements - 1) { assert(found[at] || holder[at] != nobody) }
#endif
  }
#endif
}
