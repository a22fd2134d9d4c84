// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <larder/backing.h>
#include <larder/handle_table.h>
#include <larder/memory_budget.h>
#include <larder/object_cache.h>
#include <larder/page_cache.h>
#include <larder/runtime.h>

#include "os/socket.h"
#include "server/nbd/connection.h"
#include "server/shard.h"

namespace larder::server {

// Something that the user must hear before the server can start: one line, what and what to do.
class bad_start : public std::runtime_error {
 public:
  using runtime_error::runtime_error;
};

// A disk to be served.
struct disk {
  std::string name;
  std::unique_ptr<backing> source;
  bool read_only = false;
};

// How a memory limit is laid out. All of it but the pages beyond the guaranteed ones is taken at the start.
struct layout {
  unsigned workers;
  unsigned ring_entries;
  bytes stack_size;
  unsigned tasks_per_worker;  // that work at once
  unsigned listeners_most;    // each has a task
  std::uint32_t guaranteed_pages;
  std::size_t requests_reserved;  // records beside the one of each connection
  std::uint32_t requests_per_connection;

  // For a limit; the smallest that works for 0.
  static layout of(bytes memory, unsigned workers, unsigned listeners);
};

// What a kind of memory uses now.
struct memory_use {
  std::string_view kind;
  bytes used;
};

// The server without its face: a budget and everything that lives in it, the shards, and the disks.
class service {
 public:
  // Throws bad_start if the memory is less than what the layout needs, or the system refuses something.
  service(bytes memory, const layout& plan, std::vector<disk> disks);
  // After stop.
  ~service();

  // The least memory that works, and by what kinds; found by building it.
  static std::pair<bytes, std::string> least_memory(unsigned workers, unsigned listeners);

  // Lets clients in. Once for each listener, no more than the layout says.
  void listen(os::descriptor listener);

  // Lets nobody in any more, answers what is in flight for `patience` at most, ends all connections, and writes what is
  // dirty. The error of the disk whose flush failed last, with its name.
  struct loss {
    std::string disk;
    std::error_code error;
  };
  std::vector<loss> stop(std::chrono::milliseconds patience);

  // For the shards and connections; any thread.
  runtime& tasks() { return *tasks_; }
  page_cache& pages() { return *pages_; }
  object_cache<nbd::connection>& connections() { return *connections_; }
  object_cache<nbd::request>& requests() const { return *requests_; }
  object_cache<arrival>& arrivals() { return *arrivals_; }
  handle_table<nbd::connection>& connection_table() { return *connection_table_; }
  handle_table<nbd::request>& request_table() { return *request_table_; }
  std::uint32_t requests_per_connection() const { return plan_.requests_per_connection; }
  std::span<const nbd::export_view> exports() const { return exports_; }
  cached_file& file_of(std::size_t which) { return *files_[which]; }

  // Inserts; where the table must grow and the budget is full, pages make room. None if that failed again and again.
  template <typename T>
  handle track(handle_table<T>& table, T& object) {
    handle ticket = table.insert(&object);
    // What is reclaimed may be taken by others first.
    for (int tries = 0; !ticket && tries < 16 && budget_.reclaim(bytes{page_size}).count > 0; ++tries) {
      ticket = table.insert(&object);
    }
    return ticket;
  }

  // Figures, each exact by itself.
  struct figures {
    std::uint64_t connections = 0;
    std::uint64_t requests = 0;
    std::uint64_t in_flight = 0;
    std::uint64_t bytes_read = 0;
    std::uint64_t bytes_written = 0;
    std::uint64_t handles_used = 0;  // entries of both tables
    page_cache_stats pages;
    bytes memory_used;
    bytes memory_peak;
    bytes memory_limit;
    std::vector<memory_use> kinds;
  };
  figures now() const;

 private:
  void accept_from(int listener);

  const layout plan_;
  memory_budget budget_;
  memory_budget pages_budget_;
  memory_budget objects_budget_;
  memory_budget stacks_budget_;
  memory_budget handles_budget_;
  std::vector<disk> disks_;
  std::vector<nbd::export_view> exports_;
  std::unique_ptr<page_cache> pages_;
  std::vector<std::unique_ptr<cached_file>> files_;
  std::unique_ptr<object_cache<nbd::connection>> connections_;
  std::unique_ptr<object_cache<nbd::request>> requests_;
  std::unique_ptr<object_cache<arrival>> arrivals_;
  std::unique_ptr<handle_table<nbd::connection>> connection_table_;
  std::unique_ptr<handle_table<nbd::request>> request_table_;
  std::unique_ptr<runtime> runtime_;
  runtime* tasks_ = nullptr;  // the same; unlike `runtime_`, still set while its destructor waits for the last tasks
  std::vector<std::unique_ptr<shard>> shards_;
  std::vector<os::descriptor> listeners_;
  base::atomic<unsigned> next_shard_{0};
  base::atomic<bool> stopping_{false};
};

}  // namespace larder::server
