// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/contents_model.h"

#include <algorithm>
#include <cstring>

namespace larder::simulation {
namespace {

constexpr std::size_t words_in_unit = unit_size / sizeof(std::uint64_t);

}  // namespace

void contents_model::begin_with(stamp value) {
  for (unit& each : units_) {
    each.records.assign(1, {.value = value, .began = 0, .ended = 0, .succeeded = true});
  }
}

void contents_model::fill(std::uint64_t first_unit, std::span<std::byte> into, stamp value) const {
  for (std::size_t at = 0; at < into.size(); at += sizeof(std::uint64_t)) {
    const std::uint64_t filling = word(first_unit + at / unit_size, value);
    std::memcpy(into.data() + at, &filling, sizeof filling);
  }
}

void contents_model::begin_write(std::uint64_t first, std::uint64_t last, stamp value, moment began) {
  const moment oldest_read = reads_.empty() ? never : *reads_.begin();
  for (; first < last; ++first) {
    unit& at = units_[first];
    const moment needed = std::min(oldest_read, at.flushed);
    std::erase_if(at.records, [&](const record& each) { return std::max(each.gone, each.overwritten) < needed; });
    at.records.push_back({.value = value, .began = began});
  }
}

void contents_model::end_write(std::uint64_t first, std::uint64_t last, moment began, moment ended, bool succeeded) {
  for (; first < last; ++first) {
    std::vector<record>& records = units_[first].records;
    const auto own =
        std::find_if(records.begin(), records.end(), [&](const record& each) { return each.began == began; });
    if (own == records.end()) continue;
    own->ended = ended;
    own->succeeded = succeeded;
    if (!succeeded) continue;
    for (record& each : records) {
      if (each.ended > own->began) continue;
      each.gone = std::min(each.gone, ended);
      each.overwritten = std::min(each.overwritten, ended);
    }
  }
}

const contents_model::record* contents_model::find(std::uint64_t number, const std::byte* bytes,
                                                   moment record::*until) const {
  std::uint64_t words[words_in_unit];
  std::memcpy(words, bytes, sizeof words);
  if (!std::all_of(words, words + words_in_unit, [&](std::uint64_t each) { return each == words[0]; })) return nullptr;
  const record* found = nullptr;
  for (const record& each : units_[number].records) {
    if (word(number, each.value) != words[0]) continue;
    if (found == nullptr || each.*until > found->*until) found = &each;
  }
  return found;
}

std::string contents_model::check_read(std::uint64_t first_unit, std::span<const std::byte> found, moment began,
                                       moment ended) {
  for (std::size_t at = 0; at < found.size(); at += unit_size) {
    const std::uint64_t number = first_unit + at / unit_size;
    const record* seen = find(number, found.data() + at, &record::gone);
    if (seen == nullptr || seen->gone <= began) return describe(number, found.data() + at, "was read");
    std::vector<record>& records = units_[number].records;
    const bool has_ended = std::none_of(records.begin(), records.end(), [&](const record& each) {
      return each.value == seen->value && each.ended == never;
    });
    for (record& each : records) {
      if (each.value == seen->value || each.ended > began) continue;
      each.gone = std::min(each.gone, ended);
      if (has_ended) each.overwritten = std::min(each.overwritten, ended);
    }
  }
  return {};
}

void contents_model::note_flush(std::uint64_t first, std::uint64_t last, moment began) {
  for (; first < last; ++first) units_[first].flushed = std::max(units_[first].flushed, began);
}

std::string contents_model::check_left(std::span<const std::byte> image) const {
  for (std::size_t at = 0; at < image.size(); at += unit_size) {
    const std::uint64_t number = at / unit_size;
    const record* seen = find(number, image.data() + at, &record::overwritten);
    if (seen == nullptr || seen->overwritten <= units_[number].flushed) {
      return describe(number, image.data() + at, "would be left by a power cut");
    }
  }
  return {};
}

std::string contents_model::describe(std::uint64_t number, const std::byte* bytes, const char* what) const {
  const unit& at = units_[number];
  std::uint64_t first = 0;
  std::memcpy(&first, bytes, sizeof first);
  const auto text = [](moment when) { return when == never ? std::string("-") : std::to_string(when); };
  std::string all = "file " + std::to_string(salt_ >> 40) + ", bytes from " + std::to_string(number * unit_size) +
                    " (page " + std::to_string(number * unit_size / 4096) + "): ";
  if (const record* seen = find(number, bytes, &record::gone); seen != nullptr) {
    all += "write " + std::to_string(seen->value) + ", overwritten at " + text(seen->overwritten) + ", gone since " +
           text(seen->gone);
  } else {
    all += "what no write wrote (first word " + std::to_string(first) + ")";
  }
  all += std::string(", ") + what + "; flushed since " + text(at.flushed) + "; writes (began, ended, gone):";
  for (const record& each : at.records) {
    all += "\n    " + std::to_string(each.value) + " (" + text(each.began) + ", " + text(each.ended) + ", " +
           text(each.gone) + (each.succeeded || each.ended == never ? ")" : ", failed)");
  }
  return all;
}

}  // namespace larder::simulation
