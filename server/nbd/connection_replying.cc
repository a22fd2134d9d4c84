// SPDX-License-Identifier: Apache-2.0
//
// The sending half of a connection (theory: connection.cc).
#include <algorithm>
#include <array>

#include "os/events.h"
#include "os/socket.h"
#include "server/nbd/connection.h"
#include "server/nbd/window.h"
#include "server/service.h"
#include "server/shard.h"

namespace larder::nbd {

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
        const auto pinned =
            admitted ? file().pin_range(page_of(offset), std::span(pages).first(pages_here), access::read, admission)
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
  arm(writable_, os::event_writable);
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

}  // namespace larder::nbd
