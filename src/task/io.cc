// SPDX-License-Identifier: Apache-2.0
//
// An awaited operation stands on the task's stack, is prepared in the ring of its worker, and parks the task until the
// completion. That comes on the same worker, where the task stays meanwhile: nothing here is shared between threads.
#include "task/io.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"
#include "os/clock.h"
#include "os/events.h"
#include "os/file.h"
#include "os/parker.h"
#include "os/socket.h"
#include "os/waiting.h"
#include "task/worker.h"

namespace larder::io {
namespace {

using task_layer::worker;

struct awaited : os::ring_operation {
  awaited() {
    complete = [](os::ring_operation& self, int result) {
      auto& mine = static_cast<awaited&>(self);
      mine.outcome = result;
      mine.done = true;
      mine.owner.unpark();
    };
  }
  os::parker& owner = os::parker::current();
  int outcome = 0;
  bool done = false;
};

// Prepares an operation and waits for it; its result, or minus an error number.
template <typename Prepare>
int await(worker& here, const char* kind, int file, Prepare prepare) {
  const task_layer::stay_here bound;
  awaited operation;
  prepare(here.ring(), operation);
  const os::waiting noted(operation.owner, {.kind = kind, .descriptor = file});
  while (!operation.done) operation.owner.park();
  return operation.outcome;
}

// The same, but gives the operation up when the deadline comes or the task is cancelled. Its result if it had one all
// the same; else minus ECANCELED, or task::cancelled is thrown.
template <typename Prepare>
int await_until(worker& here, const char* kind, int file, time_point deadline, Prepare prepare) {
  const task_layer::stay_here bound;
  awaited operation;
  prepare(here.ring(), operation);
  const os::waiting noted(operation.owner, {.kind = kind, .descriptor = file, .deadline = deadline});
  bool in_time = true;
  while (!operation.done && in_time && !operation.owner.must_cancel()) in_time = operation.owner.park_until(deadline);
  if (!operation.done) {
    awaited giving_up;
    here.ring().cancel(operation, giving_up);
    while (!operation.done || !giving_up.done) operation.owner.park();
    if (operation.outcome == -ECANCELED) task_layer::heed_cancellation(operation.owner);
  }
  return operation.outcome;
}

// One of several under way; the task is woken by the last.
struct awaited_together : os::ring_operation {
  struct all {
    os::parker& owner = os::parker::current();
    std::size_t pending = 0;
  };
  awaited_together() {
    complete = [](os::ring_operation& self, int result) {
      auto& mine = static_cast<awaited_together&>(self);
      mine.outcome = result;
      if (--mine.group->pending == 0) mine.group->owner.unpark();
    };
  }
  all* group = nullptr;
  int outcome = 0;
};

constexpr std::size_t vectors_at_once = 64;

constexpr std::size_t writes_at_once_max = 16;

// Those from `first`, of which there are so many. One that was cut short is made again, by itself.
void write_together(worker& here, std::size_t first, std::size_t count,
                    const std::function<file_write(std::size_t)>& nth) {
  std::array<awaited_together, writes_at_once_max> operations;
  {
    const task_layer::stay_here bound;
    awaited_together::all group;
    int file = -1;
    for (std::size_t i = 0; i < count; ++i) {
      const file_write each = nth(first + i);
      if (each.file < 0) continue;
      file = each.file;
      operations[i].group = &group;
      ++group.pending;
      here.ring().write(each.file, each.from.first(std::min(each.from.size(), vectors_at_once)), each.offset,
                        operations[i]);
    }
    const os::waiting noted(group.owner, {.kind = "file writes", .descriptor = file});
    while (group.pending > 0) group.owner.park();
  }
  for (std::size_t i = 0; i < count; ++i) {
    const file_write each = nth(first + i);
    if (each.file < 0) continue;
    const int outcome = operations[i].outcome;
    const bool cut_short = outcome >= 0 && static_cast<std::uint64_t>(outcome) < os::length_of(each.from);
    if (cut_short || outcome == -EINTR || outcome == -EAGAIN) {
      *each.outcome = write_vectors(each.file, each.from, each.offset);
    } else if (outcome < 0) {
      *each.outcome = error_from(-outcome);
    } else {
      *each.outcome = {};
    }
  }
}

// Repeats `move` until all vectors are through. `move(vectors, offset)` returns what it moved, or minus an error;
// `at_end` is called when it moved nothing.
template <typename Move, typename AtEnd>
result<void> move_all(std::span<const iovec> vectors, std::uint64_t offset, Move move, AtEnd at_end) {
  std::size_t within = 0;  // how much of the first vector is through
  while (!vectors.empty()) {
    if (vectors[0].iov_len == 0) {  // a transfer of nothing must mean the end of the file
      vectors = vectors.subspan(1);
      continue;
    }
    int moved = 0;
    if (within == 0) {
      moved = move(vectors.first(std::min(vectors.size(), vectors_at_once)), offset);
    } else {
      // The rest of a vector that was cut goes alone; whole ones follow.
      const iovec rest{static_cast<char*>(vectors[0].iov_base) + within, vectors[0].iov_len - within};
      moved = move(std::span(&rest, 1), offset);
    }
    if (moved == -EINTR || moved == -EAGAIN) continue;
    if (moved < 0) return error_from(-moved);
    if (moved == 0) return at_end(vectors, within);
    offset += static_cast<std::uint64_t>(moved);
    within += static_cast<std::size_t>(moved);
    while (!vectors.empty() && within >= vectors[0].iov_len) {
      within -= vectors[0].iov_len;
      vectors = vectors.subspan(1);
    }
  }
  return {};
}

result<void> zero_rest(std::span<const iovec> vectors, std::size_t within) {
  for (const iovec& vector : vectors) {
    std::memset(static_cast<char*>(vector.iov_base) + within, 0, vector.iov_len - within);
    within = 0;
  }
  return {};
}

// Waits until the socket can move data, or has failed: then the next transfer says how. Poll's events, or ETIMEDOUT.
result<int> await_events(int socket, short events, time_point deadline) {
  worker* here = worker::current();
  int there = 0;
  if (here == nullptr) {
    there = os::wait_for_events(socket, events, deadline);
  } else {
    const char* kind = events == os::event_readable ? "socket, to read" : "socket, to write";
    there = await_until(*here, kind, socket, deadline, [&](os::ring& ring, os::ring_operation& operation) {
      ring.poll(socket, static_cast<unsigned>(events), operation);
    });
  }
  if (there > 0 || deadline == no_deadline || os::now() < deadline) return there;
  return error_from(ETIMEDOUT);
}

bool would_block(std::error_code error) { return error == error_from(EAGAIN) || error == error_from(EWOULDBLOCK); }

}  // namespace

result<void> read_vectors(int file, std::span<const iovec> into, std::uint64_t offset) {
  worker* here = worker::current();
  if (here == nullptr) return os::read_at(file, into, offset);
  return move_all(
      into, offset,
      [&](std::span<const iovec> some, std::uint64_t at) {
        return await(*here, "file read", file,
                     [&](os::ring& ring, os::ring_operation& operation) { ring.read(file, some, at, operation); });
      },
      zero_rest);
}

result<void> write_vectors(int file, std::span<const iovec> from, std::uint64_t offset) {
  worker* here = worker::current();
  if (here == nullptr) return os::write_at(file, from, offset);
  return move_all(
      from, offset,
      [&](std::span<const iovec> some, std::uint64_t at) {
        return await(*here, "file write", file,
                     [&](os::ring& ring, os::ring_operation& operation) { ring.write(file, some, at, operation); });
      },
      [](std::span<const iovec>, std::size_t) -> result<void> { return error_from(EIO); });
}

std::size_t writes_at_once() { return worker::current() == nullptr ? 1 : writes_at_once_max; }

void write_many(std::size_t count, const std::function<file_write(std::size_t)>& nth) {
  worker* here = worker::current();
  if (here == nullptr) {
    for (std::size_t i = 0; i < count; ++i) {
      const file_write each = nth(i);
      if (each.file >= 0) *each.outcome = write_vectors(each.file, each.from, each.offset);
    }
    return;
  }
  for (std::size_t made = 0; made < count;) {
    // Some entries are left for the other tasks of this round: a full ring is submitted before its turn.
    const std::size_t room = std::clamp<std::size_t>(here->ring().room() / 2, 1, writes_at_once_max);
    const std::size_t some = std::min(room, count - made);
    write_together(*here, made, some, nth);
    made += some;
  }
}

result<void> zero_range(int file, std::uint64_t offset, std::uint64_t length, bool keep_blocks) {
  worker* here = worker::current();
  if (here == nullptr) return os::zero_range(file, offset, length, keep_blocks);
  int outcome = 0;
  do {
    outcome = await(*here, "file zeroing", file, [&](os::ring& ring, os::ring_operation& operation) {
      ring.zero_range(file, offset, length, keep_blocks, operation);
    });
  } while (outcome == -EINTR);
  if (outcome < 0) return error_from(-outcome);
  return {};
}

result<void> read(int file, std::span<std::byte> into, std::uint64_t offset) {
  const iovec vector{into.data(), into.size()};
  return read_vectors(file, std::span(&vector, 1), offset);
}

result<void> write(int file, std::span<const std::byte> from, std::uint64_t offset) {
  const iovec vector{const_cast<std::byte*>(from.data()), from.size()};
  return write_vectors(file, std::span(&vector, 1), offset);
}

result<void> sync(int file) {
  worker* here = worker::current();
  if (here == nullptr) return os::sync_data(file);
  const int outcome = await(*here, "file sync", file,
                            [&](os::ring& ring, os::ring_operation& operation) { ring.sync_data(file, operation); });
  if (outcome < 0) return error_from(-outcome);
  return {};
}

result<std::size_t> receive(int socket, std::span<std::byte> into, time_point deadline) {
  const iovec vector{into.data(), into.size()};
  for (;;) {
    auto moved = os::receive_now(socket, std::span(&vector, 1));
    if (moved || !would_block(moved.error())) return moved;
    if (const auto ready = await_events(socket, os::event_readable, deadline); !ready) return ready.error();
  }
}

result<void> send(int socket, std::span<const std::byte> from, time_point deadline) {
  while (!from.empty()) {
    const iovec vector{const_cast<std::byte*>(from.data()), from.size()};
    const auto moved = os::send_now(socket, std::span(&vector, 1));
    if (moved) {
      from = from.subspan(*moved);
    } else if (!would_block(moved.error())) {
      return moved.error();
    } else if (const auto ready = await_events(socket, os::event_writable, deadline); !ready) {
      return ready.error();
    }
  }
  return {};
}

result<int> accept(int listener, time_point deadline) {
  for (bool shut_down = false;;) {
    auto connection = os::accept_one(listener);
    if (connection) return connection->release();
    if (!would_block(connection.error()) || shut_down) return connection.error();
    const auto events = await_events(listener, os::event_readable, deadline);
    if (!events) return events.error();
    // A unix listener that was shut down says no more than that it has hung up.
    shut_down = *events > 0 && (*events & os::event_hung_up) != 0;
  }
}

result<void> connect(int socket, std::span<const std::byte> address, time_point deadline) {
  auto connected = os::connect_now(socket, address);
  if (connected || (connected.error() != error_from(EINPROGRESS) && connected.error() != error_from(EINTR))) {
    return connected;
  }
  if (const auto ready = await_events(socket, os::event_writable, deadline); !ready) return ready.error();
  return os::pending_error(socket);
}

}  // namespace larder::io
