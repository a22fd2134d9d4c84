// SPDX-License-Identifier: Apache-2.0
//
// Part of each unit test's program. Units' tests count every page, and audit between two steps: so budgets that name no
// marks are left alone by the page daemon.
#include "budget/tree.h"

namespace larder::tests {
namespace {

[[maybe_unused]] const bool page_daemon_at_rest = (budget::default_marks = {100, 100}, true);

}  // namespace
}  // namespace larder::tests
