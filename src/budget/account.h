// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <larder/memory_budget.h>

#include "base/intrusive_list.h"

namespace larder::budget {

// Says what the memory is that a component has charged. Where each component adds all that it has charged, and only
// that, a budget's account sums to what it has in use.
class describer : public base::list_link<> {
 public:
  // Adds to the kinds. Called with the lock of rank `accounts` held; takes its component's locks for a short time.
  virtual void describe(memory_account& into) const = 0;

 protected:
  describer() = default;
  virtual ~describer() = default;

 private:
  friend void add_describer(describer& one, memory_budget& charged);
  friend memory_account describe_within(const memory_budget& node);
  const memory_budget* charged_ = nullptr;
};

// Makes the list, with no lock held. Called with the first budget, so that nobody makes it who holds the registry's
// lock: its place among those that take part in forks is taken under theirs, which a fork takes before the registry's.
void prepare_accounts();
// With no ranked lock held. `charged` outlives it. Once removed, it is not being called and never will be again.
void add_describer(describer& one, memory_budget& charged);
void remove_describer(describer& one);

// What is charged to `node` and below by those who describe it.
memory_account describe_within(const memory_budget& node);

}  // namespace larder::budget
