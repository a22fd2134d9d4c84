// SPDX-License-Identifier: Apache-2.0
//
// A send or a receive is a select of one case, so there is one way to wait. It takes the guards of all channels that it
// names, in the order of their addresses, and keeps them from its look at the cases to its places in their queues: so
// it misses nothing, and two selects that wait for each other's channels cannot stand in each other's way. Who then
// makes one of the cases happen holds the guard of that channel alone, and may meet another who does so elsewhere: a
// compare-and-swap in the waiter decides (wait_queue.h). It moves the element to or from the waiter's stack under the
// guard, without which the waiter cannot leave.
//
//   somebody waits to receive  ⇒  count = 0, and nobody else waits to send
//   somebody waits to send     ⇒  count = capacity, and nobody else waits to receive
//   closed                     ⇒  nobody waits
#include <limits>
#include <mutex>
#include <new>

#include <larder/channel.h>

#include "base/check.h"
#include "base/mutant.h"
#include "task/wait_queue.h"

namespace larder::sync {
namespace {

std::byte* room_for(std::size_t count, const element_type& type) {
  if (count == 0) return nullptr;
  if (count > std::numeric_limits<std::size_t>::max() / type.size) throw std::bad_array_new_length();
  return static_cast<std::byte*>(::operator new (count* type.size, std::align_val_t{type.alignment}));
}

// Which of `count` cases is looked at first, in the turn of this number. Multiples of the golden ratio are spread
// evenly, and so are those of any regular part of the turns, as each of two selects that alternate gets.
std::size_t first_case(std::uint64_t turn, std::size_t count) {
  const std::uint64_t fraction = (turn * 0x9e3779b97f4a7c15U) >> 32;
  return static_cast<std::size_t>((fraction * count) >> 32);
}

}  // namespace

channel_core::channel_core(std::size_t capacity, const element_type& type)
    : type_(type), capacity_(capacity), elements_(room_for(capacity, type)) {}

channel_core::~channel_core() {
  LARDER_CHECK(senders_.first == nullptr && receivers_.first == nullptr,
               "a channel is destroyed while somebody waits to %s", senders_.first != nullptr ? "send" : "receive");
  for (std::size_t number = 0; number < count_; ++number) type_.destroy(element(number));
  ::operator delete (elements_, std::align_val_t{type_.alignment});
}

std::byte* channel_core::element(std::size_t number) const {
  const std::size_t before_end = capacity_ - first_;
  return elements_ + (number < before_end ? first_ + number : number - before_end) * type_.size;
}

void channel_core::push_back(void* from) {
  type_.move(element(count_), from);
  ++count_;
}

bool channel_core::try_perform(channel_operation& operation) {
  return operation.receives ? try_receive(operation) : try_send(operation);
}

bool channel_core::try_send(channel_operation& operation) {
  if (closed_) return true;
  if (wait_place* place = tell_first(receivers_); place != nullptr) {
    auto& receiver = static_cast<channel_operation&>(*place);
    type_.deliver(receiver.item, operation.item);
    receiver.done = true;
    wake(receiver);
  } else if (count_ < capacity_) {
    push_back(operation.item);
  } else {
    return false;
  }
  return operation.done = true;
}

bool channel_core::try_receive(channel_operation& operation) {
  const bool from_ring = count_ > 0;
  if (from_ring) {
    std::byte* oldest = element(0);
    type_.deliver(operation.item, oldest);
    type_.destroy(oldest);
    first_ = first_ + 1 == capacity_ ? 0 : first_ + 1;
    --count_;
  }
  wait_place* place = tell_first(senders_);
  if (place != nullptr) {
    auto& sender = static_cast<channel_operation&>(*place);
    if (from_ring) {
      push_back(sender.item);
    } else {
      type_.deliver(operation.item, sender.item);
    }
    sender.done = true;
    wake(sender);
  }
  operation.done = from_ring || place != nullptr;
  return operation.done || closed_;
}

std::size_t channel_core::perform(std::span<channel_operation> operations, std::span<short_lock*> guards,
                                  time_point deadline) {
  for (std::size_t number = 0; number < operations.size(); ++number)
    guards[number] = &operations[number].channel->guard_;
  guard_set all(guards);
  std::unique_lock held(all);
  const std::size_t count = operations.size();
  std::size_t number = count == 1 ? 0 : first_case(operations.front().channel->turns_++, count);
  for (std::size_t looked_at = 0; looked_at < count; ++looked_at) {
    if (operations[number].channel->try_perform(operations[number])) return number;
    if (++number == count) number = 0;
  }
  if (has_passed(deadline)) return nothing_happened;

  const channel_operation& front = operations.front();
  waiter self({count > 1 ? "select" : front.receives ? "channel receive" : "channel send", front.channel, true});
  for (channel_operation& each : operations) {
    self.enter(each, each.receives ? each.channel->receivers_ : each.channel->senders_);
  }
  if (!wait_until_told(held, self, deadline)) return nothing_happened;
  const wait_place* chosen = self.chosen.load(base::memory_order_relaxed);  // as told()
  return static_cast<std::size_t>(static_cast<const channel_operation*>(chosen) - operations.data());
}

bool channel_core::perform_one(bool receives, void* item, time_point deadline) {
  channel_operation only(*this, receives, item);
  short_lock* guard = nullptr;
  perform({&only, 1}, {&guard, 1}, deadline);
  return only.done;
}

bool channel_core::send(void* element, time_point deadline) { return perform_one(false, element, deadline); }

bool channel_core::receive(void* optional, time_point deadline) { return perform_one(true, optional, deadline); }

void channel_core::close() {
  const std::lock_guard guarded(guard_);
  closed_ = true;
  while (wait_place* sender = tell_first(senders_)) {
    wake(*sender);
    if (base::is_mutant(base::mutant::close_tells_one)) return;
  }
  tell_all(receivers_);
}

bool channel_core::closed() const {
  const std::lock_guard guarded(guard_);
  return closed_;
}

bool channel_core::drained() const {
  const std::lock_guard guarded(guard_);
  return closed_ && count_ == 0;
}

std::size_t channel_core::size() const {
  const std::lock_guard guarded(guard_);
  return count_;
}

}  // namespace larder::sync
