// SPDX-License-Identifier: Apache-2.0
#include "base/registry.h"

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace larder::base {
namespace {

// Shows two figures, which are equal whenever it is whole.
class component {
 public:
  explicit component(std::string name)
      : name_(std::move(name)), registered_([this](const stat_visitor& show) {
          show({name_, "count", *count_});
          show({name_, "again", *count_});
        }) {}

 private:
  const std::string name_;
  const std::unique_ptr<std::uint64_t> count_ = std::make_unique<std::uint64_t>(7);
  const registration registered_;
};

std::vector<std::string> shown_components() {
  std::vector<std::string> names;
  for_each_stat([&](const stat& figure) {
    if (figure.component.starts_with("test/") && figure.name == "count") names.emplace_back(figure.component);
  });
  return names;
}

TEST(RegistryTest, ShowsLiveComponentsInTheOrderOfCreation) {
  const component first("test/b");
  std::optional<component> second(std::in_place, "test/a");
  const component third("test/c");
  EXPECT_EQ(shown_components(), (std::vector<std::string>{"test/b", "test/a", "test/c"}));
  second.reset();
  EXPECT_EQ(shown_components(), (std::vector<std::string>{"test/b", "test/c"}));
}

TEST(RegistryTest, ShowsComponentNameAndValue) {
  const component only("test/figures");
  std::vector<std::string> lines;
  for_each_stat([&](const stat& figure) {
    if (figure.component != "test/figures") return;
    lines.push_back(std::string(figure.name) + " " + std::to_string(figure.value));
  });
  EXPECT_EQ(lines, (std::vector<std::string>{"count 7", "again 7"}));
}

// Once a component's destructor has returned nobody looks into it: the sanitizers watch.
TEST(RegistryTest, ComponentsComeAndGoWhileThreadsVisit) {
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> wrong{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        for_each_stat([&](const stat& figure) {
          if (figure.component.starts_with("test/") && figure.value != 7) ++wrong;
        });
        std::this_thread::yield();
      }
    });
  }
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 3'000; ++round) const component brief("test/" + std::to_string(i));
    });
  }
  threads[2].join();
  threads[3].join();
  stop = true;
  threads[0].join();
  threads[1].join();
  EXPECT_EQ(wrong, 0U);
  EXPECT_EQ(shown_components(), std::vector<std::string>{});
}

}  // namespace
}  // namespace larder::base
