// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "base/check.h"

namespace larder::base {

// A base class that makes an object a possible member of one pairing_heap.
class heap_link {
 public:
  heap_link() = default;
  heap_link(const heap_link&) = delete;
  heap_link& operator=(const heap_link&) = delete;

 private:
  template <typename T, typename Less>
  friend class pairing_heap;

  heap_link* child_ = nullptr;    // the first of this node's children
  heap_link* sibling_ = nullptr;  // the next child of the same parent
  heap_link* before_ = nullptr;   // the sibling before, or the parent of a first child
};

// An intrusive priority queue (Fredman, Sedgewick, Sleator, Tarjan 1986): `push` and `top` are O(1), `remove` of any
// element is O(log n) amortised. Nothing is allocated, which a timer queue within a memory limit needs.
template <typename T, typename Less>
class pairing_heap {
 public:
  bool empty() const { return root_ == nullptr; }
  T* top() const { return static_cast<T*>(root_); }

  void push(T& item) {
    heap_link& link = item;
    link.child_ = link.sibling_ = link.before_ = nullptr;
    root_ = root_ == nullptr ? &link : merge(root_, &link);
  }

  void remove(T& item) {
    heap_link* link = &item;
    heap_link* orphans = merge_children(link->child_);
    link->child_ = nullptr;
    if (link == root_) {
      root_ = orphans;
      return;
    }
    cut(link);
    if (orphans != nullptr) root_ = merge(root_, orphans);
  }

  T* pop() {
    T* least = top();
    if (least != nullptr) remove(*least);
    return least;
  }

 private:
  // Makes the greater of two roots the first child of the lesser.
  static heap_link* merge(heap_link* a, heap_link* b) {
    if (Less{}(*static_cast<T*>(b), *static_cast<T*>(a))) {
      heap_link* swapped = a;
      a = b;
      b = swapped;
    }
    b->before_ = a;
    b->sibling_ = a->child_;
    if (a->child_ != nullptr) a->child_->before_ = b;
    a->child_ = b;
    a->sibling_ = a->before_ = nullptr;
    return a;
  }

  // Merges siblings in pairs from the left, then the pairs from the right: what gives the amortised bound.
  static heap_link* merge_children(heap_link* first) {
    heap_link* pairs = nullptr;  // a stack of merged pairs through `sibling_`
    while (first != nullptr) {
      heap_link* second = first->sibling_;
      heap_link* rest = second == nullptr ? nullptr : second->sibling_;
      first->sibling_ = first->before_ = nullptr;
      heap_link* pair = first;
      if (second != nullptr) {
        second->sibling_ = second->before_ = nullptr;
        pair = merge(first, second);
      }
      pair->sibling_ = pairs;
      pairs = pair;
      first = rest;
    }
    heap_link* root = nullptr;
    while (pairs != nullptr) {
      heap_link* next = pairs->sibling_;
      pairs->sibling_ = nullptr;
      root = root == nullptr ? pairs : merge(root, pairs);
      pairs = next;
    }
    return root;
  }

  static void cut(heap_link* link) {
    LARDER_ASSERT(link->before_ != nullptr, "removing an element that is not in the heap");
    if (link->before_->child_ == link) {
      link->before_->child_ = link->sibling_;
    } else {
      link->before_->sibling_ = link->sibling_;
    }
    if (link->sibling_ != nullptr) link->sibling_->before_ = link->before_;
    link->sibling_ = link->before_ = nullptr;
  }

  heap_link* root_ = nullptr;
};

}  // namespace larder::base
