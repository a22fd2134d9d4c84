// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <utility>

#include <larder/backing.h>
#include <larder/export.h>
#include <larder/memory_budget.h>
#include <larder/result.h>
#include <larder/units.h>

namespace larder {

namespace page {
class cache_core;
struct file;
struct frame;
}  // namespace page

class cached_file;
class page_ref;

// The largest page that a cache may have. Small pages waste no memory on neighbours that nobody asked for; large ones
// need fewer reads, look-ups and metadata where the whole of them is wanted.
inline constexpr bytes largest_page_size{64U << 10};

// Which page leaves when room is needed.
enum class eviction_policy : unsigned char {
  sieve,    // marks and a hand: resists scans, costs least
  s3_fifo,  // a small queue for the new, a SIEVE for the rest, and the keys of those that left last
  clock,    // to compare with
  lru,      // to compare with: exact, so every hit takes the cache's mutex
};
inline constexpr std::array eviction_policies{eviction_policy::sieve, eviction_policy::s3_fifo, eviction_policy::clock,
                                              eviction_policy::lru};
inline constexpr eviction_policy default_eviction_policy = eviction_policy::s3_fifo;

// "sieve", "s3-fifo", "clock", "lru", and back; EINVAL for any other name.
LARDER_API std::string_view name_of(eviction_policy policy);
LARDER_API result<eviction_policy> eviction_policy_from(std::string_view name);

// The right to pin a number of pages at once, given before any is pinned (KF-51): whoever has it gets its pages without
// waiting for memory. Used by one thread or task at a time. Moved and destroyed while nothing is pinned under it.
//
// Do not wait for a second admission while you hold one: that is the deadlock that admissions are there to prevent.
class LARDER_API pin_admission {
 public:
  pin_admission() = default;
  pin_admission(pin_admission&& other) noexcept;
  pin_admission& operator=(pin_admission&& other) noexcept;
  ~pin_admission() { reset(); }

  // How many pages may be pinned at once in all, and how many more now.
  std::uint32_t pages() const { return pages_; }
  std::uint32_t available() const { return pages_ - pinned_; }
  // Gives back all but `pages`, of which no more than that are pinned.
  void reduce(std::uint32_t pages);
  void reset() { reduce(0); }

 private:
  friend class page::cache_core;
  friend class page_ref;
  friend class cached_file;
  pin_admission(page::cache_core& core, std::uint32_t pages) : core_(&core), pages_(pages) {}

  page::cache_core* core_ = nullptr;
  std::uint32_t pages_ = 0;
  std::uint32_t pinned_ = 0;
  std::uint32_t hits_ = 0;  // counted here, so that a hit writes no line that others write
  std::uint32_t misses_ = 0;
};

// What a page is pinned for.
enum class access : unsigned char {
  read,       // its bytes are read in, and not changed
  modify,     // they are read in, and changed then
  overwrite,  // they are not read in: the page may be `fresh`
};

// A page held in memory. Move-only; used by one thread or task at a time; destroyed before its admission and its file.
class LARDER_API page_ref {
 public:
  page_ref() = default;
  page_ref(page_ref&& other) noexcept { take(other); }
  page_ref& operator=(page_ref&& other) noexcept {
    if (this != &other) {
      reset();
      take(other);
    }
    return *this;
  }
  ~page_ref() { reset(); }

  explicit operator bool() const { return frame_ != nullptr; }
  // The page's bytes: a page's size of them, fewer in the last page of a file whose size is no multiple of that.
  std::span<std::byte> data() const { return {data_, frame_ == nullptr ? std::size_t{0} : size_}; }

  // True for a page pinned to be overwritten that was not in memory: its bytes mean nothing until `written`, and others
  // who want the page wait for that, or for this reference to be dropped, which drops the page.
  bool fresh() const { return frame_ != nullptr && fresh_; }

  // The bytes from `first` to before `last` were changed, and are to reach the backing. In a fresh page the others are
  // read in now, so that a partial write loses none; if that fails, the page stays fresh. Reads, so it may block.
  result<void> written(std::size_t first, std::size_t last);
  // The same for a page that is not fresh: some of its bytes were changed. Never blocks on I/O.
  void mark_dirty();

  // Unpins.
  void reset() {
    if (frame_ != nullptr) unpin();
  }

 private:
  friend class cached_file;
  page_ref(pin_admission& admission, page::frame& frame, std::byte* data, std::size_t size, bool fresh)
      : frame_(&frame), admission_(&admission), data_(data), size_(static_cast<std::uint32_t>(size)), fresh_(fresh) {}
  void take(page_ref& other) {
    frame_ = std::exchange(other.frame_, nullptr);
    admission_ = other.admission_;
    data_ = other.data_;
    size_ = other.size_;
    fresh_ = other.fresh_;
    dirtied_ = other.dirtied_;
  }
  void unpin();
  result<void> read_around(std::size_t first, std::size_t last);

  page::frame* frame_ = nullptr;
  pin_admission* admission_ = nullptr;
  std::byte* data_ = nullptr;
  std::uint32_t size_ = 0;
  bool fresh_ = false;
  bool dirtied_ = false;
};

// A page cache's figures, each exact when nobody works in it.
struct page_cache_stats {
  std::uint64_t hits = 0;
  std::uint64_t misses = 0;
  std::uint64_t evictions = 0;
  std::uint64_t pages_read = 0;
  std::uint64_t pages_read_ahead = 0;  // of pages_read: beyond what was asked for
  std::uint64_t read_ahead_hits = 0;   // of these, asked for later while they were there
  std::uint64_t pages_written = 0;     // by write-back
  std::uint64_t write_backs = 0;       // writes to a backing: pages_written / write_backs leave in each
  std::uint64_t write_back_errors = 0;
  std::uint64_t pages_reclaimed = 0;  // given back to the budget
  std::uint64_t admission_waits = 0;
  std::uint64_t frame_waits = 0;  // for another's I/O, or a page on the move
  std::uint32_t pages_owned = 0;  // frames charged
  std::uint32_t pages_free = 0;   // of these, without a page
  std::uint32_t pages_dirty = 0;
  std::uint32_t pins_admitted = 0;
};

// Pages of files in memory, within a budget. Look-up of a page in memory takes no lock (but with the policy `lru`);
// which page leaves is decided by the eviction policy. Dirty pages leave by being written, and in no other way.
//
// It grows while its budget has room, gives back when the budget asks (clean pages first), and never gives back so much
// that an admitted operation could not go on. Of several caches in a tree of budgets the one that holds most beyond its
// guaranteed pages, by weight, gives back first, also to another that is at work and has less. Any thread or task, but
// for creation and destruction.
class LARDER_API page_cache {
 public:
  struct options {
    memory_budget* budget = nullptr;      // null: the process budget
    std::uint32_t guaranteed_pages = 64;  // charged from the start and never given back: what progress is made with
    bytes limit = unlimited;              // most that the pages may take
    eviction_policy policy = default_eviction_policy;
    bytes page_size{larder::page_size};  // a power of two, up to largest_page_size
    bytes read_ahead{128U << 10};        // most to read ahead of an ascending reader at once; less than a page: nothing
    std::uint32_t dirty_percent = 50;    // of the pages, may be dirty before a writer has to write some of them back
    std::uint32_t weight = 1;            // its share beside other caches, when room is short
  };

  // ENOMEM if the budget has no room for the guaranteed pages and the tables, EINVAL if no page is guaranteed or
  // an option has no such value.
  static result<std::unique_ptr<page_cache>> create(std::string_view name, options chosen);
  // What `create` will charge at once for these options, the least that a budget needs.
  static bytes least_memory(options chosen);
  // The files are closed by then.
  ~page_cache();
  page_cache(const page_cache&) = delete;
  page_cache& operator=(const page_cache&) = delete;

  // Begins to cache `source`, which outlives the file. ENOMEM.
  result<std::unique_ptr<cached_file>> open(backing& source);

  // Waits until between `min_pages` and `max_pages` may be pinned at once, first come, first served. ENOMEM if so many
  // can never be; ETIMEDOUT. Parks the task if there is one, else the thread.
  result<pin_admission> admit(std::uint32_t min_pages, std::uint32_t max_pages, time_point deadline = no_deadline);

  page_cache_stats stats() const;
  // Checks the cache's laws (cache_core.cc) and dies on the first that is broken. Nobody else works in the cache; the
  // page daemon, others who wait for memory of the budget, and other caches get none from this one meanwhile.
  void audit() const;

 private:
  explicit page_cache(std::unique_ptr<page::cache_core> core);
  const std::unique_ptr<page::cache_core> core_;
};

// A backing seen through a cache. Any thread or task, several at once. Reads and writes of the same bytes at the same
// time are the callers' affair: each byte is then the old or the new one.
//
// Functions that pin use the admission that is given, which then has at least one page available; null: they wait for
// one of their own. They block while they read or write. Errors: the backing's; EINVAL for a range that is not in the
// file.
class LARDER_API cached_file {
 public:
  // Nothing is pinned, and nothing dirty: `flush` succeeded, or `abandon` was called. Dies otherwise, rather than lose
  // what was written.
  ~cached_file();
  cached_file(const cached_file&) = delete;
  cached_file& operator=(const cached_file&) = delete;

  bytes size() const;
  // Of the cache. Pages are numbered from 0: page n begins at byte n × page size.
  bytes page_size() const;

  // Pins one page. Who pins several pages one after the other, pins them in ascending order (of one file, then of the
  // next opened), and else drops the higher ones first: two operations could wait for each other's fresh pages.
  result<page_ref> pin(std::uint64_t page_number, access intent, pin_admission& admission);
  // Pins a page for reading if that needs no waiting at all; else the reference is empty.
  page_ref try_pin(std::uint64_t page_number, pin_admission& admission);
  // Pins consecutive pages, neighbours that are missing read in with one read. All or none.
  result<void> pin_range(std::uint64_t first_page, std::span<page_ref> into, access intent, pin_admission& admission);

  // Reads bytes of one page that is in memory, without a pin or an admission, and without writing anything that others
  // read but, at its first hits, the page's mark. False, with anything in `into`: the page is not there or is leaving
  // just now, the bytes are not all in one page, or the policy is `lru`, which has to be told of hits; then call read.
  // Never waits. Such hits are not counted.
  bool try_read(std::uint64_t offset, std::span<std::byte> into);
  result<void> read(std::uint64_t offset, std::span<std::byte> into, pin_admission* admission = nullptr);
  result<void> write(std::uint64_t offset, std::span<const std::byte> from, pin_admission* admission = nullptr);
  // Brings a range into memory and holds none of it. The pages may leave again at once when memory is short. Reads of
  // ascending pages need no such call: they are read ahead of by themselves (page_cache::options::read_ahead).
  result<void> read_ahead(std::uint64_t offset, bytes length, pin_admission* admission = nullptr);
  // Whether all of a range is in memory at this instant.
  bool resident(std::uint64_t offset, bytes length) const;

  // What was written before the call is durable when it returns well. If it does not, what was not written is still
  // dirty, and every later flush tries it again and says how that went (KF-56). Concurrent flushes share the work.
  result<void> flush();
  // The same for a range of bytes.
  result<void> flush_range(std::uint64_t offset, bytes length);

  // Makes a range read as zeros, dirty pages included, and gives the backing's blocks back; what is not whole pages is
  // written as zeros. Where the backing cannot, zeros are written through the cache.
  result<void> discard(std::uint64_t offset, bytes length, pin_admission* admission = nullptr);
  // The same, with the backing's blocks kept if `keep_blocks`.
  result<void> zero(std::uint64_t offset, bytes length, bool keep_blocks, pin_admission* admission = nullptr);

  // Forgets every page, what was written and not flushed too. Nothing is pinned.
  void abandon();

 private:
  friend class page_cache;
  friend class page_ref;
  explicit cached_file(page::file& opened) : file_(opened) {}

  inline page::frame* pin_present(std::uint64_t page_number, pin_admission& admission);
  result<page_ref> pin_slowly(std::uint64_t page_number, access intent, pin_admission& admission);
  result<bool> pin_one(std::uint64_t page_number, page_ref& into, pin_admission& admission);
  void wait_until_settled(page_ref& pinned);
  void clear_end(page_ref& fresh) const;
  result<void> fill_fresh(std::uint64_t first_page, std::span<page_ref> pages, std::span<page_ref> ahead = {});
  result<void> fill_and_read_ahead(std::uint64_t first_page, std::span<page_ref> pages);
  result<void> zero_edges(std::uint64_t offset, std::uint64_t end, std::uint64_t inner, std::uint64_t inner_end,
                          pin_admission* admission);

  page::file& file_;
};

}  // namespace larder
