// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/virtual_disk.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/lock_rank.h"

namespace larder::simulation {
namespace {

// More would only be more of the same.
constexpr std::size_t versions_max = 5;

}  // namespace

virtual_disk::virtual_disk(world& whole, const disk_settings& chosen)
    : settings(chosen),
      world_(whole),
      image_(chosen.size),
      durable_(chosen.size),
      versions_((chosen.size + sector_size - 1) / sector_size) {}

void virtual_disk::settle() {
  durable_ = image_;
  for (auto& each : versions_) each.clear();
}

std::chrono::nanoseconds virtual_disk::latency() {
  if (settings.latency_us == 0) return {};
  const std::uint64_t usual_us = 1 + world_.random().below(2 * settings.latency_us);
  return std::chrono::microseconds(world_.random().happens(settings.slow_in_1000) ? 100 * usual_us : usual_us);
}

std::error_code virtual_disk::next_error() { return error_from(world_.random().one_in(3) ? ENOSPC : EIO); }

// What every request begins with.
void virtual_disk::begin(std::uint64_t offset, std::uint64_t length) {
  base::check_no_lock_held("a request to the disk");
  world_.require(world::actor_of_now() != nullptr, "a request to the disk from outside of the world");
  world_.require(offset <= image_.size() && length <= image_.size() - offset, "a request beyond the disk's end");
}

std::vector<virtual_disk::piece> virtual_disk::cut(std::span<const iovec> vectors, std::uint64_t offset) {
  std::vector<piece> pieces;
  for (const iovec& vector : vectors) {
    auto* memory = static_cast<std::byte*>(vector.iov_base);
    for (std::size_t left = vector.iov_len; left > 0;) {
      const std::size_t length = std::min(left, sector_size - offset % sector_size);
      pieces.push_back({memory, offset, length});
      memory += length;
      offset += length;
      left -= length;
    }
  }
  return pieces;
}

void virtual_disk::apply(kind what, const piece& one) {
  std::byte* const at = image_.data() + one.offset;
  if (what == kind::read) {
    std::memcpy(one.memory, at, one.length);
    return;
  }
  if (what == kind::write) {
    std::memcpy(at, one.memory, one.length);
  } else {
    std::memset(at, 0, one.length);
  }
  const std::uint64_t number = one.offset / sector_size;
  version made{.number = ++versions_made_};
  const std::size_t begin = number * sector_size;
  std::memcpy(made.bytes.data(), image_.data() + begin, std::min(sector_size, image_.size() - begin));
  std::vector<version>& all = versions_[number];
  if (all.size() >= versions_max && flushing_ == 0) {  // a flush looks for the last before it
    all.erase(all.begin() + static_cast<std::ptrdiff_t>(world_.random().below(all.size() - 1)));
  }
  all.push_back(made);
}

// Of a request that fails: the pieces that are not done.
void virtual_disk::lose_some(std::vector<piece>& pieces) {
  random_source& random = world_.random();
  const std::uint64_t done_in_1000 = settings.tears && !random.one_in(3) ? random.below(1001) : 0;
  std::erase_if(pieces, [&](const piece&) { return !random.happens(done_in_1000); });
}

// Takes its time.
void virtual_disk::carry_out(kind what, std::vector<piece> pieces) {
  random_source& random = world_.random();
  for (std::size_t i = pieces.size(); i > 1; --i) std::swap(pieces[i - 1], pieces[random.below(i)]);
  const std::chrono::nanoseconds whole = latency();
  std::size_t next = 0;
  if (whole.count() > 0) {
    // Some at the beginning, some on the way, the rest at the end.
    for (const std::uint64_t parts = random.below(3); next < pieces.size() && parts > 0;) {
      const std::size_t until = next + random.below(pieces.size() - next + 1);
      for (; next < until; ++next) apply(what, pieces[next]);
      if (random.below(2) == 0) break;
      world_.sleep(whole / 3);
    }
    world_.sleep(whole);
  }
  for (; next < pieces.size(); ++next) apply(what, pieces[next]);
}

result<void> virtual_disk::outcome_of(bool fails) {
  if (!fails) return {};
  ++failures_;
  return next_error();
}

result<void> virtual_disk::read(std::span<const iovec> into, std::uint64_t offset) {
  std::vector<piece> pieces = cut(into, offset);
  const std::uint64_t length = length_of(pieces);
  begin(offset, length);
  const bool fails = world_.random().happens(settings.reads_fail);
  world_.trace("disk: read", offset, length, fails ? 1 : 0);
  if (fails) lose_some(pieces);
  carry_out(kind::read, std::move(pieces));
  return outcome_of(fails);
}

result<void> virtual_disk::write(std::span<const iovec> from, std::uint64_t offset) {
  backing_write one{.from = from, .offset = offset};
  write_many(std::span(&one, 1));
  return one.outcome;
}

// All at once: their pieces are done in one order.
void virtual_disk::write_many(std::span<backing_write> writes) {
  std::vector<piece> all;
  std::vector<range> ranges;
  for (backing_write& each : writes) {
    std::vector<piece> pieces = cut(each.from, each.offset);
    const std::uint64_t length = length_of(pieces);
    begin(each.offset, length);
    begin_change(ranges.emplace_back(range{each.offset, each.offset + length}));
    const bool fails = world_.random().happens(settings.writes_fail);
    world_.trace("disk: write", each.offset, length, fails ? 1 : 0);
    if (fails) lose_some(pieces);
    each.outcome = outcome_of(fails);
    all.insert(all.end(), pieces.begin(), pieces.end());
  }
  carry_out(kind::write, std::move(all));
  for (std::size_t i = 0; i < writes.size(); ++i) {
    world_.trace("disk: wrote", writes[i].offset, ranges[i].end - ranges[i].begin, writes[i].outcome ? 0 : 1);
    end_change(ranges[i]);
  }
}

std::uint64_t virtual_disk::length_of(std::span<const piece> pieces) {
  std::uint64_t length = 0;
  for (const piece& each : pieces) length += each.length;
  return length;
}

void virtual_disk::begin_change(const range& mine) {
  for (const range& other : changing_) {
    world_.require(other.end <= mine.begin || mine.end <= other.begin, "two changes of the same bytes are in flight");
  }
  changing_.push_back(mine);
}

void virtual_disk::end_change(const range& mine) {
  std::erase_if(changing_, [&](const range& each) { return each.begin == mine.begin && each.end == mine.end; });
}

result<void> virtual_disk::discard(std::uint64_t offset, bytes length) { return zero(offset, length); }

result<void> virtual_disk::zero(std::uint64_t offset, bytes length) {
  begin(offset, length.count);
  if (!settings.discards) return error_from(EOPNOTSUPP);
  std::vector<piece> pieces;
  for (std::uint64_t at = offset; at < offset + length.count;) {
    const std::size_t piece_length = std::min<std::size_t>(sector_size - at % sector_size, offset + length.count - at);
    pieces.push_back({nullptr, at, piece_length});
    at += piece_length;
  }
  const bool fails = world_.random().happens(settings.discards_fail);
  world_.trace("disk: zero", offset, length.count, fails ? 1 : 0);
  const range mine{offset, offset + length.count};
  begin_change(mine);
  if (fails) lose_some(pieces);
  carry_out(kind::zero, std::move(pieces));
  end_change(mine);
  return outcome_of(fails);
}

result<void> virtual_disk::flush() {
  begin(0, 0);
  const std::uint64_t before = versions_made_;
  const bool fails = world_.random().happens(settings.flushes_fail);
  world_.trace("disk: flush", fails ? 1 : 0);
  ++flushing_;
  if (const auto time = latency(); time.count() > 0) world_.sleep(2 * time);
  --flushing_;
  if (fails) return outcome_of(true);
  for (std::size_t number = 0; number < versions_.size(); ++number) {
    std::vector<version>& all = versions_[number];
    const auto later = std::find_if(all.begin(), all.end(), [&](const version& each) { return each.number > before; });
    if (later == all.begin()) continue;
    const std::size_t begin_at = number * sector_size;
    std::memcpy(durable_.data() + begin_at, std::prev(later)->bytes.data(),
                std::min(sector_size, durable_.size() - begin_at));
    all.erase(all.begin(), later);
  }
  return {};
}

std::vector<std::byte> virtual_disk::left_by_power_cut(bool worst) {
  std::vector<std::byte> left = durable_;
  if (worst) return left;
  for (std::size_t number = 0; number < versions_.size(); ++number) {
    const std::vector<version>& all = versions_[number];
    const std::size_t chosen = world_.random().below(all.size() + 1);
    if (chosen == 0) continue;
    const std::size_t begin_at = number * sector_size;
    std::memcpy(left.data() + begin_at, all[chosen - 1].bytes.data(), std::min(sector_size, left.size() - begin_at));
  }
  return left;
}

}  // namespace larder::simulation
