// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

#include <larder/export.h>
#include <larder/units.h>
#include <larder/wait_queue.h>

namespace larder {

namespace sync {

// What a channel knows of what it carries.
struct element_type {
  std::size_t size;
  std::size_t alignment;
  void (*move)(void* to, void* from) noexcept;                 // builds an element in raw memory
  void (*deliver)(void* optional_of_it, void* from) noexcept;  // puts it into a std::optional
  void (*destroy)(void* element) noexcept;
};

class channel_core;

// A send or a receive, on the stack of who calls: its place in the channel's queue if it must wait.
struct channel_operation : wait_place {
  channel_operation(channel_core& of, bool is_receive, void* from_or_to)
      : channel(&of), receives(is_receive), item(from_or_to) {}

  channel_core* channel;
  bool receives;
  void* item;         // a send's element, a receive's std::optional
  bool done = false;  // once it has happened: something was moved, and not that the channel is closed
};

// All that does not depend on the elements' type.
class LARDER_API channel_core {
 public:
  channel_core(std::size_t capacity, const element_type& type);
  ~channel_core();
  channel_core(const channel_core&) = delete;
  channel_core& operator=(const channel_core&) = delete;

  static constexpr std::size_t nothing_happened = ~std::size_t{0};
  // Waits until one of the operations can happen, and lets that one happen; gives its number, or `nothing_happened` if
  // the deadline came first. `guards` has room for one of each operation.
  static std::size_t perform(std::span<channel_operation> operations, std::span<short_lock*> guards,
                             time_point deadline);
  // One of them, and whether something was moved.
  bool send(void* element, time_point deadline);
  bool receive(void* optional, time_point deadline);

  void close();
  bool closed() const;
  bool drained() const;
  std::size_t size() const;
  std::size_t capacity() const { return capacity_; }

 private:
  bool try_perform(channel_operation& operation);
  bool try_send(channel_operation& operation);
  bool try_receive(channel_operation& operation);
  bool perform_one(bool receives, void* item, time_point deadline);
  void push_back(void* element);
  std::byte* element(std::size_t number) const;

  const element_type type_;
  const std::size_t capacity_;
  mutable short_lock guard_;
  std::byte* elements_ = nullptr;  // room for capacity_ of them, a ring
  std::size_t first_ = 0;          // guarded by guard_: the oldest one's place
  std::size_t count_ = 0;          // guarded by guard_
  bool closed_ = false;            // guarded by guard_
  std::uint64_t turns_ = 0;        // guarded by guard_: selects that asked this channel with whom to begin
  waiter_queue senders_;           // guarded by guard_; somebody waits here only if all places are taken
  waiter_queue receivers_;         // guarded by guard_; somebody waits here only if nothing can be received
};

// Cases of a select (select.h).
template <typename T, typename Handler>
class receive_case;
template <typename T, typename Value, typename Handler>
class send_case;

}  // namespace sync

// A queue of at most `capacity` elements between any number of senders and receivers; with a capacity of 0 each send
// waits for its receive. First come, first served on both sides; who must wait parks its task, or sleeps its thread.
// An element goes straight to a receiver that waits. (The idea is Hoare's, the form Go's.)
//
// Nothing is allocated but the room for `capacity` elements, at the start. Elements need only be movable. They are
// moved and destroyed under the channel's short lock: their move constructor must not throw, and neither it nor their
// destructor may wait, or use the channel.
template <typename T>
class channel {
  static_assert(std::is_object_v<T> && std::is_nothrow_move_constructible_v<T> && std::is_nothrow_destructible_v<T>,
                "a channel's elements are moved under its lock: that must not throw");

 public:
  // Throws std::bad_alloc if there is no memory for `capacity` elements.
  explicit channel(std::size_t capacity) : core_(capacity, type_of_elements) {}
  // Destroys the elements that nobody received. Dies if anybody waits.
  ~channel() = default;
  channel(const channel&) = delete;
  channel& operator=(const channel&) = delete;

  // True once the element is in the channel, or with a receiver; waits for room if it must. False if the channel is
  // closed, before or meanwhile: then `value` has not been moved from.
  bool send(T&& value) { return core_.send(std::addressof(value), no_deadline); }
  bool send(const T& value) requires std::is_copy_constructible_v<T> { return send(T(value)); }
  // False also if it would have to wait.
  bool try_send(T&& value) { return send_until(std::move(value), time_point::min()); }
  bool try_send(const T& value) requires std::is_copy_constructible_v<T> { return try_send(T(value)); }
  // False also if the deadline came first. One that has passed makes it try_send.
  bool send_until(T&& value, time_point deadline) { return core_.send(std::addressof(value), deadline); }
  bool send_until(const T& value, time_point deadline) requires std::is_copy_constructible_v<T> {
    return send_until(T(value), deadline);
  }

  // The oldest element; waits for one if it must. Nothing once the channel is closed and what was in it is received.
  std::optional<T> receive() { return receive_until(no_deadline); }
  // Nothing also if it would have to wait.
  std::optional<T> try_receive() { return receive_until(time_point::min()); }
  // Nothing also if the deadline came first. One that has passed makes it try_receive.
  std::optional<T> receive_until(time_point deadline) {
    std::optional<T> received;
    core_.receive(&received, deadline);
    return received;
  }

  // From now on nothing can be sent: sends that wait fail, and receives get what is in it, and then nothing. Any
  // thread; a second time it does nothing.
  void close() { core_.close(); }
  bool closed() const { return core_.closed(); }
  // Closed, and nothing is left: every receive from now on gets nothing.
  bool drained() const { return core_.drained(); }

  // Elements in it at this moment.
  std::size_t size() const { return core_.size(); }
  std::size_t capacity() const { return core_.capacity(); }

 private:
  template <typename U, typename Handler>
  friend class sync::receive_case;
  template <typename U, typename Value, typename Handler>
  friend class sync::send_case;

  static constexpr sync::element_type type_of_elements{
      sizeof(T), alignof(T), [](void* to, void* from) noexcept { new (to) T(std::move(*static_cast<T*>(from))); },
      [](void* to, void* from) noexcept {
        static_cast<std::optional<T>*>(to)->emplace(std::move(*static_cast<T*>(from)));
      },
      [](void* element) noexcept { static_cast<T*>(element)->~T(); }};

  sync::channel_core core_;
};

}  // namespace larder
