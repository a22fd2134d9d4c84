// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <limits>
#include <new>
#include <type_traits>

#include <larder/memory_resource.h>

namespace larder {

// The standard library's Allocator over a memory_resource, for containers and std::allocate_shared:
//
//   std::list<session, larder::allocator<session>> sessions;           // in memory_resource::process()
//   std::map<int, session, std::less<>, larder::allocator<std::pair<const int, session>>> by_number{memory};
//
// One object at a time, as a list or a tree allocates, is a get of the cache of its class, which is chosen at compile
// time, inlined into the container. Throws, waits and dies as memory_resource does; the resource outlives what it gave.
//
// Memory stays with the resource, and so with the budget, that it was taken from: a container that is moved or swapped
// takes its resource along, so that both are of constant cost and cannot fail; one that is copied leaves its resource
// to the copy, so that a copy does not escape a budget; one that is assigned to keeps its own.
template <typename T>
class allocator {
 public:
  using value_type = T;
  using propagate_on_container_copy_assignment = std::false_type;
  using propagate_on_container_move_assignment = std::true_type;
  using propagate_on_container_swap = std::true_type;
  using is_always_equal = std::false_type;

  allocator() noexcept : resource_(&memory_resource::process()) {}
  allocator(memory_resource& resource) noexcept  // NOLINT(google-explicit-constructor): as std::pmr's
      : resource_(&resource) {}
  template <typename U>
  allocator(const allocator<U>& other) noexcept  // NOLINT(google-explicit-constructor): Allocator demands it
      : resource_(&other.resource()) {}

  // Room for `count` objects, aligned for T. Throws std::bad_array_new_length if that is more than addresses can be.
  [[nodiscard]] T* allocate(std::size_t count) {
    constexpr std::size_t number = size_classes::number_for(sizeof(T), alignof(T));
    if (count == 1 && number < size_classes::count) return static_cast<T*>(resource_->take(number));
    if (count > std::numeric_limits<std::size_t>::max() / sizeof(T)) throw std::bad_array_new_length();
    return static_cast<T*>(resource_->take_bytes(count * sizeof(T), alignof(T)));
  }
  void deallocate(T* memory, std::size_t count) noexcept {
    constexpr std::size_t number = size_classes::number_for(sizeof(T), alignof(T));
    if (count == 1 && number < size_classes::count) return resource_->give(number, memory);
    resource_->give_bytes(memory, count * sizeof(T), alignof(T));
  }

  memory_resource& resource() const noexcept { return *resource_; }

 private:
  memory_resource* resource_;
};

// Either may free what the other gave.
template <typename T, typename U>
bool operator==(const allocator<T>& a, const allocator<U>& b) noexcept {
  return &a.resource() == &b.resource();
}

}  // namespace larder
