// SPDX-License-Identifier: Apache-2.0
//
// The describers of the whole process stand in one list, under a lock that is taken before those of the components; so
// an account may be asked for while the registry shows its figures. What nobody describes, a user has charged.
#include "budget/account.h"

#include "budget/reclaim.h"
#include "os/fork.h"

namespace larder {
namespace {

// Never destroyed: what has static storage may outlive any order of destruction.
struct describers final : os::fork_participant {
  describers() : os::fork_participant(base::lock_rank::accounts) { os::join_forks(*this); }
  void before_fork() override { guard.lock_for_fork(); }
  void in_parent() override { guard.unlock_after_fork(); }
  void in_child() override { guard.unlock_after_fork(); }

  base::mutex guard{base::lock_rank::accounts};
  base::intrusive_list<budget::describer> all;  // guarded by `guard`
};

describers& the_describers() {
  static auto* instance = new describers;
  return *instance;
}

}  // namespace

void budget::prepare_accounts() { the_describers(); }

void budget::add_describer(describer& one, memory_budget& charged) {
  describers& known = the_describers();
  const base::lock locked(known.guard);
  one.charged_ = &charged;
  known.all.push_back(one);
}

void budget::remove_describer(describer& one) {
  const base::lock locked(the_describers().guard);
  base::intrusive_list<describer>::remove(one);
}

memory_account budget::describe_within(const memory_budget& node) {
  describers& known = the_describers();
  const base::lock locked(known.guard);
  memory_account sum;
  for (describer* each = known.all.front(); each != nullptr; each = known.all.after(*each)) {
    if (is_within(each->charged_, &node)) each->describe(sum);
  }
  return sum;
}

memory_account memory_budget::account() const {
  memory_account sum = budget::describe_within(*this);
  const bytes described = sum.total();
  const bytes all = used();
  if (all > described) sum.other = all - described;
  return sum;
}

}  // namespace larder
