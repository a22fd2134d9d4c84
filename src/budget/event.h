// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <larder/memory_budget.h>

#include "base/mutex.h"
#include "budget/tree.h"

namespace larder::budget {

// Tells whoever asked to be told of `at` or a budget above it. Drops the tree's mutex meanwhile; `at` stays, until the
// mutex is dropped the next time.
void tell(base::unique_lock& locked, node_state& at, budget_event::kind what, bytes wanted,
          const memory_account* account = nullptr);

// A charge of `amount` has failed. With no lock held; asks for the account only if somebody listens.
void tell_out_of_memory(memory_budget& at, bytes amount);

}  // namespace larder::budget
