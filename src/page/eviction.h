// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>

#include <larder/page_cache.h>
#include <larder/result.h>

#include "page/frame_arena.h"

namespace larder::page {

enum class departure : unsigned char {
  evicted,  // for room: the page may be wanted again
  dropped,  // with its contents, or never used: nobody wants it
};

// Decides which page leaves next. It holds every page that is in memory, and is guarded by the queue's mutex.
//
// A hit tells it nothing: it sets a mark in the page's own state (frame.h), until `marks()` are all set, and then
// writes nothing at all. What the marks meant is seen when the policy looks at the page. Only LRU, which is there to be
// compared with and has to know the exact order of hits, is told of each, under the mutex.
//
// Looking is not visiting: nothing that `advance` does makes a page stay longer than its hits do (KF-45).
class eviction {
 public:
  // EINVAL if there is no such policy. One for an arena, which is reserved by then: what it knows is in the frames.
  static result<std::unique_ptr<eviction>> create(eviction_policy policy, const frame_arena& arena);

  virtual ~eviction() = default;
  eviction(const eviction&) = delete;
  eviction& operator=(const eviction&) = delete;

  // A page that was brought in; its key is set, and it has no marks.
  virtual void insert(frame& page) = 0;
  virtual void remove(frame& page, departure why) = 0;
  // A search for a page to evict begins; it calls advance until it takes a page, or gives up after `steps_max()`.
  virtual void begin() {}
  // Looks at the next page, and returns it if by the policy it may go, null if it stays or there is none. Whoever
  // cannot evict it goes on.
  virtual frame* advance() = 0;
  // The page that follows `page`, which advance returned as one that may go, in the order in which it will look at
  // them; null at the end of that queue. Looks at nothing: it changes no mark, nor where the search goes on.
  virtual frame* following(const frame& page) const = 0;
  virtual std::uint32_t size() const = 0;
  // After so many steps every page was returned once, whatever its marks were.
  virtual std::uint64_t steps_max() const { return std::uint64_t{2} * size(); }
  // Pages that were just brought in have one part of so many to stay in until they are hit.
  virtual std::uint32_t share_of_new() const { return 4; }
  // A page that is held was hit. Called for every hit if `told_of_hits()`, else never.
  virtual void hit(frame&) {}
  virtual bool told_of_hits() const { return false; }
  // The marks that hits set, lowest first.
  virtual state_word marks() const { return visited; }

 protected:
  explicit eviction(const frame_arena& arena) : arena_(arena) {}
  const frame_arena& arena_;
};

}  // namespace larder::page
