// SPDX-License-Identifier: Apache-2.0
//
// What a file may hold, as its users can know it.
//
// A file is units of 64 bytes; all of a unit is written at once, with eight words that follow from the write, the file
// and the place: so bytes that are in the wrong place, or of two writes in one unit, are seen. For each unit the model
// keeps the writes that may be what it holds: of each, when it began, when it ended, and since when it is surely gone.
//
//   A write W that succeeded ends every write that had ended before W began, from W's end on.
//   A read that began after a write V had ended, and found another's value, ends V from the read's end on.
//   A write that failed may have done its work or not: it ends nothing.
//
// So a read may find a write that began before the read ended, and is not gone since before the read began. A power cut
// may leave one that was not gone before the last good flush of that unit began, but only the end of the write that
// took its place makes it so: what a read found need not be durable before. A discard is a write of zeros.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "tests/simulation/random_source.h"

namespace larder::simulation {

inline constexpr std::uint64_t unit_size = 64;

class contents_model {
 public:
  using moment = std::uint64_t;  // world::moment
  using stamp = std::uint64_t;   // names a write; 0 writes zeros
  static constexpr moment never = std::numeric_limits<moment>::max();

  contents_model(std::uint64_t file_number, std::uint64_t size) : salt_(file_number << 40), units_(size / unit_size) {}

  // The file holds this from the beginning, and durably.
  void begin_with(stamp value);
  std::uint64_t size() const { return units_.size() * unit_size; }
  std::uint64_t units() const { return units_.size(); }

  // Fills units with what a write of theirs writes.
  void fill(std::uint64_t first_unit, std::span<std::byte> into, stamp value) const;

  void begin_write(std::uint64_t first, std::uint64_t last, stamp value, moment began);
  void end_write(std::uint64_t first, std::uint64_t last, moment began, moment ended, bool succeeded);

  // Between the two, nothing is forgotten that the read may find.
  void begin_read(moment began) { reads_.insert(began); }
  void end_read(moment began) { reads_.erase(reads_.find(began)); }
  // Empty, or what is wrong with what a read from `began` to `ended` found.
  std::string check_read(std::uint64_t first_unit, std::span<const std::byte> found, moment began, moment ended);

  // A flush of these units that began then has succeeded.
  void note_flush(std::uint64_t first, std::uint64_t last, moment began);
  // Empty, or what is wrong with what would be left on the disk if the power went now.
  std::string check_left(std::span<const std::byte> image) const;

 private:
  struct record {
    stamp value = 0;
    moment began = 0;
    moment ended = never;
    moment gone = never;         // a read that begins later does not find it
    moment overwritten = never;  // a flush that begins later does not leave it to a power cut
    bool succeeded = false;
  };
  struct unit {
    std::vector<record> records;
    moment flushed = 0;
  };

  std::uint64_t word(std::uint64_t number, stamp value) const {
    return value == 0 ? 0 : random_source::mixed((value << 20) ^ salt_ ^ number);
  }
  // Of the writes that may have left these bytes, the one that is `until` last; null if they are of no write known.
  const record* find(std::uint64_t number, const std::byte* bytes, moment record::*until) const;
  std::string describe(std::uint64_t number, const std::byte* bytes, const char* what) const;

  const std::uint64_t salt_;
  std::vector<unit> units_;
  std::multiset<moment> reads_;
};

}  // namespace larder::simulation
