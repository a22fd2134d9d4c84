// SPDX-License-Identifier: Apache-2.0
//
// The CPU layer. Every CPU that can ever appear has a place in a table (KF-13), which leads to its array once it has
// been used there; the kernel's concurrency ids number them where it has these, so that many threads on few CPUs use
// few arrays. A pop or push is a restartable sequence (os/cpu_array.h). Who must reach another CPU's array closes the
// cache: every front is pointed to a table of arrays that refuse, and a fence ends the sequences in progress; then no
// CPU can change an array, and none is changed in part (KF-17). Opening points the fronts back.
//
// Capacity adapts: an array begins small, in a page that it shares with those of other CPUs, and may hold more with
// each pair of misses, once full and once empty, up to a total over all CPUs; past its room it moves to a larger one.
// (One that is only ever filled, or emptied, gains nothing by room.) Under memory pressure none grows. The keeper drops
// arrays that were hardly used in a period, so growth is not for ever.
//
// Without sequences each array has a lock of one word, nearly always free: only a thread that was preempted inside, or
// a collector, holds it when another comes. So users only try it, and go below where it is taken. Arrays neither grow
// nor go then, because a thread may be about to lock one.
//
// Laws (audit), where the sums are over the CPUs:
//
//   Σ length = refilled + puts − gets − flushed           by definition of puts, of which nobody counts
//   length ≤ entries       capacity ≤ entries ≤ entries_max       Σ capacity = total ≤ total_max
//   charged = pages in use + spans of grown arrays
#include "cache/cpu_cache.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <string_view>
#include <thread>

#include "base/check.h"
#include "base/mutant.h"
#include "base/schedule.h"
#include "os/cpu.h"

namespace larder::cache {
namespace {

// An array begins with 1 KiB: below it, the slabs' lock is taken once in some 60 operations.
constexpr std::size_t entries_start = 126;
// Rooms for grown arrays, head included: a page, four pages. The largest holds what 2046 requests in flight would use.
constexpr std::size_t entries_grown[] = {510, 2046};
constexpr std::size_t entries_max = 2046;
// Objects in a fresh array: what a CPU's second-level cache might still hold. Larger objects cost more to use than to
// fetch from their slab, and few of them would hoard much: four of 16 KiB, one of 64 KiB, none above.
constexpr std::size_t bytes_start = std::size_t{64} << 10;
// Objects in all arrays: this for each CPU, wherever they are needed.
constexpr std::size_t bytes_per_cpu = std::size_t{256} << 10;
// An array grows by what a move of a small one carries.
constexpr std::size_t growth = 62;
// Misses of one kind that are remembered until the other kind comes: the growth in one go of what holds 1000 at a time.
constexpr int misses_max = 16;
// Objects moved under one turn of the slabs' lock: few enough that others do not wait for long.
constexpr std::size_t move_length_max = 244;

constexpr span_shape page_shape{bytes{page_size}, page_size, bytes{page_size}};
// Two cache lines, which the hardware fetches in pairs.
constexpr std::size_t array_alignment = 128;

span_shape shape_for(std::size_t entries) {
  const bytes length = round_up_to_pages(bytes{sizeof(os::cpu_array) + entries * sizeof(void*)});
  return {length, page_size, length};
}

// Full up to three quarters: memory is wanted for more than faster reuse.
bool is_tight(const memory_budget& budget) {
  for (const memory_budget* node = &budget; node != nullptr; node = node->parent()) {
    if (node->used().count > node->limit().count / 4 * 3) return true;
  }
  return false;
}

}  // namespace

raw_cache::mode cpu_cache::active_mode() {
  const os::sequence_mode mode = os::sequences();
  const std::string_view text = os::sequences_description();
  const std::size_t colon = text.find(": ");
  if (colon != std::string_view::npos) return {text.substr(0, colon), text.substr(colon + 2)};
  if (mode == os::sequence_mode::cpu_id) return {text, "this kernel has no concurrency ids (Linux 6.3)"};
  return {text, ""};
}

bytes cpu_cache::own_bytes() {
  constexpr std::size_t per_cpu = sizeof(os::cpu_array_table) + sizeof(account) + sizeof(char*) + sizeof(unsigned);
  return bytes{static_cast<std::size_t>(os::possible_cpus()) * per_cpu};
}

cpu_cache::cpu_cache(memory_budget& budget, detail::cpu_front& users, inlined allowed, std::size_t object_length,
                     std::size_t limit)
    : budget_(budget),
      sequences_(os::sequences() != os::sequence_mode::sharded),
      cpus_(os::possible_cpus()),
      object_length_(object_length),
      capacity_start_(std::min({entries_start, bytes_start / object_length, limit})),
      capacity_max_(std::min({entries_max, bytes_per_cpu * at(cpus_) / object_length, limit})),
      arrays_per_page_(page_size / round_up(length_for(capacity_start_), array_alignment)),
      total_max_(std::max(bytes_per_cpu / object_length, capacity_start_) * at(cpus_)),
      users_(reinterpret_cast<os::array_front&>(users)),
      allowed_(allowed),
      table_(new os::cpu_array_table[at(cpus_)]()),
      accounts_(new account[at(cpus_)]()),
      pages_(new char*[page_of(cpus_ - 1) + 1]()),
      page_users_(new unsigned[page_of(cpus_ - 1) + 1]()) {
  for (int cpu = 0; cpu < cpus_; ++cpu) table_[at(cpu)].store(os::closed_array(), base::memory_order_relaxed);
  os::set_front_cpu(own_);
  os::set_front_cpu(users_);
  open(false);
}

cpu_cache::~cpu_cache() {
  for (int cpu = 0; cpu < cpus_; ++cpu) {
    if (array_of(cpu) != nullptr) release_memory(cpu);
  }
}

// -- the gate

void cpu_cache::show(os::cpu_array_table* pops, os::cpu_array_table* pushes) {
  os::cpu_array_table* const none = os::closed_table();
  if (!sequences_) pops = pushes = none;
  // Release: who finds an array through the table finds it as its maker left it; partner: the sequences' loads.
  own_.pop_table.store(pops, base::memory_order_release);
  own_.push_table.store(pushes, base::memory_order_release);
  if (base::is_mutant(base::mutant::users_stay_open) && pops == none) return;
  users_.pop_table.store(allowed_.pop ? pops : none, base::memory_order_release);
  users_.push_table.store(allowed_.push ? pushes : none, base::memory_order_release);
}

void cpu_cache::close() {
  gate_.store(gate::closed, base::memory_order_relaxed);
  show(os::closed_table(), os::closed_table());
  if (!base::is_mutant(base::mutant::close_without_fence)) os::fence_sequences();
}

void cpu_cache::open(bool hold_pushes) {
  gate_.store(hold_pushes ? gate::pushes_held : gate::open, base::memory_order_relaxed);
  show(table_.get(), hold_pushes ? os::closed_table() : table_.get());
}

bool cpu_cache::was_empty() const {
  // Two looks that find every array empty, and as many gets: nothing was put and taken again between them, so there
  // was a moment when all were empty. The counts only grow, so their sum tells.
  std::uint64_t gets[2] = {0, 0};
  for (std::uint64_t& sum : gets) {
    for (int cpu = 0; cpu < cpus_; ++cpu) {
      const std::uint64_t word = table_[at(cpu)].load(base::memory_order_relaxed)->word.load();
      if (os::cpu_array::length_of(word) != 0) return false;
      sum += word >> os::cpu_array::gets_shift;
    }
  }
  return gets[0] == gets[1];
}

// -- this CPU's array

int cpu_cache::current_cpu() const {
  const int cpu = os::sequence_cpu();
  return cpu < cpus_ ? cpu : 0;
}

os::cpu_array* cpu_cache::array_of(int cpu) const {
  if (cpu < 0) return nullptr;
  os::cpu_array* array = table_[at(cpu)].load(base::memory_order_acquire);  // partner: make_array
  return array == os::closed_array() ? nullptr : array;
}

std::size_t cpu_cache::pop_many(void** objects, std::size_t count) {
  if (sequences_) return os::pop_many(own_, objects, count, os::cpu_array::get_step);
  os::cpu_array* mine = lock_current(use::pop);
  return mine == nullptr ? 0 : take_locked(*mine, objects, count, os::cpu_array::get_step);
}

std::size_t cpu_cache::push_many(void* const* objects, std::size_t count) {
  if (sequences_) return os::push_many(own_, objects, count);
  os::cpu_array* mine = lock_current(use::push);
  const bool refused = base::is_mutant(base::mutant::push_while_closed) && pushes_held();
  return mine == nullptr ? 0 : add_locked(*mine, objects, refused ? 0 : count);
}

std::size_t cpu_cache::flush(void** objects, std::size_t count) {
  std::size_t moved = 0;
  if (sequences_) {
    moved = os::pop_many(own_, objects, count, os::cpu_array::move_step);
  } else if (os::cpu_array* mine = lock_current(use::pop)) {
    moved = take_locked(*mine, objects, count, os::cpu_array::move_step);
  }
  flushed_ += moved;
  return moved;
}

std::size_t cpu_cache::refill(void* const* objects, std::size_t count) {
  const std::size_t moved = push_many(objects, count);
  refilled_ += moved;
  return moved;
}

std::size_t cpu_cache::take_from(int cpu, void** objects, std::size_t count) {
  os::cpu_array* theirs = array_of(cpu);
  if (theirs == nullptr) return 0;
  if (!sequences_) lock(*theirs);
  const std::size_t moved = take_locked(*theirs, objects, count, os::cpu_array::move_step);
  flushed_ += moved;
  return moved;
}

// -- without sequences

bool cpu_cache::try_lock(os::cpu_array& array) {
  // The load spares other CPUs the line. Acquire: sees what the last holder wrote; partner: unlock.
  if (array.locked.load(base::memory_order_relaxed) != 0 || array.locked.exchange(1, base::memory_order_acquire) != 0) {
    return false;
  }
  base::note_locked(base::lock_rank::cache_shard);
  return true;
}

void cpu_cache::lock(os::cpu_array& array) const {
  [[maybe_unused]] constexpr int spins = 100;
  [[maybe_unused]] constexpr auto pause = std::chrono::microseconds(20);
  for (int tries = 1; !try_lock(array); ++tries) {
#ifdef LARDER_SCHEDULED
    base::schedule::yield();
#else
    if (tries >= spins) std::this_thread::sleep_for(pause);
#endif
  }
}

void cpu_cache::unlock(os::cpu_array& array) {
  base::note_unlocked(base::lock_rank::cache_shard);
  array.locked.store(0, base::memory_order_release);  // partner: try_lock
}

// The gate is looked at under the array's lock: who closes it takes each of these locks afterwards, to empty the array;
// so either the collector finds what is pushed here, or the gate is seen closed. One look decides: between two it may
// be closed, and then opened with pushes held.
os::cpu_array* cpu_cache::lock_current(use wanted) const {
  os::cpu_array* mine = array_of(current_cpu());
  if (mine == nullptr || !try_lock(*mine)) return nullptr;
  const bool pushes = wanted == use::push && !base::is_mutant(base::mutant::push_while_closed);
  if (pushes ? is_open() : !closed()) return mine;
  unlock(*mine);
  return nullptr;
}

std::size_t cpu_cache::take_locked(os::cpu_array& array, void** objects, std::size_t count, std::uint64_t step) const {
  // Relaxed: only its holder changes a locked, or closed, array.
  const std::uint64_t word = array.word.load(base::memory_order_relaxed);
  const std::size_t length = os::cpu_array::length_of(word);
  const std::size_t moved = std::min(count, length);
  std::copy_n(array.objects() + (length - moved), moved, objects);
  array.word.store(word + moved * step, base::memory_order_relaxed);
  if (!sequences_) unlock(array);
  return moved;
}

std::size_t cpu_cache::add_locked(os::cpu_array& array, void* const* objects, std::size_t count) const {
  const std::uint64_t word = array.word.load(base::memory_order_relaxed);
  const std::size_t length = os::cpu_array::length_of(word);
  const std::size_t capacity = array.capacity.load(base::memory_order_relaxed);
  const std::size_t moved = length < capacity ? std::min(count, capacity - length) : 0;
  std::copy_n(objects, moved, array.objects() + length);
  array.word.store(word + moved, base::memory_order_relaxed);
  unlock(array);
  return moved;
}

void* cpu_cache::pop_locked() {
  void* object = nullptr;
  os::cpu_array* mine = lock_current(use::pop);
  if (mine != nullptr) take_locked(*mine, &object, 1, os::cpu_array::get_step);
  return object;
}

bool cpu_cache::push_locked(void* object) { return push_many(&object, 1) == 1; }

// -- which arrays there are

bool cpu_cache::make_array() {
  if (capacity_start_ == 0) return false;
  const int cpu = current_cpu();
  if (cpu < 0) return false;
  if (array_of(cpu) != nullptr) return true;
  char*& page = pages_[page_of(cpu)];
  if (page == nullptr) {
    const result<void*> mapped = map_span(budget_, page_shape);
    if (!mapped) return false;
    page = static_cast<char*>(*mapped);
    charged_ += page_shape.charge;
  }
  ++page_users_[page_of(cpu)];
  const std::size_t place = at(cpu) % arrays_per_page_ * round_up(length_for(capacity_start_), array_alignment);
  auto* array = ::new (page + place) os::cpu_array{};
  array->capacity.store(static_cast<std::uint32_t>(capacity_start_), base::memory_order_relaxed);
  account& of = accounts_[at(cpu)];
  of.word_seen = 0;
  of.entries = static_cast<std::uint32_t>(capacity_start_);
  of.misses = 0;
  of.grown = false;
  total_ += capacity_start_;
  ++arrays_;
  table_[at(cpu)].store(array, base::memory_order_release);  // partner: array_of and the sequences
  return true;
}

std::size_t cpu_cache::move_length() const {
  const os::cpu_array* mine = array_of(current_cpu());
  if (mine == nullptr) return 0;
  const std::size_t capacity = mine->capacity.load(base::memory_order_relaxed);
  return std::min((capacity + 1) / 2, move_length_max);
}

bool cpu_cache::may_grow_to(std::size_t capacity, std::size_t now) const {
  // Each CPU that has no array yet will want to begin one.
  const std::size_t promised = at(cpus_ - arrays_) * capacity_start_;
  return capacity > now && total_ + promised + (capacity - now) <= total_max_ && !is_tight(budget_);
}

void cpu_cache::note_miss(miss kind) {
  const int cpu = current_cpu();
  os::cpu_array* mine = array_of(cpu);
  if (mine == nullptr || !is_open()) return;
  account& of = accounts_[at(cpu)];
  const int direction = kind == miss::full ? 1 : -1;
  const bool is_pair = of.misses * direction < 0;
  of.misses = std::clamp(of.misses + direction, -misses_max, misses_max);
  if (!is_pair) return;
  const std::size_t now = mine->capacity.load(base::memory_order_relaxed);
  std::size_t wanted = std::min(now + growth, capacity_max_);
  if (!may_grow_to(wanted, now)) return;
  if (wanted > of.entries) {
    const auto* room = std::find_if(std::begin(entries_grown), std::end(entries_grown),
                                    [&](std::size_t entries) { return entries >= wanted; });
    if (!sequences_ || room == std::end(entries_grown) || !replace(cpu, *room)) return;
    mine = array_of(cpu);
  }
  mine->capacity.store(static_cast<std::uint32_t>(wanted), base::memory_order_relaxed);
  total_ += wanted - now;
}

bool cpu_cache::replace(int cpu, std::size_t entries) {
  const result<void*> mapped = map_span(budget_, shape_for(entries));
  if (!mapped) return false;
  charged_ += shape_for(entries).charge;
  if (!base::is_mutant(base::mutant::replace_while_open)) close();
  os::cpu_array& before = *array_of(cpu);
  auto* larger = ::new (*mapped) os::cpu_array{};
  const std::uint64_t word = before.word.load(base::memory_order_relaxed);
  larger->word.store(word, base::memory_order_relaxed);
  larger->capacity.store(before.capacity.load(base::memory_order_relaxed), base::memory_order_relaxed);
  std::copy_n(before.objects(), os::cpu_array::length_of(word), larger->objects());
  release_memory(cpu);
  accounts_[at(cpu)].entries = static_cast<std::uint32_t>(entries);
  accounts_[at(cpu)].grown = true;
  table_[at(cpu)].store(larger, base::memory_order_release);
  open(false);
  return true;
}

void cpu_cache::release_memory(int cpu) {
  account& of = accounts_[at(cpu)];
  if (of.grown) {
    charged_ -= shape_for(of.entries).charge;
    unmap_span(budget_, shape_for(of.entries), array_of(cpu));
    return;
  }
  char*& page = pages_[page_of(cpu)];
  if (--page_users_[page_of(cpu)] > 0) return;
  charged_ -= page_shape.charge;
  unmap_span(budget_, page_shape, page);
  page = nullptr;
}

void cpu_cache::drop_array(int cpu) {
  os::cpu_array* array = array_of(cpu);
  if (array == nullptr || !sequences_) return;
  account& of = accounts_[at(cpu)];
  const std::uint64_t word = array->word.load(base::memory_order_relaxed);
  LARDER_CHECK(os::cpu_array::length_of(word) == 0, "an array of %zu objects is dropped",
               os::cpu_array::length_of(word));
  total_ -= array->capacity.load(base::memory_order_relaxed);
  --arrays_;
  release_memory(cpu);
  of.gets = gets_of(of, word);
  of.word_seen = 0;
  of.entries = 0;
  table_[at(cpu)].store(os::closed_array(), base::memory_order_relaxed);
}

// -- figures

// The word counts modulo 2^48; more than that between two looks, a period apart, would take a day of nothing else.
std::uint64_t cpu_cache::gets_of(const account& of, std::uint64_t word) {
  const std::uint64_t counted = (word >> os::cpu_array::gets_shift) - (of.word_seen >> os::cpu_array::gets_shift);
  return of.gets + (counted & (~std::uint64_t{0} >> os::cpu_array::gets_shift));
}

bool cpu_cache::note_period() {
  bool used = false;
  for (int cpu = 0; cpu < cpus_; ++cpu) {
    const os::cpu_array* array = array_of(cpu);
    if (array == nullptr) continue;
    account& of = accounts_[at(cpu)];
    const std::uint64_t word = array->word.load(base::memory_order_relaxed);
    const std::uint64_t gets = gets_of(of, word);
    used = used || word != of.word_seen;
    of.idle = gets - of.gets <= os::cpu_array::length_of(word);
    of.gets = gets;
    of.word_seen = word;
  }
  return used;
}

bool cpu_cache::any_idle() const {
  for (int cpu = 0; cpu < cpus_; ++cpu) {
    if (is_idle(cpu) && array_of(cpu) != nullptr) return true;
  }
  return false;
}

void cpu_cache::lock_for_fork() {
  if (sequences_) return;  // whose commits are single stores
  for (int cpu = 0; cpu < cpus_; ++cpu) {
    os::cpu_array* array = array_of(cpu);
    if (array == nullptr) continue;
    lock(*array);
    base::note_unlocked(base::lock_rank::cache_shard);  // of which no one else may hold more than one
  }
}

void cpu_cache::unlock_after_fork() {
  if (sequences_) return;
  for (int cpu = 0; cpu < cpus_; ++cpu) {
    // Release; partner: try_lock.
    if (os::cpu_array* array = array_of(cpu)) array->locked.store(0, base::memory_order_release);
  }
}

cpu_cache::figures cpu_cache::sum() const {
  figures total;
  for (int cpu = 0; cpu < cpus_; ++cpu) {
    const os::cpu_array* array = array_of(cpu);
    const std::uint64_t word = array == nullptr ? 0 : array->word.load(base::memory_order_relaxed);
    total.cached += os::cpu_array::length_of(word);
    total.gets += array == nullptr ? accounts_[at(cpu)].gets : gets_of(accounts_[at(cpu)], word);
  }
  total.puts = total.cached + total.gets + flushed_ - refilled_;
  total.charged = charged_;
  return total;
}

void cpu_cache::audit(const char* cache_name) const {
  std::size_t total = 0;
  int arrays = 0;
  bytes charged;
  for (int cpu = 0; cpu < cpus_; ++cpu) {
    const os::cpu_array* array = array_of(cpu);
    const account& of = accounts_[at(cpu)];
    if (array == nullptr) {
      LARDER_CHECK(of.entries == 0, "cache \"%s\": CPU %d has room for %u objects, but no array", cache_name, cpu,
                   of.entries);
      continue;
    }
    const std::size_t length = os::cpu_array::length_of(array->word.load());
    const std::size_t capacity = array->capacity.load();
    LARDER_CHECK(length <= of.entries && capacity <= of.entries && of.entries <= entries_max,
                 "cache \"%s\": CPU %d has %zu objects, a capacity of %zu, and room for %u", cache_name, cpu, length,
                 capacity, of.entries);
    LARDER_CHECK(array->locked.load() == 0, "cache \"%s\": CPU %d's array is locked", cache_name, cpu);
    total += capacity;
    ++arrays;
    if (of.grown) charged += shape_for(of.entries).charge;
  }
  for (std::size_t page = 0; page <= page_of(cpus_ - 1); ++page) {
    LARDER_CHECK((pages_[page] != nullptr) == (page_users_[page] > 0),
                 "cache \"%s\": page %zu of arrays is used by %u of them", cache_name, page, page_users_[page]);
    if (pages_[page] != nullptr) charged += page_shape.charge;
  }
  LARDER_CHECK(arrays == arrays_, "cache \"%s\": %d CPUs have arrays, counted %d", cache_name, arrays, arrays_);
  LARDER_CHECK(total == total_ && total_ <= total_max_, "cache \"%s\": capacities add up to %zu, counted %zu, of %zu",
               cache_name, total, total_, total_max_);
  LARDER_CHECK(charged == charged_, "cache \"%s\": arrays take %llu bytes, but %llu are counted", cache_name,
               static_cast<unsigned long long>(charged.count), static_cast<unsigned long long>(charged_.count));
}

}  // namespace larder::cache
