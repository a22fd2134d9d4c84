// SPDX-License-Identifier: Apache-2.0
//
// A disk in a world: slow, and in no order but its own.
//
// A request is cut into pieces at the borders of sectors; the pieces are done in any order, at several moments of its
// time. So a read that meets a write finds some of it, and a page that is changed while it is written reaches the disk
// as a mixture. A request that fails has done any of its pieces. What was written is lost by a power cut until a flush
// has succeeded that began after it: each sector is then left as the last such flush has found it, or as any write
// since has made it. A flush that fails loses nothing.
//
// Laws, of the cache as the caller: within the size; no two changes of the same bytes in flight; no lock held.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <larder/backing.h>

#include "tests/simulation/world.h"

namespace larder::simulation {

struct disk_settings {
  std::uint64_t size = 0;
  bool discards = true;            // else EOPNOTSUPP
  std::uint64_t latency_us = 50;   // on average; 0: at once
  std::uint64_t slow_in_1000 = 0;  // requests that take 100 times as long
  // Requests of 1000 that fail.
  std::uint64_t reads_fail = 0;
  std::uint64_t writes_fail = 0;
  std::uint64_t discards_fail = 0;
  std::uint64_t flushes_fail = 0;
  bool tears = true;  // what fails may be done in part
  std::size_t writes_at_once = 4;
};

class virtual_disk final : public backing {
 public:
  static constexpr std::size_t sector_size = 512;

  virtual_disk(world& whole, const disk_settings& chosen);

  bytes size() const override { return {settings.size}; }
  result<void> read(std::span<const iovec> into, std::uint64_t offset) override;
  result<void> write(std::span<const iovec> from, std::uint64_t offset) override;
  void write_many(std::span<backing_write> writes) override;
  std::size_t writes_at_once() const override { return settings.writes_at_once; }
  result<void> discard(std::uint64_t offset, bytes length) override;
  result<void> zero(std::uint64_t offset, bytes length) override;
  result<void> flush() override;

  // What a read finds now.
  std::span<std::byte> contents() { return image_; }
  // All of it is durable as it is.
  void settle();
  // What a power cut may leave now; `worst`: nothing but what is durable for certain.
  std::vector<std::byte> left_by_power_cut(bool worst);
  // How many requests have failed so far.
  std::uint64_t failures() const { return failures_; }

  // May change between requests.
  disk_settings settings;

 private:
  using sector = std::array<std::byte, sector_size>;
  struct version {
    std::uint64_t number = 0;
    sector bytes{};
  };
  enum class kind : unsigned char { read, write, zero };
  struct piece {
    std::byte* memory = nullptr;  // null: zeros
    std::uint64_t offset = 0;
    std::size_t length = 0;
  };
  struct range {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
  };

  void lose_some(std::vector<piece>& pieces);
  void carry_out(kind what, std::vector<piece> pieces);
  result<void> outcome_of(bool fails);
  static std::uint64_t length_of(std::span<const piece> pieces);
  std::vector<piece> cut(std::span<const iovec> vectors, std::uint64_t offset);
  void apply(kind what, const piece& one);
  void begin(std::uint64_t offset, std::uint64_t length);
  void begin_change(const range& mine);
  void end_change(const range& mine);
  std::chrono::nanoseconds latency();
  std::error_code next_error();

  world& world_;
  std::vector<std::byte> image_;                // as reads find it
  std::vector<std::byte> durable_;              // as the last good flush has made it
  std::vector<std::vector<version>> versions_;  // of each sector since then, oldest first
  std::uint64_t versions_made_ = 0;
  std::vector<range> changing_;  // in flight
  unsigned flushing_ = 0;        // in flight
  std::uint64_t failures_ = 0;
};

}  // namespace larder::simulation
