// SPDX-License-Identifier: Apache-2.0
//
// The cache used by tasks: what waits parks the task, and stacks and pages share one budget.
#include <array>

#include <larder/runtime.h>

#include "os/file.h"
#include "page/page_test.h"

namespace larder::page {
namespace {

using PageTaskTest = page_cache_test;

// KF-51 with tasks: more tasks at once than there are pages, each holding one and writing another.
TEST_F(PageTaskTest, TasksWriteAndReadThroughALittleCacheOverAFile) {
  constexpr std::uint64_t tasks = 300;
  make_cache(16, 1_MiB);
  auto nameless = os::open_nameless_file("/dev/shm", bytes{tasks * 4 * page});
  ASSERT_TRUE(nameless);
  auto disk = file_backing::adopt(nameless->release(), false);
  ASSERT_TRUE(disk);
  auto file = open(**disk);
  base::atomic<std::uint64_t> good{0};
  auto started = runtime::create("pages", {.workers = 2, .stack_size = bytes{16U << 10}, .budget = budget_.get()});
  ASSERT_TRUE(started) << started.error().message();
  for (std::uint64_t number = 0; number < tasks; ++number) {
    (*started)->spawn_detached([&, number] {
      pin_admission admission = admit(2);
      const std::array<std::uint64_t, 32> pattern{number + 1};
      const std::uint64_t offset = number * 4 * page + 100;
      if (!file->write(offset, std::as_bytes(std::span(pattern)), &admission)) return;
      auto held = file->pin(number * 4, access::read, admission);
      if (!held || !file->write(offset + 2 * page, std::as_bytes(std::span(pattern)), &admission)) return;
      held->reset();
      if (number % 8 == 0 && !file->flush_range(offset, bytes{sizeof pattern})) return;
      std::array<std::uint64_t, 32> found{};
      if (!file->read(offset, std::as_writable_bytes(std::span(found)), &admission)) return;
      if (found == pattern) ++good;
    });
  }
  started->reset();  // waits for the tasks
  EXPECT_EQ(good, tasks);
  ASSERT_TRUE(file->flush());
  std::uint64_t first = 0;
  for (std::uint64_t number = 0; number < tasks; ++number) {
    ASSERT_TRUE(file->read((number * 4 + 2) * page + 100, std::as_writable_bytes(std::span(&first, 1))));
    EXPECT_EQ(first, number + 1);
  }
}

}  // namespace
}  // namespace larder::page
