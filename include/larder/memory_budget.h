// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <larder/export.h>
#include <larder/result.h>
#include <larder/stats.h>
#include <larder/units.h>

namespace larder {

class memory_budget;
namespace budget {
struct node_state;
node_state& state_of(const memory_budget& node);
}  // namespace budget

// Something that can give memory back. A cache of this library registers itself; a user may write their own.
class LARDER_API reclaimer {
 public:
  // Gives back about `wanted` (more is fine, less if there is no more) by releasing it to the budget it is registered
  // with, and returns what it released. Called on the thread or task that is short of memory, or the page daemon's,
  // with no lock held, by one caller at a time, for `reclaim_chunk` at most each time: it is asked again as long as it
  // gives all that was asked for. It may do I/O, but must not wait for memory: that would be waiting for itself
  // (KF-57).
  virtual bytes reclaim(bytes wanted) = 0;

  // What it holds beyond what it has to have, and its weight: of a stage's reclaimers the one with the largest surplus
  // by weight is asked first. Those that do not say are asked before, in the order of their registration. Called with
  // a mutex held: it waits for nothing, and calls nothing of its budget.
  struct share {
    bytes surplus = unlimited;
    std::uint32_t weight = 1;
  };
  virtual share share_held() const { return {}; }

 protected:
  reclaimer() = default;
  ~reclaimer() = default;
  reclaimer(const reclaimer&) = delete;
  reclaimer& operator=(const reclaimer&) = delete;
};

// The order in which reclaimers are asked: what is cheapest to make again goes first.
enum class reclaim_stage : unsigned char {
  empty_slabs,  // of objects and handles, and what a depot has to spare
  clean_pages,  // that nobody used lately
  dirty_pages,  // written first, and then all pages that nobody has pinned
  user,         // what the program registers
  last_resort,  // what the CPUs' arrays hold, idle coroutines, what idle stacks touched
};

// The most that a reclaimer is asked for at once: between two such steps it is looked at whether the need and the time
// are still there.
inline constexpr bytes reclaim_chunk = 256_KiB;

// What is charged to a budget, by kind. While nobody charges or releases, `total()` is `used()`.
struct memory_account {
  bytes live_objects;  // with their users; spans of a memory resource too
  bytes magazines;     // objects that are ready for the CPUs, in their arrays and in depots
  bytes free_objects;  // room in slabs that have other objects out
  bytes empty_slabs;
  bytes stacks;
  bytes handles;
  bytes clean_pages;  // and frames without a page
  bytes dirty_pages;
  bytes metadata;  // what the library keeps beside all these
  bytes other;     // what nobody in the library describes: the program's own charges, memory disks, a runtime's rings

  bytes total() const {
    return live_objects + magazines + free_objects + empty_slabs + stacks + handles + clean_pages + dirty_pages +
           metadata + other;
  }
};

// What a budget tells who asked to be told (`memory_budget::on_event`).
struct budget_event {
  enum class kind : unsigned char {
    // More than the high mark is used: the page daemon begins to reclaim.
    pressure,
    // A whole round of reclaiming gave nothing, and nothing was under way, while there is need: the daemon pauses.
    stalled,
    // A charge failed: at its deadline, or because it can never fit. `account` says what takes the memory.
    out_of_memory,
    // A lower limit that was set holds now: at once, or when what was used above it is gone.
    limit_lowered,
    // The system is short of memory, and the daemon gives some back (`options::follows_system`).
    system_pressure,
  };
  kind what = kind::pressure;
  const memory_budget& budget;  // where it happened: the one that was asked to tell, or one below it
  bytes used;
  bytes limit;
  bytes wanted;                             // by whom there is no room for, or to be reclaimed
  const memory_account* account = nullptr;  // of `budget`; for out_of_memory only
};

// A limit on memory that is never exceeded, in a tree: what is charged to a budget is charged to all above it, and
// admitted only if it fits in each. Admission comes before the memory is taken, so `used() <= limit()` at every
// instant, also while the limit changes.
//
// Any thread; budgets outlive what is charged to them and their children. The idea of one hard limit over all kinds of
// memory with a reclaim behind it is the NetBSD rump kernel's page daemon.
class LARDER_API memory_budget {
 public:
  struct options {
    bytes limit = unlimited;
    // Kept free for reclaimers: others are admitted up to `limit - reserve` only.
    bytes reserve = {};
    // In percent of `limit - reserve`: while more than the high mark is used the page daemon reclaims in the
    // background, down to the low one, and what is only useful to have (a page cache's next page) is not charged any
    // more. With 100 memory is reclaimed only when somebody lacks it. low <= high <= 100; 0 takes the defaults.
    std::uint8_t high_mark_percent = 0;
    std::uint8_t low_mark_percent = 0;
    // Of a root only: the limit is never more than nine tenths of what the process's control group may have (version 1
    // or 2; the rest is for what the library does not see), which is looked up once a second; and when the system says
    // that tasks stand still for want of memory (its pressure stall information), the daemon gives back a part.
    bool follows_system = false;
  };
  static constexpr std::uint8_t default_high_mark_percent = 90;
  static constexpr std::uint8_t default_low_mark_percent = 85;

  explicit memory_budget(std::string_view name);
  memory_budget(std::string_view name, options chosen, memory_budget* parent = nullptr);
  // Dies, naming the budget, if anything is still charged or a child still exists.
  ~memory_budget();
  memory_budget(const memory_budget&) = delete;
  memory_budget& operator=(const memory_budget&) = delete;

  // The root that everything uses unless told otherwise. Its limit is LARDER_MEMORY_LIMIT (bytes, or with K, M or G)
  // from the environment when first used; if that is not set, it follows the system (`options::follows_system`). Never
  // destroyed.
  static memory_budget& process();

  // Takes `amount` from this budget and all above, or nothing. Fails also while others wait for memory here: who does
  // not wait does not overtake. Never blocks.
  [[nodiscard]] bool try_charge(bytes amount);

  // The same for what is only useful to have: fails also where more than the high mark would be used afterwards.
  [[nodiscard]] bool try_charge_spare(bytes amount);

  // Waits for room: first come, first served, small or large; reclaimers are asked for what the oldest waiter needs,
  // and what they give back is handed to it. Parks the task if there is one, else the thread. Errors: ENOMEM at once if
  // `amount` can never fit; ETIMEDOUT at the deadline (which is also looked at only between two reclaimers).
  result<void> charge(bytes amount, time_point deadline = no_deadline);

  // Changes the limit while it is in use. A higher one takes effect at once, and waiters that fit now have their
  // memory. A lower one takes effect at once for what is free: that is admitted to nobody any more. What is used above
  // it goes as it is released, and the page daemon reclaims it; before that nobody is admitted here; meanwhile
  // `limit()` is the limit that holds, which follows the use down (leaving the reserve free), and `wanted_limit()` the
  // one that was set. Waiters that can never fit any more fail with ENOMEM. Does not block. EINVAL if less than the
  // reserve.
  result<void> set_limit(bytes wanted);

  // Has `told` called with what happens here and below; an empty one ends that. Called on the page daemon's thread, and
  // on those whose charges fail, several at once, with no lock held; it must not wait for memory, nor reclaim, nor end
  // this budget. When this returns, the one before is not being called any more and never will be again. Any thread,
  // but not from within a call.
  void on_event(std::function<void(const budget_event&)> told);

  // Gives back, and hands what became free to the oldest waiters that it fits.
  void release(bytes amount);

  bytes used() const;
  // The most that was used at once so far.
  bytes peak() const;
  // The limit that holds at this instant, and the one that was set last: lower while use has still to come down to it.
  bytes limit() const;
  bytes wanted_limit() const;
  bytes reserve() const;
  const std::string& name() const;
  memory_budget* parent() const;
  // How many waited for room in `charge` so far.
  std::uint64_t waits() const;
  // Whether somebody waits for room in this tree, or a limit for use to come down.
  bool has_waiters() const;

  // What is charged here and below, by kind. Asks every component: microseconds for each. Not under a lock that a
  // cache's constructor or hook, or a backing, may take.
  memory_account account() const;

  // Registers `source`: when this budget, or one above it, has no room, it is asked. `remove_reclaimer` returns once it
  // is not being asked and never will be again.
  void add_reclaimer(reclaimer& source, reclaim_stage stage);
  void remove_reclaimer(reclaimer& source);

  // Asks the reclaimers of this budget and those below it for `wanted`; returns what they gave back.
  bytes reclaim(bytes wanted);

  // For a reclaimer whose memory has just become reclaimable without being released (an unpinned page): lets a waiter
  // ask again. Costs one load when nobody waits.
  void note_reclaimable() {
    if (has_waiters()) [[unlikely]]
      wake_to_reclaim();
  }

  // Checks the budget's laws and dies on the first that is broken: used ≤ limit; used ≥ the sum of the children's; no
  // waiter that would fit is left waiting. Quiescent trees only.
  void audit() const;

 private:
  friend class budget_ticket;
  friend budget::node_state& budget::state_of(const memory_budget& node);
  void wake_to_reclaim();
  result<void> charge_in_turn(bytes amount, time_point deadline);
  template <typename Most>
  bool try_charge_up_to(bytes amount, Most most);
  void report(const std::function<void(const stat&)>& show) const;
  const std::unique_ptr<budget::node_state> state_;
};

// Memory charged for as long as this object lives.
class LARDER_API budget_charge {
 public:
  budget_charge() = default;
  // Takes over a charge that was made.
  budget_charge(memory_budget& budget, bytes amount) : budget_(&budget), amount_(amount) {}
  budget_charge(budget_charge&& other) noexcept;
  budget_charge& operator=(budget_charge&& other) noexcept;
  ~budget_charge() { reset(); }
  bytes amount() const { return amount_; }
  void reset();

 private:
  memory_budget* budget_ = nullptr;
  bytes amount_;
};

// Asks the reclaimers of the process's budget for `wanted`; returns what they gave back. Not inside a reclaimer.
LARDER_API bytes reclaim(bytes wanted);

// Reads "600K", "16M", "1G" or a plain number of bytes. EINVAL if it is none, ERANGE if it does not fit.
LARDER_API result<bytes> parse_bytes(std::string_view text);
// The shortest exact form of that kind: 16M, 600K, 1234.
LARDER_API std::string format_bytes(bytes amount);

}  // namespace larder
