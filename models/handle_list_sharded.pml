/* SPDX-License-Identifier: Apache-2.0
 * The handle table's free lists (src/handle/free_list.h) where restartable sequences are missing: a lock for each ring
 * takes their place. Two threads at list 0 and one at list 1 insert or erase, the first twice; 2 entries are used, or
 * on the rings, in every way at the beginning. Rings and inboxes have one place, or two.
 * mutants: THIEF_WITHOUT_LOCK STOLEN_SHARE_KEPT FAIL_AFTER_ONE_LOOK INBOX_TAKEN_WITHOUT_MUTEX
 * mutants: HEAD_PASSES_GAP PLACE_NOT_CLEARED TAKEN_NOT_MARKED GAP_LEFT_BEHIND SENT_WITHOUT_ROOM
 * compile: -DCOLLAPSE
 *
 * No entry is out twice; at the end each is used, on one ring, in one inbox, or spare, once, and no place between an
 * inbox's head and tail is empty, though what is there may have been taken; and an insert fails only if there was an
 * instant during it when no entry was free. Each step is one atomic access of the real code; who looks whether
 * everything is empty takes no ring's lock. Who erases may have moved to another CPU: then it frees through the inbox.
 * All frames are there.
 *
 * THIEF_WITHOUT_LOCK (KF-21): a list has two consumers that do not exclude each other; STOLEN_SHARE_KEPT (KF-22): what
 * was stolen stays on its ring as well; FAIL_AFTER_ONE_LOOK (KF-25): insert fails when it found all lists empty, one
 * after another; INBOX_TAKEN_WITHOUT_MUTEX: what the owner takes is nowhere while another thread looks.
 *
 * Of the inbox (KF-23). HEAD_PASSES_GAP: the head goes past a place that is not filled yet; PLACE_NOT_CLEARED: what was
 * taken stays in its place, and seems to fill it for who takes the place next; TAKEN_NOT_MARKED: the same behind a gap;
 * GAP_LEFT_BEHIND: what was taken from behind a gap leaves a gap, which nobody will fill; SENT_WITHOUT_ROOM: a sender
 * takes a place that the head has not passed.
 */
#define lists 2
#define entries 2
#define threads 3
#define size_max 2
#define end 0           /* links, and what stands in slots and places, are an entry's number + 1 */
#define was_taken 254   /* in a place: an entry that was taken from behind one that was not filled yet */

typedef list {
  bool locked;
  byte head;       /* entries taken so far */
  byte tail;       /* entries put so far */
  byte ring[size_max];
  byte inbox_head; /* places emptied so far; written under the mutex */
  byte inbox_tail; /* places taken by senders so far */
  byte inbox[size_max]
}
list at[lists];
byte size;         /* of each ring and inbox */
byte link[entries];
byte owner_of[entries];
bool used[entries];
byte spare;        /* a chain; guarded by the mutex */
bool locked;

/* What the properties speak of; not in the real code. */
bool out[entries];      /* in the hands of a thread, or used */
byte listed;            /* entries that are not out */
bool saw_none[threads]; /* there was an instant during this insert when nothing was listed */
byte finished;

inline lock()   { atomic { !locked -> locked = true } }
inline unlock() { locked = false }

inline account_taken(entry) {
  assert(!out[entry - 1]);
  out[entry - 1] = true;
  listed--;
  if
  :: listed == 0 -> saw_none[0] = true; saw_none[1] = true; saw_none[2] = true
  :: else
  fi
}

inline account_freed(entry) {
  assert(out[entry - 1]);
  out[entry - 1] = false;
  listed++
}

inline lock_ring(which) { atomic { !at[which].locked -> at[which].locked = true } }

/* Takes an entry from this thread's ring, to use it, or only to move it; `end` if it is empty. */
inline take(to_use) {
  taken = end;
  lock_ring(mine);
  head = at[mine].head;
  if
  :: head == at[mine].tail
  :: else ->
     taken = at[mine].ring[head % size];
     atomic {
       at[mine].head = head + 1;
       if :: to_use -> account_taken(taken) :: else fi
     }
  fi;
  atomic { at[mine].locked = false; head = 0 }
}

/* Puts an entry on this thread's ring. */
inline put(element, was_out) {
  done = false;
  lock_ring(mine);
  tail = at[mine].tail;
  if
  :: tail - at[mine].head == size
  :: else ->
     at[mine].ring[tail % size] = element;
     atomic {
       at[mine].tail = tail + 1;
       done = true;
       if :: was_out -> account_freed(element) :: else fi
     }
  fi;
  atomic { at[mine].locked = false; tail = 0 }
}

/* Sends an entry to any list: takes a place of its inbox, then fills it. */
inline send(element, to) {
  done = false;
  tail = at[to].inbox_tail;
  do
#ifndef MUTANT_SENT_WITHOUT_ROOM
  /* Or the tail is older than the head: then the difference wraps. */
  :: tail < at[to].inbox_head || tail - at[to].inbox_head >= size -> break
  :: else ->
#else
  :: true ->
#endif
     atomic {
       if
       :: at[to].inbox_tail == tail -> at[to].inbox_tail++; done = true
       :: else -> tail = at[to].inbox_tail
       fi
     };
     if
     :: done -> atomic { at[to].inbox[tail % size] = element; account_freed(element) }; break
     :: else
     fi
  od;
  tail = 0
}

inline add_spare(element) { atomic { link[element - 1] = spare; spare = element } }

inline remove_spare() { atomic { moved = spare; spare = link[moved - 1]; link[moved - 1] = end } }

/* The mutex is held. What was sent is spare, or, `to_use`: one entry is taken, another goes to this thread's ring. */
inline empty_inbox(from, to_use) {
  last = at[from].inbox_tail;
  atomic { first = at[from].inbox_head; position = first };
  do
  :: position == last -> break
  :: else ->
     content = at[from].inbox[position % size];
     if
     :: content == end ->
#ifdef MUTANT_HEAD_PASSES_GAP
        if :: position == first -> first++ :: else fi
#endif
     :: else ->
        if
        :: content == was_taken
        :: content != was_taken && to_use && taken == end -> atomic { taken = content; account_taken(taken) }
        :: content != was_taken && to_use && taken != end ->
           put(content, false);
           if :: done :: else -> add_spare(content) fi
        :: content != was_taken && !to_use -> add_spare(content)
        fi;
        if
        :: position == first ->
           first++;
#ifndef MUTANT_PLACE_NOT_CLEARED
           at[from].inbox[position % size] = end
#endif
        :: else ->
#ifdef MUTANT_GAP_LEFT_BEHIND
           at[from].inbox[position % size] = end
#elif !defined(MUTANT_TAKEN_NOT_MARKED)
           at[from].inbox[position % size] = was_taken
#endif
        fi
     fi;
     atomic { position++; content = 0 }
  od;
  at[from].inbox_head = first;
  atomic { first = 0; last = 0; position = 0; content = 0 }
}

/* A ring's length at some instant, as tail - head. */
inline look_at_ring(which) {
  do
  :: head = at[which].head;
     tail = at[which].tail;
     if :: at[which].head == head -> break :: else fi
  od
}

/* The mutex is held. What was sent to the other list, or else half of its ring, rounded up. */
inline steal(from) {
  empty_inbox(from, false);
  if
  :: spare != end
  :: else ->
     look_at_ring(from);
     share = (tail - head + 1) / 2;
#ifndef MUTANT_THIEF_WITHOUT_LOCK
     lock_ring(from);
#endif
     head = at[from].head;
     tail = at[from].tail;
     if :: head + share < tail -> tail = head + share :: else fi;
     do
     :: head == tail -> break
     :: else -> add_spare(at[from].ring[head % size]); head++
     od;
#ifndef MUTANT_STOLEN_SHARE_KEPT
     at[from].head = head;
#endif
#ifndef MUTANT_THIEF_WITHOUT_LOCK
     at[from].locked = false;
#endif
     atomic { head = 0; tail = 0; share = 0 }
  fi
}

/* The mutex is held. Whether a list has entries; those in places that are not filled yet are not free. */
inline look_at(which, has) {
  look_at_ring(which);
  if :: tail != head -> has = true :: else fi;
  atomic { head = 0; tail = 0; position = at[which].inbox_head };
  last = at[which].inbox_tail;
  do
  :: position == last -> break
  :: else ->
     if
     :: at[which].inbox[position % size] == end || at[which].inbox[position % size] == was_taken
     :: else -> has = true
     fi;
     position++
  od;
  atomic { position = 0; last = 0 }
}

/* One entry for the caller, another for this thread's ring. */
inline use_spare() {
  atomic { remove_spare(); taken = moved; account_taken(taken) };
  if
  :: spare == end
  :: else ->
     remove_spare();
     put(moved, false);
     if :: done :: else -> add_spare(moved) fi
  fi;
  moved = 0
}

/* The mutex is held. */
inline search() {
  do
  :: takes = at[0].head;
     takes = takes + at[1].head;
     take(true);
     if :: taken != end -> break :: else fi;
     if :: spare == end -> empty_inbox(mine, true) :: else fi;
     if :: taken != end -> break :: else fi;
     atomic { here = (spare != end); elsewhere = false };
     if
     :: spare == end ->
        if
        :: mine == 0 -> look_at(0, here); look_at(1, elsewhere)
        :: else -> look_at(0, elsewhere); look_at(1, here)
        fi;
        if :: elsewhere -> steal(1 - mine) :: else fi
     :: else
     fi;
     if :: spare != end -> use_spare(); break :: else fi;
     if
     :: here || elsewhere
     :: else ->
#ifndef MUTANT_FAIL_AFTER_ONE_LOOK
        takes = takes - at[0].head;
        takes = takes - at[1].head;
#else
        takes = 0;
#endif
        if :: takes == 0 -> assert(saw_none[_pid - 1]); break :: else fi
     fi;
     atomic { takes = 0; here = false; elsewhere = false }
  od;
  atomic { takes = 0; here = false; elsewhere = false }
}

inline insert() {
  saw_none[_pid - 1] = (listed == 0);
  take(true);
  if
  :: taken != end
  :: else ->
#ifdef MUTANT_INBOX_TAKEN_WITHOUT_MUTEX
     empty_inbox(mine, true);
#endif
     if
     :: taken != end
     :: else ->
        lock();
        search();
        unlock()
     fi
  fi;
  atomic {
    if
    :: taken != end -> owner_of[taken - 1] = mine; used[taken - 1] = true
    :: else
    fi;
    taken = end;
    done = false;
    saw_none[_pid - 1] = false
  }
}

/* Claims a used entry and frees it. */
inline erase() {
  atomic {
    if
    :: used[0] -> own = 1
    :: used[1] -> own = 2
    :: else -> own = end
    fi;
    if
    :: own != end -> used[own - 1] = false; near = (owner_of[own - 1] == mine)
    :: own != end -> used[own - 1] = false  /* it has moved */
    :: else
    fi
  };
  do
  :: own == end -> break
  :: own != end ->
     if
     :: near -> put(own, true)
     :: else -> send(own, owner_of[own - 1])
     fi;
     if :: done -> break :: else fi;
     lock();
     if :: near = false :: true fi;  /* it may have moved */
     if
     :: near ->
        look_at_ring(mine);
        if
        :: tail - head == size ->
           take(false);
           if :: taken != end -> add_spare(taken) :: else fi;
           taken = end
        :: else
        fi;
        atomic { head = 0; tail = 0 }
     :: else ->
        empty_inbox(owner_of[own - 1], false);
        atomic { account_freed(own); add_spare(own); own = end }
     fi;
     unlock()
  od;
  atomic { own = 0; near = false; done = false }
}

proctype thread(byte mine; byte operations) {
  byte head, tail, first, last, position, content, moved, taken, own, takes, share, step;
  bool done, near, here, elsewhere;
  for (step : 1 .. operations) {
    if
    :: insert()
    :: erase()
    fi
  }
  finished++
}

/* Counts an entry that was found, each once. */
inline find(entry) {
  assert(!found[entry]);
  found[entry] = true
}

init {
  byte each, where;
  bool found[entries];
  atomic {
    if :: size = 2 :: size = 1 fi;
    /* Entries are alike, so only their numbers on each ring and in use matter: `where` never falls. */
    for (each : 1 .. entries) {
      do
      :: where < 2 * lists - 1 -> where++
      :: where >= lists || at[where].tail < size -> break
      od;
      if
      :: where < lists -> at[where].ring[at[where].tail] = each; at[where].tail++; listed++
      :: else -> out[each - 1] = true; used[each - 1] = true; owner_of[each - 1] = where - lists
      fi
    }
    run thread(0, 2);
    run thread(0, 1);
    run thread(1, 1)
  };
  finished == threads;
  d_step {
    for (where : 0 .. lists - 1) {
      assert(at[where].tail - at[where].head <= size);
      do
      :: at[where].head == at[where].tail -> break
      :: else -> find(at[where].ring[at[where].head % size] - 1); at[where].head++
      od;
      assert(at[where].inbox_tail - at[where].inbox_head <= size);
      do
      :: at[where].inbox_head == at[where].inbox_tail -> break
      :: else ->
         each = at[where].inbox[at[where].inbox_head % size];
         assert(each != end);
         if :: each != was_taken -> find(each - 1) :: else fi;
         at[where].inbox_head++
      od
    }
    each = spare;
    do
    :: each == end -> break
    :: else -> find(each - 1); each = link[each - 1]
    od;
    for (where : 0 .. entries - 1) {
      if :: used[where] -> find(where) :: else fi;
      assert(found[where])
    }
  }
}
