// SPDX-License-Identifier: Apache-2.0
//
// The page cache. Frames of a page in one reserved range of addresses (frame_arena.h), each charged to the budget while
// it is owned; a hash table from pages to frames whose look-up takes no lock (page_table.cc); an eviction queue
// (eviction.cc); pins under admissions (admission.cc, pin.cc); supply of frames (frame_supply.cc); write-back
// (write_back.cc); reading ahead (read_ahead.cc); dropping of ranges (range.cc). The faces are in page_cache.cc,
// page_ref.cc and cached_file.cc.
//
// Locks, in their order: a file's mutex (its dirty list), the queue's (eviction queue, free and spare frames), a
// stripe's (the links of its buckets; frames leave the table under it), the waiters'. None is held over I/O, over a
// wait or while code of the user runs. A hit takes none and writes no line but the page's own and its admission.
//
// Laws, checked by audit() when nobody works in the cache (it keeps the reclaimers out):
//
//   owned = |eviction queue| + |free|                  every owned frame is in one place
//   end − 1 = owned + |spare|                          so is every frame ever used
//   admitted ≤ owned,  floor ≤ owned                   the promise of admission
//   Σ pins ≤ admitted
//   a frame is in the queue ⇔ it is not `unused` ⇔ the table finds it under its key
//   dirty or writing ⇒ valid;  busy ⇒ not valid and pinned
//   listed by its file ⇔ dirty or writing;  dirty_pages = frames that are dirty
//   the bytes of a valid page beyond the end of its file are zeros
//   charged = fixed + page × owned + 4 KiB × (pages of metadata beyond the first) ≤ used of the budget
#include "page/cache_core.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "base/check.h"
#include "budget/even_out.h"
#include "budget/reclaim.h"
#include "os/memory.h"

namespace larder::page {
namespace {

memory_budget& budget_of(const page_cache::options& chosen) {
  return chosen.budget != nullptr ? *chosen.budget : memory_budget::process();
}

bool is_page_size(bytes length) {
  return bytes{page_size} <= length && length <= largest_page_size && std::has_single_bit(length.count);
}

// The most frames that may ever be owned.
std::uint32_t capacity_of(const page_cache::options& chosen) {
  bytes most = std::min(chosen.limit, os::physical_memory());
  for (const memory_budget* node = &budget_of(chosen); node != nullptr; node = node->parent()) {
    most = std::min(most, node->limit());
  }
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(most.count / chosen.page_size.count, std::numeric_limits<std::int32_t>::max()));
}

bytes fixed_charge_for(std::uint32_t capacity) {
  return bytes{sizeof(cache_core)} + page_table::length_for(capacity) + bytes{page_size};
}

// What an open file takes.
constexpr bytes file_charge{sizeof(file) + sizeof(cached_file)};

}  // namespace

bytes cache_core::least_memory(const page_cache::options& chosen) {
  const std::uint32_t metadata_pages = chosen.guaranteed_pages / frame_arena::frames_per_metadata_page;
  return fixed_charge_for(capacity_of(chosen)) + chosen.page_size * chosen.guaranteed_pages +
         bytes{page_size} * metadata_pages;
}

result<std::unique_ptr<cache_core>> cache_core::create(std::string_view name, const page_cache::options& chosen) {
  if (chosen.guaranteed_pages == 0 || !is_page_size(chosen.page_size)) return error_from(EINVAL);
  if (chosen.dirty_percent > 100 || chosen.weight == 0) return error_from(EINVAL);
  const std::uint32_t capacity = capacity_of(chosen);
  if (capacity < chosen.guaranteed_pages) return error_from(ENOMEM);
  // Others that can give memory back are asked to, once.
  memory_budget& budget = budget_of(chosen);
  const bytes needed = least_memory(chosen);
  if (!budget::charge_or_reclaim(budget, needed)) return error_from(ENOMEM);
  std::unique_ptr<cache_core> core(new cache_core(name, budget, chosen.guaranteed_pages));
  if (const auto built = core->build(capacity, chosen); !built) {
    budget.release(needed);
    return built.error();
  }
  core->grow_with(needed - core->fixed_charge_);
  return core;
}

cache_core::cache_core(std::string_view name, memory_budget& budget, std::uint32_t floor)
    : name_(name), budget_(budget), floor_(floor) {}

result<void> cache_core::build(std::uint32_t capacity, const page_cache::options& chosen) {
  const auto page_shift = static_cast<std::uint32_t>(std::countr_zero(chosen.page_size.count));
  if (const auto reserved = arena_.reserve(capacity, page_shift); !reserved) return reserved;
  if (const auto reserved = table_.reserve(capacity); !reserved) return reserved;
  auto queue = eviction::create(chosen.policy, arena_);
  if (!queue) return queue.error();
  queue_ = *std::move(queue);
  marks_full_ = queue_->told_of_hits() ? never_full : queue_->marks();
  marks_counted_ = marks_full_ | read_ahead;
  read_ahead_pages_ =
      static_cast<std::uint32_t>(std::min<std::uint64_t>(chosen.read_ahead / chosen.page_size, batch_pages_max));
  dirty_percent_ = chosen.dirty_percent;
  weight_ = chosen.weight;
  fixed_charge_ = fixed_charge_for(capacity);
  budget_.add_reclaimer(gives_clean_pages_, reclaim_stage::clean_pages);
  budget_.add_reclaimer(gives_any_page_, reclaim_stage::dirty_pages);
  budget::add_shareholder(budget_, gives_share_);
  budget::add_describer(*this, budget_);
  registered_ = std::make_unique<base::registration>([this](const base::stat_visitor& show) { report(show); });
  return {};
}

cache_core::~cache_core() {
  registered_.reset();
  if (fixed_charge_.count == 0) return;  // never built
  budget::remove_describer(*this);
  LARDER_CHECK(files_open_.load() == 0, "page cache \"%s\" destroyed while %u files are open", name_.c_str(),
               files_open_.load());
  LARDER_CHECK(admitted_in(supply_.load()) == 0, "page cache \"%s\" destroyed while %u pins are admitted",
               name_.c_str(), admitted_in(supply_.load()));
  budget::remove_shareholder(budget_, gives_share_);
  budget_.remove_reclaimer(gives_any_page_);
  budget_.remove_reclaimer(gives_clean_pages_);
  budget_.release(charged());
}

// What the budget has been charged for this cache, but for its files, when nobody is at work.
bytes cache_core::charged() const {
  return charged_beside_pages() + bytes{arena_.page_length()} * owned_in(supply_.load());
}

bytes cache_core::charged_beside_pages() const {
  return fixed_charge_ + bytes{page_size} * (arena_.metadata_pages() - 1);
}

result<file*> cache_core::open(backing& source) {
  if (!budget::charge_or_reclaim(budget_, file_charge)) return error_from(ENOMEM);
  files_open_.fetch_add(1);
  return new file(*this, source, arena_.page_shift(), files_opened_.fetch_add(1) + 1);
}

void cache_core::release_file(file& owner) {
  // Acquire and release: the last one sees the others' use of it ended.
  if (owner.references.fetch_sub(1, base::memory_order_acq_rel) != 1) return;
  delete &owner;
  budget_.release(file_charge);
}

page_cache_stats cache_core::stats() const {
  page_cache_stats figures;
  constexpr auto relaxed = base::memory_order_relaxed;
  figures.hits = hits_.load(relaxed);
  figures.misses = misses_.load(relaxed);
  figures.evictions = evictions_.load(relaxed);
  figures.pages_read = pages_read_.load(relaxed);
  figures.pages_written = pages_written_.load(relaxed);
  figures.write_backs = write_backs_.load(relaxed);
  figures.write_back_errors = write_back_errors_.load(relaxed);
  figures.pages_read_ahead = pages_read_ahead_.load(relaxed);
  figures.read_ahead_hits = read_ahead_hits_.load(relaxed);
  figures.pages_reclaimed = pages_reclaimed_.load(relaxed);
  figures.admission_waits = admission_waits_.load(base::memory_order_acquire);
  figures.frame_waits = frame_waits_.load(relaxed);
  const std::uint64_t supply = supply_.load();
  figures.pages_owned = owned_in(supply);
  figures.pins_admitted = admitted_in(supply);
  figures.pages_dirty = static_cast<std::uint32_t>(std::max<std::int64_t>(0, dirty_pages_.load(relaxed)));
  const base::lock locked(queue_guard_);
  figures.pages_free = free_count_;
  return figures;
}

void cache_core::describe(memory_account& into) const {
  const base::lock locked(queue_guard_);
  const std::uint64_t owned = owned_in(supply_.load());
  const auto counted = static_cast<std::uint64_t>(std::max<std::int64_t>(0, dirty_pages_.load()));
  const std::uint64_t newer = std::min(owned, counted);
  const bytes page{arena_.page_length()};
  into.dirty_pages += page * newer;
  into.clean_pages += page * (owned - newer);
  into.metadata += charged_beside_pages() + file_charge * files_open_.load();
}

void cache_core::report(const base::stat_visitor& show) const {
  const page_cache_stats figures = stats();
  const std::string component = "page_cache/" + name_;
  show({component, "hits", figures.hits});
  show({component, "misses", figures.misses});
  show({component, "evictions", figures.evictions});
  show({component, "pages_read", figures.pages_read});
  show({component, "pages_read_ahead", figures.pages_read_ahead});
  show({component, "read_ahead_hits", figures.read_ahead_hits});
  show({component, "pages_written", figures.pages_written});
  show({component, "write_backs", figures.write_backs});
  show({component, "write_back_errors", figures.write_back_errors});
  show({component, "pages_reclaimed", figures.pages_reclaimed});
  show({component, "admission_waits", figures.admission_waits});
  show({component, "frame_waits", figures.frame_waits});
  show({component, "pages_owned", figures.pages_owned});
  show({component, "pages_free", figures.pages_free});
  show({component, "pages_dirty", figures.pages_dirty});
  show({component, "pins_admitted", figures.pins_admitted});
}

void cache_core::audit() const {
  // The page daemon comes unbidden, and so do others of the budget's users when they wait or miss.
  const budget::reclaimer_pause clean(budget_, gives_clean_pages_);
  const budget::reclaimer_pause any(budget_, gives_any_page_);
  const budget::reclaimer_pause share(budget_, gives_share_);
  std::uint64_t pins = 0;
  std::int64_t dirty_found = 0;
  std::uint32_t in_use = 0;
  const frame_index end = arena_.end();
  for (frame_index index = 1; index < end; ++index) {
    const state_word state = arena_.at(index).state.load();
    pins += state & pins_mask;
    dirty_found += (state & dirty) != 0 ? 1 : 0;
    in_use += (state & unused) == 0 ? 1 : 0;
    audit_frame(index);
  }
  const std::uint32_t owned = owned_in(supply_.load());
  const std::uint32_t admitted = admitted_in(supply_.load());
  const base::lock locked(queue_guard_);
  const char* name = name_.c_str();
  LARDER_CHECK(owned == queue_->size() + free_count_, "page cache \"%s\": %u owned, %u queued, %u free", name, owned,
               queue_->size(), free_count_);
  LARDER_CHECK(end - 1 == owned + arena_.spare_count(), "page cache \"%s\": %u frames used, %u owned, %u spare", name,
               end - 1, owned, arena_.spare_count());
  LARDER_CHECK(admitted <= owned && floor_ <= owned, "page cache \"%s\": %u owned, %u admitted, floor %u", name, owned,
               admitted, floor_);
  LARDER_CHECK(pins <= admitted, "page cache \"%s\": %llu pins, %u admitted", name,
               static_cast<unsigned long long>(pins), admitted);
  LARDER_CHECK(in_use == queue_->size(), "page cache \"%s\": %u frames hold pages, %u are queued", name, in_use,
               queue_->size());
  LARDER_CHECK(dirty_found == dirty_pages_.load(), "page cache \"%s\": %lld dirty frames, %lld counted", name,
               static_cast<long long>(dirty_found), static_cast<long long>(dirty_pages_.load()));
  LARDER_CHECK(charged() <= budget_.used(), "page cache \"%s\": more charged than budget \"%s\" has in use", name,
               budget_.name().c_str());
}

void cache_core::audit_frame(frame_index index) const {
  const frame& at = arena_.at(index);
  const state_word state = at.state.load();
  if ((state & unused) != 0) {
    LARDER_CHECK((state & (valid | busy | dirty | writing | pins_mask)) == 0 && !at.dirty_listed,
                 "page cache \"%s\": unused frame %u in state %llx", name_.c_str(), index,
                 static_cast<unsigned long long>(state));
    return;
  }
  file& owner = *at.owner.load();
  const std::uint64_t number = at.number.load();
  const base::lock file_locked(owner.guard);
  const base::lock locked(table_.stripe(owner, number));
  LARDER_CHECK(table_.find(owner, number) == &at, "page cache \"%s\": frame %u is not in the table", name_.c_str(),
               index);
  const bool newer = (state & (dirty | writing)) != 0;
  const bool sound = (!newer || (state & valid) != 0) &&
                     ((state & busy) == 0 || ((state & valid) == 0 && (state & pins_mask) != 0)) &&
                     at.dirty_listed == newer;
  LARDER_CHECK(sound, "page cache \"%s\": frame %u in state %llx, listed %d", name_.c_str(), index,
               static_cast<unsigned long long>(state), at.dirty_listed ? 1 : 0);
  if ((state & valid) == 0) return;
  const std::byte* data = arena_.data_of(at);
  const bool clean_end = std::all_of(data + owner.bytes_in_page(number), data + owner.page_length(),
                                     [](std::byte each) { return each == std::byte{0}; });
  LARDER_CHECK(clean_end, "page cache \"%s\": bytes beyond the end of a file are not zeros", name_.c_str());
}

}  // namespace larder::page
