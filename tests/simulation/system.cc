// SPDX-License-Identifier: Apache-2.0
//
// What takes the place of the system: src/os/parker.cc, clock, cpu.cc, cpu_sequence.cc, cpu_array.cc; and the hooks of
// the scheduled build. There are two CPUs and no restartable sequences: those have tests/sched.
#include <array>

#include "base/check.h"
#include "base/lock_rank.h"
#include "base/mutant.h"
#include "base/schedule.h"
#include "os/clock.h"
#include "os/cpu.h"
#include "os/cpu_array.h"
#include "os/cpu_sequence.h"
#include "tests/simulation/world.h"

namespace larder {

using simulation::world;

namespace base {

mutant active_mutant = mutant::none;

namespace schedule {

void point(const void* object, access how) {
  if (world::actor_of_now() != nullptr) return world::of_now()->point(object, how);
  LARDER_CHECK(how != access::lock || !*static_cast<const bool*>(object),
               "a lock that an actor holds is taken by none");
}
const void* load(const void* object) {
  point(object, access::load);
  return nullptr;
}
bool weak_store(void* object, const void*, std::size_t) {
  point(object, access::weak_store);
  return false;
}
void yield() {
  if (world::actor_of_now() != nullptr) world::of_now()->yield();
}
void check_failed(const char* message) {
  if (world::actor_of_now() != nullptr) world::of_now()->fail("%s", message);
}
int* locks_held() {
  static std::array<int, lock_ranks> outside{};
  return world::actor_of_now() != nullptr ? world::of_now()->locks_held() : outside.data();
}
void** thread_slot() {
  static void* outside = nullptr;
  return world::actor_of_now() != nullptr ? world::of_now()->thread_slot() : &outside;
}

}  // namespace schedule
}  // namespace base

namespace os {
namespace {

// Of whoever sets a story up or looks at it afterwards: there is nobody to wait for.
class parker_outside final : public parker {
 public:
  void park() override { park_until(no_deadline); }
  bool park_until(time_point) override { base::die(__FILE__, __LINE__, "a park outside of an actor"); }
  void unpark() override {}
  bool is_parked() const override { return false; }
};

}  // namespace

parker& parker::current() {
  static parker_outside outside;
  simulation::actor* running = world::actor_of_now();
  if (running != nullptr) return *running;
  return outside;
}

time_point now() { return world::of_now() != nullptr ? world::of_now()->now() : time_point{}; }

int current_cpu() {
  const simulation::actor* running = world::actor_of_now();
  return running != nullptr ? static_cast<int>(running->number % 2) : 0;
}
int possible_cpus() { return 2; }
int available_cpus() { return 2; }

sequence_mode sequences() { return sequence_mode::sharded; }
const char* sequences_description() { return "simulated"; }
int sequence_cpu() { return current_cpu(); }
bool find_sequence_cpu(std::uint32_t&) { return false; }
sequence_result compare_store(std::uint32_t, const base::atomic<std::uint64_t>&, std::uint64_t,
                              base::atomic<std::uint64_t>&, std::uint64_t, std::uint64_t) {
  return sequence_result::restarted;
}
sequence_result compare_store(std::uint32_t, const base::atomic<std::uint64_t>&, std::uint64_t,
                              base::atomic<std::uint64_t>&, std::uint64_t, std::uint64_t, base::atomic<std::uint32_t>&,
                              std::uint32_t) {
  return sequence_result::restarted;
}
sequence_result gated_compare_exchange(const base::atomic<std::uint64_t>&, std::uint64_t, base::atomic<std::uint64_t>&,
                                       std::uint64_t, std::uint64_t) {
  return sequence_result::restarted;
}
void fence_sequences() {}

cpu_array* closed_array() {
  static constinit cpu_array closed{};
  return &closed;
}
cpu_array_table* closed_table() {
  static cpu_array_table* const table = [] {
    auto* made = new cpu_array_table[2];
    for (int cpu = 0; cpu < 2; ++cpu) made[cpu].unscheduled() = closed_array();
    return made;
  }();
  return table;
}
void set_front_cpu(array_front& front) { front.cpu = 0; }
std::size_t pop_many(const array_front&, void**, std::size_t, std::uint64_t) { return 0; }
std::size_t push_many(const array_front&, void* const*, std::size_t) { return 0; }
void* pop(const array_front&) { return nullptr; }
bool push(const array_front&, void*) { return false; }

}  // namespace os
}  // namespace larder
