// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace larder::base {

// Known ways to break a protocol, kept in the code that they break: the scheduler's tests switch one on and must then
// find a schedule that fails (docs/scheduler.md). A production build knows none of them.
enum class mutant : std::uint8_t {
  none,
  take_without_exchange,      // take_all_stack: reads the head, then clears it
  pop_one,                    // take_all_stack: takes one element by compare-and-swap (KF-21's kind)
  scan_before_enter,          // budget: a ticket looks for room before it stands in the queue
  look_before_subtract,       // budget: a releaser looks for tickets before it gives back
  hope_forgotten,             // budget: the leader clears hope after its round instead of before
  timeout_drops_grant,        // budget: a ticket that gave up forgets what was handed to it
  limit_without_withholding,  // budget: a limit is lowered to what is free without taking that from those who charge
  cut_before_enter,           // budget: a limit is lowered by what is free before it counts as waiting
  daemon_clears_late,         // budget: the page daemon looks what is used, and then says that no visit is due
  daemon_kept_called,         // budget: the page daemon comes, but charges go on believing that a visit is due
  daemon_brings_no_hope,      // budget: the page daemon does not tell who passed over the reclaimer it was inside
  rest_not_awaited,           // budget: who removes a reclaimer does not wait for who is inside it
  rest_brings_no_hope,        // budget: a reclaimer that was kept at rest is not offered again to who passed it over
  pause_never_ends,           // budget: nobody ends the pause of those who reclaim for tickets
  token_without_look,         // parker: unpark stores the token and does not look for a sleeper
  sleep_without_look,         // parker: park goes to sleep without asking for the token again
  asleep_left_behind,         // parker: a deadline leaves the word saying asleep
  look_before_sleeping,       // task inbox: the owner looks at it before it says that it sleeps
  wake_before_push,           // task inbox: the pusher looks for a sleeper before it pushes
  sleeping_unfenced,          // task inbox: a weak store says that the owner sleeps
  visitors_forgotten,         // run queue: it goes while another thread is inside make_ready
  pop_without_exchange,       // run queue: the owner takes from its ring as if nobody else did
  steal_by_store,             // run queue: a thief moves the ring's head without looking at it again
  park_before_switch,         // task parker: a task says that it parks before it has left its stack
  idle_unseen,                // run queue: who adds a task does not look for an owner without work
  idle_counted_early,         // run queue: who goes to sleep counts those that work before it says that it sleeps
  busy_inbox_unseen,          // run queue: who adds to the inbox of an owner at work does not look for one without
  bound_task_first,           // run queue: who runs a bound task before its ring's tells nobody
  last_look_forgotten,        // run queue: who stops searching does not look at the queues again
  search_left_early,          // run queue: who finds nothing gives the search back before it sleeps
  told_while_idle,         // run queue: what ends a sleep is told to others only while its owner still counts as idle
  appointed_late,          // run queue: a sleep is claimed before its owner is told that it is to search
  expiry_makes_ready_too,  // task parker: a deadline makes the task ready whatever an unpark did
  steal_without_closing,   // handle table: a thief lets new sequences begin
  steal_without_fence,     // handle table: a thief does not end those in progress (KF-21)
  gate_ignored,            // handle table: sequences do not look at their gate
  stolen_share_kept,       // handle table: what was stolen stays on its list (KF-22)
  gap_forgotten,           // handle table: an inbox's head goes past a place that is not filled (KF-23)
  word_before_object,      // handle table: an entry is published before its object (KF-24)
  fail_after_one_look,     // handle table: insert fails though something moved while it looked (KF-25)
  share_without_fence,     // handle table: a list becomes shared while its CPU changes an entry
  bias_without_fence,      // handle table: a list becomes biased while others change an entry
  unpin_without_wake,      // handle table: the last unpin does not look for who takes
  close_without_fence,     // object cache: who closes the arrays does not end the sequences in progress (KF-17)
  users_stay_open,         // object cache: closing forgets the front that users have inlined
  pushes_not_held,         // object cache: puts go to arrays while somebody waits
  round_holds_pushes,      // object cache: the keeper says that nothing is in an array, but emptied the idle ones only
  rest_without_closing,    // object cache: the keeper leaves it with its arrays open
  push_while_closed,       // object cache: without sequences, a put forgets that the gate may close behind its back
  replace_while_open,      // object cache: an array is copied to a larger one while it is used
  scratch_of_anybody,      // object cache: the scratch of objects that are out goes back too
  handed_over_unlocked,    // mutex: who unlocks it for a waiter leaves it free to others
  writer_joins_readers,    // shared mutex: a waiting writer enters though readers are in
  leaver_forgets_others,   // shared mutex, semaphore: who leaves untold does not look who may go on now
  deadline_drops_grant,    // wait queue: a waiter whose deadline passed forgets that it was told
  places_left_behind,      // wait queue: who was told in one queue stays in its others
  claim_unheeded,          // wait queue: a teller takes a waiter that was told elsewhere
  guards_unordered,        // wait queue: several guards are taken in the order of the cases
  cancel_after_wake,       // task: who cancels it wakes it before the request can be seen
  cancel_drops_grant,      // wait queue: a waiter that is cancelled forgets that it was told
  joiner_left_behind,      // task: who waits for its end and is cancelled does not take itself out
  end_told_blindly,        // task: its end looks for who waits, and then says that it has ended
  detach_blindly,          // task: who leaves it to itself looks whether it has ended, and then says so
  group_told_early,        // task group: who waits is told by the first that leaves
  failure_cancels_nobody,  // task group: a task that throws leaves the others be
  helper_drops_call,       // helper pool: a helper whose idle time is up ends though it was given a call
  failure_told_to_one,     // helper pool: who cannot start the only thread forgets the calls that wait for it
  visited_removed,         // guard reclaimers: one is removed while somebody is inside it
  close_tells_one,         // channel: close wakes only the first of who waits to send
  note_keeps_version,      // wait note: clearing it makes no new version
  read_not_validated,      // page cache: an optimistic read does not look whether the page was there to its end
  limit_in_two_steps,      // budget: a charge looks whether there is room, and then takes it
  release_tells_nobody,    // budget: what is given back is not handed over
  own_frames_asked_back,  // page: the front asks for what is not owned now, which the budget takes from it to meet that
  admission_over_granted,   // page: pins are admitted beyond what is owned
  surplus_of_admitted,      // page: the reclaimer takes frames that pins are admitted to
  frame_waiter_unwoken,     // page: who can have a frame now is not told
  dirty_evicted,            // page: a dirty page leaves as if it were clean
  failed_write_cleans,      // page: a page whose write failed counts as written (KF-56)
  change_lost_in_write,     // page: what is changed during a write counts as written
  flush_of_begun_writes,    // page: a flush does not wait for a write that is under way
  flush_without_sync,       // page: a flush does not flush the backing
  stale_published,          // page: what was read in before a discard is shown after it
  read_in_while_discarded,  // page: a page is read in while its range is discarded
  written_while_discarded,  // page: a page is written while its range is discarded
  note_ignores_reader,      // wait note: clearing it does not wait for who looks at the object
};

#ifdef LARDER_SCHEDULED
extern mutant active_mutant;  // the running test's
inline bool is_mutant(mutant which) { return active_mutant == which; }
#else
constexpr bool is_mutant(mutant) { return false; }
#endif

}  // namespace larder::base
