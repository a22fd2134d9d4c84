// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include <larder/handle_table.h>

#include "server/nbd/protocol.h"
#include "server/work.h"

namespace larder::nbd {

class connection;

// A client's request from its header to its reply: a cached object, used on its connection's worker only. It holds no
// buffer: payload goes between the socket and the pages, a window at a time, and `sent` says how far.
struct request : server::work_item, base::list_link<struct reply_queue> {
  connection* owner = nullptr;
  handle ticket;  // in the table of requests in flight
  std::uint64_t cookie = 0;
  std::uint64_t offset = 0;
  std::uint32_t length = 0;
  command asked = command::read;
  std::uint16_t flags = 0;
  error outcome = error::none;
  std::uint64_t sent = 0;  // bytes of the reply, its header first

  bool has_payload_to_send() const { return asked == command::read && outcome == error::none && length > 0; }
  std::uint64_t reply_size() const { return simple_reply_size + (has_payload_to_send() ? length : 0); }
};

}  // namespace larder::nbd
