// SPDX-License-Identifier: Apache-2.0
//
// The budget against a model that anyone can follow: plain sums, and a queue that is gone through from its beginning
// after every operation.
#include <algorithm>
#include <array>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <larder/memory_budget.h>

#include "budget/ticket.h"
#include "tests/support/model_random.h"

namespace larder {
namespace {

struct model_node {
  int parent;  // -1 for the root
  std::uint64_t limit;
  std::uint64_t reserve;
  std::uint64_t used = 0;
  std::uint64_t peak = 0;
  std::uint64_t waits = 0;
  bool blocked = false;  // the oldest that does not fit here waits, or the limit comes down
  std::uint64_t wanted_limit = limit;
};

struct model_ticket {
  int node;
  std::uint64_t amount;
  bool granted;
  bool refused = false;
};

class budget_model {
 public:
  explicit budget_model(std::vector<model_node> nodes) : nodes_(std::move(nodes)) {}

  bool try_charge(int node, std::uint64_t amount) {
    for (int at = node; at >= 0; at = of(at).parent) {
      if (of(at).blocked || !fits(at, amount)) return false;
    }
    add(node, amount);
    return true;
  }
  bool can_never_fit(int node, std::uint64_t amount) {
    for (int at = node; at >= 0; at = of(at).parent) {
      if (amount > of(at).wanted_limit - of(at).reserve) return true;
    }
    return false;
  }
  void release(int node, std::uint64_t amount) {
    for (int at = node; at >= 0; at = of(at).parent) of(at).used -= amount;
    serve();
  }
  void set_limit(int node, std::uint64_t wanted) {
    of(node).wanted_limit = wanted;
    of(node).limit = std::max(of(node).limit, wanted);
    queue_.remove_if([this](model_ticket* each) { return each->refused = can_never_fit(each->node, each->amount); });
    serve();
  }
  void queue(model_ticket& ticket) {
    queue_.push_back(&ticket);
    serve();
    if (!ticket.granted) ++of(ticket.node).waits;
  }
  void cancel(model_ticket& ticket) {
    if (ticket.granted) return release(ticket.node, ticket.amount);
    if (ticket.refused) return;
    queue_.remove(&ticket);
    serve();
  }
  const model_node& node(std::size_t index) const { return nodes_[index]; }
  bool has_waiters() const {
    const auto comes_down = [](const model_node& each) { return each.wanted_limit < each.limit; };
    return !queue_.empty() || std::any_of(nodes_.begin(), nodes_.end(), comes_down);
  }

 private:
  model_node& of(int index) { return nodes_[static_cast<std::size_t>(index)]; }
  bool fits(int node, std::uint64_t amount) { return of(node).used + amount <= of(node).limit - of(node).reserve; }
  void add(int node, std::uint64_t amount) {
    for (int at = node; at >= 0; at = of(at).parent) {
      of(at).used += amount;
      of(at).peak = std::max(of(at).peak, of(at).used);
    }
  }
  void serve() {
    for (model_node& each : nodes_) {
      each.limit = std::max(each.wanted_limit, std::min(each.limit, each.used + each.reserve));
      each.blocked = each.wanted_limit < each.limit;
    }
    for (auto place = queue_.begin(); place != queue_.end();) {
      model_ticket& ticket = **place;
      int at = ticket.node;
      while (at >= 0 && !of(at).blocked && fits(at, ticket.amount)) at = of(at).parent;
      if (at >= 0) {
        of(at).blocked = true;
        ++place;
      } else {
        add(ticket.node, ticket.amount);
        ticket.granted = true;
        place = queue_.erase(place);
      }
    }
  }

  std::vector<model_node> nodes_;
  std::list<model_ticket*> queue_;
};

struct pair_of_tickets {
  pair_of_tickets(memory_budget& budget, int node, std::uint64_t amount)
      : modelled{node, amount, false}, real(budget, {amount}) {}
  model_ticket modelled;
  budget_ticket real;
};

class ModelledTree {
 public:
  explicit ModelledTree(std::vector<model_node> nodes) : model_(nodes) {
    for (const model_node& node : nodes) {
      memory_budget* parent = node.parent < 0 ? nullptr : budgets_[static_cast<std::size_t>(node.parent)].get();
      const memory_budget::options options{.limit = {node.limit}, .reserve = {node.reserve}};
      budgets_.push_back(std::make_unique<memory_budget>(std::to_string(budgets_.size()), options, parent));
    }
  }
  ~ModelledTree() {
    while (!budgets_.empty()) budgets_.pop_back();  // children first
  }
  ModelledTree(const ModelledTree&) = delete;
  ModelledTree& operator=(const ModelledTree&) = delete;

  void run(tests::model_random& random, int steps) {
    for (int step = 0; step < steps && !testing::Test::HasFailure(); ++step) {
      one_step(random);
      compare();
    }
    tickets_.clear();
    for (const auto& [node, amount] : held_) budget(node).release({amount});
    for (const auto& each : budgets_) EXPECT_EQ(each->used(), 0_B);
    EXPECT_FALSE(budgets_.front()->has_waiters());
  }

 private:
  memory_budget& budget(int node) { return *budgets_[static_cast<std::size_t>(node)]; }

  void one_step(tests::model_random& random) {
    const int node = static_cast<int>(random.below(budgets_.size()));
    // Small amounts mostly; now and then one near a node's limit, or past it.
    const std::uint64_t amount =
        random.one_in(6)
            ? random.below(std::min<std::uint64_t>(model_.node(static_cast<std::size_t>(node)).limit, 300) + 10)
            : random.between(1, 30);
    switch (random.below(7)) {
      case 6:
        if (random.one_in(4)) change_limit(random, node);
        break;
      case 0:
      case 1: {
        const bool expected = model_.try_charge(node, amount);
        ASSERT_EQ(budget(node).try_charge({amount}), expected) << amount << " at " << node;
        if (expected) held_.push_back({node, amount});
        break;
      }
      case 2:
        give_back_one(random);
        break;
      case 3:
        begin_ticket(node, amount);
        break;
      case 4:
        if (!tickets_.empty()) end_ticket(random);
        break;
      default:  // a charge that waits for nothing
        ASSERT_EQ(static_cast<bool>(budget(node).charge({amount}, time_point{})), model_charge(node, amount));
    }
  }

  void change_limit(tests::model_random& random, int node) {
    const model_node& of = model_.node(static_cast<std::size_t>(node));
    const std::uint64_t wanted = random.one_in(10) ? unlimited.count : random.below(300);
    if (wanted < of.reserve) {
      ASSERT_EQ(budget(node).set_limit({wanted}).error(), error_from(EINVAL));
      return;
    }
    model_.set_limit(node, wanted);
    ASSERT_TRUE(budget(node).set_limit({wanted}));
  }

  bool model_charge(int node, std::uint64_t amount) {
    if (model_.try_charge(node, amount)) {
      held_.push_back({node, amount});
      return true;
    }
    if (model_.can_never_fit(node, amount)) return false;
    model_ticket brief{node, amount, false};
    model_.queue(brief);
    if (brief.granted) {
      held_.push_back({node, amount});
    } else {
      model_.cancel(brief);
    }
    return brief.granted;
  }

  void give_back_one(tests::model_random& random) {
    if (held_.empty()) return;
    const std::size_t which = random.below(held_.size());
    auto& [node, amount] = held_[which];
    const std::uint64_t part = random.one_in(2) ? amount : random.below(amount + 1);
    model_.release(node, part);
    budget(node).release({part});
    amount -= part;
    if (amount == 0) held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(which));
  }

  void begin_ticket(int node, std::uint64_t amount) {
    if (tickets_.size() > 12) return;
    auto& pair = tickets_.emplace_back(budget(node), node, amount);
    if (model_.try_charge(node, amount)) {
      pair.modelled.granted = true;
      ASSERT_TRUE(pair.real.begin());
    } else if (model_.can_never_fit(node, amount)) {
      ASSERT_EQ(pair.real.begin().error(), error_from(ENOMEM));
      tickets_.pop_back();
    } else {
      model_.queue(pair.modelled);
      ASSERT_TRUE(pair.real.begin());
    }
  }

  // Takes it if it was granted, or drops it, whatever it is.
  void end_ticket(tests::model_random& random) {
    auto pair = tickets_.begin();
    std::advance(pair, static_cast<std::ptrdiff_t>(random.below(tickets_.size())));
    if (pair->modelled.granted && random.one_in(2)) {
      ASSERT_TRUE(pair->real.granted());
      pair->real.take();
      held_.push_back({pair->modelled.node, pair->modelled.amount});
    } else {
      model_.cancel(pair->modelled);
    }
    tickets_.erase(pair);
  }

  void compare() {
    for (std::size_t i = 0; i < budgets_.size(); ++i) {
      const model_node& expected = model_.node(i);
      ASSERT_EQ(budgets_[i]->used(), bytes{expected.used}) << "budget " << i;
      ASSERT_EQ(budgets_[i]->peak(), bytes{expected.peak}) << "budget " << i;
      ASSERT_EQ(budgets_[i]->limit(), bytes{expected.limit}) << "budget " << i;
      ASSERT_EQ(budgets_[i]->wanted_limit(), bytes{expected.wanted_limit}) << "budget " << i;
      ASSERT_EQ(budgets_[i]->waits(), expected.waits) << "budget " << i;
      budgets_[i]->audit();
    }
    ASSERT_EQ(budgets_.front()->has_waiters(), model_.has_waiters());
    for (pair_of_tickets& pair : tickets_) {
      ASSERT_EQ(pair.real.granted(), pair.modelled.granted);
      ASSERT_EQ(pair.real.refused(), pair.modelled.refused);
    }
  }

  budget_model model_;
  std::vector<std::unique_ptr<memory_budget>> budgets_;
  std::list<pair_of_tickets> tickets_;
  std::vector<std::pair<int, std::uint64_t>> held_;
};

// KF-43, KF-44, KF-53: admission, order and hand-over are the model's at each step.
TEST(BudgetModelTest, TreeOfThreeLevelsMatchesItsModel) {
  tests::model_random random;
  for (int round = 0; round < 10; ++round) {
    ModelledTree tree({{.parent = -1, .limit = 200, .reserve = 20},
                       {.parent = 0, .limit = 100, .reserve = 10},
                       {.parent = 0, .limit = 300, .reserve = 0},
                       {.parent = 1, .limit = 60, .reserve = 0},
                       {.parent = 1, .limit = 90, .reserve = 5},
                       {.parent = 2, .limit = 80, .reserve = 0}});
    tree.run(random, 2'000);
  }
}

TEST(BudgetModelTest, SingleBudgetMatchesItsModel) {
  tests::model_random random;
  for (int round = 0; round < 10; ++round) {
    ModelledTree tree({{.parent = -1, .limit = 50, .reserve = 5}});
    tree.run(random, 2'000);
  }
}

TEST(BudgetModelTest, RandomTreesMatchTheirModels) {
  tests::model_random random;
  for (int round = 0; round < 50; ++round) {
    std::vector<model_node> nodes{{.parent = -1, .limit = random.between(50, 300), .reserve = 0}};
    const int count = static_cast<int>(random.between(1, 8));
    for (int i = 1; i < count; ++i) {
      const std::uint64_t limit = random.between(20, 300);
      const int parent = static_cast<int>(random.below(static_cast<std::uint64_t>(i)));
      nodes.push_back({.parent = parent, .limit = limit, .reserve = random.one_in(3) ? limit / 10 : 0});
    }
    ModelledTree tree(nodes);
    tree.run(random, 400);
  }
}

}  // namespace
}  // namespace larder
