// SPDX-License-Identifier: Apache-2.0
//
// Part of each unit test's and fuzzer's program. Units' tests count every page, and audit between two steps: so budgets
// that name no marks are left alone by the page daemon, and there is no system that it looks after: with faults armed,
// its calls would be counted.
#include "budget/page_daemon.h"

namespace larder::tests {
namespace {

[[maybe_unused]] const bool page_daemon_at_rest = [] {
  budget::default_marks = {100, 100};
  budget::page_daemon::system_files() = {"", "", ""};
  return true;
}();

}  // namespace
}  // namespace larder::tests
