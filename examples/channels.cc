// SPDX-License-Identifier: Apache-2.0
#include <cstdio>
#include <optional>

#include <larder/channel.h>
#include <larder/runtime.h>
#include <larder/select.h>

// Tasks add up what the main thread sends, and say how far they are whenever they are asked.
int main() {
  auto workers = larder::runtime::create("workers", {.workers = 2});
  if (!workers) {
    std::fprintf(stderr, "no runtime: %s\n", workers.error().message().c_str());
    return 1;
  }
  constexpr int tasks = 4;
  constexpr int numbers_most = 100'000;
  larder::channel<long> numbers{16};
  larder::channel<long> sums{0};
  larder::channel<long> progress{0};
  for (int i = 0; i < tasks; ++i) {
    (*workers)->spawn_detached([&] {
      long sum = 0;
      bool more = true;
      const auto add = [&](std::optional<long> number) {
        sum += number.value_or(0);
        more = number.has_value();
      };
      while (more) {
        larder::select(larder::no_deadline, larder::on_receive(numbers, add),
                       larder::on_send(progress, sum, [](bool) {}));
      }
      sums.send(sum);
    });
  }
  for (long number = 1; number <= numbers_most; ++number) {
    numbers.send(number);  // sleeps while the channel is full
    if (number % 25'000 == 0) std::printf("one of the tasks has reached %ld\n", progress.receive().value_or(0));
  }
  numbers.close();
  long total = 0;
  for (int i = 0; i < tasks; ++i) total += sums.receive().value_or(0);
  std::printf("the sum of 1 to %d is %ld\n", numbers_most, total);
  return total == numbers_most * (numbers_most + 1L) / 2 ? 0 : 1;
}
