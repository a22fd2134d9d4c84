// SPDX-License-Identifier: Apache-2.0
//
// A connection is two machines that share a socket, both driven by readiness, so that whatever a client does or fails
// to do, only what stands in the connection is held:
//
//   reading   eats headers and payload. When the socket runs dry, the task ends; a poll starts the next one.
//   sending   streams replies, in the order in which they were finished. When the socket is full, the pages are
//   unpinned
//             and the task ends; a poll starts the next one where `request::sent` says.
//
// No task waits for a client, and no page is pinned while one is waited for. Data goes straight between the socket and
// pinned pages, a window of some pages at a time, so a request of any length needs the memory of a window.
//
// A READ of what is in the cache is answered by the task that read it, many replies in one system call; anything else
// becomes work of its own on the shard, and is answered when it is finished. The outcome must be known before a reply's
// header goes (simple replies have no way to say it later): the first window is pinned before, and the start of a
// longer READ is loaded before; a disk that fails behind that ends the connection, as the protocol asks.
//
// How much one client can ask for is bounded by the requests it may have in flight. Records come from a cache within
// the budget; where that has none left, the one that stands in the connection makes sure that everyone is served.
//
// The end: reading has ended or the socket is broken; then, when nothing works on the connection and nothing is in
// flight, `settle` closes it. Whoever may have changed one of these calls settle last, and touches nothing after it.
#include "server/nbd/connection.h"

#include "base/check.h"
#include "os/events.h"
#include "os/socket.h"
#include "server/nbd/window.h"
#include "server/service.h"
#include "server/shard.h"
#include "task/worker.h"

namespace larder::nbd {

connection::connection() {
  reading_.owner = sending_.owner = this;
  reading_.run = [](server::work_item& self) { static_cast<activity&>(self).owner->read_requests(); };
  sending_.run = [](server::work_item& self) {
    connection& owner = *static_cast<activity&>(self).owner;
    owner.sending_.under_way = false;
    owner.send_replies();
    owner.settle();
  };
  readable_.owner = writable_.owner = this;
  readable_.complete = [](os::ring_operation& self, int) {
    auto& operation = static_cast<poll_operation&>(self);
    operation.armed = false;
    operation.owner->submit_reading();
    operation.owner->settle();
  };
  writable_.complete = [](os::ring_operation& self, int) {
    auto& operation = static_cast<poll_operation&>(self);
    connection& owner = *operation.owner;
    operation.armed = false;
    if (!owner.broken_ && !owner.sending_.under_way) {
      owner.sending_.under_way = true;
      owner.home_->submit(owner.sending_);
    }
    owner.settle();
  };
}

connection::~connection() { LARDER_CHECK(home_ == nullptr, "a connection is destroyed while it is open"); }

void connection::open(server::shard& home, os::descriptor socket) {
  home_ = &home;
  socket_ = std::move(socket);
  handshake_ = {};
  in_flight_ = 0;
  input_length_ = 0;
  paused_ = ended_ = broken_ = false;
  ticket_ = home.owner().track(home.owner().connection_table(), *this);
  home.add(*this);
  os::send_without_delay(socket_.number());
  if (!ticket_ || !handshake::greet(*this)) break_off();
  arm(readable_, os::event_readable);
  settle();
}

void connection::stop() {
  ended_ = true;
  settle();
}

void connection::cut() {
  break_off();
  settle();
}

cached_file& connection::file() const { return home_->owner().file_of(handshake_.chosen_export()); }

bool connection::say(std::span<const std::byte> bytes) {
  const iovec vector{const_cast<std::byte*>(bytes.data()), bytes.size()};
  const auto moved = os::send_now(socket_.number(), std::span(&vector, 1));
  return moved && *moved == bytes.size();
}

void connection::execute(request& asked) {
  result<void> outcome;
  if (!broken_) {
    const bool fua = (asked.flags & command_flag_fua) != 0;
    switch (asked.asked) {
      case command::read:
        outcome = file().read_ahead(asked.offset, {std::min(asked.length, load_most)});
        break;
      case command::trim:
        outcome = file().discard(asked.offset, {asked.length});
        break;
      case command::write_zeroes:
        outcome = file().zero(asked.offset, {asked.length}, (asked.flags & command_flag_no_hole) != 0);
        break;
      case command::flush:
        outcome = file().flush();
        break;
      case command::write:
      case command::disconnect:
        break;
    }
    if (outcome && fua && asked.asked != command::read && asked.asked != command::flush) {
      outcome = file().flush_range(asked.offset, {asked.length});
    }
  }
  if (!outcome) asked.outcome = error_of(outcome.error());
  queue_reply(asked);
  send_replies();
  settle();
}

void connection::arm(poll_operation& operation, unsigned events) {
  if (operation.armed || broken_) return;
  operation.armed = true;
  task_layer::worker::current()->ring().poll(socket_.number(), events, operation);
}

void connection::break_off() {
  if (broken_) return;
  broken_ = true;
  os::shut_down(socket_.number());  // completes the polls
}

void connection::settle() {
  if (broken_ && !sending_.under_way) drop_replies();
  const bool over = ended_ || broken_;
  if (over && !reading_.under_way && incoming_ != nullptr) finish(*std::exchange(incoming_, nullptr));
  if (paused_ && answered_) submit_reading();
  if (!over || reading_.under_way || sending_.under_way || in_flight_ > 0) return;
  if (readable_.armed || writable_.armed) {
    break_off();
    return;
  }
  socket_.close();
  home_->owner().connection_table().erase(ticket_);
  server::shard& home = *std::exchange(home_, nullptr);
  home.remove(*this);
}

}  // namespace larder::nbd
