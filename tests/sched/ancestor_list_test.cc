// SPDX-License-Identifier: Apache-2.0
//
// The free list of Xen's grant-table maptrack, as its history describes it: per CPU, linked, with head and tail. Who
// erases appends: it swaps the tail, then links what was the tail to the new one. Who inserts pops the head by
// compare-and-swap; the last element stays, so that the tail is always somewhere. It was sound for one popper; then
// others were let in to steal. The scheduler must find what that broke, and a list whose poppers exclude each other
// must pass: permanent mutants for every engine here (KF-21, KF-22).
#include <array>
#include <cstdio>
#include <mutex>
#include <string>

#include <gtest/gtest.h>

#include "base/atomic.h"
#include "base/mutex.h"
#include "tests/sched/explore.h"

namespace larder::sched {
namespace {

constexpr unsigned end_of_list = 99;
constexpr unsigned a = 0;
constexpr unsigned b = 1;
constexpr unsigned c = 2;
constexpr unsigned d = 3;
constexpr unsigned elements = 4;

using link_array = std::array<base::atomic<unsigned>, elements>;

class ancestor_list {
 public:
  ancestor_list(link_array& links, bool poppers_exclude_each_other)
      : links_(links), exclusive_(poppers_exclude_each_other) {}

  base::atomic<unsigned> head{end_of_list};
  base::atomic<unsigned> tail{end_of_list};
  base::system_mutex poppers;

  // Makes the list of `first` and what it is linked to, up to `last`.
  void set(unsigned first, unsigned last) {
    head = first;
    tail = last;
  }
  unsigned pop() {
    if (!exclusive_) return pop_by_compare_and_swap();
    const std::lock_guard locked(poppers);
    return pop_by_compare_and_swap();
  }
  void append(unsigned element) {
    links_[element] = end_of_list;
    const unsigned before = tail.exchange(element);
    links_[before] = element;
  }
  bool reaches(unsigned element) const {
    unsigned at = head;
    for (unsigned steps = 0; at != end_of_list && steps < elements; ++steps) {
      if (at == element) return true;
      at = links_[at];
    }
    return false;
  }

 private:
  unsigned pop_by_compare_and_swap() {
    unsigned seen = head;
    while (seen != end_of_list) {
      const unsigned next = links_[seen];
      if (next == end_of_list) break;
      if (head.compare_exchange_strong(seen, next)) return seen;
    }
    return end_of_list;
  }

  link_array& links_;
  const bool exclusive_;
};

// Elements a, b, c stand on the owner's list; d is in use.
class maptrack : public scenario {
 protected:
  explicit maptrack(bool exclusive) : list_(links_, exclusive) {
    name(list_.head, "head");
    name(list_.tail, "tail");
    name(list_.poppers, "poppers");
    for (unsigned element = 0; element < elements; ++element) {
      name(links_[element], std::string(1, static_cast<char>('a' + element)) + ".link");
    }
    links_[a] = b;
    links_[b] = c;
    links_[c] = end_of_list;
    list_.set(a, c);
    in_use_[d] = true;
  }
  unsigned take(unsigned element, bool checked = true) {
    if (element == end_of_list) return element;
    require(!checked || !in_use_[element], "element %c was handed out twice", 'a' + static_cast<int>(element));
    in_use_[element] = true;
    return element;
  }
  void give_back(unsigned element) {
    if (element == end_of_list) return;
    in_use_[element] = false;
    list_.append(element);
  }

  link_array links_;
  ancestor_list list_;
  std::array<bool, elements> in_use_{};
};

template <bool exclusive>
class one_holder : public maptrack {
 public:
  one_holder() : maptrack(exclusive) {
    thread("thief", [this] { take(list_.pop()); });
    thread("owner", [this] {
      const unsigned first = take(list_.pop());
      take(list_.pop());
      give_back(first);
      take(list_.pop());
    });
  }
  void audit() override {
    while (take(list_.pop()) != end_of_list) {
    }
  }
};

template <bool exclusive>
class nothing_lost : public maptrack {
 public:
  nothing_lost() : maptrack(exclusive) {
    thread("thief", [this] { take(list_.pop(), false); });
    thread("owner", [this] {
      const unsigned first = take(list_.pop(), false);
      held_[0] = take(list_.pop(), false);
      give_back(first);
      held_[1] = take(list_.pop(), false);
    });
    thread("eraser", [this] { give_back(d); });
  }
  // What is not in use is on the list, also after the owner has given back all that it holds.
  void audit() override {
    for (const unsigned element : held_) give_back(element);
    for (unsigned element = 0; element < elements; ++element) {
      require(in_use_[element] || list_.reaches(element), "element %c was lost with the tail",
              'a' + static_cast<int>(element));
    }
  }

 private:
  std::array<unsigned, 2> held_{end_of_list, end_of_list};
};

// A thief puts what it stole on its own list, which was empty.
template <bool keeps_link>
class stolen_element : public maptrack {
 public:
  stolen_element() : maptrack(true), own_(links_, true) {
    name(own_.head, "thief's head");
    name(own_.tail, "thief's tail");
    name(own_.poppers, "thief's poppers");
    thread("thief", [this] {
      const unsigned stolen = list_.pop();
      if (stolen == end_of_list) return;
      if (!keeps_link) links_[stolen] = end_of_list;
      own_.set(stolen, stolen);
      take(own_.pop());
      take(own_.pop());
    });
    thread("owner", [this] {
      take(list_.pop());
      take(list_.pop());
    });
  }

 private:
  ancestor_list own_;
};

// KF-21: the thief reads head = a, a.next = b and stalls; the owner pops a and b, puts a back and pops c, so that a is
// head and tail; the thief's compare-and-swap succeeds, and b is head while it is in use.
TEST(AncestorListSchedTest, ElementHandedOutTwiceByTwoPoppersIsFound) {
  const search_report report = explore<one_holder<false>>();
  ASSERT_TRUE(has_failure(report));
  EXPECT_NE(report.first_failure->message.find("was handed out twice"), std::string::npos);
  std::printf("%s", report.first_failure->trace.c_str());
}

// KF-21: in the same interleaving the thief takes the tail away; what is appended behind it is on no list.
TEST(AncestorListSchedTest, TailLostByTwoPoppersIsFound) {
  const search_report report = explore<nothing_lost<false>>();
  ASSERT_TRUE(has_failure(report));
  EXPECT_NE(report.first_failure->message.find("was lost with the tail"), std::string::npos);
  std::printf("%s", report.first_failure->trace.c_str());
}

// KF-22: a sequential fault, so no preemption is needed.
TEST(AncestorListSchedTest, StolenElementThatKeepsItsLinkIsFound) {
  const search_report report = explore<stolen_element<true>>();
  ASSERT_TRUE(has_failure(report));
  EXPECT_EQ(report.preemptions, 0U);
  std::printf("%s", report.first_failure->trace.c_str());
}

TEST(AncestorListSchedTest, OnePopperAtATimeIsSound) {
  EXPECT_TRUE(no_schedule_fails<one_holder<true>>({.preemptions = 4}));
  EXPECT_TRUE(no_schedule_fails<nothing_lost<true>>({.preemptions = 4}));
  EXPECT_TRUE(no_schedule_fails<stolen_element<false>>({.preemptions = 4}));
}

}  // namespace
}  // namespace larder::sched
