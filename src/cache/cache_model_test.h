// SPDX-License-Identifier: Apache-2.0
//
// A cache beside a model of it (the set of objects that are out), for the fuzzer and the model test: plays operations
// that any bytes tell, with the audit after each (KF-12), and tells the first law that is broken. The laws:
//
//   an object that is handed out is built, aligned and apart from all others that are out
//   built = constructor calls that succeeded less destructor calls, object by object (KF-1)
//   built <= the limit; built >= the reservation as far as it was ever built (KF-9, KF-10, KF-20)
//   below the reservation a get never fails; a get whose deadline has passed fails with a reason
//   what the cache says that it charges is charged, what trim and reclaim say that they release is released, and
//   everything returns to zero
//
// Neither the keeper nor the page daemon may make a round of its own meanwhile (tests/support/unit): the cache's
// figures, the census and the budget are not read at one moment.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <larder/keeper.h>
#include <larder/memory_budget.h>
#include <larder/raw_cache.h>

#include "cache/debug_layer.h"
#include "cache/keeper.h"
#include "cache/object_census_test.h"
#include "cache/slab.h"
#include "os/clock.h"

namespace larder::cache {

enum class action : std::uint8_t {
  try_get,
  get,  // with a deadline in the past
  get_many,
  put,
  put_many,
  trim,
  reclaim,
  keep,
  set_reservation,
  fail,  // a construction soon, by an error or an exception
};

// An operation is a byte that says what is done, then its argument, least byte first. Bytes that are missing at the end
// are 0.
struct operation {
  static constexpr std::size_t length = 3;

  action what;
  std::size_t argument;

  static operation next(std::span<const std::uint8_t>& input) {
    // By how often each is worth while: gets and puts in balance, the rest now and then.
    constexpr std::array actions{
        action::try_get,         action::try_get,  action::try_get, action::get,     action::get,  action::get_many,
        action::get_many,        action::get_many, action::put,     action::put,     action::put,  action::put_many,
        action::put_many,        action::put_many, action::trim,    action::reclaim, action::keep, action::keep,
        action::set_reservation, action::fail};
    std::array<std::uint8_t, length> bytes{};
    const std::size_t there = std::min(length, input.size());
    std::copy_n(input.begin(), there, bytes.begin());
    input = input.subspan(there);
    return {actions[bytes[0] % actions.size()], bytes[1] + std::size_t{bytes[2]} * 256};
  }
};

class cache_model {
 public:
  struct options {
    std::size_t size = 1;
    std::size_t alignment = 1;
    std::size_t reservation = 0;
    std::size_t limit = raw_cache::no_limit;
    bytes memory = unlimited;  // of the budget
    debug_checks checks = debug_checks::none;
    bool scratch = false;  // all but the first and the last page, which hold the marks
  };

  explicit cache_model(const options& chosen) : chosen_(chosen), budget_("model", {.limit = chosen.memory}) {
    (void)configure_keeper({.period = std::chrono::hours(1)});
    raw_cache::options wanted = census_.options_for(chosen.size, budget_);
    wanted.alignment = chosen.alignment;
    wanted.reservation = chosen.reservation;
    wanted.limit = chosen.limit;
    wanted.debug = chosen.checks;
    if (chosen.scratch) wanted.scratch = {.offset = page_size, .length = chosen.size - 2 * page_size};
    geometry_ = *slab_geometry::choose(wanted.size, wanted.alignment, wanted.uncharged_per_object,
                                       debug_layer::margins_for(debug_layer::checks_for("model", wanted), wanted));
    result<std::unique_ptr<raw_cache>> made = raw_cache::create("model", wanted);
    if (made) {
      cache_ = *std::move(made);
      promised_ = chosen.reservation;
    } else {
      expect(made.error() == error_from(ENOMEM) && chosen.memory < unlimited, "a cache that fits can be made");
    }
  }

  // Empty, or the law that was broken and where.
  std::string play(std::span<const std::uint8_t> input) {
    if (cache_ != nullptr) look();
    while (cache_ != nullptr && !input.empty() && broken_.empty()) {
      ++step_;
      run(operation::next(input));
      look();
    }
    finish();
    return broken_;
  }

 private:
  // Of one operation; and of objects that are out, so that each step is quick.
  static constexpr std::size_t many_max = 150;
  static constexpr std::size_t out_max = 2000;

  void expect(bool holds, const char* law) {
    if (holds || !broken_.empty()) return;
    broken_ = std::string(law) + " (size " + std::to_string(chosen_.size) + ", alignment " +
              std::to_string(chosen_.alignment) + ", limit " + std::to_string(chosen_.limit) + ", checks " +
              std::to_string(static_cast<unsigned>(chosen_.checks)) + ", step " + std::to_string(step_) + ")";
  }

  void run(const operation& next) {
    switch (next.what) {
      case action::try_get:
        return note_got(cache_->try_get());
      case action::get:
        return get();
      case action::get_many:
        return get_many(1 + next.argument % many_max);
      case action::put:
        return put(next.argument);
      case action::put_many:
        return put_many(next.argument);
      case action::trim:
        return trim(next.argument % 2 == 0 ? unlimited : bytes{next.argument * 2});
      case action::reclaim:
        return expect_release([&] { return budget_.reclaim(bytes{next.argument * 2}); });
      case action::keep:
        return keep();
      case action::set_reservation:
        return set_reservation(next.argument);
      case action::fail:
        failing_ = true;
        return census_.fail_after(static_cast<std::int64_t>(next.argument % 64), next.argument % 256 >= 128);
    }
  }

  bool may_fail() const { return failing_ || chosen_.memory < unlimited || out_.size() >= chosen_.limit; }

  void note_got(void* object) {
    if (object == nullptr) {
      expect(out_.size() >= promised_, "below the reservation a get never fails");
      return expect(may_fail(), "a get fails only for the limit, the budget or the constructor");
    }
    ++gets_;
    const auto begin = reinterpret_cast<std::uintptr_t>(object);
    expect(begin % chosen_.alignment == 0, "objects are aligned");
    census_.check_contents(object);
    const auto above = spans_.lower_bound(begin);
    expect(above == spans_.end() || *above - begin >= chosen_.size, "objects that are out are apart");
    expect(above == spans_.begin() || begin - *std::prev(above) >= chosen_.size, "objects that are out are apart");
    spans_.insert(begin);
    out_.push_back(object);
  }

  void get() {
    if (out_.size() >= out_max) return;
    try {
      const result<void*> got = cache_->get(os::now() - std::chrono::seconds(1));
      if (got) return note_got(*got);
      expect(got.error() == error_from(ETIMEDOUT) || got.error() == error_from(ENOMEM) ||
                 (failing_ && got.error() == error_from(EIO)),
             "a get that fails says why");
      note_got(nullptr);
    } catch (const std::runtime_error&) {
      expect(failing_, "only the constructor throws");
      note_got(nullptr);
    }
  }

  void get_many(std::size_t count) {
    if (out_.size() >= out_max) return;
    std::vector<void*> objects(count);
    const std::size_t got = cache_->get_many(objects.data(), count);
    expect(got <= count, "no more objects than asked for");
    for (std::size_t i = 0; i < got && broken_.empty(); ++i) note_got(objects[i]);
    if (got < count) note_got(nullptr);
  }

  void* choose(std::size_t argument) {
    std::swap(out_[argument % out_.size()], out_.back());
    void* chosen = out_.back();
    out_.pop_back();
    spans_.erase(reinterpret_cast<std::uintptr_t>(chosen));
    ++puts_;
    return chosen;
  }

  void put(std::size_t argument) {
    if (!out_.empty()) cache_->put(choose(argument));
  }

  void put_many(std::size_t argument) {
    std::vector<void*> objects;
    for (std::size_t left = 1 + argument % many_max; left > 0 && !out_.empty(); --left) {
      objects.push_back(choose(argument));
    }
    cache_->put_many(objects.data(), objects.size());
  }

  template <typename Release>
  void expect_release(Release release) {
    const bytes before = budget_.used();
    const bytes released = release();
    expect(before - budget_.used() == released, "what is said to be released is released");
  }

  void trim(bytes wanted) {
    expect_release([&] { return cache_->trim(wanted); });
    const raw_cache::statistics now = cache_->stats();
    expect(now.objects_in_depot == 0 && now.objects_cached == 0, "trim collects what is cached");
    if (wanted == unlimited) expect(keeps_what_is_reserved(), "trim keeps empty slabs for the reservation only");
  }

  // Without any empty slab that is there, less would be built than is promised. (One may hold a few built objects
  // only.)
  bool keeps_what_is_reserved() const {
    struct content {
      std::size_t built = 0;
      bool empty = true;
    };
    std::map<std::uintptr_t, content> slabs;
    census_.for_each_built([&](const void* object) {
      content& of = slabs[reinterpret_cast<std::uintptr_t>(object) & ~(geometry_.shape.alignment - 1)];
      ++of.built;
      of.empty = of.empty && spans_.count(reinterpret_cast<std::uintptr_t>(object)) == 0;
    });
    std::size_t empty = 0;
    for (const auto& [address, of] : slabs) {
      if (!of.empty) continue;
      ++empty;
      if (census_.built() - of.built >= promised_) return false;
    }
    return cache_->stats().slabs_empty == empty;
  }

  void keep() {
    keeper::of_process().round();
    const std::size_t built = census_.built();
    if (!failing_ && chosen_.memory == unlimited) {
      expect(built >= reservation(), "a round builds the reservation");
    }
    promised_ = std::max(promised_, std::min(reservation(), built));
  }

  std::size_t reservation() const { return cache_->reservation(); }

  void set_reservation(std::size_t argument) {
    const std::size_t before = reservation();
    const std::size_t most = std::min<std::size_t>(chosen_.limit, 300);
    const std::size_t wanted = argument % (most + 10);
    const result<void> done = cache_->set_reservation(wanted);
    expect(static_cast<bool>(done) == (wanted <= chosen_.limit), "a reservation up to the limit can be set");
    expect(reservation() == (done ? wanted : before), "the reservation is what was set");
    if (done) promised_ = std::min(wanted, census_.built());
  }

  void look() {
    cache_->audit();
    const raw_cache::statistics now = cache_->stats();
    expect(now.objects_out == out_.size(), "out is what was got and not put");
    expect(now.gets == gets_ && now.puts == puts_, "gets and puts are counted");
    expect(now.objects_built == census_.built(), "built is what was constructed and not destroyed");
    expect(now.constructed == census_.constructions() && now.destroyed == census_.destructions(),
           "constructions and destructions are counted");
    expect(now.objects_built <= chosen_.limit, "no more objects are built than the limit");
    expect(now.objects_built >= promised_, "the reservation stays built");
    expect(now.charged == budget_.used(), "what the cache says that it charges is charged");
    expect(now.charged <= chosen_.memory, "the budget's limit holds");
  }

  void finish() {
    while (cache_ != nullptr && !out_.empty()) put(0);
    cache_.reset();
    expect(census_.built() == 0, "the end destroys what was built");
    expect(budget_.used() == bytes{}, "the budget is as it was before the cache");
  }

  const options chosen_;
  memory_budget budget_;
  object_census census_;
  slab_geometry geometry_;
  std::unique_ptr<raw_cache> cache_;
  std::vector<void*> out_;
  std::set<std::uintptr_t> spans_;  // where those begin
  std::size_t promised_ = 0;        // so many stay built
  bool failing_ = false;            // a construction may have failed, or may yet
  std::uint64_t gets_ = 0;
  std::uint64_t puts_ = 0;

  std::uint64_t step_ = 0;
  std::string broken_;
};

}  // namespace larder::cache
