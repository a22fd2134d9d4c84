// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <memory>
#include <string>

#include <larder/page_cache.h>

#include "base/check.h"
#include "base/registry.h"
#include "budget/account.h"
#include "page/eviction.h"
#include "page/page_table.h"
#include "page/wait_table.h"

namespace larder::page {

// What marks_full_ is where every hit is to be told: a bit that no state has.
inline constexpr state_word never_full = state_word{1} << 63;

// Most pages in one read of a backing, or looked at together: at least 128 KiB, past which one call's cost no longer
// shows, and whose vectors are at home on the smallest stack.
inline constexpr std::size_t batch_pages_max = 32;
// How many frames a look at the others' shares may bring, and how many misses without room to grow pass at least before
// it: so that it costs little beside the reads.
inline constexpr std::uint32_t even_out_pages = 16;
// How often a cache that is asked for its share looks at a page at least, for each that it is to give.
inline constexpr std::uint32_t share_looks_min = 16;

// The cache without its faces: frames, the table, eviction, admission, write-back. The theory is in cache_core.cc; the
// implementation has a file for each of the headings below.
class cache_core final : budget::describer {
 public:
  static result<std::unique_ptr<cache_core>> create(std::string_view name, const page_cache::options& chosen);
  static bytes least_memory(const page_cache::options& chosen);
  ~cache_core() override;

  // --- Admission (admission.cc)
  result<pin_admission> admit(std::uint32_t pages_min, std::uint32_t pages_max, time_point deadline);
  void end_admission(std::uint32_t pages);
  void count_look_ups(std::uint32_t hits, std::uint32_t misses);

  // --- Pins (pin.cc). The caller has an admission for every pin.
  // Pins a page that is in memory and valid, or returns null. Takes no lock.
  frame* try_pin(const file& owner, std::uint64_t number);
  // Copies bytes of a page that is in memory and valid, without a pin; false if it is not, or was moved meanwhile.
  bool try_read(const file& owner, std::uint64_t number, std::size_t first, std::span<std::byte> into);
  bool hears_of_hits() const { return marks_full_ == never_full; }
  enum class pin_outcome : unsigned char { filled, to_fill, being_filled };
  struct pinned {
    frame* page = nullptr;
    pin_outcome outcome = pin_outcome::filled;  // to_fill: by the caller; being_filled: by another
  };
  // Pins a page, which then has a frame at least.
  result<pinned> pin(file& owner, std::uint64_t number);
  // What a pinned page is now; makes it the caller's to fill if it is nobody's.
  pin_outcome look_at(frame& page);
  void wait_while(frame& page, state_word flags) { waits_.wait(page, flags); }
  void unpin(frame& page);
  // Ends `filling`: the page is valid, and dirty if so asked. False if the backing changed meanwhile and it matters:
  // then the page is still the caller's to fill, again.
  bool publish(frame& page, bool as_dirty, bool ignore_stale, state_word marks = 0);
  // Ends `filling` without a result.
  void give_up_filling(frame& page);
  void note_read(std::uint64_t pages) { pages_read_.fetch_add(pages, base::memory_order_relaxed); }

  // --- Reading ahead (read_ahead.cc)
  // How many pages to read beside those from `first` to before `end`, which the caller found missing.
  std::uint32_t pages_to_read_ahead(file& owner, std::uint64_t first, std::uint64_t end);
  // Credits for them, perhaps none; never waits, nor overtakes who does.
  pin_admission admit_ahead(std::uint32_t pages_max);
  frame* begin_ahead(file& owner, std::uint64_t number);
  void note_read_ahead(file& owner, std::uint64_t end, std::uint64_t pages);

  // --- Frames (frame_supply.cc)
  // Gives back frames that are neither promised nor needed: free ones and those of clean pages that were not used since
  // the eviction hand last came by; or (`any_page`) also those of all others that nobody has pinned, after writing
  // them.
  bytes reclaim(bytes wanted, bool any_page);
  // For another cache that is to have its share (even_out.cc): whole pages, and no more than `wanted`, of those that
  // this one would soon do without.
  bytes give_share(bytes wanted);
  reclaimer::share share_held() const;

  // --- Dirty pages (write_back.cc)
  void mark_dirty(frame& page);
  // If more of the frames are dirty than may be, writes a batch of the file's oldest.
  void limit_dirty(file& owner);
  // Writes what is dirty now; goes on after an error, and returns the first.
  result<void> write_all(file& owner);
  result<void> write_range(file& owner, std::uint64_t first, std::uint64_t last);

  // --- Ranges (range.cc): pages from `first` to before `last`
  bool all_valid(const file& owner, std::uint64_t first, std::uint64_t last) const;
  // Before the backing is discarded: makes what is in memory read as zeros, and keeps the backing's pages from being
  // read and written until `end_discard`.
  void begin_discard(file& owner, discard_in_progress& made);
  // After it was; `succeeded`: it reads as zeros.
  void end_discard(file& owner, discard_in_progress& made, bool succeeded);
  // Waits until no discard of these pages is in progress. For who has made them busy: those that begin later tell it.
  void wait_for_discards(file& owner, std::uint64_t first, std::uint64_t last);

  // --- Files and the whole (cache_core.cc)
  result<file*> open(backing& source);
  void close(file& owner);
  void abandon(file& owner);
  std::byte* data_of(const frame& page) const { return arena_.data_of(page); }
  page_cache_stats stats() const;
  void describe(memory_account& into) const override;
  void audit() const;

 private:
  struct scan_result;
  struct stage final : reclaimer {
    stage(cache_core& of, bool any) : core(of), any_page(any) {}
    bytes reclaim(bytes wanted) override { return core.reclaim(wanted, any_page); }
    share share_held() const override { return core.share_held(); }
    cache_core& core;
    const bool any_page;
  };
  struct share_giver final : reclaimer {
    explicit share_giver(cache_core& of) : core(of) {}
    bytes reclaim(bytes wanted) override { return core.give_share(wanted); }
    share share_held() const override { return core.share_held(); }
    cache_core& core;
  };

  // Frames owned and pins admitted, in one word so that the law between them holds at every instant.
  static constexpr std::uint64_t one_owned = std::uint64_t{1} << 32;
  static std::uint32_t owned_in(std::uint64_t supply) { return static_cast<std::uint32_t>(supply >> 32); }
  static std::uint32_t admitted_in(std::uint64_t supply) { return static_cast<std::uint32_t>(supply); }
  // In attention_, beside the number of frame waiters: a reclaim found every page pinned.
  static constexpr std::uint32_t reclaim_missed = 1U << 31;

  cache_core(std::string_view name, memory_budget& budget, std::uint32_t floor);
  result<void> build(std::uint32_t capacity, const page_cache::options& chosen);
  bytes charged() const;
  bytes charged_beside_pages() const;
  void report(const base::stat_visitor& show) const;

  std::uint32_t take_credits(std::uint32_t pages_min, std::uint32_t pages_max);
  std::uint32_t grow_for(std::uint32_t pages_min, std::uint32_t pages_max);
  result<std::uint32_t> wait_at_front(std::uint32_t pages_min, std::uint32_t pages_max, time_point deadline,
                                      time_point& since);
  os::wait_contents waits_for_pages(time_point deadline) const;
  void grow_with(bytes charged);
  bool may_ever_own(std::uint32_t pages) const;
  std::uint32_t lacking_for(std::uint32_t pages) const;
  bytes cost_of_growing(std::uint32_t pages) const;
  bool is_front(const waiter& self) const;
  void leave_admissions(waiter& self);
  void wake_admission();

  frame* take_free();
  enum class growth : unsigned char { spare, needed };
  frame* grow(growth why);
  bool is_to_even_out();
  void even_out();
  frame* cheap_frame();
  void put_free(frame& unneeded);
  scan_result scan(bool retry_failed);
  void note_following(const frame& chosen, scan_result& found);
  result<frame*> write_and_evict(scan_result& found);
  bool evict(frame& page);
  result<frame*> obtain_frame();
  frame* scan_clean(std::uint64_t& looks);
  bool give_back(frame& surplus);
  template <typename Find>
  std::uint64_t give_frames(std::uint64_t most, Find surplus);
  frame* surplus_frame(bool any_page);
  bool shrink_supply();
  bool enter_frame_waiters(waiter& self);
  void leave_frame_waiters(waiter& self);
  void wake_frame_waiter();
  void note_evictable();
  void tell_of_evictable();

  // A page that is pinned and valid, or was when it was read, was hit; `before` is a recent state of it.
  void note_hit(frame& page, state_word before) {
    // Only hits that add a mark write one.
    if ((before & marks_counted_) != marks_full_) [[unlikely]]
      mark_hit(page, before);
  }
  void mark_hit(frame& page, state_word before);
  void unpin_in_vain(frame& page);
  static void begin_generation(frame& page);
  frame* link_or_find(file& owner, std::uint64_t number, frame*& spare);

  bool begin_write(frame& page, bool pinned_too);
  class file_hold;
  struct write_batch;
  frame* begin_write_at(file& owner, std::uint64_t number, bool pinned_too);
  result<void> write_back(frame& begun);
  void end_write(file& owner, std::span<frame* const> pages, bool succeeded);
  frame* rotate_dirty(file& owner);
  std::span<std::uint64_t> oldest_dirty(file& owner, std::span<std::uint64_t> into);
  void write_each(file& owner, std::span<const std::uint64_t> numbers);
  result<void> write_page(file& owner, std::uint64_t number);
  result<void> write_pages(file& owner, std::span<std::uint64_t> numbers);
  void set_dirty(frame& page, state_word ends);
  static state_word dirty_state(const file& owner, const frame& page);
  void list_dirty(file& owner, frame& page);
  void unlist_dirty(file& owner, frame& page);

  enum class drop_rule : unsigned char { clean_only, zeroed_too, dirty_too };
  struct drop_attempt;
  drop_attempt try_drop(file& owner, std::uint64_t number, drop_rule rule);
  void free_dropped(frame& page);
  void zero_pinned(frame& page);
  void clean_zeros(frame& page);
  static void wait_for_discards(file& owner, base::unique_lock& locked, std::uint64_t first, std::uint64_t last);
  void allow_writing(file& owner, std::uint64_t number);
  template <typename Action>
  void for_pages_in_memory(const file& owner, std::uint64_t first, std::uint64_t last, Action action);
  void release_file(file& owner);
  void drop_all(file& owner, drop_rule rule, const char* doing);
  void audit_frame(frame_index index) const;

  const std::string name_;
  memory_budget& budget_;
  const std::uint32_t floor_;
  stage gives_clean_pages_{*this, false};
  stage gives_any_page_{*this, true};
  share_giver gives_share_{*this};
  bytes fixed_charge_;  // this object, the table and the first page of metadata; set by build

  frame_arena arena_;
  page_table table_{arena_};
  wait_table waits_;

  std::uint32_t read_ahead_pages_ = 0;  // most at once; set by build, as the next
  std::uint32_t dirty_percent_ = 0;
  std::uint32_t weight_ = 1;

  // A hit has nothing to mark if of the counted marks the full ones are set; never so if the policy is told of hits.
  state_word marks_counted_ = 0;  // set by build, as the next
  state_word marks_full_ = 0;

  mutable base::mutex queue_guard_{base::lock_rank::page_eviction};
  std::unique_ptr<eviction> queue_;   // set by build; what it holds is guarded by queue_guard_
  frame_index free_head_ = no_frame;  // owned frames without a page, through queue_next; guarded by queue_guard_
  std::uint32_t free_count_ = 0;      // guarded by queue_guard_
  std::uint32_t tight_misses_ = 0;    // without room to grow, since even_out; guarded by queue_guard_, as the next
  std::uint32_t tight_misses_most_ = even_out_pages;  // then others' shares are looked at
  std::uint32_t share_looks_ =
      share_looks_min;        // that give_share has for each page it is to give; guarded by queue_guard_
  std::uint32_t giving_ = 0;  // calls of give_share; guarded by queue_guard_

  // Guards the two queues of waiters, for credits and for something to become evictable; nested in nothing.
  mutable base::mutex waiters_guard_{base::lock_rank::page_wait};
  base::intrusive_list<waiter> admission_waiters_;  // guarded by waiters_guard_
  base::intrusive_list<waiter> frame_waiters_;      // guarded by waiters_guard_

  // Read by every unpin, so on a line that is seldom written: the frame waiters' number and reclaim_missed.
  alignas(64) base::atomic<std::uint32_t> attention_{0};
  base::atomic<std::uint32_t> admissions_waiting_{0};  // written under waiters_guard_, read without

  alignas(64) base::atomic<std::uint64_t> supply_{0};
  base::atomic<std::int64_t> dirty_pages_{0};  // frames with `dirty`; may be off by those being changed
  base::atomic<std::uint64_t> files_opened_{0};
  base::atomic<std::uint32_t> files_open_{0};

  // Statistics: relaxed, they publish nothing.
  base::atomic<std::uint64_t> hits_{0};
  base::atomic<std::uint64_t> misses_{0};
  base::atomic<std::uint64_t> evictions_{0};
  base::atomic<std::uint64_t> pages_read_{0};
  base::atomic<std::uint64_t> pages_read_ahead_{0};
  base::atomic<std::uint64_t> read_ahead_hits_{0};
  base::atomic<std::uint64_t> pages_written_{0};
  base::atomic<std::uint64_t> write_backs_{0};
  base::atomic<std::uint64_t> write_back_errors_{0};
  base::atomic<std::uint64_t> pages_reclaimed_{0};
  base::atomic<std::uint64_t> admission_waits_{0};
  base::atomic<std::uint64_t> frame_waits_{0};

  std::unique_ptr<base::registration> registered_;  // last: destroyed first
};

// Something may be evicted, or taken, that could not be before. One load when nobody cares.
inline void cache_core::note_evictable() {
  // Partner: the waiter's entry, before it looks once more.
  if (attention_.load() != 0) [[unlikely]]
    tell_of_evictable();
}

inline void cache_core::unpin(frame& page) {
  // Sequentially consistent, against note_evictable's look for waiters; as a release, it ends the use of the bytes
  // before an eviction's acquire.
  const state_word before = page.state.fetch_sub(one_pin);
  LARDER_ASSERT((before & pins_mask) != 0, "page cache \"%s\": unpin of a page that is not pinned", name_.c_str());
  if ((before & pins_mask) == one_pin) [[likely]]
    note_evictable();
}

[[gnu::always_inline]] inline frame* cache_core::try_pin(const file& owner, std::uint64_t number) {
  const page_table::found at = table_.find_and_pin(owner, number);
  if (at.page == nullptr) [[unlikely]] {
    if (at.undo != nullptr) unpin_in_vain(*at.undo);
    return nullptr;
  }
  if ((at.before & valid) == 0) [[unlikely]] {
    unpin_in_vain(*at.page);
    return nullptr;
  }
  note_hit(*at.page, at.before);
  return at.page;
}

struct cache_core::scan_result {
  frame* clean = nullptr;     // evicted: the caller's
  frame* to_write = nullptr;  // `writing` was begun on it
  // Pages of its file that are dirty and will be next to go.
  std::array<std::uint64_t, batch_pages_max - 1> following{};
  std::size_t following_count = 0;
};

}  // namespace larder::page
