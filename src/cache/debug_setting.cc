// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <optional>

#include <larder/debug.h>

#include "base/check.h"
#include "cache/debug_layer.h"

namespace larder {
namespace {

struct named_check {
  std::string_view name;
  debug_checks value;
};
constexpr named_check known[] = {{"none", debug_checks::none},     {"ownership", debug_checks::ownership},
                                 {"guards", debug_checks::guards}, {"contents", debug_checks::contents},
                                 {"audit", debug_checks::audit},   {"all", debug_checks::all}};

// What stands before the next separator; the rest stays. False at the end.
bool next_part(std::optional<std::string_view>& rest, char separator, std::string_view& part) {
  if (!rest) return false;
  const std::size_t end = rest->find(separator);
  part = rest->substr(0, end);
  rest = end == std::string_view::npos ? std::nullopt : std::optional(rest->substr(end + 1));
  return true;
}

// Nothing if a word is no check, which `problem` then names.
std::optional<debug_checks> checks_of(std::string_view words, std::string& problem) {
  debug_checks all = debug_checks::none;
  std::optional<std::string_view> rest = words;
  for (std::string_view word; next_part(rest, ',', word);) {
    const auto* found =
        std::find_if(std::begin(known), std::end(known), [&](const named_check& each) { return each.name == word; });
    if (found == std::end(known)) {
      problem = "\"" + std::string(word) + "\" is no check: one of";
      for (const named_check& each : known) problem += (&each == known ? " " : ", ") + std::string(each.name);
      return {};
    }
    all = all | found->value;
  }
  return all;
}

}  // namespace

result<debug_checks> parse_debug_checks(std::string_view setting, std::string_view cache_name, std::string* problem) {
  debug_checks chosen = debug_checks::none;
  std::size_t best = 0;  // one more than the length that fitted
  std::string ignored;
  std::string& why = problem == nullptr ? ignored : *problem;
  if (setting.empty()) return chosen;
  std::optional<std::string_view> rest = setting;
  for (std::string_view clause; next_part(rest, ';', clause);) {
    const std::size_t equals = clause.find('=');
    std::string_view name = equals == std::string_view::npos ? "*" : clause.substr(0, equals);
    const auto checks = checks_of(equals == std::string_view::npos ? clause : clause.substr(equals + 1), why);
    if (!checks) return error_from(EINVAL);
    if (name.empty()) {
      why = "a cache's name is missing before \"" + std::string(clause) + "\"";
      return error_from(EINVAL);
    }
    const bool open = name.back() == '*';
    if (open) name.remove_suffix(1);
    const bool fits = open ? cache_name.substr(0, name.size()) == name : cache_name == name;
    // A whole name is longer than the same as a beginning.
    const std::size_t length = 1 + 2 * name.size() + (open ? 0 : 1);
    if (!fits || length < best) continue;
    best = length;
    chosen = *checks;
  }
  return chosen;
}

debug_checks cache::debug_layer::checks_for(std::string_view name, const raw_cache::options& chosen) {
  debug_checks checks = debug_checks::none;
  if (chosen.debug) {
    checks = *chosen.debug;
  } else if (const char* text = std::getenv("LARDER_DEBUG"); text != nullptr) {
    std::string problem;
    const result<debug_checks> said = parse_debug_checks(text, name, &problem);
    LARDER_CHECK(said, "LARDER_DEBUG is \"%s\": %s", text, problem.c_str());
    checks = *said;
  }
  // Memcheck's pool needs to know what is out.
  if (valgrind::running()) checks = checks | debug_checks::ownership;
  return checks == debug_checks::none ? checks : checks | debug_checks::ownership;
}

}  // namespace larder
