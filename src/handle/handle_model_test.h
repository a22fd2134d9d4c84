// SPDX-License-Identifier: Apache-2.0
//
// A handle table beside a model of it, for the fuzzer and the model test: plays operations, looks at every law after
// each, and tells the first that is broken. The laws:
//
//   a handle finds its object from insert to erase; any other value finds nothing, and is a misuse unless it is 0
//   erase and take succeed once; size = entries inserted and not free; insert fails only at the limit or without memory
//   an object is released once: when it was erased and nobody has it pinned; never when it was taken
//   a handle does not come again before its entry was inserted into once for each generation; after a shrink, before
//   its frame was for each second one
//   the table's charge is the budget's, and returns to zero
#pragma once

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include <larder/handle_table.h>
#include <larder/memory_budget.h>

#include "handle/handle_operations.h"

namespace larder::handle_layer {

class handle_model {
 public:
  struct options {
    std::size_t limit = 1;
    // Frames that the budget has room for; 0: as many as are wanted.
    std::size_t frames_max = 0;
  };

  explicit handle_model(options chosen)
      : chosen_(chosen),
        index_bits_(std::max(1U, static_cast<unsigned>(std::bit_width(chosen.limit - 1)))),
        budget_("model", {.limit = chosen.frames_max == 0 ? unlimited : room_for(chosen)}),
        other_budget_("other") {
    table_.emplace("model", options_of(budget_));
    other_.emplace("other", handle_table<object>::options{.limit = chosen.limit, .budget = &other_budget_});
    for (std::size_t i = 0; i < std::min<std::size_t>(chosen.limit, 100); ++i) {
      foreign_.push_back(other_->insert(&stranger_).value);
    }
    expect(std::count(foreign_.begin(), foreign_.end(), 0U) == 0, "an insert below the limit fails");
  }

  // Empty, or the law that was broken and where.
  std::string play(std::span<const std::uint8_t> input) {
    operation_reader reader(input);
    look(operation{});
    while (const auto next = reader.next()) {
      if (!broken_.empty()) return broken_;
      ++step_;
      run(*next);
      look(*next);
    }
    finish();
    return broken_;
  }

  std::uint64_t handles_that_came_again() const { return inserts_ - issues_.size(); }

 private:
  static constexpr std::size_t entries_per_frame = 256;

  struct object {
    std::uint32_t handle = 0;
    std::uint32_t pins = 0;
    std::uint32_t releases = 0;
    bool inserted = false;
  };
  // When a handle was made: how often its entry and its frame had been inserted into.
  struct issue {
    std::uint64_t uses;
    std::uint64_t frame_uses;
    std::uint64_t frames_given_back;
  };
  struct held {
    pinned<object> pin;
    object* of;
  };

  // The form of a handle: as many low bits for the index as the limit needs, and a generation that is not 0.
  std::uint32_t index_of(std::uint32_t value) const { return value & ((std::uint32_t{1} << index_bits_) - 1); }
  std::uint32_t generations() const { return ~std::uint32_t{0} >> index_bits_; }

  // What the table charges with its first frame, and the frames after that; too little for another.
  static bytes room_for(const options& chosen) {
    memory_budget measured("measured");
    handle_table<object> probe("probe", {.limit = chosen.limit, .budget = &measured});
    object any;
    (void)probe.insert(&any);
    return measured.used() + bytes{page_size} * (chosen.frames_max - 1) + bytes{page_size / 2};
  }

  handle_table<object>::options options_of(memory_budget& budget) const {
    handle_table<object>::options made{.limit = chosen_.limit, .budget = &budget};
    made.released = [](void*, void* released) { ++static_cast<object*>(released)->releases; };
    return made;
  }

  void expect(bool holds, const char* law) {
    if (holds || !broken_.empty()) return;
    broken_ = std::string(law) + " (limit " + std::to_string(chosen_.limit) + ", step " + std::to_string(step_) + ")";
  }

  void run(const operation& next) {
    switch (next.what) {
      case action::insert:
        return repeat(next, [&](std::uint32_t) { insert(); });
      case action::erase:
        return repeat(next, [&](std::uint32_t value) { erase(value); });
      case action::take:
        return repeat(next, [&](std::uint32_t value) { take(value); });
      case action::find:
        return find(choose(next.with, next.argument));
      case action::find_pinned:
        return pin(choose(next.with, next.argument));
      case action::unpin:
        return unpin(next.argument);
      case action::for_each:
        return visit();
      case action::shrink:
        return shrink();
    }
  }

  template <typename Do>
  void repeat(const operation& next, Do once) {
    for (unsigned done = 0; done < next.times && broken_.empty(); ++done) {
      once(choose(next.with, next.argument + done * 7));
    }
  }

  // 0 where there is none of the kind.
  std::uint32_t choose(handle_kind kind, std::uint32_t argument) const {
    const auto among = [argument](const std::vector<std::uint32_t>& values) {
      return values.empty() ? 0 : values[argument % values.size()];
    };
    switch (kind) {
      case handle_kind::live:
        return among(live_);
      case handle_kind::stale:
        return among(stale_);
      case handle_kind::last_erased:
        return stale_.empty() ? 0 : stale_.back();
      case handle_kind::forged:
        return argument;
      case handle_kind::foreign:
        return among(foreign_);
    }
    return 0;
  }

  object* known(std::uint32_t value) const {
    const auto found = model_.find(value);
    return found == model_.end() ? nullptr : found->second;
  }
  // What a call with the handle must give; if nothing, it is counted, but for "none".
  object* expected(std::uint32_t value) {
    object* found = known(value);
    if (found == nullptr && value != 0) ++misuses_;
    return found;
  }

  void insert() {
    object& fresh = objects_.emplace_back();
    const std::uint32_t made = table_->insert(&fresh).value;
    if (made == 0) {
      objects_.pop_back();
      return expect_refusal();
    }
    ++inserts_;
    expect(used() < chosen_.limit, "more entries than the limit");
    expect(model_.emplace(made, &fresh).second, "a handle is given twice");
    expect(index_of(made) < chosen_.limit, "a handle's index is beyond the limit");
    live_.push_back(made);
    fresh.handle = made;
    fresh.inserted = true;
    note_issue(made);
  }

  // While shrink gives no frame back, an entry's generations follow each other. A frame that comes again begins with
  // the latest of its entries' generations, which are at most half of all ahead of the others.
  void note_issue(std::uint32_t made) {
    const std::uint32_t index = index_of(made);
    const issue now{++uses_[index], ++frame_uses_[index / entries_per_frame], frames_given_back_};
    const auto [last, first] = issues_.try_emplace(made, now);
    if (first) return;
    if (now.frames_given_back == last->second.frames_given_back) {
      expect(now.uses - last->second.uses >= generations(), "a handle comes again too soon");
    } else {
      expect(now.frame_uses - last->second.frame_uses >= generations() / 2,
             "a handle comes again too soon after a shrink");
    }
    last->second = now;
  }

  // KF-25: every entry that the table has memory for is used.
  void expect_refusal() {
    ++refusals_;
    if (used() == chosen_.limit) return;
    expect(chosen_.frames_max != 0, "insert fails below the limit, with memory");
    const std::size_t frames = table_->stats().frames;
    expect(frames == chosen_.frames_max, "insert fails though the budget has room for a frame");
    const std::size_t last_frame = (chosen_.limit - 1) % entries_per_frame + 1;
    expect(used() >= (frames - 1) * entries_per_frame + last_frame, "insert fails though an entry is free");
  }

  void forget(object& gone) {
    model_.erase(gone.handle);
    const auto at = std::find(live_.begin(), live_.end(), gone.handle);
    *at = live_.back();
    live_.pop_back();
    stale_.push_back(gone.handle);
    gone.inserted = false;
    ++erases_;
  }

  void erase(std::uint32_t value) {
    object* erased = expected(value);
    expect(table_->erase(handle{value}) == (erased != nullptr), "erase is true for a live handle, once");
    if (erased == nullptr) return;
    forget(*erased);
    zombies_ += erased->pins > 0 ? 1U : 0U;
    expect(erased->releases == (erased->pins == 0 ? 1U : 0U), "erase releases what nobody has pinned, only");
  }

  void take(std::uint32_t value) {
    object* taken = known(value);
    if (taken != nullptr && taken->pins > 0) return erase(value);  // taking it would wait for ever
    (void)expected(value);
    expect(table_->take(handle{value}) == taken, "take gives the object of a live handle, or nothing");
    if (taken == nullptr) return;
    forget(*taken);
    expect(taken->releases == 0, "what is taken is not released");
  }

  void find(std::uint32_t value) {
    object* found = expected(value);
    expect(table_->find(handle{value}) == found, "a handle finds its object, or nothing");
  }

  void pin(std::uint32_t value) {
    object* found = expected(value);
    pinned<object> made = table_->find_pinned(handle{value});
    expect(made.get() == found && static_cast<bool>(made) == (found != nullptr), "find_pinned gives what find does");
    if (!made) return;
    ++found->pins;
    pins_.push_back({std::move(made), found});
    expect(!made && made.get() == nullptr, "a pin that was moved from is empty");
  }

  void unpin(std::uint32_t argument) {
    if (pins_.empty()) return;
    held& chosen = pins_[argument % pins_.size()];
    object& unpinned = *chosen.of;
    expect(unpinned.releases == 0 && &*chosen.pin == &unpinned, "a pinned object is not released");
    chosen = std::move(pins_.back());
    pins_.pop_back();
    --unpinned.pins;
    const bool last = unpinned.pins == 0 && !unpinned.inserted;
    zombies_ -= last ? 1U : 0U;
    expect(unpinned.releases == (last ? 1U : 0U), "the last unpin releases what was erased, only");
  }

  void visit() {
    std::map<std::uint32_t, object*> seen;
    bool twice = false;
    table_->for_each([&](handle which, object& one) { twice |= !seen.emplace(which.value, &one).second; });
    expect(!twice && seen == model_, "for_each sees each entry once");
  }

  void shrink() {
    const std::uint64_t before = table_->stats().frames;
    const std::size_t given_back = table_->shrink();
    const std::uint64_t after = table_->stats().frames;
    frames_given_back_ += given_back;
    expect(after + given_back == before, "shrink tells how many frames it gave back");
    // With many generations they never lie too far apart.
    if (index_bits_ <= 16) expect(after <= used(), "shrink keeps a frame only for an entry");
  }

  std::size_t used() const { return model_.size() + zombies_; }

  void look(const operation& last) {
    table_->audit();
    const auto now = table_->stats();
    expect(table_->size() == used() && now.entries == used(), "size is what was inserted and is not free");
    expect(now.inserts == inserts_ && now.insert_failures == refusals_, "inserts and their failures are counted");
    expect(now.stale + now.forged == misuses_, "each misuse is counted once, as stale or as forged");
    expect(now.charged == budget_.used(), "what the table says that it charges is charged");
    for (const std::uint32_t value : {last.argument, choose(handle_kind::last_erased, 0)}) find(value);
    for (const std::uint32_t value : live_) {
      if (table_->find(handle{value}) != known(value)) expect(false, "every live handle finds its object");
    }
  }

  void finish() {
    while (!pins_.empty()) unpin(0);
    look(operation{});
    expect(table_->stats().erases == erases_, "erases are counted");
    table_.reset();
    other_.reset();
    expect(budget_.used() == bytes{} && other_budget_.used() == bytes{}, "the budget is as it was before the table");
  }

  const options chosen_;
  const unsigned index_bits_;
  memory_budget budget_;
  memory_budget other_budget_;
  std::deque<object> objects_;  // each is inserted once
  object stranger_;
  std::optional<handle_table<object>> table_;
  std::optional<handle_table<object>> other_;
  std::vector<held> pins_;

  std::map<std::uint32_t, object*> model_;
  std::vector<std::uint32_t> live_;  // the handles of model_, to choose from
  std::vector<std::uint32_t> stale_;
  std::vector<std::uint32_t> foreign_;
  std::size_t zombies_ = 0;                                      // erased and pinned
  std::unordered_map<std::uint32_t, std::uint64_t> uses_;        // of each index
  std::unordered_map<std::uint32_t, std::uint64_t> frame_uses_;  // of each frame
  std::unordered_map<std::uint32_t, issue> issues_;              // the last of each handle
  std::uint64_t frames_given_back_ = 0;
  std::uint64_t inserts_ = 0;
  std::uint64_t refusals_ = 0;
  std::uint64_t erases_ = 0;
  std::uint64_t misuses_ = 0;

  std::uint64_t step_ = 0;
  std::string broken_;
};

}  // namespace larder::handle_layer
