/* SPDX-License-Identifier: Apache-2.0
 * take_all_stack (src/base/take_all_stack.h): two pushers and two takers; what a taker got it may push back.
 * mutants: POP_ONE
 *
 * No element is held twice or lost, and exactly the pushes that found the stack empty say so. Each step between two
 * labels is one atomic access of the real code. POP_ONE takes single elements by compare-and-swap, as an ordinary
 * lock-free stack does: the head that a taker read may come back with another successor (ABA).
 */
#define elements 2
#define nil 255
#define steps 3 /* of each taker: the ABA schedule needs one of them to take twice and give the first back */

byte head = nil;
byte next[elements];
bool held[elements];  /* by a process, from before its push or from its take */
byte found_empty;     /* pushes that returned true */
byte emptied;         /* takes that left the stack empty */
byte finished;

inline push(element) {
  assert(held[element]);
  held[element] = false;  /* the pusher lets go of it before others can see it */
  seen = head;
  do
  :: next[element] = seen;
     atomic {
       if
       :: head == seen -> head = element; found_empty = found_empty + (seen == nil -> 1 : 0); break
       :: else -> seen = head
       fi
     }
  od
}

inline keep(element) {
  assert(!held[element]);
  held[element] = true
}

inline take() {
#ifdef MUTANT_POP_ONE
  chain = head;
  do
  :: chain == nil -> break
  :: else ->
     seen = next[chain];
     atomic {
       if
       :: head == chain -> head = seen; emptied = emptied + (seen == nil -> 1 : 0); keep(chain); break
       :: else -> chain = head
       fi
     }
  od;
  if :: chain != nil -> next[chain] = nil :: else fi
#else
  atomic { chain = head; head = nil; emptied = emptied + (chain != nil -> 1 : 0) }
#endif
}

active [2] proctype pusher() {
  byte seen;
  held[_pid] = true;
  push(_pid);
  finished++
}

active [2] proctype taker() {
  byte seen, chain, mine;
  byte step;
  bool own[elements];
  for (step : 1 .. steps) {
    if
    :: take();
       do
       :: chain == nil -> break
       :: else ->
#ifndef MUTANT_POP_ONE
          keep(chain);
#endif
          own[chain] = true;
          chain = next[chain]
       od
    :: atomic { own[0] -> mine = 0; own[0] = false }; push(mine)
    :: atomic { own[1] -> mine = 1; own[1] = false }; push(mine)
    fi
  }
  finished++
}

/* At the end every element is either held or on the stack, once, and the pushes' answers fit the takes'. */
active proctype auditor() {
  byte at, count;
  finished == 4;
  d_step {
    at = head;
    do
    :: at == nil -> break
    :: else -> assert(!held[at]); count++; assert(count <= elements); at = next[at]
    od;
    for (at : 0 .. elements - 1) { count = count + (held[at] -> 1 : 0) }
    assert(count == elements);
    assert(found_empty == emptied + (head == nil -> 0 : 1))
  }
}
