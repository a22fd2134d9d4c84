// SPDX-License-Identifier: Apache-2.0
//
// A thin face over liburing. Two things are ours: failures that a test asks for become completions with that error, and
// `wake`, an eventfd that the ring always reads, so that another thread can end a sleep with one write.
#include "os/ring.h"

#include <liburing.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <utility>

#include "base/check.h"
#include "os/clock.h"
#include "os/fault.h"

namespace larder::os {

struct ring::wake_operation : ring_operation {
  ring* owner = nullptr;
  std::uint64_t value = 0;
  iovec vector{};
};

ring::ring(descriptor event)
    : ring_(std::make_unique<io_uring>()), event_(std::move(event)), wake_(std::make_unique<wake_operation>()) {}

result<std::unique_ptr<ring>> ring::create(unsigned entries) {
  if (fault::fires(call::event)) return error_from(errno);
  descriptor event(::eventfd(0, EFD_CLOEXEC));
  if (!event) return error_from(errno);
  std::unique_ptr<ring> made(new ring(std::move(event)));
  if (fault::fires(call::ring_setup)) return error_from(errno);
  // One thread submits and reaps, and wants no interrupt for a completion (Linux 6.1); older kernels take none of it.
  int outcome = -EINVAL;
  for (const unsigned flags : {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
                               IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG, 0U}) {
    outcome = ::io_uring_queue_init(entries, made->ring_.get(), flags);
    if (outcome != -EINVAL) break;
  }
  if (outcome != 0) return error_from(-outcome);
  made->started_ = true;
  made->arm_wake();
  return made;
}

ring::~ring() {
  if (started_) ::io_uring_queue_exit(ring_.get());
}

bytes ring::memory_of(unsigned entries) {
  // Submission entries of 64 bytes and their index, completion entries of 16 twice as many, and the two headers; the
  // kernel takes the next power of two.
  const std::uint64_t count = std::bit_ceil(entries);
  const std::uint64_t submission = round_up(count * sizeof(io_uring_sqe), page_size);
  const std::uint64_t indexes = count * 4 + count * 2 * sizeof(io_uring_cqe) + 320;
  return {submission + round_up(indexes, page_size)};
}

io_uring_sqe* ring::next_entry() {
  io_uring_sqe* entry = ::io_uring_get_sqe(ring_.get());
  while (entry == nullptr) {
    // Full: what is prepared goes first. A kernel short of memory says EAGAIN or EBUSY, and then completions make room.
    const int outcome = ::io_uring_submit(ring_.get());
    LARDER_CHECK(outcome >= 0 || outcome == -EAGAIN || outcome == -EBUSY || outcome == -EINTR,
                 "io_uring_submit failed with error %d", -outcome);
    entry = ::io_uring_get_sqe(ring_.get());
  }
  return entry;
}

unsigned ring::room() const { return ::io_uring_sq_space_left(ring_.get()); }

bool ring::injected(ring_operation& operation, bool fires) {
  if (!fires) return false;
  injected_.push_back({&operation, -errno});
  return true;
}

void ring::read(int file, std::span<const iovec> into, std::uint64_t offset, ring_operation& operation) {
  if (injected(operation, fault::fires(call::read))) return;
  io_uring_sqe* entry = next_entry();
  ::io_uring_prep_readv(entry, file, into.data(), static_cast<unsigned>(into.size()), offset);
  ::io_uring_sqe_set_data(entry, &operation);
}

void ring::write(int file, std::span<const iovec> from, std::uint64_t offset, ring_operation& operation) {
  if (injected(operation, fault::fires(call::write))) return;
  io_uring_sqe* entry = next_entry();
  ::io_uring_prep_writev(entry, file, from.data(), static_cast<unsigned>(from.size()), offset);
  ::io_uring_sqe_set_data(entry, &operation);
}

void ring::sync_data(int file, ring_operation& operation) {
  if (injected(operation, fault::fires(call::sync))) return;
  io_uring_sqe* entry = next_entry();
  ::io_uring_prep_fsync(entry, file, IORING_FSYNC_DATASYNC);
  ::io_uring_sqe_set_data(entry, &operation);
}

void ring::zero_range(int file, std::uint64_t offset, std::uint64_t length, bool keep_blocks,
                      ring_operation& operation) {
  if (injected(operation, fault::fires(call::allocate))) return;
  io_uring_sqe* entry = next_entry();
  ::io_uring_prep_fallocate(entry, file, mode_of_zeroing(keep_blocks), static_cast<off_t>(offset),
                            static_cast<off_t>(length));
  ::io_uring_sqe_set_data(entry, &operation);
}

void ring::poll(int file, unsigned events, ring_operation& operation) {
  io_uring_sqe* entry = next_entry();
  ::io_uring_prep_poll_add(entry, file, events);
  ::io_uring_sqe_set_data(entry, &operation);
}

void ring::accept(int listener, ring_operation& operation) {
  if (injected(operation, fault::fires(call::accept))) return;
  io_uring_sqe* entry = next_entry();
  ::io_uring_prep_accept(entry, listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  ::io_uring_sqe_set_data(entry, &operation);
}

void ring::cancel(ring_operation& operation, ring_operation& cancelling) {
  io_uring_sqe* entry = next_entry();
  ::io_uring_prep_cancel(entry, &operation, 0);
  ::io_uring_sqe_set_data(entry, &cancelling);
}

void ring::arm_wake() {
  wake_->owner = this;
  wake_->vector = {&wake_->value, sizeof wake_->value};
  wake_->complete = [](ring_operation& self, int) { static_cast<wake_operation&>(self).owner->arm_wake(); };
  io_uring_sqe* entry = next_entry();
  ::io_uring_prep_readv(entry, event_.number(), &wake_->vector, 1, 0);
  ::io_uring_sqe_set_data(entry, wake_.get());
}

void ring::wake() {
  const std::uint64_t one = 1;
  // Fails only when 2^64-1 wakes were not read, and then the sleeper is awake.
  (void)!::write(event_.number(), &one, sizeof one);
}

unsigned ring::reap() {
  unsigned called = 0;
  unsigned head = 0;
  unsigned seen = 0;
  io_uring_cqe* entry = nullptr;
  // Each entry is copied out and given back before its owner is told: the owner may prepare more.
  constexpr unsigned batch = 32;
  do {
    injected_completion finished[batch];
    seen = 0;
    io_uring_for_each_cqe(ring_.get(), head, entry) {
      finished[seen++] = {static_cast<ring_operation*>(::io_uring_cqe_get_data(entry)), entry->res};
      if (seen == batch) break;
    }
    ::io_uring_cq_advance(ring_.get(), seen);
    for (unsigned i = 0; i < seen; ++i) finished[i].operation->complete(*finished[i].operation, finished[i].outcome);
    called += seen;
  } while (seen == batch);
  return called;
}

unsigned ring::run(bool wait, time_point deadline) {
  const auto failed = std::exchange(injected_, {});  // what fails from here on is told next time
  for (const injected_completion& told : failed) told.operation->complete(*told.operation, told.outcome);
  const auto called = static_cast<unsigned>(failed.size());
  if (called > 0) wait = false;
  int outcome = 0;
  if (fault::fires(call::ring_enter)) {
    outcome = -errno;
  } else if (wait) {
    __kernel_timespec until{};
    if (deadline != no_deadline) {
      const auto left =
          std::max<std::int64_t>(0, std::chrono::duration_cast<std::chrono::nanoseconds>(deadline - now()).count());
      until.tv_sec = left / 1'000'000'000;
      until.tv_nsec = left % 1'000'000'000;
    }
    io_uring_cqe* entry = nullptr;
    outcome =
        ::io_uring_submit_and_wait_timeout(ring_.get(), &entry, 1, deadline == no_deadline ? nullptr : &until, nullptr);
  } else {
    outcome = ::io_uring_submit_and_get_events(ring_.get());
  }
  LARDER_CHECK(outcome >= 0 || outcome == -ETIME || outcome == -EINTR || outcome == -EAGAIN || outcome == -EBUSY,
               "io_uring_enter failed with error %d", -outcome);
  return called + reap();
}

void ring::look() {
  const unsigned flags = __atomic_load_n(ring_->sq.kflags, __ATOMIC_RELAXED);  // a late look is only late
  const bool kernel_has_work = (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
  if (kernel_has_work || !injected_.empty() || ::io_uring_sq_ready(ring_.get()) > 0) {
    run(false, no_deadline);
  } else {
    reap();
  }
}

}  // namespace larder::os
