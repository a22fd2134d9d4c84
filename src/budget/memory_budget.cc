// SPDX-License-Identifier: Apache-2.0
//
// Admission. Each node holds an atomic count of what is charged to it and below. A charge adds to the node and then to
// each node above, by compare-and-swap that never passes the node's limit; where it does not fit, what was added below
// is taken back. So no count passes its limit at any instant, without a lock:
//
//   used(n) ≤ limit(n)                       always
//   used(n) ≥ Σ used(children of n)          when nobody is half-way through a charge
//
// Who does not fit may join the tree's queue (ticket.cc). While somebody queues for a node, others' attempts there
// fail, so that freed memory is not raced for (KF-53): it goes to the oldest ticket that it fits.
#include <charconv>
#include <cstdlib>

#include <larder/memory_budget.h>

#include "base/check.h"
#include "base/mutant.h"
#include "budget/tree.h"
#include "os/waiting.h"

namespace larder {

memory_budget::state::state(std::string_view chosen_name, options chosen, memory_budget* above)
    : name(chosen_name),
      limit(std::min(chosen.limit, unlimited)),
      reserve(chosen.reserve),
      parent(above),
      tree(above != nullptr ? above->state_->tree : std::make_shared<budget::tree>()),
      registered([this, component = "memory_budget/" + name](const base::stat_visitor& show) {
        show({component, "used_bytes", used});
        show({component, "peak_bytes", peak});
        show({component, "limit_bytes", limit.count});
        show({component, "waits", waits.value()});
      }) {
  LARDER_CHECK(reserve <= limit, "budget \"%s\": the reserve of %llu bytes is more than the limit of %llu",
               name.c_str(), static_cast<unsigned long long>(reserve.count),
               static_cast<unsigned long long>(limit.count));
  if (parent != nullptr) ++parent->state_->children;
  const base::lock locked(tree->guard);
  tree->nodes.push_back(*this);
}

memory_budget::state::~state() {
  const base::lock locked(tree->guard);
  base::intrusive_list<budget::budget_node>::remove(*this);
}

bool memory_budget::state::add(bytes amount, bytes most) {
  // A guess that the CAS proves, but also the look that turns a ticket away: the partner of `subtract`, whose caller
  // then looks for tickets, so sequentially consistent.
  std::uint64_t before = used.load();
  do {
    if (amount.count > most.count || before > most.count - amount.count) return false;
  } while (!used.compare_exchange_weak(before, before + amount.count));
  return true;
}

void memory_budget::state::subtract(bytes amount) {
  const std::uint64_t before = used.fetch_sub(amount.count);
  LARDER_CHECK(before >= amount.count, "budget \"%s\": %llu bytes released, but only %llu are charged", name.c_str(),
               static_cast<unsigned long long>(amount.count), static_cast<unsigned long long>(before));
}

void memory_budget::state::note_peak() {
  const std::uint64_t now = used.load(base::memory_order_relaxed);
  std::uint64_t highest = peak.load(base::memory_order_relaxed);  // a statistic: nothing is published by it
  while (now > highest && !peak.compare_exchange_weak(highest, now, base::memory_order_relaxed)) {
  }
}

memory_budget::memory_budget(std::string_view name) : memory_budget(name, options{}) {}

memory_budget::memory_budget(std::string_view name, options chosen, memory_budget* parent)
    : state_(std::make_unique<state>(name, chosen, parent)) {}

memory_budget::~memory_budget() {
  LARDER_CHECK(state_->children == 0, "budget \"%s\" destroyed while it has %u children", name().c_str(),
               state_->children.load());
  LARDER_CHECK(used().count == 0, "budget \"%s\" destroyed while %llu bytes are charged to it", name().c_str(),
               static_cast<unsigned long long>(used().count));
  {
    const base::lock locked(state_->tree->guard);
    for (auto* entry = state_->tree->entries.front(); entry != nullptr; entry = state_->tree->entries.after(*entry)) {
      LARDER_CHECK(entry->node != this, "budget \"%s\" destroyed while a reclaimer is registered", name().c_str());
    }
  }
  if (state_->parent != nullptr) --state_->parent->state_->children;
}

memory_budget& memory_budget::process() {
  static auto* instance = [] {
    options chosen;
    if (const char* text = std::getenv("LARDER_MEMORY_LIMIT"); text != nullptr) {
      const auto limit = parse_bytes(text);
      LARDER_CHECK(limit, "LARDER_MEMORY_LIMIT is \"%s\": expected a number of bytes, or one with K, M or G", text);
      chosen.limit = *limit;
    }
    return new memory_budget("process", chosen);
  }();
  return *instance;
}

bool memory_budget::try_charge(bytes amount) {
  memory_budget* node = this;
  for (; node != nullptr; node = node->parent()) {
    state& at = *node->state_;
    // Relaxed: who misses a ticket that was queued this instant came before it.
    const bool queued_for = at.blocked_here.load(base::memory_order_relaxed) != 0;
    if (!queued_for && at.add(amount, at.open_limit())) continue;
    // Reclaimers go first and may use the reserve: everyone waits for them.
    if (os::parker::current().reclaiming && at.add(amount, at.limit)) continue;
    break;
  }
  if (node == nullptr) {
    for (node = this; node != nullptr; node = node->parent()) node->state_->note_peak();
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
  if (!late) budget_ticket::grant_waiting(*this);
}

result<void> memory_budget::charge(bytes amount, time_point deadline) {
  budget_ticket ticket(*this, amount);
  if (const auto begun = ticket.begin(); !begun) return begun;
  const auto look = [](const void* object, os::wait_subject& into) {
    into.set_name(static_cast<const memory_budget*>(object)->name());
  };
  os::parker& self = os::parker::current();
  time_point since{};
  while (!ticket.granted(deadline)) {
    const os::waiting noted(self, {.kind = "memory", .object = this, .look = look, .deadline = deadline}, since);
    if (self.park_until(deadline)) continue;
    if (ticket.granted(deadline)) break;
    return error_from(ETIMEDOUT);
  }
  ticket.take();
  return {};
}

bytes memory_budget::used() const { return {state_->used.load()}; }
bytes memory_budget::peak() const { return {state_->peak.load(base::memory_order_relaxed)}; }
bytes memory_budget::limit() const { return state_->limit; }
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
  LARDER_CHECK(used() <= limit(), "budget \"%s\": used %llu > limit %llu", name().c_str(),
               static_cast<unsigned long long>(used().count), static_cast<unsigned long long>(limit().count));
  std::uint64_t children_used = 0;
  for (budget::budget_node* node = tree.nodes.front(); node != nullptr; node = tree.nodes.after(*node)) {
    const auto& child = static_cast<const state&>(*node);
    if (child.parent == this) children_used += child.used;
  }
  LARDER_CHECK(used().count >= children_used, "budget \"%s\": used %llu < %llu used by its children", name().c_str(),
               static_cast<unsigned long long>(used().count), static_cast<unsigned long long>(children_used));
  LARDER_CHECK(tree.waiting == tree.queue.size(), "budget \"%s\": %u waiters counted, %zu queued", name().c_str(),
               tree.waiting.load(), tree.queue.size());
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
