// SPDX-License-Identifier: Apache-2.0
//
// The reading half of a connection (theory: connection.cc).
#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "os/events.h"
#include "os/socket.h"
#include "server/nbd/connection.h"
#include "server/nbd/window.h"
#include "server/service.h"
#include "server/shard.h"

namespace larder::nbd {

// Records for the requests that one receive may bring, taken before it.
class connection::record_batch {
 public:
  explicit record_batch(connection& owner) : owner_(owner) {}
  record_batch(const record_batch&) = delete;
  record_batch& operator=(const record_batch&) = delete;
  ~record_batch() {
    if (count_ > 0) owner_.home_->owner().requests().put_many(records_.data(), count_);
  }

  // How many requests can be taken now; 0 means that the client must wait for one of its answers.
  std::size_t fill() {
    const server::service& service = owner_.home_->owner();
    const std::uint32_t most = service.requests_per_connection();
    const std::size_t wanted = std::min<std::size_t>(most - std::min(most, owner_.in_flight_), batch_most);
    if (wanted > count_) {
      count_ += service.requests().get_many(records_.data() + count_, wanted - count_);
    }
    return available();
  }
  std::size_t available() const {
    return std::min<std::size_t>(count_ + (owner_.own_request_used_ ? 0 : 1), batch_most);
  }
  request* take() {
    if (!owner_.own_request_used_) {
      owner_.own_request_used_ = true;
      return &owner_.own_request_;
    }
    return count_ == 0 ? nullptr : records_[--count_];
  }

 private:
  connection& owner_;
  std::array<request*, batch_most> records_;
  std::size_t count_ = 0;
};

void connection::submit_reading() {
  if (ended_ || broken_ || reading_.under_way) return;
  paused_ = false;
  reading_.under_way = true;
  home_->submit(reading_);
}

void connection::read_requests() {
  std::array<std::byte, batch_most * request_size> buffer;
  static_assert(sizeof buffer >= handshake::longest_message);
  std::size_t filled = input_length_;
  std::memcpy(buffer.data(), input_.data(), filled);
  input_length_ = 0;
  bool dry = false;
  {
    record_batch records(*this);
    for (;;) {
      const std::size_t eaten = eat(std::span(buffer).first(filled), records);
      filled -= eaten;
      std::memmove(buffer.data(), buffer.data() + eaten, filled);
      // Short replies go at once, many in a call; long ones take their time on a task of their own.
      if (!sending_.under_way) {
        const request* last = replies_.back();
        if (last != nullptr && last->reply_size() > window_pages * page_size) {
          sending_.under_way = true;
          home_->submit(sending_);
        } else {
          send_replies();
        }
      }
      if (ended_ || broken_) break;
      std::size_t room = handshake::longest_message - filled;
      if (handshake_.now() == handshake::state::transmission && incoming_ == nullptr) {
        const std::size_t takeable = records.fill();
        if (takeable == 0) {
          paused_ = true;
          answered_ = false;
          break;
        }
        if (filled >= request_size) continue;  // only records were missing
        // No more than can be taken: what is left over must fit `input_`.
        room = takeable * request_size - filled;
      }
      if (dry) break;
      if (incoming_ != nullptr) {
        if (!receive_payload()) break;
        continue;
      }
      const iovec vector{buffer.data() + filled, room};
      const auto moved = os::receive_now(socket_.number(), std::span(&vector, 1));
      if (!moved) {
        if (!would_block(moved.error())) break_off();
        break;
      }
      if (*moved == 0) ended_ = true;  // a client that has said all still wants its answers
      filled += *moved;
      dry = *moved < room;  // a receive that would only say so is saved: the poll looks too
      this_task::yield();   // others of this worker take their turn
    }
  }
  if (ended_ || broken_) filled = 0;
  LARDER_CHECK(filled <= input_.size(), "%zu bytes of a client's input are left over", filled);
  std::memcpy(input_.data(), buffer.data(), filled);
  input_length_ = static_cast<std::uint16_t>(filled);
  reading_.under_way = false;
  if (!ended_ && !broken_ && !paused_) arm(readable_, os::event_readable);
  settle();
}

std::size_t connection::eat(std::span<const std::byte> input, record_batch& records) {
  std::size_t eaten = 0;
  while (!ended_ && !broken_) {
    const auto rest = input.subspan(eaten);
    if (handshake_.now() != handshake::state::transmission) {
      const std::size_t step = handshake_.feed(rest, home_->owner().exports(), *this);
      eaten += step;
      if (handshake_.now() == handshake::state::closing) break_off();
      if (handshake_.now() != handshake::state::transmission) break;
    } else if (incoming_ != nullptr) {
      if (rest.empty()) break;
      const std::size_t step = std::min<std::size_t>(rest.size(), incoming_->length - incoming_done_);
      eat_payload(rest.first(step));
      eaten += step;
    } else {
      if (rest.size() < request_size) break;
      const request_header header = parse_request(rest.data());
      if (header.magic != request_magic) {
        break_off();
        break;
      }
      if (header.type == static_cast<std::uint16_t>(command::disconnect)) {
        ended_ = true;
        eaten += request_size;
        break;
      }
      request* fresh = records.take();
      if (fresh == nullptr) break;
      take_request(header, *fresh);
      eaten += request_size;
    }
  }
  return eaten;
}

error connection::check(const request_header& header) const {
  const std::uint64_t size = file().size().count;
  const bool past_end = header.offset > size || header.length > size - header.offset;
  const bool read_only = home_->owner().exports()[handshake_.chosen_export()].read_only;
  std::uint16_t flags_known = command_flag_fua;
  switch (static_cast<command>(header.type)) {
    case command::read:
      if (past_end || header.length > payload_most) return error::invalid;
      break;
    case command::write:
      if (read_only) return error::not_permitted;
      if (header.length > payload_most) return error::invalid;
      if (past_end) return error::no_space;
      break;
    case command::trim:
      if (read_only) return error::not_permitted;
      if (past_end) return error::invalid;
      break;
    case command::write_zeroes:
      flags_known |= command_flag_no_hole;
      if (read_only) return error::not_permitted;
      if (past_end) return error::no_space;
      break;
    case command::flush:
      break;
    default:
      return error::invalid;
  }
  return (header.flags & ~flags_known) == 0 ? error::none : error::invalid;
}

void connection::take_request(const request_header& header, request& fresh) {
  fresh.owner = this;
  fresh.run = [](server::work_item& self) {
    auto& asked = static_cast<request&>(self);
    asked.owner->execute(asked);
  };
  fresh.cookie = header.cookie;
  fresh.offset = header.offset;
  fresh.length = header.length;
  fresh.asked = static_cast<command>(header.type);
  fresh.flags = header.flags;
  fresh.outcome = check(header);
  fresh.sent = 0;
  fresh.ticket = home_->owner().track(home_->owner().request_table(), fresh);
  if (!fresh.ticket && fresh.outcome == error::none) fresh.outcome = error::no_memory;
  ++in_flight_;

  const bool good = fresh.outcome == error::none;
  const bool empty = fresh.length == 0 && fresh.asked != command::flush;
  home_->count_request(fresh.asked, good ? fresh.length : 0);
  if (fresh.asked == command::write && fresh.length > 0) {
    incoming_ = &fresh;  // also of a bad one: the payload is coming, and thrown away
    incoming_done_ = 0;
  } else if (!good || empty ||
             (fresh.asked == command::read &&
              (writable_.armed || file().resident(fresh.offset, {std::min(fresh.length, load_most)})))) {
    queue_reply(fresh);  // nothing to wait for, or nobody who waits for it
  } else {
    home_->submit(fresh);
  }
}

void connection::eat_payload(std::span<const std::byte> bytes) {
  if (incoming_->outcome == error::none) {
    const auto written = file().write(incoming_->offset + incoming_done_, bytes);
    if (!written) incoming_->outcome = error_of(written.error());
  }
  payload_moved(bytes.size());
}

void connection::payload_moved(std::size_t length) {
  incoming_done_ += static_cast<std::uint32_t>(length);
  if (incoming_done_ < incoming_->length) return;
  request& whole = *std::exchange(incoming_, nullptr);
  if (whole.outcome == error::none && (whole.flags & command_flag_fua) != 0) {
    home_->submit(whole);
  } else {
    queue_reply(whole);
  }
}

// Receives what there is of the payload. False when the socket has no more, or is broken.
bool connection::receive_payload() {
  if (incoming_->outcome == error::none) return receive_into_pages();
  std::array<std::byte, page_size> thrown_away;
  const iovec vector{thrown_away.data(), std::min<std::size_t>(thrown_away.size(), incoming_->length - incoming_done_)};
  const auto moved = os::receive_now(socket_.number(), std::span(&vector, 1));
  if (moved && *moved > 0) {
    payload_moved(*moved);
    return true;
  }
  if (moved || !would_block(moved.error())) break_off();
  return false;
}

bool connection::receive_into_pages() {
  const std::uint64_t offset = incoming_->offset + incoming_done_;
  const std::uint32_t left = incoming_->length - incoming_done_;
  auto admission = home_->owner().pages().admit(1, static_cast<std::uint32_t>(pages_of(offset, left, window_pages)));
  if (!admission) {
    incoming_->outcome = error_of(admission.error());
    return true;
  }
  std::array<page_ref, window_pages> pages;
  std::array<iovec, window_pages> vectors;
  const std::size_t count = admission->available();
  const auto window = std::span(pages).first(count);
  if (const auto pinned = file().pin_range(page_of(offset), window, access::overwrite, *admission); !pinned) {
    incoming_->outcome = error_of(pinned.error());
    return true;
  }
  std::uint64_t planned = 0;
  for (std::size_t i = 0; i < count; ++i) {
    vectors[i] = part_of(pages[i], offset + planned, left - planned);
    planned += vectors[i].iov_len;
  }
  const auto moved = os::receive_now(socket_.number(), std::span(vectors).first(count));
  if (!moved || *moved == 0) {
    if (moved || !would_block(moved.error())) break_off();
    return false;
  }
  // Pages that nothing came for stay as they were: dropping the reference undoes the pin.
  std::size_t arrived = *moved;
  for (std::size_t i = 0; i < count && arrived > 0; ++i) {
    const std::size_t part = std::min(arrived, vectors[i].iov_len);
    const std::size_t first = i == 0 ? offset % page_size : 0;
    if (const auto kept = pages[i].written(first, first + part); !kept) incoming_->outcome = error_of(kept.error());
    arrived -= part;
  }
  const bool all_came = *moved == planned;
  for (page_ref& page : window) page.reset();
  payload_moved(*moved);
  return all_came || incoming_ == nullptr;
}

}  // namespace larder::nbd
