// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <atomic>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/memory_budget.h>

namespace larder {

// Holds what it is given and gives of it what is wanted, at most so much at once.
class store final : public reclaimer {
 public:
  store(memory_budget& budget, reclaim_stage stage, bytes at_most = unlimited)
      : budget_(budget), at_most_(at_most.count) {
    budget_.add_reclaimer(*this, stage);
  }
  ~store() {
    budget_.remove_reclaimer(*this);
    budget_.release({held.load()});
  }
  void fill(bytes amount) {
    held += amount.count;
    ASSERT_TRUE(budget_.try_charge(amount));
  }
  bytes reclaim(bytes wanted) override {
    ++calls;
    const bytes given{std::min<std::uint64_t>({held, wanted.count, at_most_})};
    held -= given.count;
    budget_.release(given);
    return given;
  }

  std::atomic<std::uint64_t> held{0};
  std::atomic<unsigned> calls{0};

 private:
  memory_budget& budget_;
  const std::uint64_t at_most_;
};

// What a budget told, in order.
class listener {
 public:
  struct heard {
    budget_event::kind what;
    std::string budget;
    bytes used;
    bytes limit;
    bytes wanted;
    std::optional<memory_account> account;
    bool on_this_thread;
  };
  explicit listener(memory_budget& at) : at_(at) {
    at_.on_event([this](const budget_event& event) {
      const std::lock_guard locked(guard_);
      all_.push_back({event.what, event.budget.name(), event.used, event.limit, event.wanted,
                      event.account != nullptr ? std::optional(*event.account) : std::nullopt,
                      std::this_thread::get_id() == creator_});
    });
  }
  ~listener() { at_.on_event({}); }
  std::vector<heard> all() const {
    const std::lock_guard locked(guard_);
    return all_;
  }
  std::size_t count(budget_event::kind what) const {
    std::size_t sum = 0;
    for (const heard& each : all()) sum += each.what == what ? 1 : 0;
    return sum;
  }

 private:
  memory_budget& at_;
  const std::thread::id creator_ = std::this_thread::get_id();
  mutable std::mutex guard_;
  std::vector<heard> all_;
};

}  // namespace larder
