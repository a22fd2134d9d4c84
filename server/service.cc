// SPDX-License-Identifier: Apache-2.0
//
// One budget, with a child for each kind of memory so that the account can be shown, and everything that the server
// needs to answer anybody taken from it at the start: rings, stacks, request records, guaranteed pages. What is left is
// pages, and connections take from these. So the server works the same however full the cache is, and a limit that is
// too small is known before the first client comes.
#include "server/service.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "base/sanitizers.h"
#include "os/clock.h"
#include "task/io.h"

namespace larder::server {
namespace {

// A connection costs a descriptor, so this many are more than any system allows.
constexpr std::size_t connections_most = 1U << 16;

#if defined(LARDER_ADDRESS_SANITIZER) || defined(LARDER_THREAD_SANITIZER)
constexpr bytes request_stack = 64_KiB;  // a sanitizer's frames are many times as large
#else
constexpr bytes request_stack = 16_KiB;
#endif

// What the least memory leaves for connections: some hundred of them.
constexpr bytes room_for_clients = 64_KiB;

// While descriptors run out, whoever wants to connect waits in the kernel; closing connections make room.
constexpr std::chrono::milliseconds pause_at_the_door{50};

}  // namespace

layout layout::of(bytes memory, unsigned workers, unsigned listeners) {
  // A sixteenth for the stacks of those who work at once, another for guaranteed pages; a hundredth for requests.
  const std::uint64_t share = memory.count / workers;
  layout plan{};
  plan.workers = workers;
  plan.ring_entries = memory < 4_MiB ? 32 : 128;
  plan.stack_size = request_stack;
  plan.tasks_per_worker = static_cast<unsigned>(std::clamp<std::uint64_t>(share / 16 / request_stack.count, 4, 64));
  plan.listeners_most = listeners;
  plan.guaranteed_pages = static_cast<std::uint32_t>(
      std::clamp<std::uint64_t>(memory.count / 16 / page_size, plan.tasks_per_worker * workers + 8, 1U << 20));
  plan.requests_reserved = std::clamp<std::uint64_t>(memory.count / 100 / sizeof(nbd::request), 16, 4096);
  plan.requests_per_connection =
      static_cast<std::uint32_t>(std::clamp<std::uint64_t>(plan.requests_reserved / 4, 8, 128));
  return plan;
}

service::service(bytes memory, const layout& plan, std::vector<disk> disks)
    : plan_(plan),
      // All but the pages is planned for, so nothing has to be kept free.
      budget_("larder", {.limit = memory, .high_mark_percent = 100}),
      pages_budget_("pages", {}, &budget_),
      objects_budget_("objects", {}, &budget_),
      stacks_budget_("stacks", {}, &budget_),
      handles_budget_("handles", {}, &budget_),
      disks_(std::move(disks)) {
  const auto refused = [&](const char* what, std::error_code error) {
    return bad_start(std::string(what) + ": " + error.message());
  };
  auto pages = page_cache::create("pages", {.budget = &pages_budget_, .guaranteed_pages = plan.guaranteed_pages});
  if (!pages) throw refused("no memory for the page cache", pages.error());
  pages_ = std::move(*pages);
  connections_ = std::make_unique<object_cache<nbd::connection>>(
      "connections", object_cache_options{.reservation = 1, .limit = connections_most, .budget = &objects_budget_});
  requests_ = std::make_unique<object_cache<nbd::request>>(
      "requests",
      object_cache_options{
          .reservation = plan.requests_reserved, .limit = plan.requests_reserved, .budget = &objects_budget_});
  arrivals_ = std::make_unique<object_cache<arrival>>(
      "arrivals", object_cache_options{.reservation = plan.listeners_most + 1, .budget = &objects_budget_});
  connection_table_ = std::make_unique<handle_table<nbd::connection>>(
      "connections", handle_table<nbd::connection>::options{.limit = connections_most, .budget = &handles_budget_});
  request_table_ = std::make_unique<handle_table<nbd::request>>(
      "requests", handle_table<nbd::request>::options{.limit = connections_most + plan.requests_reserved,
                                                      .budget = &handles_budget_});
  // The first frame of each table is part of what the server needs.
  {
    const auto one = connections_->acquire();
    const auto other = requests_->acquire();
    if (one == nullptr || other == nullptr || !connection_table_->erase(connection_table_->insert(one.get())) ||
        !request_table_->erase(request_table_->insert(other.get()))) {
      throw std::bad_alloc();
    }
  }
  for (const disk& each : disks_) {
    auto file = pages_->open(*each.source);
    if (!file) throw refused("no memory for a disk", file.error());
    files_.push_back(std::move(*file));
    exports_.push_back({each.name, each.source->size().count, each.read_only});
  }
  auto started = runtime::create(
      "larder", {.workers = plan.workers,
                 .stack_size = plan.stack_size,
                 .stacks_reserved = plan.workers * (plan.tasks_per_worker + std::size_t{1}) + plan.listeners_most,
                 .budget = &stacks_budget_,
                 .ring_entries = plan.ring_entries});
  if (!started) {
    if (started.error() == error_from(ENOMEM)) throw std::bad_alloc();
    throw refused(
        "cannot start the workers (io_uring, the kernel's asynchronous I/O, may be missing or forbidden: see "
        "/proc/sys/kernel/io_uring_disabled, or the container's seccomp profile)",
        started.error());
  }
  runtime_ = std::move(*started);
  tasks_ = runtime_.get();
  for (unsigned number = 0; number < plan.workers; ++number) {
    shards_.push_back(std::make_unique<shard>(*this, number, plan.tasks_per_worker));
  }
  // Nothing throws from here on, so no door is left behind: the stacks were reserved.
  for (unsigned number = 0; number < plan.workers; ++number) {
    runtime_->spawn_detached_on(number, [mine = shards_[number].get()] { mine->keep_door(); });
  }
}

service::~service() {
  if (!stopping_) (void)stop(std::chrono::milliseconds(0));
}

std::pair<bytes, std::string> service::least_memory(unsigned workers, unsigned listeners) {
  // The tables of the page cache grow with the limit, so the first answer, under a generous limit, is too much: with
  // that as the limit the tables shrink, and so on until it stays.
  bytes limit = 64_MiB + bytes{std::uint64_t{workers} << 20};
  for (;;) {
    const service probe(limit, layout::of({0}, workers, listeners), {});
    const figures all = probe.now();
    if (all.memory_peak >= limit) {
      const auto whole_kib = [](bytes amount) { return format_bytes({round_up(amount.count, 1024)}); };
      std::string sum;
      for (const memory_use& kind : all.kinds) sum += std::string(kind.kind) + " " + whole_kib(kind.used) + " + ";
      return {{round_up((limit + room_for_clients).count, 1024)}, sum + "clients " + whole_kib(room_for_clients)};
    }
    limit = all.memory_peak;
  }
}

void service::listen(os::descriptor listener) {
  LARDER_CHECK(listeners_.size() < plan_.listeners_most, "more listeners than the layout has tasks for");
  listeners_.push_back(std::move(listener));
  runtime_->spawn_detached([this, number = listeners_.back().number()] { accept_from(number); });
}

void service::accept_from(int listener) {
  this_task::set_name("listener");
  while (!stopping_) {
    const auto accepted = io::accept(listener);
    if (accepted) {
      os::descriptor socket(*accepted);
      arrival* newcomer = arrivals_->get();
      if (newcomer == nullptr) continue;  // the socket closes
      newcomer->socket = std::move(socket);
      shards_[next_shard_++ % shards_.size()]->arrive(*newcomer);
    } else if (accepted.error() == error_from(EINVAL) || accepted.error() == error_from(EBADF)) {
      break;  // shut down
    } else if (accepted.error() != error_from(ECONNABORTED)) {
      // No descriptor or memory is left, or the network has a problem of one connection's: the door stays open.
      this_task::sleep_for(pause_at_the_door);
    }
  }
}

std::vector<service::loss> service::stop(std::chrono::milliseconds patience) {
  stopping_ = true;
  for (const os::descriptor& listener : listeners_) os::shut_down(listener.number());
  for (const auto& each : shards_) each->stop();
  const time_point deadline = os::now() + patience;
  while (now().connections > 0 && os::now() < deadline) this_task::sleep_for(std::chrono::milliseconds(1));
  for (const auto& each : shards_) each->cut();
  runtime_.reset();  // waits until every task has ended: no arrival or connection is left then
  for (const auto& each : shards_) each->turn_away();
  shards_.clear();
  listeners_.clear();
  std::vector<loss> losses;
  for (std::size_t i = 0; i < files_.size(); ++i) {
    if (disks_[i].read_only) continue;
    if (const auto flushed = files_[i]->flush(); !flushed) {
      losses.push_back({disks_[i].name, flushed.error()});
      files_[i]->abandon();
    }
  }
  return losses;
}

service::figures service::now() const {
  figures all;
  for (const auto& each : shards_) {
    const shard_counts& counts = each->counts();
    all.connections += counts.connections.value();
    const std::uint64_t answers = counts.answers.value();
    const std::uint64_t requests = counts.requests.value();
    all.requests += requests;
    all.in_flight += requests - std::min(answers, requests);  // the two are not read at one instant
    all.bytes_read += counts.bytes_read.value();
    all.bytes_written += counts.bytes_written.value();
  }
  all.handles_used = connection_table_->size() + request_table_->size();
  all.pages = pages_->stats();
  all.memory_used = budget_.used();
  all.memory_peak = budget_.peak();
  all.memory_limit = budget_.limit();
  for (const memory_budget* kind : {&pages_budget_, &objects_budget_, &stacks_budget_, &handles_budget_}) {
    all.kinds.push_back({kind->name(), kind->used()});
  }
  return all;
}

}  // namespace larder::server
