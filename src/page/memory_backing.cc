// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include <larder/backing.h>

#include "base/mutex.h"
#include "budget/reclaim.h"
#include "os/memory.h"

namespace larder {

struct memory_backing::state {
  ~state() {
    if (memory != nullptr) os::unmap(memory, round_up_to_pages(size));
  }

  bytes size;
  budget_charge charged;
  std::byte* memory = nullptr;
  // Makes each call one step, as if it were a disk's. A leaf: nothing is called under it.
  base::mutex guard{base::lock_rank::page_file};
};

result<std::unique_ptr<memory_backing>> memory_backing::create(bytes size, memory_budget* budget) {
  auto made = std::make_unique<state>();
  made->size = size;
  const bytes whole = round_up_to_pages(size);
  if (whole.count > 0) {
    if (budget != nullptr) {
      if (!budget::charge_or_reclaim(*budget, whole)) return error_from(ENOMEM);
      made->charged = budget_charge(*budget, whole);
    }
    const auto mapped = os::map(whole);
    if (!mapped) return mapped.error();
    made->memory = static_cast<std::byte*>(*mapped);
  }
  return std::unique_ptr<memory_backing>(new memory_backing(std::move(made)));
}

memory_backing::memory_backing(std::unique_ptr<state> mapped) : state_(std::move(mapped)) {}
memory_backing::~memory_backing() = default;

bytes memory_backing::size() const { return state_->size; }

result<void> memory_backing::read(std::span<const iovec> into, std::uint64_t offset) {
  const base::lock locked(state_->guard);
  for (const iovec& vector : into) {
    std::memcpy(vector.iov_base, state_->memory + offset, vector.iov_len);
    offset += vector.iov_len;
  }
  return {};
}

result<void> memory_backing::write(std::span<const iovec> from, std::uint64_t offset) {
  const base::lock locked(state_->guard);
  for (const iovec& vector : from) {
    std::memcpy(state_->memory + offset, vector.iov_base, vector.iov_len);
    offset += vector.iov_len;
  }
  return {};
}

result<void> memory_backing::discard(std::uint64_t offset, bytes length) {
  const base::lock locked(state_->guard);
  const std::uint64_t first = round_up(offset, page_size);
  const std::uint64_t last = (offset + length.count) / page_size * page_size;
  if (first >= last || !os::discard(state_->memory + first, bytes{last - first})) {
    std::memset(state_->memory + offset, 0, length.count);
    return {};
  }
  std::memset(state_->memory + offset, 0, first - offset);
  std::memset(state_->memory + last, 0, offset + length.count - last);
  return {};
}

result<void> memory_backing::zero(std::uint64_t offset, bytes length) {
  const base::lock locked(state_->guard);
  std::memset(state_->memory + offset, 0, length.count);
  return {};
}

result<void> memory_backing::flush() { return {}; }

}  // namespace larder
