// SPDX-License-Identifier: Apache-2.0
#include "base/registry.h"

#include <utility>

#include "base/mutex.h"

namespace larder::base {
namespace {

struct registry {
  mutex guard{lock_rank::registry};
  intrusive_list<registration> components;  // guarded by `guard`
};

// Never destroyed: components with static storage may outlive any order of destruction.
registry& the_registry() {
  static auto* instance = new registry;
  return *instance;
}

}  // namespace

registration::registration(std::function<void(const stat_visitor&)> report) : report_(std::move(report)) {
  registry& all = the_registry();
  const lock locked(all.guard);
  all.components.push_back(*this);
}

registration::~registration() {
  const lock locked(the_registry().guard);
  intrusive_list<registration>::remove(*this);
}

void visit_registrations(const stat_visitor& show) {
  registry& all = the_registry();
  const lock locked(all.guard);
  for (registration* component = all.components.front(); component != nullptr;
       component = all.components.after(*component)) {
    component->report_(show);
  }
}

void lock_registry_for_fork() { the_registry().guard.lock_for_fork(); }
void unlock_registry_after_fork() { the_registry().guard.unlock_after_fork(); }

}  // namespace larder::base

namespace larder {

void for_each_stat(const std::function<void(const stat&)>& show) { base::visit_registrations(show); }

}  // namespace larder
