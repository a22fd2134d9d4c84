// SPDX-License-Identifier: Apache-2.0
//
// The face of a file: pinning of consecutive pages with their misses read in together, and what is made of it: reads
// and writes of bytes, flush, discard. Ranges are worked off in chunks of as many pages as the admission allows.
#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "base/mutant.h"
#include "page/cache_core.h"

namespace larder {

using page::batch_pages_max;
using page::cache_core;

namespace {

// Pages that a function asks for if it has to admit itself: enough to read in neighbours together.
constexpr std::uint32_t own_admission_pages = 16;

bool is_within(const page::file& file, std::uint64_t offset, std::uint64_t length) {
  return offset <= file.size && length <= file.size - offset;
}

// The admission that was given, or one of our own.
result<pin_admission*> admission_for(cache_core& core, pin_admission* given, pin_admission& own, std::uint64_t pages) {
  if (given != nullptr) {
    LARDER_CHECK(given->available() > 0, "page cache: an admission with no page available is used");
    return given;
  }
  const auto most = static_cast<std::uint32_t>(std::clamp<std::uint64_t>(pages, 1, own_admission_pages));
  auto admitted = core.admit(1, most, no_deadline);
  if (!admitted) return admitted.error();
  own = *std::move(admitted);
  return &own;
}

// Up to batch_pages_max consecutive pages, pinned.
class chunk {
 public:
  // Pins the pages of a range from its start, as many as the admission allows.
  result<void> pin(cached_file& file, const page::file& in, std::uint64_t offset, std::uint64_t length, access intent,
                   pin_admission& admission) {
    in_ = &in;
    const std::uint64_t pages = in.pages_touched(offset, length);
    count_ = static_cast<std::size_t>(
        std::min({pages, std::uint64_t{admission.available()}, std::uint64_t{batch_pages_max}}));
    offset_ = offset;
    end_ = std::min(offset + length, in.offset_of(in.page_of(offset) + count_));
    return file.pin_range(in.page_of(offset), std::span(pages_.data(), count_), intent, admission);
  }
  std::uint64_t length() const { return end_ - offset_; }

  // Calls action(page, first byte of it in the range, last, how far into the range) for each page, and unpins it.
  template <typename Action>
  result<void> for_each(Action action) {
    std::uint64_t at = offset_;
    const std::uint64_t page_length = in_->page_length();
    for (std::size_t i = 0; i < count_; ++i) {
      const auto first = static_cast<std::size_t>(at % page_length);
      const auto last = static_cast<std::size_t>(std::min<std::uint64_t>(page_length, first + (end_ - at)));
      if (const result<void> done = action(pages_[i], first, last, at - offset_); !done) return done;
      pages_[i].reset();
      at += last - first;
    }
    return {};
  }

 private:
  const page::file* in_ = nullptr;
  std::array<page_ref, batch_pages_max> pages_;
  std::size_t count_ = 0;
  std::uint64_t offset_ = 0;
  std::uint64_t end_ = 0;
};

// Works a range off in chunks.
template <typename Action>
result<void> for_chunks(cached_file& file, const page::file& in, std::uint64_t offset, std::uint64_t length,
                        access intent, pin_admission& admission, Action action) {
  for (std::uint64_t done = 0; done < length;) {
    chunk pinned;
    if (const auto got = pinned.pin(file, in, offset + done, length - done, intent, admission); !got) return got;
    const auto acted = pinned.for_each([&](page_ref& page, std::size_t first, std::size_t last, std::uint64_t into) {
      return action(page, first, last, done + into);
    });
    if (!acted) return acted;
    done += pinned.length();
  }
  return {};
}

result<void> write_zeros(cached_file& file, const page::file& in, std::uint64_t offset, std::uint64_t length,
                         pin_admission& admission) {
  return for_chunks(file, in, offset, length, access::overwrite, admission,
                    [](page_ref& page, std::size_t first, std::size_t last, std::uint64_t) {
                      std::memset(page.data().data() + first, 0, last - first);
                      return page.written(first, last);
                    });
}

}  // namespace

cached_file::~cached_file() { file_.core.close(file_); }

bytes cached_file::size() const { return {file_.size}; }
bytes cached_file::page_size() const { return {file_.page_length()}; }

[[gnu::always_inline]] inline page::frame* cached_file::pin_present(std::uint64_t page_number,
                                                                    pin_admission& admission) {
  LARDER_CHECK(admission.available() > 0, "page cache: more pages are pinned than the %u admitted", admission.pages());
  if (page_number >= file_.pages()) [[unlikely]]
    return nullptr;
  page::frame* frame = file_.core.try_pin(file_, page_number);
  if (frame == nullptr) [[unlikely]]
    return nullptr;
  ++admission.pinned_;
  ++admission.hits_;
  return frame;
}

page_ref cached_file::try_pin(std::uint64_t page_number, pin_admission& admission) {
  page::frame* frame = pin_present(page_number, admission);
  if (frame == nullptr) [[unlikely]]
    return {};
  return {admission, *frame, file_.core.data_of(*frame), file_.bytes_in_page(page_number), false};
}

// The look-up is here, and not called, for this is what a hit costs.
result<page_ref> cached_file::pin(std::uint64_t page_number, access intent, pin_admission& admission) {
  if (intent != access::read) [[unlikely]]
    return pin_slowly(page_number, intent, admission);
  page::frame* frame = pin_present(page_number, admission);
  if (frame == nullptr) [[unlikely]]
    return pin_slowly(page_number, intent, admission);
  return page_ref(admission, *frame, file_.core.data_of(*frame), file_.bytes_in_page(page_number), false);
}

[[gnu::noinline]] result<page_ref> cached_file::pin_slowly(std::uint64_t page_number, access intent,
                                                           pin_admission& admission) {
  page_ref pinned;
  if (const auto got = pin_range(page_number, std::span(&pinned, 1), intent, admission); !got) return got.error();
  return pinned;
}

// Misses are pinned as fresh, and read in together, before anything that is another's is waited for; if something
// fails, dropping the references undoes it all.
result<void> cached_file::pin_range(std::uint64_t first_page, std::span<page_ref> into, access intent,
                                    pin_admission& admission) {
  LARDER_CHECK(admission.available() >= into.size(), "page cache: %zu pages are to be pinned, %u are admitted",
               into.size(), admission.available());
  if (first_page > file_.pages() || into.size() > file_.pages() - first_page) return error_from(EINVAL);
  if (intent != access::read) file_.core.limit_dirty(file_);
  result<void> outcome;
  for (std::size_t i = 0; i < into.size() && outcome; ++i) {
    const auto settled = pin_one(first_page + i, into[i], admission);
    if (!settled) {
      outcome = settled.error();
    } else if (!*settled) {
      if (intent != access::overwrite) outcome = fill_fresh(first_page, into.first(i));
      if (outcome) wait_until_settled(into[i]);
    }
  }
  if (outcome && intent != access::overwrite && !into.empty()) {
    const bool at_end_missed = intent == access::read && into.back().fresh_;
    outcome = at_end_missed ? fill_and_read_ahead(first_page, into) : fill_fresh(first_page, into);
  }
  if (!outcome) {
    for (page_ref& each : into) each.reset();
    return outcome;
  }
  if (intent != access::read) {
    // So that what is being written is one state of the page.
    for (page_ref& each : into) {
      while ((each.frame_->state.load() & page::writing) != 0) file_.core.wait_while(*each.frame_, page::writing);
    }
  }
  return outcome;
}

// False if the page is pinned, but another's to fill.
result<bool> cached_file::pin_one(std::uint64_t page_number, page_ref& into, pin_admission& admission) {
  into = try_pin(page_number, admission);
  if (into) return true;
  const auto pinned = file_.core.pin(file_, page_number);
  if (!pinned) return pinned.error();
  const bool fresh = pinned->outcome == cache_core::pin_outcome::to_fill;
  ++admission.pinned_;
  ++(fresh ? admission.misses_ : admission.hits_);
  into = page_ref(admission, *pinned->page, file_.core.data_of(*pinned->page), file_.bytes_in_page(page_number), fresh);
  if (fresh) clear_end(into);
  return pinned->outcome != cache_core::pin_outcome::being_filled;
}

// Waits until a pinned page is filled, or is this reference's to fill.
void cached_file::wait_until_settled(page_ref& pinned) {
  for (;;) {
    file_.core.wait_while(*pinned.frame_, page::busy);
    const auto outcome = file_.core.look_at(*pinned.frame_);
    if (outcome == cache_core::pin_outcome::being_filled) continue;
    pinned.fresh_ = outcome == cache_core::pin_outcome::to_fill;
    if (pinned.fresh_) clear_end(pinned);
    return;
  }
}

// What a page has beyond the end of its file is zeros, whatever the frame held before.
void cached_file::clear_end(page_ref& fresh) const {
  std::memset(fresh.data_ + fresh.size_, 0, file_.page_length() - fresh.size_);
}

// Reads the fresh ones among consecutive pages in, each run of neighbours with one read; with the last, which then is
// fresh, also the pages in `ahead`, which follow it.
result<void> cached_file::fill_fresh(std::uint64_t first_page, std::span<page_ref> pages, std::span<page_ref> ahead) {
  std::array<iovec, batch_pages_max> vectors{};
  for (std::size_t first = 0; first < pages.size();) {
    std::size_t end = first;
    for (; end < pages.size() && pages[end].fresh_ && end - first < batch_pages_max; ++end) {
      vectors[end - first] = {pages[end].data_, pages[end].size_};
    }
    const std::size_t count = end - first;
    if (count == 0) {
      ++first;
      continue;
    }
    const std::uint64_t offset = file_.offset_of(first_page + first);
    std::size_t with_ahead = count;
    if (end == pages.size()) {
      for (const page_ref& each : ahead) vectors[with_ahead++] = {each.data_, each.size_};
    }
    file_.core.wait_for_discards(file_, first_page + first, first_page + first + with_ahead);
    auto read = file_.source.read(std::span(vectors.data(), with_ahead), offset);
    if (!read && with_ahead > count) {  // nobody asked for those
      with_ahead = count;
      read = file_.source.read(std::span(vectors.data(), count), offset);
    }
    if (!read) return read;
    file_.core.note_read(with_ahead);
    for (; first < end; ++first) {
      page_ref& filled = pages[first];
      while (!file_.core.publish(*filled.frame_, false, false)) {
        const iovec again{filled.data_, filled.size_};
        file_.core.wait_for_discards(file_, first_page + first, first_page + first + 1);
        const auto reread = file_.source.read(std::span(&again, 1), file_.offset_of(first_page + first));
        if (!reread) return reread;
      }
      filled.fresh_ = false;
    }
    // What is stale by now is given up by its reference.
    for (page_ref& each : ahead.first(with_ahead - count)) {
      each.fresh_ = !file_.core.publish(*each.frame_, false, false, page::read_ahead);
    }
  }
  return {};
}

// Consecutive pages of which the last is missing.
result<void> cached_file::fill_and_read_ahead(std::uint64_t first_page, std::span<page_ref> pages) {
  const std::uint64_t end = first_page + pages.size();
  std::size_t missing = 0;
  while (missing < pages.size() && pages[pages.size() - missing - 1].fresh_) ++missing;
  if (missing >= batch_pages_max) return fill_fresh(first_page, pages);
  const std::uint32_t wanted = file_.core.pages_to_read_ahead(file_, end - missing, end);
  if (wanted == 0) return fill_fresh(first_page, pages);
  pin_admission admission = file_.core.admit_ahead(wanted);
  std::array<page_ref, batch_pages_max> ahead;
  std::size_t count = 0;
  for (; count < admission.pages(); ++count) {
    page::frame* begun = file_.core.begin_ahead(file_, end + count);
    if (begun == nullptr) break;
    ++admission.pinned_;
    ahead[count] = page_ref(admission, *begun, file_.core.data_of(*begun), file_.bytes_in_page(end + count), true);
    clear_end(ahead[count]);
  }
  const auto filled = fill_fresh(first_page, pages, std::span(ahead.data(), count));
  if (filled && count > 0 && !ahead[0].fresh_) file_.core.note_read_ahead(file_, end, count);
  for (page_ref& each : ahead) each.reset();
  return filled;
}

result<void> cached_file::read(std::uint64_t offset, std::span<std::byte> into, pin_admission* admission) {
  if (!is_within(file_, offset, into.size())) return error_from(EINVAL);
  pin_admission own;
  const auto using_it = admission_for(file_.core, admission, own, file_.pages_touched(offset, into.size()));
  if (!using_it) return using_it.error();
  return for_chunks(*this, file_, offset, into.size(), access::read, **using_it,
                    [into](page_ref& page, std::size_t first, std::size_t last, std::uint64_t done) -> result<void> {
                      std::memcpy(into.data() + done, page.data().data() + first, last - first);
                      return {};
                    });
}

result<void> cached_file::write(std::uint64_t offset, std::span<const std::byte> from, pin_admission* admission) {
  if (!is_within(file_, offset, from.size())) return error_from(EINVAL);
  pin_admission own;
  const auto using_it = admission_for(file_.core, admission, own, file_.pages_touched(offset, from.size()));
  if (!using_it) return using_it.error();
  return for_chunks(*this, file_, offset, from.size(), access::overwrite, **using_it,
                    [from](page_ref& page, std::size_t first, std::size_t last, std::uint64_t done) {
                      std::memcpy(page.data().data() + first, from.data() + done, last - first);
                      return page.written(first, last);
                    });
}

result<void> cached_file::read_ahead(std::uint64_t offset, bytes length, pin_admission* admission) {
  if (!is_within(file_, offset, length.count)) return error_from(EINVAL);
  pin_admission own;
  const auto using_it = admission_for(file_.core, admission, own, file_.pages_touched(offset, length.count));
  if (!using_it) return using_it.error();
  return for_chunks(*this, file_, offset, length.count, access::read, **using_it,
                    [](page_ref&, std::size_t, std::size_t, std::uint64_t) -> result<void> { return {}; });
}

bool cached_file::resident(std::uint64_t offset, bytes length) const {
  if (!is_within(file_, offset, length.count)) return false;
  const std::uint64_t first = file_.page_of(offset);
  return file_.core.all_valid(file_, first, first + file_.pages_touched(offset, length.count));
}

result<void> cached_file::flush() {
  const auto written = file_.write_pass.run([this] { return file_.core.write_all(file_); });
  // Synced also after an error: what could be written is then durable.
  if (base::is_mutant(base::mutant::flush_without_sync)) return written;
  const auto synced = file_.sync.run([this] { return file_.source.flush(); });
  return written ? synced : written;
}

result<void> cached_file::flush_range(std::uint64_t offset, bytes length) {
  if (!is_within(file_, offset, length.count)) return error_from(EINVAL);
  const std::uint64_t first = file_.page_of(offset);
  const auto written = file_.core.write_range(file_, first, first + file_.pages_touched(offset, length.count));
  const auto synced = file_.sync.run([this] { return file_.source.flush(); });
  return written ? synced : written;
}

result<void> cached_file::discard(std::uint64_t offset, bytes length, pin_admission* admission) {
  return zero(offset, length, false, admission);
}

result<void> cached_file::zero(std::uint64_t offset, bytes length, bool keep_blocks, pin_admission* admission) {
  if (!is_within(file_, offset, length.count)) return error_from(EINVAL);
  if (length.count == 0) return {};
  const std::uint64_t end = offset + length.count;
  // Whole pages; the last page of the file is whole if it is zeroed up to the file's end.
  const std::uint64_t first = file_.page_of(offset + file_.page_length() - 1);
  const std::uint64_t last = end == file_.size ? file_.pages() : file_.page_of(end);
  if (first < last) {
    const std::uint64_t inner_offset = file_.offset_of(first);
    const bytes inner{std::min(file_.offset_of(last), file_.size) - inner_offset};
    page::discard_in_progress discarding(first, last);
    file_.core.begin_discard(file_, discarding);
    const auto done = keep_blocks ? file_.source.zero(inner_offset, inner) : file_.source.discard(inner_offset, inner);
    file_.core.end_discard(file_, discarding, bool{done});
    if (!done && done.error() != std::errc::operation_not_supported) return done;
    if (done && offset == inner_offset && end == inner_offset + inner.count) return {};
    if (done) return zero_edges(offset, end, inner_offset, inner_offset + inner.count, admission);
  }
  return zero_edges(offset, end, end, end, admission);
}

// Writes zeros from `offset` to `inner` and from `inner_end` to `end`.
result<void> cached_file::zero_edges(std::uint64_t offset, std::uint64_t end, std::uint64_t inner,
                                     std::uint64_t inner_end, pin_admission* admission) {
  pin_admission own;
  const auto using_it = admission_for(file_.core, admission, own, file_.pages_touched(offset, end - offset));
  if (!using_it) return using_it.error();
  if (const auto before = write_zeros(*this, file_, offset, inner - offset, **using_it); !before) return before;
  return write_zeros(*this, file_, inner_end, end - inner_end, **using_it);
}

void cached_file::abandon() { file_.core.abandon(file_); }

}  // namespace larder
