// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include <larder/coroutine.h>

#include "base/atomic.h"
#include "tests/support/model_random.h"

namespace larder::tests {

// Coroutines in places, any of which any thread may create, resume, move or end next. Each follows a script: how often
// it yields, how deep, whether it throws and whether it has one inside. What a resume passes, plus one, comes back from
// it; what goes wrong inside is counted, as a message would need more stack than there may be.
class soaked_coroutines {
 public:
  explicit soaked_coroutines(std::size_t places) : places_(places) {}

  void take_steps(model_random& random, int count);
  // What is not cancelled is resumed to its end.
  void end_all(model_random& random);
  // Returns how many there were.
  std::uint64_t check_at_rest();

 private:
  struct place {
    std::mutex guard;
    std::optional<coroutine> one;  // guarded by `guard`
  };
  struct script {
    soaked_coroutines* all;
    std::uint32_t yields;
    std::uint32_t depth;
    bool throws;
    bool nests;

    void operator()(void* first) const;
    void descend(std::uint32_t left, std::uint64_t value) const;
  };
  struct failure {};
  class life;

  void create(model_random& random, place& empty);
  // Whether it has ended.
  bool resume(model_random& random, coroutine& one);

  std::vector<place> places_;
  base::atomic<std::uint64_t> created_{0};
  base::atomic<std::uint64_t> begun_{0};
  base::atomic<std::uint64_t> ended_{0};
  base::atomic<std::uint64_t> broken_{0};
};

}  // namespace larder::tests
