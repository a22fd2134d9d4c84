// SPDX-License-Identifier: Apache-2.0
#include <exception>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include <larder/debug.h>
#include <larder/object_cache.h>
#include <larder/raw_cache.h>

#include "base/atomic.h"
#include "cache/debug_trace.h"

namespace larder {
namespace {

debug_checks parsed(std::string_view setting, std::string_view name) {
  const result<debug_checks> said = parse_debug_checks(setting, name);
  EXPECT_TRUE(said) << setting;
  return said ? *said : debug_checks::none;
}

TEST(DebugSettingTest, AClauseWithoutANameIsForAll) {
  EXPECT_EQ(parsed("", "requests"), debug_checks::none);
  EXPECT_EQ(parsed("guards", "requests"), debug_checks::guards);
  EXPECT_EQ(parsed("guards,contents,audit", "requests"),
            debug_checks::guards | debug_checks::contents | debug_checks::audit);
  EXPECT_EQ(parsed("all", ""), debug_checks::all);
}

TEST(DebugSettingTest, TheLongestNameThatFitsWinsWhereverItStands) {
  for (const char* setting : {"*=contents;stack*=audit;stacks=none", "stacks=none;stack*=audit;contents"}) {
    EXPECT_EQ(parsed(setting, "requests"), debug_checks::contents);
    EXPECT_EQ(parsed(setting, "stack"), debug_checks::audit);
    EXPECT_EQ(parsed(setting, "stacks of fibers"), debug_checks::audit);
    EXPECT_EQ(parsed(setting, "stacks"), debug_checks::none);
  }
  EXPECT_EQ(parsed("a=guards;a*=audit", "a"), debug_checks::guards);
  EXPECT_EQ(parsed("a=guards;a=audit", "a"), debug_checks::audit);
  EXPECT_EQ(parsed("b=guards", "a"), debug_checks::none);
}

TEST(DebugSettingTest, AMalformedSettingIsAnErrorWhicheverCacheIsMeant) {
  for (const char* setting :
       {"guard", "guards,", ",", ";", "a=", "a=guards;b=nothing", "=guards", "GUARDS", " audit"}) {
    std::string problem;
    const result<debug_checks> said = parse_debug_checks(setting, "other", &problem);
    EXPECT_EQ(said.error(), error_from(EINVAL)) << setting;
    EXPECT_FALSE(problem.empty()) << setting;
  }
}

raw_cache::options audited(std::size_t size, memory_budget& budget) {
  raw_cache::options chosen;
  chosen.size = size;
  chosen.budget = &budget;
  chosen.debug = debug_checks::audit;
  return chosen;
}

[[gnu::noinline]] void* get_here(raw_cache& cache) {
  void* got = cache.try_get();
  asm volatile("" ::: "memory");  // no tail call: this function's frame is looked for
  return got;
}
[[gnu::noinline]] void* get_there(raw_cache& cache) {
  void* got = cache.try_get();
  asm volatile("nop" ::: "memory");
  return got;
}

TEST(LeakReportTest, GroupsByTheStackThatGotMostFirst) {
  memory_budget budget{"test"};
  raw_cache first("first", audited(64, budget));
  raw_cache second("second", audited(100, budget));
  raw_cache::options silent = audited(64, budget);
  silent.debug = debug_checks::guards;
  raw_cache not_asked("not asked", silent);
  EXPECT_EQ(report_leaks(), "");
  std::vector<void*> of_first;
  std::vector<void*> of_second;
  // Volatile, so that each loop stays one call.
  volatile int count = 2;
  for (int i = 0; i < count; ++i) of_first.push_back(get_there(first));
  count = 3;
  for (int i = 0; i < count; ++i) {
    raw_cache& cache = i == 1 ? second : first;
    (i == 1 ? of_second : of_first).push_back(get_here(cache));
  }
  void* unseen = not_asked.try_get();
  of_first.push_back(first.try_get());
  first.put(of_first.back());
  of_first.pop_back();

  const std::vector<leak> found = find_leaks();
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].objects, 3U);
  EXPECT_EQ(found[0].bytes, 228U);
  ASSERT_EQ(found[0].caches.size(), 2U);
  EXPECT_EQ(found[0].caches[0].cache, "first");
  EXPECT_EQ(found[0].caches[0].objects, 2U);
  EXPECT_EQ(found[0].caches[1].cache, "second");
  EXPECT_EQ(found[1].objects, 2U);
  EXPECT_EQ(found[1].bytes, 128U);
  for (const leak& each : found) EXPECT_GE(each.stack.size(), 3U);

  const std::string report = report_leaks();
  EXPECT_EQ(report.find("3 objects out (228 bytes), of \"first\": 2, \"second\": 1, got by:\n    "), 0U) << report;
  EXPECT_NE(report.find("2 objects out (128 bytes), of \"first\": 2, got by:\n    "), std::string::npos) << report;
  first.put_many(of_first.data(), of_first.size());
  second.put_many(of_second.data(), of_second.size());
  not_asked.put(unseen);
  EXPECT_TRUE(find_leaks().empty());
}

// Objects pass from thread to thread while others report and trim: nothing is torn, nothing dies.
TEST(LeakReportTest, MayRunWhileObjectsPass) {
  memory_budget budget{"test"};
  raw_cache::options chosen = audited(64, budget);
  chosen.debug = debug_checks::all;
  raw_cache cache("busy", chosen);
  base::atomic<bool> stop{false};
  std::vector<std::thread> users;
  for (int user = 0; user < 3; ++user) {
    users.emplace_back([&cache, &stop] {
      void* objects[100];
      while (!stop) cache.put_many(objects, cache.get_many(objects, 100));
    });
  }
  for (int round = 0; round < 200; ++round) {
    std::size_t out = 0;
    for (const leak& each : find_leaks()) out += each.objects;
    EXPECT_LE(out, 300U);
    if (round % 10 == 0) cache.trim();
  }
  stop = true;
  for (std::thread& user : users) user.join();
  cache.audit();
  EXPECT_TRUE(find_leaks().empty());
}

TEST(LeakReportTest, FramesAreNamedWhereTheirModuleExportsNames) {
  EXPECT_EQ(cache::describe_frame(reinterpret_cast<char*>(&std::terminate) + 1),
            "std::terminate()+0x1 (libstdc++.so.6)");
  EXPECT_EQ(cache::describe_frame(reinterpret_cast<void*>(16)), "0x10");
}

TEST(DebugLayerTest, AConstructorSeesMemoryThatIsNotZero) {
  static unsigned char seen = 0;
  raw_cache::options chosen;
  chosen.size = 64;
  chosen.debug = debug_checks::contents;
  chosen.construct = [](void* object, void*) -> result<void> {
    seen = static_cast<unsigned char*>(object)[13];
    return {};
  };
  raw_cache cache("patterns", chosen);
  cache.put(cache.try_get());
  EXPECT_EQ(seen, 0xcd);
}

TEST(DebugLayerTest, WhatItNeedsIsChargedAndGivenBack) {
  memory_budget budget{"test"};
  bytes plain;
  for (const debug_checks checks : {debug_checks::none, debug_checks::ownership, debug_checks::all}) {
    raw_cache::options chosen = audited(1024, budget);
    chosen.debug = checks;
    raw_cache cache("charged", chosen);
    std::vector<void*> objects(100);
    ASSERT_EQ(cache.get_many(objects.data(), 100), 100U);
    EXPECT_EQ(cache.stats().charged, budget.used());
    if (checks == debug_checks::none) plain = budget.used();
    if (checks == debug_checks::all) {
      EXPECT_GT(budget.used(), plain + bytes{100 * 300});
    }
    cache.put_many(objects.data(), 100);
  }
  EXPECT_EQ(budget.used(), bytes{});
}

// Out of AddressSanitizer's sight.
__attribute__((noinline, no_sanitize("address"))) void write_unseen(char* at) { *at = 1; }

// A stack's guard page faults on any access: the layer stays away from such objects' contents.
TEST(DebugLayerTest, ObjectsWithAPartThatIsNotResidentAreAuditedOnly) {
  memory_budget budget{"test"};
  raw_cache::options chosen = audited(20 << 10, budget);
  chosen.alignment = page_size;
  chosen.uncharged_per_object = 4_KiB;
  chosen.debug = debug_checks::all;
  raw_cache cache("stacks", chosen);
  auto* object = static_cast<char*>(cache.try_get());
  EXPECT_EQ(object[5000], 0);
  EXPECT_EQ(find_leaks().size(), 1U);
  cache.put(object);
  write_unseen(object + 5000);
  cache.audit();
}

struct counted {
  int value = 7;
};

TEST(DebugLayerTest, TypedCachesTakeTheOptionToo) {
  memory_budget budget{"test"};
  object_cache<counted> cache("typed", {.budget = &budget, .debug = debug_checks::all});
  counted* one = cache.get();
  EXPECT_EQ(one->value, 7);
  EXPECT_EQ(find_leaks().size(), 1U);
  cache.put(one);
}

}  // namespace
}  // namespace larder
