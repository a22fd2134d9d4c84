// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <larder/debug.h>
#include <larder/raw_cache.h>

#include "base/atomic.h"
#include "base/intrusive_list.h"
#include "cache/debug_table.h"
#include "cache/debug_trace.h"
#include "cache/slab.h"
#include "cache/valgrind.h"

namespace larder::cache {

// What a cache with debug_checks calls as its objects pass (debug_layer.cc tells how it works). Caches without have
// none. Each call dies on what it finds. Whoever calls owns the object; the memory is accessible to sanitizers.
class debug_layer : public base::list_link<layer_tag> {
 public:
  // What is on for this cache: its options', else LARDER_DEBUG's. Dies if that is malformed.
  static debug_checks checks_for(std::string_view name, const raw_cache::options& chosen);
  static slab_margins margins_for(debug_checks checks, const raw_cache::options& chosen);
  // Null where nothing is on.
  static std::unique_ptr<debug_layer> make(debug_checks checks, const std::string& name, const slab_geometry& geometry,
                                           const raw_cache::options& chosen);
  ~debug_layer();
  debug_layer(const debug_layer&) = delete;
  debug_layer& operator=(const debug_layer&) = delete;

  // A slab's life. No object is built when it ends.
  void begin_slab(slab& made);
  void end_slab(slab& ending);
  // An object's.
  void before_construct(void* object);
  void after_construct(void* object);
  void construct_failed(void* object);
  void before_destroy(void* object);
  void after_destroy(void* object);
  // The last thing before a user has it.
  void hand_out(void* object);
  // The first thing at a put, of whatever pointer; then what follows the reset hook.
  void begin_take_back(void* object);
  void end_take_back(void* object);

  // All objects of all slabs; `objects_out` of them are with users. No other call runs meanwhile.
  void audit(std::size_t objects_out) const;
  [[noreturn]] void die_of_objects_out(std::size_t objects_out) const;

  const std::string& name() const { return name_; }
  std::size_t object_size() const { return geometry_.object_size; }

 private:
  friend class debug_table;
  debug_layer(debug_checks checks, const std::string& name, const slab_geometry& geometry,
              const raw_cache::options& chosen);

  bool traces() const { return has(checks_, debug_checks::audit); }
  debug_record& record_of(const void* object) const;
  std::string who(const debug_record& record) const;
  [[noreturn]] void die_of_no_object(const void* pointer) const;
  [[noreturn]] void die_of_state(const void* object, const debug_record& record, object_state seen) const;
  void move(void* object, object_state from, object_state to) const;

  void check_guards(const void* object, const char* when) const;
  void check_guard(const void* object, std::ptrdiff_t from, std::ptrdiff_t to, unsigned char pattern, const char* kind,
                   const char* when) const;
  void check_fill(const void* object, unsigned char pattern, const char* before_or_after, const char* when) const;
  void sum_contents(const void* object, std::uint32_t* sums) const;
  void check_contents(const void* object, const char* when) const;
  std::size_t piece_length() const;
  void audit_object(const void* object) const;

  const debug_checks checks_;
  const std::string& name_;
  const slab_geometry& geometry_;
  const bool resets_;
  const bool on_valgrind_;
  base::intrusive_list<debug_table, layer_tag> slabs_;  // guarded by debug_table::guard()
};

// find_leaks and report_leaks, for one cache or (null) for all.
std::vector<leak> find_leaks_of(const debug_layer* only);
std::string describe_leaks(const std::vector<leak>& leaks);

}  // namespace larder::cache
