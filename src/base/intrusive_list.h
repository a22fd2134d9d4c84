// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>

#include "base/check.h"

namespace larder::base {

// A base class that makes an object a possible member of one list; an object on two lists derives from two links with
// different tags. Linked ⇔ next_ != nullptr.
template <typename Tag = void>
class list_link {
 public:
  list_link() = default;
  list_link(const list_link&) = delete;
  list_link& operator=(const list_link&) = delete;

  bool linked() const { return next_ != nullptr; }

 private:
  template <typename T, typename OtherTag>
  friend class intrusive_list;

  void insert_between(list_link* previous, list_link* next) {
    LARDER_ASSERT(!linked(), "inserting an element that is on a list already");
    previous_ = previous;
    next_ = next;
    previous->next_ = this;
    next->previous_ = this;
  }
  void unlink() {
    LARDER_CHECK(linked(), "unlinking an element that is on no list");
    previous_->next_ = next_;
    next_->previous_ = previous_;
    next_ = previous_ = nullptr;
  }

  list_link* next_ = nullptr;
  list_link* previous_ = nullptr;
};

// A doubly linked circular list of objects that derive from list_link<Tag>. Owns nothing, allocates nothing; every
// operation but `size` is O(1). Whoever owns the list guards it and the links of its members.
template <typename T, typename Tag = void>
class intrusive_list {
  using link = list_link<Tag>;

 public:
  intrusive_list() { head_.next_ = head_.previous_ = &head_; }
  intrusive_list(const intrusive_list&) = delete;
  intrusive_list& operator=(const intrusive_list&) = delete;

  bool empty() const { return head_.next_ == &head_; }
  T* front() const { return element(head_.next_); }
  T* back() const { return element(head_.previous_); }
  // The neighbour of `item` towards the back or the front; null past the end.
  T* after(T& item) const { return element(as_link(item).next_); }
  T* before(T& item) const { return element(as_link(item).previous_); }

  void push_front(T& item) { as_link(item).insert_between(&head_, head_.next_); }
  void push_back(T& item) { as_link(item).insert_between(head_.previous_, &head_); }
  T* pop_front() {
    T* item = front();
    if (item != nullptr) remove(*item);
    return item;
  }
  static void remove(T& item) { as_link(item).unlink(); }

  std::size_t size() const {
    std::size_t count = 0;
    for (const link* at = head_.next_; at != &head_; at = at->next_) ++count;
    return count;
  }

 private:
  static link& as_link(T& item) { return static_cast<link&>(item); }
  T* element(link* at) const { return at == &head_ ? nullptr : static_cast<T*>(at); }

  link head_;
};

}  // namespace larder::base
