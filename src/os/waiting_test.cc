// SPDX-License-Identifier: Apache-2.0
#include "os/waiting.h"

#include <string>

#include <gtest/gtest.h>

namespace larder::os {
namespace {

// What reports would say of the calling thread.
std::string noted() {
  wait_contents seen;
  wait_note::version version = 0;
  return parker::current().note.read(seen, version) ? seen.kind : "nothing";
}

TEST(WaitingTest, IsNotedWhileItExists) {
  EXPECT_EQ(noted(), "nothing");
  {
    const waiting outer(parker::current(), {.kind = "outer"});
    EXPECT_EQ(noted(), "outer");
  }
  EXPECT_EQ(noted(), "nothing");
}

TEST(WaitingTest, AnOuterWaitComesBackAsItWas) {
  parker& self = parker::current();
  const int object = 0;
  const time_point ends = now() + std::chrono::hours(1);
  const waiting outer(self, {.kind = "outer", .object = &object, .descriptor = 7, .deadline = ends});
  const wait_contents before = self.note.contents();
  {
    const waiting inner(self, {.kind = "inner"});
    EXPECT_EQ(noted(), "inner");
  }
  const wait_contents after = self.note.contents();
  EXPECT_EQ(noted(), "outer");
  EXPECT_EQ(after.object, &object);
  EXPECT_EQ(after.descriptor, 7);
  EXPECT_EQ(after.deadline, ends);
  EXPECT_EQ(after.since, before.since);
}

TEST(WaitingTest, AWaitOfSeveralParksBeganWithTheFirst) {
  parker& self = parker::current();
  const time_point long_ago = now() - std::chrono::hours(1);
  time_point since{};
  { const waiting first(self, {.kind = "first"}, since); }
  EXPECT_NE(since, time_point{});
  EXPECT_LE(since, now());
  since = long_ago;
  const waiting second(self, {.kind = "second"}, since);
  EXPECT_EQ(self.note.contents().since, long_ago);
}

TEST(WaitingTest, ANoteThatIsOverIsNotLookedAt) {
  parker& self = parker::current();
  const auto look = [](const void*, wait_subject& into) { into.set_name("looked at"); };
  wait_contents seen;
  wait_note::version version = 0;
  wait_subject subject;
  {
    const waiting first(self, {.kind = "first", .look = look});
    ASSERT_TRUE(self.note.read(seen, version));
    EXPECT_TRUE(self.note.look(seen, version, subject));
    EXPECT_STREQ(subject.name, "looked at");
    EXPECT_TRUE(self.note.stands(version));
  }
  EXPECT_FALSE(self.note.look(seen, version, subject));
  const waiting second(self, {.kind = "second", .look = look});
  EXPECT_FALSE(self.note.look(seen, version, subject));
  EXPECT_FALSE(self.note.stands(version));
}

TEST(WaitingTest, LongNamesAreCut) {
  wait_subject subject;
  subject.set_name(std::string(100, 'x'));
  EXPECT_EQ(subject.name, std::string(sizeof subject.name - 1, 'x'));
}

TEST(WaitingTest, TheCoarseClockIsTheSameClock) {
  const time_point before = now();
  time_point coarse = coarse_now();
  EXPECT_LE(coarse, now());
  while (coarse < before) coarse = coarse_now();  // it catches up
}

}  // namespace
}  // namespace larder::os
