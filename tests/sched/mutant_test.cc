// SPDX-License-Identifier: Apache-2.0
#include "base/mutant.h"

#include <cctype>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <regex>
#include <string>

#include <gtest/gtest.h>

namespace larder::sched {
namespace {

std::string text_of(const std::filesystem::path& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The C++ files below `folder`, in one: those of tests, or the others.
std::string sources_below(const std::filesystem::path& folder, bool tests) {
  std::string all;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    const std::string suffix = entry.path().extension();
    if (suffix != ".h" && suffix != ".cc") continue;
    if (entry.path().stem().string().ends_with("_test") == tests) all += text_of(entry.path());
  }
  return all;
}

// True if the text has `mutant::name`. A regular expression would take half a minute under the sanitizers.
bool names(const std::string& text, const std::string& name) {
  const std::string wanted = "mutant::" + name;
  const auto in_a_word = [](char each) { return std::isalnum(static_cast<unsigned char>(each)) != 0 || each == '_'; };
  for (std::size_t at = text.find(wanted); at != std::string::npos; at = text.find(wanted, at + 1)) {
    const std::size_t end = at + wanted.size();
    if (end == text.size() || !in_a_word(text[end])) return true;
  }
  return false;
}

TEST(MutantTest, EveryMutantChangesSomethingAndHasATestThatMustKillIt) {
  const std::filesystem::path here = std::filesystem::path(__FILE__).parent_path();
  const std::filesystem::path sources = here / ".." / ".." / "src";
  std::string header = text_of(sources / "base" / "mutant.h");
  header = header.substr(0, header.find("};"));
  const std::string code = sources_below(sources, false) + sources_below(here, false);  // the system is simulated here
  const std::string tests = sources_below(here, true) + sources_below(here / ".." / "simulation", true);
  const std::regex enumerator("\n  ([a-z_]+),");
  int mutants = 0;
  for (std::sregex_iterator match(header.begin(), header.end(), enumerator); match != std::sregex_iterator(); ++match) {
    const std::string name = (*match)[1];
    if (name == "none") continue;
    ++mutants;
    EXPECT_TRUE(names(code, name)) << name << " changes nothing";
    EXPECT_TRUE(names(tests, name)) << name << " has no test in tests/sched/ or tests/simulation/";
  }
  EXPECT_GT(mutants, 10);
}

}  // namespace
}  // namespace larder::sched
