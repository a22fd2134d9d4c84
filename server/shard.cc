// SPDX-License-Identifier: Apache-2.0
#include "server/shard.h"

#include "base/check.h"
#include "os/waiting.h"
#include "server/service.h"

namespace larder::server {

shard::shard(server::service& owner, unsigned number, unsigned tasks_most)
    : service_(owner), number_(number), tasks_most_(tasks_most) {}

shard::~shard() {
  LARDER_CHECK(connections_.empty() && arrivals_.empty() && waiting_.empty(), "shard %u is destroyed while it is busy",
               number_);
}

void shard::arrive(arrival& newcomer) {
  arrivals_.push(newcomer);
  // The door sets `door_` first and looks at the arrivals then; we do it the other way round.
  if (os::parker* door = door_.load(); door != nullptr) door->unpark();
}

void shard::stop() {
  stopping_ = true;
  if (os::parker* door = door_.load(); door != nullptr) door->unpark();
}

void shard::cut() {
  cutting_ = true;
  stop();
}

void shard::turn_away() {
  for (base::stack_link* link = arrivals_.take_all(); link != nullptr;) {
    auto& late = static_cast<arrival&>(*link);
    link = link->next;
    late.socket.close();
    service_.arrivals().put(&late);
  }
}

void shard::keep_door() {
  this_task::set_name("door");
  os::parker& self = os::parker::current();
  door_ = &self;
  bool told_to_stop = false;
  bool told_to_cut = false;
  for (;;) {
    for (base::stack_link* link = arrivals_.take_all_in_order(); link != nullptr;) {
      auto& newcomer = static_cast<arrival&>(*link);
      link = link->next;
      os::descriptor socket = std::move(newcomer.socket);
      service_.arrivals().put(&newcomer);
      if (stopping_) continue;  // the socket closes
      nbd::connection* fresh = service_.connections().get();
      if (fresh != nullptr) fresh->open(*this, std::move(socket));
    }
    if (stopping_ && !told_to_stop) {
      told_to_stop = true;
      for_each_connection(&nbd::connection::stop);
    }
    if (cutting_ && !told_to_cut) {
      told_to_cut = true;
      for_each_connection(&nbd::connection::cut);
    }
    if (stopping_ && connections_.empty() && arrivals_.empty()) break;
    const os::waiting noted(self, {.kind = "connections"});
    self.park();
  }
  door_ = nullptr;
}

void shard::for_each_connection(void (nbd::connection::*tell)()) {
  for (nbd::connection* each = connections_.front(); each != nullptr;) {
    nbd::connection* next = connections_.after(*each);
    (each->*tell)();  // may remove it
    each = next;
  }
}

void shard::submit(work_item& item) {
  waiting_.push_back(item);
  if (tasks_ == tasks_most_) return;
  if (service_.tasks().try_spawn_detached_on(number_, [this] { work(); })) ++tasks_;
  LARDER_CHECK(tasks_ > 0, "shard %u has work and no stack for it, though %u were reserved", number_, tasks_most_);
}

void shard::work() {
  this_task::set_name("requests");
  while (work_item* next = waiting_.pop_front()) next->run(*next);
  --tasks_;
}

void shard::add(nbd::connection& opened) {
  connections_.push_back(opened);
  counts_.connections.add();
}

void shard::remove(nbd::connection& closed) {
  base::intrusive_list<nbd::connection, nbd::connection>::remove(closed);
  counts_.connections.subtract(1);
  service_.connections().put(&closed);
  if (stopping_ && connections_.empty()) door_.load()->unpark();
}

void shard::count_request(nbd::command asked, std::uint32_t length) {
  counts_.requests.add();
  if (asked == nbd::command::read) counts_.bytes_read.add(length);
  if (asked == nbd::command::write) counts_.bytes_written.add(length);
}

}  // namespace larder::server
