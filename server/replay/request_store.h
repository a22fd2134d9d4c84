// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <larder/memory_budget.h>

#include "server/replay/request.h"

namespace larder::server::replay {

// A trace in memory, in some five bytes a request: how far it is from the end of the one before, and its length, each
// in as many bytes as the number needs. Used by one thread.
class request_store {
 public:
  // Charges its memory to `budget`.
  explicit request_store(memory_budget& budget) : budget_(budget) {}
  request_store(const request_store&) = delete;
  request_store& operator=(const request_store&) = delete;

  // False if the budget has no room.
  [[nodiscard]] bool add(const request& next);
  std::uint64_t size() const { return size_; }

  // The requests from the first, in order. Ends before the store does.
  class cursor {
   public:
    explicit cursor(const request_store& from) : from_(from) {}
    bool next(request& into);

   private:
    std::uint64_t take_number();

    const request_store& from_;
    std::size_t chunk_ = 0;
    std::size_t at_ = 0;
    std::uint64_t end_before_ = 0;
  };

 private:
  static constexpr std::size_t chunk_size = 1 << 20;
  // A number takes up to ten bytes, seven bits in each; a request two of them and its kind in the first one's last
  // bits.
  static constexpr std::size_t request_most = 20;
  struct chunk {
    explicit chunk(budget_charge charge) : charged(std::move(charge)), data(new std::uint8_t[chunk_size]) {}
    budget_charge charged;
    std::unique_ptr<std::uint8_t[]> data;
    std::size_t used = 0;
  };

  void put_number(std::uint64_t number);

  memory_budget& budget_;
  std::vector<chunk> chunks_;
  std::uint64_t end_before_ = 0;
  std::uint64_t size_ = 0;
};

}  // namespace larder::server::replay
