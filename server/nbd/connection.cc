// SPDX-License-Identifier: Apache-2.0
//
// A connection is two machines that share a socket, both driven by readiness, so that whatever a client does or fails to
// do, only what stands in the connection is held:
//
//   reading   eats headers and payload. When the socket runs dry, the task ends; a poll starts the next one.
//   sending   streams replies, in the order in which they were finished. When the socket is full, the pages are unpinned
//             and the task ends; a poll starts the next one where `request::sent` says.
//
// No task waits for a client, and no page is pinned while one is waited for. Data goes straight between the socket and
// pinned pages, a window of some pages at a time, so a request of any length needs the memory of a window.
//
// A READ of what is in the cache is answered by the task that read it, many replies in one system call; anything else
// becomes work of its own on the shard, and is answered when it is finished. The outcome must be known before a reply's
// header goes (simple replies have no way to say it later): the first window is pinned before, and the start of a longer
// READ is loaded before; a disk that fails behind that ends the connection, as the protocol asks.
//
// How much one client can ask for is bounded by the requests it may have in flight. Records come from a cache within the
// budget; where that has none left, the one that stands in the connection makes sure that everyone is served.
//
// The end: reading has ended or the socket is broken; then, when nothing works on the connection and nothing is in
// flight, `settle` closes it. Whoever may have changed one of these calls settle last, and touches nothing after it.
#include "server/nbd/connection.h"

#include <poll.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "os/socket.h"
#include "server/service.h"
#include "server/shard.h"
#include "task/worker.h"

namespace larder::nbd {
namespace {

// Requests that are taken with one receive, and replies sent with one send: a system call costs about as much as
// answering ten of them.
constexpr std::size_t batch_most = 32;
// Pages that move with one system call: 128 KiB, beyond which the copy outweighs the call.
constexpr std::size_t window_pages = 32;
// What is loaded of a READ before its reply begins.
constexpr std::uint32_t load_most = 1U << 20;

error error_of(std::error_code code) {
  switch (code.value()) {
    case EPERM:
    case EROFS:
      return error::not_permitted;
    case ENOMEM:
      return error::no_memory;
    case EINVAL:
      return error::invalid;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return error::no_space;
    case EOPNOTSUPP:
      return error::unsupported;
    default:
      return error::input_output;
  }
}

bool would_block(std::error_code code) { return code == error_from(EAGAIN) || code == error_from(EWOULDBLOCK); }

std::uint64_t page_of(std::uint64_t offset) { return offset / page_size; }

// The pages that a range touches, no more than `most`.
std::size_t pages_of(std::uint64_t offset, std::uint64_t length, std::size_t most) {
  const std::uint64_t count = page_of(offset + length - 1) - page_of(offset) + 1;
  return static_cast<std::size_t>(std::min<std::uint64_t>(count, most));
}

// The part of a pinned page that belongs to the range from `offset`, no more than `length`.
iovec part_of(const page_ref& page, std::uint64_t offset, std::uint64_t length) {
  const std::size_t first = offset % page_size;
  return {page.data().data() + first, static_cast<std::size_t>(std::min<std::uint64_t>(page.data().size() - first, length))};
}

}  // namespace

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
  arm(readable_, POLLIN);
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

// ---- Reading

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
  if (!ended_ && !broken_ && !paused_) arm(readable_, POLLIN);
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
  home_->count_request(fresh.asked, good ? fresh.length : 0);
  if (fresh.asked == command::write && fresh.length > 0) {
    incoming_ = &fresh;  // also of a bad one: the payload is coming, and thrown away
    incoming_done_ = 0;
  } else if (!good || (fresh.asked != command::flush && fresh.length == 0)) {
    queue_reply(fresh);
  } else if (fresh.asked == command::read &&
             (writable_.armed || file().resident(fresh.offset, {std::min(fresh.length, load_most)}))) {
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

// ---- Executing

void connection::execute(request& asked) {
  result<void> outcome;
  if (!broken_) {
    const bool fua = (asked.flags & command_flag_fua) != 0;
    switch (asked.asked) {
      case command::read:
        outcome = file().load(asked.offset, {std::min(asked.length, load_most)});
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

// ---- Replying

void connection::queue_reply(request& answered) { replies_.push_back(answered); }

void connection::send_replies() {
  if (sending_.under_way || writable_.armed) return;
  sending_.under_way = true;
  while (!broken_ && !replies_.empty() && send_batch()) {
  }
  sending_.under_way = false;
}

// Sends as many replies as fit a system call. False when the socket is full or broken.
bool connection::send_batch() {
  pin_admission admission;
  std::array<page_ref, window_pages> pages;  // unpinned before the admission goes
  std::array<std::array<std::byte, simple_reply_size>, batch_most> headers;
  std::array<iovec, batch_most + window_pages> vectors;
  std::size_t header_count = 0;
  std::size_t page_count = 0;
  std::size_t vector_count = 0;
  std::size_t planned = 0;

  request* next = replies_.front();
  for (; next != nullptr && header_count < batch_most; next = replies_.after(*next)) {
    std::uint64_t position = next->sent;
    std::size_t pages_here = 0;
    if (next->has_payload_to_send()) {
      const std::uint64_t done = position < simple_reply_size ? 0 : position - simple_reply_size;
      const std::uint64_t offset = next->offset + done;
      if (next == replies_.front()) {
        // The first reply may wait for its pages; nothing else is pinned yet.
        auto admitted = home_->owner().pages().admit(1, window_pages);
        if (admitted) admission = std::move(*admitted);
        pages_here = std::min<std::size_t>(pages_of(offset, next->length - done, window_pages), admission.available());
        const auto pinned = admitted ? file().pin_range(page_of(offset), std::span(pages).first(pages_here),
                                                        access::read, admission)
                                     : result<void>(admitted.error());
        if (!pinned) {
          if (next->sent > 0) {
            break_off();  // its header has said that all is well
            return false;
          }
          next->outcome = error_of(pinned.error());
          pages_here = 0;
        }
      } else {
        // Others join as far as their pages are at hand, whole.
        if (!admission.pages()) {
          auto admitted = home_->owner().pages().admit(1, window_pages);
          if (!admitted) break;
          admission = std::move(*admitted);
        }
        const std::size_t wanted = pages_of(offset, next->length - done, window_pages + 1);
        if (wanted > window_pages - page_count || wanted > admission.available()) break;
        while (pages_here < wanted) {
          page_ref page = file().try_pin(page_of(offset) + pages_here, admission);
          if (!page) break;
          pages[page_count + pages_here++] = std::move(page);
        }
        if (pages_here < wanted) {
          page_count += pages_here;  // to be unpinned with the rest
          break;
        }
      }
      if (position < simple_reply_size) {
        store_simple_reply(headers[header_count].data(), next->outcome, next->cookie);
        vectors[vector_count++] = {headers[header_count].data() + position, simple_reply_size - position};
        planned += simple_reply_size - position;
        ++header_count;
      }
      std::uint64_t at = offset;
      const std::uint64_t end = next->offset + next->length;
      for (std::size_t i = 0; i < pages_here; ++i) {
        vectors[vector_count] = part_of(pages[page_count + i], at, end - at);
        at += vectors[vector_count].iov_len;
        planned += vectors[vector_count++].iov_len;
      }
      page_count += pages_here;
      if (next->has_payload_to_send() && at < end) break;  // the rest of it goes next
    } else {
      store_simple_reply(headers[header_count].data(), next->outcome, next->cookie);
      vectors[vector_count++] = {headers[header_count].data() + position, simple_reply_size - position};
      planned += simple_reply_size - position;
      ++header_count;
    }
  }

  const auto moved = os::send_now(socket_.number(), std::span(vectors).first(vector_count));
  for (page_ref& page : std::span(pages).first(page_count)) page.reset();
  admission.reset();
  if (!moved && !would_block(moved.error())) {
    break_off();
    return false;
  }
  const std::size_t sent = moved ? *moved : 0;
  moved_out(sent);
  if (sent == planned) return true;
  arm(writable_, POLLOUT);
  return false;
}

void connection::moved_out(std::size_t length) {
  while (length > 0) {
    request& first = *replies_.front();
    const std::uint64_t step = std::min<std::uint64_t>(length, first.reply_size() - first.sent);
    first.sent += step;
    length -= step;
    if (first.sent == first.reply_size()) {
      replies_.pop_front();
      finish(first);
    }
  }
}

void connection::finish(request& answered) {
  home_->owner().request_table().erase(answered.ticket);
  --in_flight_;
  answered_ = true;
  home_->count_answer();
  if (&answered == &own_request_) {
    own_request_used_ = false;
  } else {
    home_->owner().requests().put(&answered);
  }
}

void connection::drop_replies() {
  while (request* dropped = replies_.pop_front()) finish(*dropped);
}

// ---- Ending

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
