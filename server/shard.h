// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "base/atomic.h"
#include "base/counter.h"
#include "base/intrusive_list.h"
#include "base/take_all_stack.h"
#include "os/file.h"
#include "os/parker.h"
#include "server/nbd/connection.h"
#include "server/work.h"

namespace larder::server {

class service;

// A connected socket on its way to a shard.
struct arrival : base::stack_link {
  os::descriptor socket;
};

// What a shard counts. Written by its worker only, read by any thread.
struct shard_counts {
  base::owned_counter requests;
  base::owned_counter answers;
  base::owned_counter bytes_read;
  base::owned_counter bytes_written;
  base::owned_counter connections;
};

// The connections of one worker, and the work on them. All of it happens on that worker, so nothing here needs a lock;
// only `arrive`, `stop`, `cut`, `turn_away` and the counts are for other threads.
//
// Work runs on at most `tasks_most` tasks at once, whose stacks are there from the start: the rest waits in a queue
// that takes no memory, however many clients ask. A task that has done its work takes the next from the queue.
class shard {
 public:
  shard(service& owner, unsigned number, unsigned tasks_most);
  ~shard();

  // Any thread.
  void arrive(arrival& newcomer);
  // Tells all connections to end: when what is in flight is answered, or at once. The door closes behind the last.
  void stop();
  void cut();
  // Closes what arrived after the door. When no task runs any more.
  void turn_away();
  const shard_counts& counts() const { return counts_; }

  // On the shard's worker, on a task that does nothing else: lets connections in until stopped.
  void keep_door();

  // On the shard's worker.
  server::service& owner() { return service_; }
  void submit(work_item& item);
  void add(nbd::connection& opened);
  void remove(nbd::connection& closed);
  void count_request(nbd::command asked, std::uint32_t length);
  void count_answer() { counts_.answers.add(); }

 private:
  void work();
  void for_each_connection(void (nbd::connection::*tell)());

  server::service& service_;
  const unsigned number_;
  const unsigned tasks_most_;
  unsigned tasks_ = 0;
  base::intrusive_list<work_item, work_item> waiting_;
  base::intrusive_list<nbd::connection, nbd::connection> connections_;
  shard_counts counts_;

  base::take_all_stack arrivals_;
  base::atomic<bool> stopping_{false};
  base::atomic<bool> cutting_{false};
  base::atomic<os::parker*> door_{nullptr};
};

}  // namespace larder::server
