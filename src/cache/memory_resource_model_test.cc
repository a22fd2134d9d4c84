// SPDX-License-Identifier: Apache-2.0
//
// Seeded random sequences on a memory_resource beside a model of it: the pieces that are out, with their sizes,
// alignments and contents. After each step the audit, the statistics against the model (which says for each piece what
// class or how many pages it must cost), and the charge against the budget.
#include <algorithm>
#include <bit>
#include <cstring>
#include <new>
#include <vector>

#include <gtest/gtest.h>

#include <larder/memory_resource.h>

#include "os/fault.h"
#include "tests/support/keeper_at_rest.h"
#include "tests/support/model_random.h"

namespace larder {
namespace {

class resource_model {
 public:
  resource_model(memory_budget& budget, tests::model_random& random)
      : budget_(budget), random_(random), memory_("model", {.budget = &budget}) {}
  ~resource_model() {
    while (!pieces_.empty()) free_one();
    check();
  }

  void step() {
    switch (random_.below(16)) {
      case 0:
        memory_.trim(random_.one_in(2) ? unlimited : bytes{random_.below(100'000)});
        break;
      case 1:  // many of one size, as a container does
        for (std::uint64_t left = random_.below(100), size = any_size(); left > 0; --left) allocate(size, 8);
        break;
      case 2:
        for (std::uint64_t left = random_.below(pieces_.size() + 1); left > 0; --left) free_one();
        break;
      case 3:
        os::fault::arm(os::call::map, random_.between(1, 3), ENOMEM, random_.one_in(2));
        for (int left = 5; left > 0; --left) allocate(any_size(), any_alignment());
        os::fault::disarm();
        break;
      case 4:
      case 5:
      case 6:
      case 7:
      case 8:
        if (!pieces_.empty()) free_one();
        break;
      default:
        allocate(any_size(), any_alignment());
    }
    check();
  }

 private:
  struct piece {
    unsigned char* start;
    std::size_t size;
    std::size_t alignment;
    unsigned char mark;
  };

  // Evenly over the doublings, and often at a class's edge.
  std::size_t any_size() {
    const std::size_t below = std::size_t{1} << random_.below(18);
    const std::size_t size = below + random_.below(below);
    return random_.one_in(3) ? round_up(size, std::max<std::size_t>(8, below / 8)) + random_.below(2) : size;
  }
  std::size_t any_alignment() { return std::size_t{1} << (random_.one_in(4) ? random_.below(15) : random_.below(5)); }

  void allocate(std::size_t size, std::size_t alignment) {
    piece made{nullptr, size, alignment, static_cast<unsigned char>(random_.below(256))};
    try {
      made.start = static_cast<unsigned char*>(memory_.allocate(size, alignment));
    } catch (const std::bad_alloc&) {
      return;
    }
    ASSERT_EQ(reinterpret_cast<std::uintptr_t>(made.start) % alignment, 0U);
    std::memset(made.start, made.mark, size);
    pieces_.push_back(made);
  }

  void free_one() {
    std::swap(pieces_[random_.below(pieces_.size())], pieces_.back());
    const piece freed = pieces_.back();
    pieces_.pop_back();
    ASSERT_TRUE(std::all_of(freed.start, freed.start + freed.size, [&](auto byte) { return byte == freed.mark; }))
        << "another's memory: " << freed.size << " bytes aligned to " << freed.alignment;
    memory_.deallocate(freed.start, freed.size, freed.alignment);
  }

  // What a piece must cost, found another way than the resource does: by looking at all classes.
  static bytes cost(const piece& of) {
    std::size_t least = 0;
    for (std::size_t number = 0; number < size_classes::count; ++number) {
      const std::size_t size = size_classes::size_of(number);
      if (size < of.size || size_classes::alignment_of(number) < of.alignment) continue;
      if (least == 0 || size < least) least = size;
    }
    return least != 0 ? bytes{least} : round_up_to_pages(bytes{of.size});
  }

  void check() {
    memory_.audit();
    const memory_resource::statistics now = memory_.stats();
    bytes out;
    for (const piece& each : pieces_) out += cost(each);
    ASSERT_EQ(now.bytes_out, out);
    ASSERT_EQ(now.objects_out + now.spans_out, pieces_.size());
    ASSERT_EQ(now.gets - now.puts, now.objects_out);
    ASSERT_EQ(now.charged, budget_.used());
    ASSERT_LE(budget_.peak(), budget_.limit());
  }

  memory_budget& budget_;
  tests::model_random& random_;
  memory_resource memory_;
  std::vector<piece> pieces_;
};

void run(bytes limit, int steps) {
  const tests::keeper_at_rest at_rest;
  tests::model_random random;
  memory_budget budget("model", {.limit = limit});
  {
    resource_model model(budget, random);
    for (int step = 0; step < steps && !testing::Test::HasFatalFailure(); ++step) model.step();
  }
  EXPECT_EQ(budget.used(), bytes{});
}

TEST(MemoryResourceModelTest, LawsHoldAfterEachStepWithoutLimit) { run(unlimited, 1500); }
TEST(MemoryResourceModelTest, LawsHoldInABudgetThatIsOftenFull) { run(2_MiB, 1500); }
TEST(MemoryResourceModelTest, LawsHoldInABudgetThatIsAlmostAlwaysFull) { run(300_KiB, 1500); }

}  // namespace
}  // namespace larder
