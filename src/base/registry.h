// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>

#include <larder/stats.h>

#include "base/intrusive_list.h"

namespace larder::base {

using stat_visitor = std::function<void(const stat&)>;

// Shows a component's figures in for_each_stat for as long as it lives. The last member of its owner, so that it is
// destroyed first: once its destructor has returned, no visitor is inside the owner.
class registration : public list_link<> {
 public:
  // `report` calls the visitor once a figure. It is called with the registry locked and may only take the locks of its
  // component for a short time: components take no registry lock while they hold one of theirs.
  explicit registration(std::function<void(const stat_visitor&)> report);
  ~registration();

 private:
  friend void visit_registrations(const stat_visitor& show);
  const std::function<void(const stat_visitor&)> report_;
};

void visit_registrations(const stat_visitor& show);

// Around fork() (os/fork.cc): nobody registers, leaves or visits meanwhile.
void lock_registry_for_fork();
void unlock_registry_after_fork();

}  // namespace larder::base
