// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>

#include "bench/object_cache/channel.h"
#include "bench/object_cache/lifetimes.h"
#include "bench/object_cache/memory.h"
#include "bench/object_cache/scenario.h"
#include "bench/object_cache/source.h"
#include "bench/object_cache/threads.h"

namespace larder::bench {

// Does in this process, with one source, what the benchmark asks for.
template <template <typename> class Source>
class server {
 public:
  // First says what is measured here, then answers until the benchmark closes the channel.
  static int serve(const std::string& introduction) {
    const channel benchmark(channel::peer_fd);
    server self;
    benchmark.send_line(introduction);
    while (const auto line = benchmark.receive_line())
      benchmark.send_line(written(self.answer_to(read_request(*line))));
    return 0;
  }

 private:
  answer answer_to(const request& asked) {
    if (asked.scenario == "memory_per_object") return memory_of(asked.argument);
    if (asked.scenario == "resident_after_peak") return resident_after_peak<Source<plain<64>>>(64);
    const std::pair which(asked.scenario, asked.argument);
    auto known = known_.find(which);
    if (known == known_.end()) {
      if (Source<plain<64>>::is_only_one) known_.clear();
      known = known_.emplace(which, make(asked)).first;
    }
    if (known->second == nullptr) return {0, {}, "no such scenario"};
    answer told;
    told.ns_per_operation = known->second->ns_per_operation(asked.iterations);
    known->second->tell(told);
    return told;
  }

  static answer memory_of(std::size_t size) {
    switch (size) {
      case 16:
        return memory_per_object<Source<plain<16>>>(size);
      case 64:
        return memory_per_object<Source<plain<64>>>(size);
      case 256:
        return memory_per_object<Source<plain<256>>>(size);
      case 1024:
        return memory_per_object<Source<plain<1024>>>(size);
      case 4096:
        return memory_per_object<Source<plain<4096>>>(size);
      default:
        return {0, {}, "no such size"};
    }
  }

  static std::unique_ptr<scenario> make(const request& asked) {
    const auto threads = static_cast<int>(asked.argument);
    if (asked.scenario == "same_thread") return of_size<same_thread>(asked.argument);
    if (asked.scenario == "out_then_in") return of_size<out_then_in>(asked.argument);
    if (asked.scenario == "random_replacement") return of_size<random_untouched>(asked.argument);
    if (asked.scenario == "random_replacement_used") return of_size<random_used>(asked.argument);
    if (asked.scenario == "thread_to_thread") return of_size<thread_to_thread>(asked.argument);
    if (asked.scenario == "costly_constructor") return std::make_unique<same_thread<Source<costly>>>();
    if (asked.scenario == "threads_same_thread") {
      return std::make_unique<many_threads<Source<plain<64>>, put_at_once>>(threads);
    }
    if (asked.scenario == "threads_random_replacement") {
      return std::make_unique<many_threads<Source<plain<64>>, replace_one_of_many>>(threads);
    }
    return nullptr;
  }

  template <template <typename> class Scenario>
  static std::unique_ptr<scenario> of_size(std::size_t size) {
    switch (size) {
      case 64:
        return std::make_unique<Scenario<Source<plain<64>>>>();
      case 512:
        return std::make_unique<Scenario<Source<plain<512>>>>();
      case 4096:
        return std::make_unique<Scenario<Source<plain<4096>>>>();
      default:
        return nullptr;
    }
  }

  std::map<std::pair<std::string, std::size_t>, std::unique_ptr<scenario>> known_;
};

}  // namespace larder::bench
