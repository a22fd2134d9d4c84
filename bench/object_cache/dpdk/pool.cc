// SPDX-License-Identifier: Apache-2.0
//
// The process of DPDK's mempool: a program of its own, so that its libraries are in no other peer's process. Runs
// unprivileged, without huge pages. A pool has a fixed number of objects, made at its creation; each thread that is
// registered has a cache of its own, of the largest size that there may be.
#include <pthread.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_mempool.h>
#include <rte_version.h>
#include <sched.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "bench/object_cache/memory.h"
#include "bench/object_cache/server.h"
#include "bench/object_cache/source.h"

namespace larder::bench {
namespace {

// Reserves memory for all pools that there will be, of which no page is taken before a pool is made there. Returns why
// it failed, if so.
std::string start_environment() {
  const std::uint64_t mib = std::clamp<std::uint64_t>(proc_kib("/proc/meminfo", "\nMemAvailable") / 2048, 256, 6144);
  // It binds this thread to the CPU that it is told; the other peers' are not bound.
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  pthread_getaffinity_np(pthread_self(), sizeof allowed, &allowed);
  std::size_t cpu = 0;
  while (cpu + 1 < CPU_SETSIZE && !CPU_ISSET(cpu, &allowed)) ++cpu;
  std::vector<std::string> words = {"dpdk", "--no-huge", "--no-pci", "--no-shconf", "--no-telemetry"};
  words.insert(words.end(), {"--log-level", "error", "-l", std::to_string(cpu), "-m", std::to_string(mib)});
  std::vector<char*> arguments;
  for (std::string& each : words) arguments.push_back(each.data());
  const int started = rte_eal_init(static_cast<int>(arguments.size()), arguments.data());
  pthread_setaffinity_np(pthread_self(), sizeof allowed, &allowed);
  return started >= 0 ? std::string() : rte_strerror(rte_errno);
}

int pools_made = 0;  // each needs a name of its own

template <typename Object>
class from_mempool : public source {
 public:
  explicit from_mempool(const demand& needed) : source(needed) {
    // What its caches may hold besides; for one thread and very many objects, the caches give up theirs at the end.
    const std::size_t cached_max = needed.objects < 100'000 ? static_cast<std::size_t>(needed.threads) * cache * 2 : 0;
    pool_ = rte_mempool_create(("pool" + std::to_string(pools_made++)).c_str(),
                               static_cast<unsigned>(needed.objects + cached_max), sizeof(Object), cache, 0, nullptr,
                               nullptr, &build, nullptr, SOCKET_ID_ANY, 0);
    LARDER_CHECK(pool_ != nullptr, "DPDK's mempool: %s", rte_strerror(rte_errno));
  }
  ~from_mempool() { rte_mempool_free(pool_); }

  void* get() {
    void* object = nullptr;
    LARDER_CHECK(rte_mempool_get(pool_, &object) == 0, "DPDK's mempool is empty");
    return object;
  }
  void put(void* object) { rte_mempool_put(pool_, object); }
  void enter() { LARDER_CHECK(rte_thread_register() == 0, "DPDK takes no more threads"); }
  void leave() { rte_thread_unregister(); }

 private:
  static constexpr unsigned cache = RTE_MEMPOOL_CACHE_MAX_SIZE;

  // Like larder, and unlike a malloc, it keeps its objects as they are put back: a constructor runs once.
  static void build(rte_mempool*, void*, void* object, unsigned) {
    if constexpr (built_by_everyone<Object>) ::new (object) Object();
  }

  rte_mempool* pool_ = nullptr;
};

}  // namespace
}  // namespace larder::bench

int main() {
  const std::string problem = larder::bench::start_environment();
  return larder::bench::server<larder::bench::from_mempool>::serve(problem.empty() ? rte_version() : "! " + problem);
}
