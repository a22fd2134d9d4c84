// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include <larder/page_cache.h>

#include "os/file.h"
#include "os/ring.h"
#include "server/nbd/handshake.h"
#include "server/nbd/request.h"
#include "server/work.h"

namespace larder::server {
class shard;
}

namespace larder::nbd {

// A client's connection (theory: connection.cc). A cached object; between `open` and its end it belongs to one shard
// and is used on that shard's worker only, so it has no lock.
class connection final : public base::list_link<connection>, private handshake::output {
 public:
  connection();
  ~connection();

  // Takes over a connected socket and greets. On a task of the shard's worker.
  void open(server::shard& home, os::descriptor socket);
  // Reads nothing more, and ends when what is in flight is answered.
  void stop();
  // Ends as soon as nothing works on it, answered or not.
  void cut();

 private:
  class record_batch;
  struct poll_operation : os::ring_operation {
    connection* owner = nullptr;
    bool armed = false;
  };
  struct activity : server::work_item {
    connection* owner = nullptr;
    bool under_way = false;  // queued or running
  };

  bool say(std::span<const std::byte> bytes) override;

  // Reading.
  void read_requests();
  std::size_t eat(std::span<const std::byte> input, record_batch& records);
  void take_request(const request_header& header, request& fresh);
  error check(const request_header& header) const;
  void eat_payload(std::span<const std::byte> bytes);
  bool receive_payload();
  bool receive_into_pages();
  void payload_moved(std::size_t length);
  void submit_reading();

  // Executing.
  void execute(request& asked);

  // Replying.
  void queue_reply(request& answered);
  void send_replies();
  bool send_batch();
  void moved_out(std::size_t length);
  void drop_replies();
  void finish(request& answered);

  // Ending.
  void break_off();
  void settle();
  void arm(poll_operation& operation, unsigned events);

  cached_file& file() const;

  server::shard* home_ = nullptr;
  os::descriptor socket_;
  handle ticket_;  // in the table of connections
  handshake handshake_;
  activity reading_;
  activity sending_;
  poll_operation readable_;
  poll_operation writable_;
  base::intrusive_list<request, struct reply_queue> replies_;
  request* incoming_ = nullptr;      // a WRITE whose payload is still coming
  std::uint32_t incoming_done_ = 0;  // how much of it has come
  std::uint32_t in_flight_ = 0;      // requests between their header and their reply's end
  bool paused_ = false;              // reads nothing until one of its requests is answered,
  bool answered_ = false;            // which has happened since
  bool ended_ = false;               // reads nothing more
  bool broken_ = false;              // the socket is of no use any more
  bool own_request_used_ = false;
  request own_request_;  // so that one request can always be taken, whatever memory there is
  std::uint16_t input_length_ = 0;
  std::array<std::byte, handshake::longest_message> input_;  // the start of a message that was not whole
};

}  // namespace larder::nbd
