// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include <larder/export.h>
#include <larder/result.h>

namespace larder {

// What an object cache checks while the program runs; a set of flags. Misuse that is found kills the process with a
// message that names the cache, the object and what was seen. docs/debugging.md tells what each costs.
enum class debug_checks : unsigned {
  none = 0,
  // Each object's state: puts of what is not out, of another cache's objects, of pointers that are no object. Part of
  // all others.
  ownership = 1,
  // Memory before and after each object that nobody may write.
  guards = 2,
  // Free objects keep their contents; memory that holds no object is filled with a pattern. So constructors do not get
  // zeroed memory.
  contents = 4,
  // Who got and who put each object last: thread and stack. For report_leaks, and in the messages.
  audit = 8,
  all = 15,
};

constexpr debug_checks operator|(debug_checks a, debug_checks b) {
  return static_cast<debug_checks>(static_cast<unsigned>(a) | static_cast<unsigned>(b));
}
constexpr bool has(debug_checks set, debug_checks wanted) {
  return (static_cast<unsigned>(set) & static_cast<unsigned>(wanted)) != 0;
}

// What a setting such as LARDER_DEBUG says for a cache of this name; none if nothing.
//
//   setting:  clause { ";" clause }               requests=guards,audit;stacks*=none;*=contents
//   clause:   [ name [ "*" ] "=" ] check { "," check }
//   check:    "none" | "ownership" | "guards" | "contents" | "audit" | "all"
//
// A clause without a name is for all caches, as `*=` is; a name that ends in * for all that begin so. The longest that
// fits wins, of equals the last. EINVAL if the setting is malformed, whichever cache is meant; `problem` then says in
// words why.
LARDER_API result<debug_checks> parse_debug_checks(std::string_view setting, std::string_view cache_name,
                                                   std::string* problem = nullptr);

// Objects that are out and that were got by the same stack, in all caches that check `audit`.
struct leak {
  struct share {
    std::string cache;
    std::size_t objects;
  };
  std::size_t objects;
  std::size_t bytes;
  std::vector<share> caches;  // by name
  std::vector<void*> stack;   // return addresses, innermost first
};

// The stacks that hold most objects first. Any thread, any time: what is put or got meanwhile may or may not count.
LARDER_API std::vector<leak> find_leaks();
// The same in words, a frame a line as function+offset (module), or module+offset where no function's name is known
// (link with -rdynamic, or give it to addr2line). Empty if nothing is out.
LARDER_API std::string report_leaks();

}  // namespace larder
