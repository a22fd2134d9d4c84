// SPDX-License-Identifier: Apache-2.0
//
// One who waits for one thing after the other, and one who reads what it notes.
#include "os/wait_note.h"

#include <array>
#include <chrono>

#include <gtest/gtest.h>

#include "tests/sched/explore.h"

namespace larder::sched {
namespace {

using base::mutant;

// Waited for: gone once the wait is over.
struct thing {
  base::atomic<bool> gone{false};
  unsigned number = 0;

  static void look(const void* object, os::wait_subject& into) {
    const auto& asked = *static_cast<const thing*>(object);
    require(!asked.gone, "a report looks at what is gone");
    into.name[0] = static_cast<char>('0' + asked.number);
    require(!asked.gone, "what a report looks at goes meanwhile");
  }
};

constexpr std::array<const char*, 3> kinds{"first", "second", "third"};

// The first wait is under way, the last never ends.
class waiter_and_reader : public scenario {
 public:
  waiter_and_reader() {
    for (unsigned i = 0; i < kinds.size(); ++i) things_[i].number = i;
    begin(0);
    thread("waiter", [this] {
      for (unsigned i = 0; i + 1 < kinds.size(); ++i) {
        note_.clear();
        things_[i].gone = true;
        begin(i + 1);
      }
    });
    thread("reader", [this] { (void)read(); });
  }
  void audit() override {
    require(read() == 2, "the last note is not there");
    note_.clear();
    os::wait_contents seen;
    os::wait_note::version version = 0;
    require(!note_.read(seen, version), "a note is left behind");
  }

 private:
  static constexpr unsigned none = 9;

  void begin(unsigned number) {
    note_.set({.kind = kinds[number],
               .object = &things_[number],
               .look = thing::look,
               .deadline = time_point(std::chrono::nanoseconds(number))});
  }
  // Which wait it has seen.
  unsigned read() {
    os::wait_contents seen;
    os::wait_note::version version = 0;
    if (!note_.read(seen, version)) return none;
    const auto number = static_cast<unsigned>(seen.deadline.time_since_epoch().count());
    require(seen.kind == kinds[number] && seen.object == &things_[number], "parts of two notes: %s of %u", seen.kind,
            number);
    os::wait_subject subject;
    if (note_.look(seen, version, subject)) {
      require(subject.name[0] == static_cast<char>('0' + number), "another thing was looked at");
    }
    return number;
  }

  os::wait_note note_;
  std::array<thing, kinds.size()> things_;
};

TEST(WaitNoteSchedTest, AReaderSeesOneNoteAndWhatItIsAbout) {
  const search_report report = explore<waiter_and_reader>({.preemptions = 3});
  EXPECT_TRUE(has_no_failure(report));
  EXPECT_TRUE(report.exhausted);
}

TEST(WaitNoteSchedTest, AVersionThatStaysIsCaught) {
  EXPECT_TRUE(mutant_is_killed<waiter_and_reader>(mutant::note_keeps_version));
}

TEST(WaitNoteSchedTest, AnOwnerThatIgnoresReadersIsCaught) {
  EXPECT_TRUE(mutant_is_killed<waiter_and_reader>(mutant::note_ignores_reader));
}

}  // namespace
}  // namespace larder::sched
