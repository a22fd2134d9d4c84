// SPDX-License-Identifier: Apache-2.0
#include "coro/guard_reclaimer.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <thread>

#include <gtest/gtest.h>

#include "base/sanitizers.h"
#include "tests/support/eventually.h"

namespace larder::coro {
namespace {

class holder final : public guard_reclaimer {
 public:
  explicit holder(int idle) : idle_(idle) {}
  bool give_up_some() override {
    ++inside;
    while (stays) std::this_thread::yield();
    if (idle_ == 0) return false;
    --idle_;
    return true;
  }
  int idle() const { return idle_; }
  std::atomic<int> inside{0};
  std::atomic<bool> stays{false};

 private:
  std::atomic<int> idle_;
};

TEST(GuardReclaimerTest, EachIsAskedInTurnUntilItIsEnough) {
  guard_reclaimers all;
  holder first(2);
  holder second(3);
  for (holder* each : {&first, &second}) all.add(*each);
  int given = 0;
  all.ask([&] { return ++given == 3; });
  EXPECT_EQ(first.idle(), 0);
  EXPECT_EQ(second.idle(), 2);
  all.ask([] { return false; });
  EXPECT_EQ(second.idle(), 0);
  all.remove(first);
  const int before = first.inside;
  all.ask([] { return false; });
  EXPECT_EQ(first.inside, before) << "asked after its removal";
  all.remove(second);
  all.ask([] { return true; });
}

// KF-18: what another thread was inside of in the parent can be removed in the child.
TEST(GuardReclaimerTest, AForkedChildWaitsForNoVisitorOfItsParent) {
#ifdef LARDER_THREAD_SANITIZER
  GTEST_SKIP() << "the thread sanitizer does not support threads after a fork of a process with threads";
#endif
  guard_reclaimers all;
  holder visited(1);
  visited.stays = true;
  all.add(visited);
  std::thread visitor([&] { all.ask([] { return false; }); });
  ASSERT_TRUE(tests::eventually([&] { return visited.inside == 1; }));
  std::fflush(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(30);
    all.remove(visited);
    ::_exit(0);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  visited.stays = false;
  visitor.join();
  all.remove(visited);
}

}  // namespace
}  // namespace larder::coro
