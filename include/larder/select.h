// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include <larder/channel.h>

namespace larder {

namespace sync {

template <typename T, typename Handler>
class receive_case {
 public:
  receive_case(channel<T>& from, Handler handler) : channel_(from), handler_(std::move(handler)) {}

  channel_operation begin() {
    received_.reset();
    return {channel_.core_, true, &received_};
  }
  void end(bool) { handler_(std::move(received_)); }

 private:
  channel<T>& channel_;
  std::optional<T> received_;
  Handler handler_;
};

// `Value` is T, for a case that has a copy, or T&&.
template <typename T, typename Value, typename Handler>
class send_case {
 public:
  send_case(channel<T>& to, Value&& value, Handler handler)
      : channel_(to), value_(std::forward<Value>(value)), handler_(std::move(handler)) {}

  channel_operation begin() { return {channel_.core_, false, std::addressof(value_)}; }
  void end(bool sent) { handler_(sent); }

 private:
  channel<T>& channel_;
  Value value_;
  Handler handler_;
};

template <typename Case>
concept select_case = requires(Case& each) {
  { each.begin() } -> std::same_as<channel_operation>;
  each.end(true);
};

}  // namespace sync

// The number that no case of a select has.
inline constexpr std::size_t no_case = sync::channel_core::nothing_happened;

// A case that receives from `from`, and then calls handler(std::optional<T>): nothing if the channel is closed and
// drained. Refers to the channel.
template <typename T, typename Handler>
[[nodiscard]] auto on_receive(channel<T>& from, Handler handler) {
  static_assert(std::is_invocable_v<Handler&, std::optional<T>>, "the handler takes a std::optional of the element");
  return sync::receive_case<T, Handler>(from, std::move(handler));
}

// A case that sends `value` to `to`, and then calls handler(bool): false if the channel is closed, and then nothing was
// moved. The value is moved from only if this is the case that happens; the case refers to it. One that is given as an
// lvalue is copied into the case.
template <typename T, typename Handler>
[[nodiscard]] auto on_send(channel<T>& to, std::type_identity_t<T>&& value, Handler handler) {
  static_assert(std::is_invocable_v<Handler&, bool>, "the handler takes a bool");
  return sync::send_case<T, T&&, Handler>(to, std::move(value), std::move(handler));
}
template <typename T, typename Handler>
requires std::is_copy_constructible_v<T>
[[nodiscard]] auto on_send(channel<T>& to, const std::type_identity_t<T>& value, Handler handler) {
  static_assert(std::is_invocable_v<Handler&, bool>, "the handler takes a bool");
  return sync::send_case<T, T, Handler>(to, T(value), std::move(handler));
}

// Waits until one of the cases can happen, lets exactly that one happen, calls its handler, and gives its number, from
// 0 on. `no_case` if the deadline came first; one that has passed makes it a try. A closed channel's case can happen at
// once. Of several that can, each has its turn. (Guarded commands are Dijkstra's, the form is Go's.)
//
//   larder::select(deadline,
//                  larder::on_receive(requests, [&](std::optional<request> next) { ... }),
//                  larder::on_send(answers, std::move(answer), [&](bool sent) { ... }));
//
// The cases may name one channel several times, and any number of selects may wait for each other's channels. Who must
// wait parks its task, or sleeps its thread; nothing is allocated; handlers run on the caller's stack, with no lock
// held, and what they throw comes out here.
template <sync::select_case... Cases>
std::size_t select(time_point deadline, Cases&&... cases) {
  static_assert(sizeof...(Cases) > 0, "a select of no cases would wait for ever");
  sync::channel_operation operations[] = {cases.begin()...};
  std::array<sync::short_lock*, sizeof...(Cases)> guards;
  const std::size_t happened = sync::channel_core::perform(operations, guards, deadline);
  std::size_t number = 0;
  ((number++ == happened ? cases.end(operations[happened].done) : void()), ...);
  return happened;
}

}  // namespace larder
