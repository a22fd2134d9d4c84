// SPDX-License-Identifier: Apache-2.0
#include "cache/depot.h"

#include <algorithm>

#include "base/check.h"
#include "cache/span.h"

namespace larder::cache {

// The head of a page of batches.
struct depot::page : base::list_link<> {
  static constexpr std::size_t batches = 8;
  batch* blanks = nullptr;
  std::size_t blank_count = 0;

  bool is_spare() const { return blank_count == batches; }
  static page& of(batch* one) {
    return *reinterpret_cast<page*>(reinterpret_cast<std::uintptr_t>(one) & ~(std::uintptr_t{page_size} - 1));
  }
};

namespace {

constexpr span_shape page_shape{bytes{page_size}, page_size, bytes{page_size}};

}  // namespace

depot::~depot() {
  LARDER_CHECK(full_ == 0, "a depot is destroyed with %zu batches", full_);
  release_spare();
  LARDER_CHECK(pages_ == 0, "a depot is destroyed with batches away from %zu pages", pages_);
}

void depot::release(page& unused) {
  base::intrusive_list<page>::remove(unused);
  unused.~page();
  --pages_;
  --spare_;
  spare_low_water_ = std::min(spare_low_water_, spare_);
  charged_ -= page_shape.charge;
  unmap_span(budget_, page_shape, &unused);
}

depot::batch* depot::blank() {
  static_assert(sizeof(page) + page::batches * sizeof(batch) <= page_size);
  if (with_blanks_.empty()) {
    const result<void*> mapped = map_span(budget_, page_shape);
    if (!mapped) return nullptr;
    auto* made = ::new (*mapped) page;
    auto* first = reinterpret_cast<batch*>(made + 1);
    for (std::size_t i = 0; i < page::batches; ++i) {
      first[i].next = made->blanks;
      made->blanks = &first[i];
    }
    made->blank_count = page::batches;
    with_blanks_.push_front(*made);
    ++pages_;
    ++spare_;
    charged_ += page_shape.charge;
  }
  page& from = *with_blanks_.front();
  if (from.is_spare()) {
    --spare_;
    spare_low_water_ = std::min(spare_low_water_, spare_);
  }
  batch* taken = from.blanks;
  from.blanks = taken->next;
  if (--from.blank_count == 0) base::intrusive_list<page>::remove(from);
  return taken;
}

void depot::recycle(batch* emptied) {
  page& home = page::of(emptied);
  emptied->next = home.blanks;
  home.blanks = emptied;
  if (++home.blank_count == 1) with_blanks_.push_front(home);
  if (!home.is_spare()) return;
  ++spare_;
  base::intrusive_list<page>::remove(home);
  with_blanks_.push_back(home);
}

void depot::begin_period() {
  low_water_ = full_;
  for (std::size_t unneeded = spare_low_water_; unneeded > 0 && pages_ > 1; --unneeded) release(*with_blanks_.back());
  spare_low_water_ = spare_;
}

void depot::release_spare() {
  if (full_ > 0) return;
  while (page* spare = with_blanks_.front()) release(*spare);
}

void depot::add(batch* filled) {
  filled->next = top_;
  top_ = filled;
  ++full_;
  objects_ += filled->count;
}

depot::batch* depot::take() {
  batch* taken = top_;
  if (taken == nullptr) return nullptr;
  top_ = taken->next;
  --full_;
  objects_ -= taken->count;
  low_water_ = std::min(low_water_, full_);
  return taken;
}

void depot::audit(const char* cache_name) const {
  std::size_t full = 0;
  std::size_t objects = 0;
  for (const batch* at = top_; at != nullptr; at = at->next) {
    LARDER_CHECK(at->count > 0 && at->count <= batch_max, "cache \"%s\": a batch of %llu objects in the depot",
                 cache_name, static_cast<unsigned long long>(at->count));
    ++full;
    objects += at->count;
  }
  LARDER_CHECK(full == full_ && objects == objects_,
               "cache \"%s\": the depot counts %zu batches of %zu objects, and has %zu of %zu", cache_name, full_,
               objects_, full, objects);
  LARDER_CHECK(low_water_ <= full_, "cache \"%s\": %zu of %zu batches in the depot are surplus", cache_name, low_water_,
               full_);
  std::size_t spare = 0;
  for (page* at = with_blanks_.front(); at != nullptr; at = with_blanks_.after(*at)) spare += at->is_spare() ? 1U : 0U;
  LARDER_CHECK(spare == spare_ && spare_low_water_ <= spare_ && spare_ <= pages_,
               "cache \"%s\": the depot counts %zu spare pages of %zu, %zu of them through the period, and has %zu",
               cache_name, spare_, pages_, spare_low_water_, spare);
  LARDER_CHECK(charged_ == page_shape.charge * pages_, "cache \"%s\": the depot's %zu pages are charged %llu bytes",
               cache_name, pages_, static_cast<unsigned long long>(charged_.count));
}

}  // namespace larder::cache
