// SPDX-License-Identifier: Apache-2.0
#include "base/mutant.h"

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

TEST(MutantTest, EveryMutantChangesSomethingAndHasATestThatMustKillIt) {
  const std::filesystem::path here = std::filesystem::path(__FILE__).parent_path();
  const std::filesystem::path sources = here / ".." / ".." / "src";
  std::string header = text_of(sources / "base" / "mutant.h");
  header = header.substr(0, header.find("};"));
  const std::string code = sources_below(sources, false) + sources_below(here, false);  // the system is simulated here
  const std::string tests = sources_below(here, true);
  const std::regex enumerator("\n  ([a-z_]+),");
  int mutants = 0;
  for (std::sregex_iterator match(header.begin(), header.end(), enumerator); match != std::sregex_iterator(); ++match) {
    const std::string name = (*match)[1];
    if (name == "none") continue;
    ++mutants;
    const std::regex used("mutant::" + name + "\\b");
    EXPECT_TRUE(std::regex_search(code, used)) << name << " changes nothing";
    EXPECT_TRUE(std::regex_search(tests, used)) << name << " has no test in tests/sched/";
  }
  EXPECT_GT(mutants, 10);
}

}  // namespace
}  // namespace larder::sched
