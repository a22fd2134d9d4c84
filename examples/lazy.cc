// SPDX-License-Identifier: Apache-2.0
#include <cstdio>

#include <larder/lazy.h>
#include <larder/memory_budget.h>

struct tree {
  int value;
  const tree* left = nullptr;
  const tree* right = nullptr;
};

// Each call is a frame from a cache, and a jump there and back.
larder::lazy<int> sum(const tree* node) {
  if (node == nullptr) co_return 0;
  co_return node->value + co_await sum(node->left) + co_await sum(node->right);
}

larder::lazy<int> sum_many_times(const tree& root, int times) {
  int total = 0;
  for (int i = 0; i < times; ++i) total += co_await sum(&root);
  co_return total;
}

int main() {
  const tree leaves[] = {{1}, {2}, {3}};
  const tree inner{4, &leaves[0], &leaves[1]};
  const tree root{5, &inner, &leaves[2]};
  const int total = larder::sync_wait(sum_many_times(root, 100'000));
  const larder::memory_resource::statistics frames = larder::pooled_frame::frames().stats();
  std::printf("total %d; %llu frames were taken and given back, %llu are out; memory: %llu KiB\n", total,
              static_cast<unsigned long long>(frames.gets), static_cast<unsigned long long>(frames.objects_out),
              static_cast<unsigned long long>(frames.charged.count >> 10));
  return total == 1'500'000 && frames.objects_out == 0 ? 0 : 1;
}
