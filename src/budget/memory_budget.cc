// SPDX-License-Identifier: Apache-2.0
//
// Admission. Each node holds an atomic count of what is charged to it and below. A charge adds to the node and then to
// each node above, by compare-and-swap that never passes the node's limit; where it does not fit, what was added below
// is taken back. So no count passes its limit at any instant, without a lock:
//
//   used(n) ≤ limit(n)                       always
//   used(n) ≥ Σ used(children of n)          when nobody is half-way through a charge
//
// A limit that changes keeps this exact: it moves by *withholding*. The count that a charge compares is what is used
// together with what is withheld, and it is held under a ceiling that never falls:
//
//   occupied(n) = used(n) + withheld(n) ≤ ceiling(n)      limit(n) = ceiling(n) − withheld(n)
//
// So a limit is lowered by a compare-and-swap on the same word that charges change: what was withheld is gone for all
// of them, whatever limit they had read. As long as it is not down yet, the cut stands before all tickets of its node:
// each pass over the queue first withholds what has become free.
//
// Who does not fit may join the tree's queue (ticket.cc). While somebody queues for a node, others' attempts there
// fail, so that freed memory is not raced for (KF-53): it goes to the oldest ticket that it fits.
#include <charconv>
#include <cstdlib>

#include <larder/memory_budget.h>

#include "base/check.h"
#include "base/mutant.h"
#include "budget/event.h"
#include "budget/page_daemon.h"
#include "budget/tree.h"
#include "os/waiting.h"

namespace larder {

namespace budget {

node_state& state_of(const memory_budget& node) { return *node.state_; }

marks default_marks{memory_budget::default_high_mark_percent, memory_budget::default_low_mark_percent};

namespace {

marks marks_of(const memory_budget::options& chosen) {
  marks its = default_marks;
  if (chosen.high_mark_percent != 0) its.high = chosen.high_mark_percent;
  its.low = chosen.low_mark_percent != 0 ? chosen.low_mark_percent : std::min(its.low, its.high);
  return its;
}

}  // namespace

node_state::node_state(memory_budget& itself, std::string_view chosen_name, memory_budget::options chosen,
                       memory_budget* above)
    : name(chosen_name),
      self(itself),
      reserve(chosen.reserve),
      its_marks(marks_of(chosen)),
      parent(above),
      tree(above != nullptr ? state_of(*above).tree : std::make_shared<budget::tree>()),
      ceiling(std::min(chosen.limit, unlimited).count),
      wanted_limit(ceiling.load()),
      own_limit(full()) {
  LARDER_CHECK(reserve <= full(), "budget \"%s\": the reserve of %llu bytes is more than the limit of %llu",
               name.c_str(), static_cast<unsigned long long>(reserve.count),
               static_cast<unsigned long long>(full().count));
  LARDER_CHECK(its_marks.low <= its_marks.high && its_marks.high <= 100,
               "budget \"%s\": a low mark of %d and a high mark of %d percent: expected low <= high <= 100",
               name.c_str(), its_marks.low, its_marks.high);
  LARDER_CHECK(parent == nullptr || !chosen.follows_system, "budget \"%s\" is no root, and so cannot follow the system",
               name.c_str());
  place_mark();
  if (parent != nullptr) ++state_of(*parent).children;
  const base::lock locked(tree->guard);
  tree->nodes.push_back(*this);
}

node_state::~node_state() {
  const base::lock locked(tree->guard);
  base::intrusive_list<budget_node>::remove(*this);
}

bool node_state::add(bytes amount, bytes most) {
  // A guess that the CAS proves, but also the look that turns a ticket away: the partner of `subtract`, whose caller
  // then looks for tickets, so sequentially consistent.
  std::uint64_t before = occupied.load();
  do {
    if (amount.count > most.count || before > most.count - amount.count) return false;
    if (base::is_mutant(base::mutant::limit_in_two_steps)) {
      occupied.store(occupied.load() + amount.count);
      break;
    }
  } while (!occupied.compare_exchange_weak(before, before + amount.count));
  return true;
}

void node_state::subtract(bytes amount) {
  // Relaxed, and before: what is withheld later was not there to be released.
  const std::uint64_t kept = withheld.load(base::memory_order_relaxed);
  const std::uint64_t before = occupied.fetch_sub(amount.count);
  LARDER_CHECK(before >= amount.count + kept || before >= amount.count + withheld.load(),
               "budget \"%s\": %llu bytes released, but only %llu are charged", name.c_str(),
               static_cast<unsigned long long>(amount.count), static_cast<unsigned long long>(before - kept));
}

bytes percent_of(bytes amount, std::uint8_t percent) {
  return amount / 100 * percent + bytes{amount.count % 100 * percent / 100};
}

void node_state::note_use() {
  note_peak();
  // Relaxed: whoever charges next sees what this one missed.
  if (occupied.load(base::memory_order_relaxed) > high_mark.load(base::memory_order_relaxed)) [[unlikely]]
    call_daemon();
}

void node_state::note_peak() {
  // Relaxed: a statistic, nothing is published by it. The first look may be off while a limit changes.
  const std::uint64_t kept = withheld.load(base::memory_order_relaxed);
  std::uint64_t highest = peak.load(base::memory_order_relaxed);
  if (occupied.load(base::memory_order_relaxed) <= highest + kept) return;
  const std::uint64_t now = look().used.count;
  while (now > highest && !peak.compare_exchange_weak(highest, now, base::memory_order_relaxed)) {
  }
}

node_state::usage node_state::look() const {
  const std::uint32_t before = limit_changes.load();
  std::uint64_t kept = withheld.load();
  const usage seen{{occupied.load() - kept}, {ceiling.load() - kept}};
  if (before % 2 == 0 && limit_changes.load() == before) return seen;
  const base::lock locked(tree->guard);  // which the change holds
  kept = withheld.load();
  return {{occupied.load() - kept}, {ceiling.load() - kept}};
}

bytes node_state::to_come_down() const {
  const bytes holds{ceiling.load() - withheld.load()};
  const bytes wanted{wanted_limit.load()};
  return wanted < holds ? holds - wanted : bytes{};
}

void node_state::raise_limit(bytes by) {
  const std::uint64_t kept = std::min(withheld.load(), by.count);
  limit_changes.fetch_add(1);
  withheld.fetch_sub(kept);
  occupied.fetch_sub(kept);
  ceiling.fetch_add(by.count - kept);
  place_mark();
  limit_changes.fetch_add(1);
}

// A mark of percents, but of none of the largest numbers. With 100 the mark is the ceiling, which nothing passes.
void node_state::place_mark() {
  const std::uint64_t kept = withheld.load();
  const bytes limit{ceiling.load() - kept};
  const bool marked = limit < unlimited && its_marks.high < 100;
  high_mark.store(marked ? kept + percent_of(limit - reserve, its_marks.high).count : unlimited.count);
}

void node_state::call_daemon() {
  if (daemon_called.load() || daemon_called.exchange(true)) return;
  if (!page_daemon::of_process().call(*tree, time_point{})) daemon_called = false;
}

bytes node_state::daemon_need() const {
  const auto [used, limit] = look();
  const bytes open_then = std::min(limit, bytes{wanted_limit.load()}) - reserve;
  const bytes kept = its_marks.high < 100 ? percent_of(open_then, its_marks.low) : open_then;
  return used > kept ? used - kept : bytes{};
}

bool node_state::lower_limit() {
  const bytes by = to_come_down();
  if (by.count == 0) return true;
  limit_changes.fetch_add(1);
  std::uint64_t before = occupied.load();
  bytes taken;
  do {
    // Who reclaims may need the reserve, so that is left.
    taken = std::min(by, before < open().count ? open() - bytes{before} : bytes{});
    if (base::is_mutant(base::mutant::limit_without_withholding)) {
      ceiling.fetch_sub(taken.count);
      break;
    }
  } while (taken.count > 0 && !occupied.compare_exchange_weak(before, before + taken.count));
  if (!base::is_mutant(base::mutant::limit_without_withholding)) withheld.fetch_add(taken.count);
  place_mark();
  limit_changes.fetch_add(1);
  return taken == by;
}

}  // namespace budget

memory_budget::memory_budget(std::string_view name) : memory_budget(name, options{}) {}

memory_budget::memory_budget(std::string_view name, options chosen, memory_budget* parent)
    : state_(std::make_unique<budget::node_state>(*this, name, chosen, parent)) {
  if (chosen.follows_system) budget::page_daemon::of_process().follow_system(*state_->tree);
  state_->registered.emplace([this](const base::stat_visitor& show) { report(show); });
}

void memory_budget::report(const base::stat_visitor& show) const {
  const std::string component = "memory_budget/" + name();
  const auto [now_used, now_limit] = state_->look();
  show({component, "used_bytes", now_used.count});
  show({component, "peak_bytes", state_->peak});
  show({component, "limit_bytes", now_limit.count});
  show({component, "wanted_limit_bytes", state_->wanted_limit});
  show({component, "waits", waits()});
  show({component, "daemon_rounds", state_->daemon_rounds.value()});
  show({component, "daemon_reclaimed_bytes", state_->daemon_bytes.value()});
  const memory_account now = account();
  show({component, "live_objects_bytes", now.live_objects.count});
  show({component, "magazines_bytes", now.magazines.count});
  show({component, "free_objects_bytes", now.free_objects.count});
  show({component, "empty_slabs_bytes", now.empty_slabs.count});
  show({component, "stacks_bytes", now.stacks.count});
  show({component, "handles_bytes", now.handles.count});
  show({component, "clean_pages_bytes", now.clean_pages.count});
  show({component, "dirty_pages_bytes", now.dirty_pages.count});
  show({component, "metadata_bytes", now.metadata.count});
  show({component, "other_bytes", now.other.count});
}

memory_budget::~memory_budget() {
  state_->registered.reset();
  LARDER_CHECK(state_->children == 0, "budget \"%s\" destroyed while it has %u children", name().c_str(),
               state_->children.load());
  LARDER_CHECK(used().count == 0, "budget \"%s\" destroyed while %llu bytes are charged to it", name().c_str(),
               static_cast<unsigned long long>(used().count));
  {
    const base::lock locked(state_->tree->guard);
    for (const auto* list : {&state_->tree->entries, &state_->tree->shareholders}) {
      for (auto* entry = list->front(); entry != nullptr; entry = list->after(*entry)) {
        LARDER_CHECK(entry->node != this, "budget \"%s\" destroyed while a reclaimer is registered", name().c_str());
      }
    }
    LARDER_CHECK(!state_->cut, "budget \"%s\" destroyed while its limit comes down, though nothing is charged",
                 name().c_str());
    state_->lowering = false;  // nobody is told of it any more
  }
  on_event({});
  if (state_->parent != nullptr) --state_->parent->state_->children;
}

memory_budget& memory_budget::process() {
  static auto* instance = [] {
    options chosen;
    const char* text = std::getenv("LARDER_MEMORY_LIMIT");
    chosen.follows_system = text == nullptr;
    if (text != nullptr) {
      const auto limit = parse_bytes(text);
      LARDER_CHECK(limit, "LARDER_MEMORY_LIMIT is \"%s\": expected a number of bytes, or one with K, M or G", text);
      chosen.limit = *limit;
    }
    return new memory_budget("process", chosen);
  }();
  return *instance;
}

bool memory_budget::try_charge(bytes amount) {
  return try_charge_up_to(amount, [](budget::node_state& at) { return at.open(); });
}

bool memory_budget::try_charge_spare(bytes amount) {
  return try_charge_up_to(amount, [](budget::node_state& at) { return at.spare(); });
}

template <typename Most>
bool memory_budget::try_charge_up_to(bytes amount, Most most) {
  memory_budget* node = this;
  for (; node != nullptr; node = node->parent()) {
    budget::node_state& at = *node->state_;
    // Relaxed: who misses a ticket that was queued this instant came before it.
    const bool queued_for = at.blocked_here.load(base::memory_order_relaxed) != 0;
    if (!queued_for && at.add(amount, most(at))) continue;
    // Reclaimers go first and may use the reserve: everyone waits for them.
    if (os::parker::current().reclaiming && at.add(amount, at.full())) continue;
    break;
  }
  if (node == nullptr) {
    for (node = this; node != nullptr; node = node->parent()) node->state_->note_use();
    return true;
  }
  for (memory_budget* charged = this; charged != node; charged = charged->parent()) charged->state_->subtract(amount);
  // What was added for a moment may have turned a ticket away.
  if (node != this) budget_ticket::grant_waiting(*this);
  return false;
}

void memory_budget::release(bytes amount) {
  const bool late = base::is_mutant(base::mutant::look_before_subtract);
  if (late) budget_ticket::grant_waiting(*this);
  for (memory_budget* node = this; node != nullptr; node = node->parent()) node->state_->subtract(amount);
  if (!late && !base::is_mutant(base::mutant::release_tells_nobody)) budget_ticket::grant_waiting(*this);
}

result<void> memory_budget::charge(bytes amount, time_point deadline) {
  const auto charged = charge_in_turn(amount, deadline);
  if (!charged) budget::tell_out_of_memory(*this, amount);  // out of the queue, so that nobody waits for who is told
  return charged;
}

result<void> memory_budget::charge_in_turn(bytes amount, time_point deadline) {
  budget_ticket ticket(*this, amount);
  if (const auto begun = ticket.begin(); !begun) return begun;
  const auto look = [](const void* object, os::wait_subject& into) {
    into.set_name(static_cast<const memory_budget*>(object)->name());
  };
  os::parker& self = os::parker::current();
  time_point since{};
  while (!ticket.granted(deadline)) {
    if (ticket.refused()) return error_from(ENOMEM);
    const os::waiting noted(self, {.kind = "memory", .object = this, .look = look, .deadline = deadline}, since);
    if (self.park_until(deadline)) continue;
    if (ticket.granted(deadline)) break;
    return error_from(ticket.refused() ? ENOMEM : ETIMEDOUT);
  }
  ticket.take();
  return {};
}

bytes memory_budget::used() const { return state_->look().used; }
bytes memory_budget::peak() const { return {state_->peak.load(base::memory_order_relaxed)}; }
bytes memory_budget::limit() const { return state_->look().limit; }
bytes memory_budget::wanted_limit() const { return {state_->wanted_limit.load()}; }
bytes memory_budget::reserve() const { return state_->reserve; }
const std::string& memory_budget::name() const { return state_->name; }
memory_budget* memory_budget::parent() const { return state_->parent; }
std::uint64_t memory_budget::waits() const { return state_->waits.value(); }

// Sequentially consistent: the partner of a ticket's entry into the queue (a waiter enters, then looks for memory; we
// freed memory, then look for a waiter).
bool memory_budget::has_waiters() const { return state_->tree->waiting.load() != 0; }

void memory_budget::audit() const {
  budget::tree& tree = *state_->tree;
  const base::lock locked(tree.guard);
  const auto [now_used, now_limit] = state_->look();
  LARDER_CHECK(now_used <= now_limit, "budget \"%s\": used %llu > limit %llu", name().c_str(),
               static_cast<unsigned long long>(now_used.count), static_cast<unsigned long long>(now_limit.count));
  LARDER_CHECK(state_->cut == (wanted_limit() < now_limit), "budget \"%s\": a limit of %llu, %llu wanted, cut: %d",
               name().c_str(), static_cast<unsigned long long>(now_limit.count),
               static_cast<unsigned long long>(wanted_limit().count), state_->cut ? 1 : 0);
  LARDER_CHECK(!state_->cut || now_used + reserve() >= now_limit, "budget \"%s\": a limit that could come down stays",
               name().c_str());
  std::uint64_t children_used = 0;
  for (budget::budget_node* node = tree.nodes.front(); node != nullptr; node = tree.nodes.after(*node)) {
    const auto& child = static_cast<const budget::node_state&>(*node);
    if (child.parent == this) children_used += child.look().used.count;
  }
  LARDER_CHECK(now_used.count >= children_used, "budget \"%s\": used %llu < %llu used by its children", name().c_str(),
               static_cast<unsigned long long>(now_used.count), static_cast<unsigned long long>(children_used));
  LARDER_CHECK(tree.waiting == tree.queue.size() + tree.cuts, "budget \"%s\": %u waiters counted, %zu queued, %u cuts",
               name().c_str(), tree.waiting.load(), tree.queue.size(), tree.cuts);
  budget_ticket::check_none_fits(tree);
}

budget_charge::budget_charge(budget_charge&& other) noexcept
    : budget_(std::exchange(other.budget_, nullptr)), amount_(std::exchange(other.amount_, {})) {}

budget_charge& budget_charge::operator=(budget_charge&& other) noexcept {
  if (this != &other) {
    reset();
    budget_ = std::exchange(other.budget_, nullptr);
    amount_ = std::exchange(other.amount_, {});
  }
  return *this;
}

void budget_charge::reset() {
  if (budget_ != nullptr) budget_->release(amount_);
  budget_ = nullptr;
  amount_ = {};
}

result<bytes> parse_bytes(std::string_view text) {
  std::uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [stopped, error] = std::from_chars(text.data(), end, number);
  if (error == std::errc::result_out_of_range) return error_from(ERANGE);
  if (error != std::errc()) return error_from(EINVAL);
  std::string_view unit(stopped, static_cast<std::size_t>(end - stopped));
  unsigned shift = 0;
  if (!unit.empty()) {
    constexpr std::string_view letters = "KMGT";
    const std::size_t which = letters.find(static_cast<char>(unit.front() & ~0x20));
    if (which == std::string_view::npos) return error_from(EINVAL);
    shift = 10 * (static_cast<unsigned>(which) + 1);
    unit.remove_prefix(1);
    if (!unit.empty() && unit != "B" && unit != "iB") return error_from(EINVAL);
  }
  if (number > unlimited.count >> shift) return error_from(ERANGE);
  return bytes{number << shift};
}

std::string format_bytes(bytes amount) {
  std::uint64_t number = amount.count;
  constexpr std::string_view letters = "KMGT";
  std::size_t unit = 0;
  while (number != 0 && number % 1024 == 0 && unit < letters.size()) {
    number /= 1024;
    ++unit;
  }
  std::string text = std::to_string(number);
  if (unit > 0) text += letters[unit - 1];
  return text;
}

}  // namespace larder
