// SPDX-License-Identifier: Apache-2.0
//
// A backing of one's own: a disk striped over several files, and cached. The page cache asks for whole vectors at any
// offset, and calls from several threads and tasks at once; what a backing keeps beside its parts it must guard itself.
// This one keeps nothing.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <larder/backing.h>
#include <larder/page_cache.h>

namespace {

using larder::bytes;
using larder::result;

class striped final : public larder::backing {
 public:
  static constexpr std::uint64_t stripe = 64U << 10;  // of which a disk of n parts has n in a row, one on each

  // The parts outlive this, and are all as large as the first.
  explicit striped(std::vector<larder::backing*> parts) : parts_(std::move(parts)) {}

  bytes size() const override { return {parts_[0]->size().count / stripe * stripe * parts_.size()}; }

  result<void> read(std::span<const iovec> into, std::uint64_t offset) override {
    return for_pieces(into, offset, [](larder::backing& part, const iovec& piece, std::uint64_t at) {
      return part.read(std::span(&piece, 1), at);
    });
  }
  result<void> write(std::span<const iovec> from, std::uint64_t offset) override {
    return for_pieces(from, offset, [](larder::backing& part, const iovec& piece, std::uint64_t at) {
      return part.write(std::span(&piece, 1), at);
    });
  }
  result<void> discard(std::uint64_t offset, bytes length) override {
    return for_ranges(offset, length.count, [](larder::backing& part, std::uint64_t at, std::uint64_t some) {
      return part.discard(at, bytes{some});
    });
  }
  result<void> zero(std::uint64_t offset, bytes length) override {
    return for_ranges(offset, length.count, [](larder::backing& part, std::uint64_t at, std::uint64_t some) {
      return part.zero(at, bytes{some});
    });
  }
  // All of them are flushed, also after an error, which the caller is told of.
  result<void> flush() override {
    result<void> outcome;
    for (larder::backing* part : parts_) {
      const auto flushed = part->flush();
      if (!flushed) outcome = flushed;
    }
    return outcome;
  }

 private:
  // Calls `action(part, offset in it, length)` for what of a range lies in each stripe, until one fails.
  template <typename Action>
  result<void> for_ranges(std::uint64_t offset, std::uint64_t length, Action action) {
    while (length > 0) {
      const std::uint64_t row = offset / stripe / parts_.size();
      const std::uint64_t some = std::min(length, stripe - offset % stripe);
      const auto done = action(*parts_[offset / stripe % parts_.size()], row * stripe + offset % stripe, some);
      if (!done) return done;
      offset += some;
      length -= some;
    }
    return {};
  }

  template <typename Action>
  result<void> for_pieces(std::span<const iovec> vectors, std::uint64_t offset, Action action) {
    for (const iovec& vector : vectors) {
      auto* memory = static_cast<std::byte*>(vector.iov_base);
      const auto done =
          for_ranges(offset, vector.iov_len, [&](larder::backing& part, std::uint64_t at, std::uint64_t some) {
            const iovec piece{memory, some};
            memory += some;
            return action(part, piece, at);
          });
      if (!done) return done;
      offset += vector.iov_len;
    }
    return {};
  }

  const std::vector<larder::backing*> parts_;
};

std::unique_ptr<larder::file_backing> new_file(std::uint64_t size) {
  std::string path = "/tmp/larder-striped-XXXXXX";
  const int descriptor = mkstemp(path.data());
  if (descriptor < 0 || ftruncate(descriptor, static_cast<off_t>(size)) != 0) return nullptr;
  unlink(path.c_str());
  auto opened = larder::file_backing::adopt(descriptor, false);
  return opened ? *std::move(opened) : nullptr;
}

}  // namespace

int main() {
  using namespace larder::literals;
  std::array<std::unique_ptr<larder::file_backing>, 3> files;
  std::vector<larder::backing*> parts;
  for (auto& file : files) {
    file = new_file((1_MiB).count);
    if (file == nullptr) return std::perror("/tmp"), EXIT_FAILURE;
    parts.push_back(file.get());
  }
  striped disk(parts);

  larder::memory_budget budget{"example", {.limit = 1_MiB}};
  auto cache = *larder::page_cache::create("pages", {.budget = &budget});
  auto cached = *cache->open(disk);
  std::vector<std::uint64_t> numbers((disk.size().count / sizeof(std::uint64_t)));
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = i * i;
  if (!cached->write(0, std::as_bytes(std::span(numbers)))) return EXIT_FAILURE;
  if (!cached->discard(striped::stripe / 2, bytes{2 * striped::stripe})) return EXIT_FAILURE;
  std::memset(reinterpret_cast<std::byte*>(numbers.data()) + striped::stripe / 2, 0, 2 * striped::stripe);
  if (const auto flushed = cached->flush(); !flushed) {
    std::fprintf(stderr, "not all was written: %s\n", flushed.error().message().c_str());
    return EXIT_FAILURE;
  }
  std::vector<std::uint64_t> found(numbers.size());
  if (!cached->read(0, std::as_writable_bytes(std::span(found))) || found != numbers) return EXIT_FAILURE;

  // On the disk too, each stripe on its own file.
  std::vector<std::uint64_t> second(striped::stripe / sizeof(std::uint64_t));
  const iovec vector{second.data(), striped::stripe};
  if (!files[1]->read(std::span(&vector, 1), striped::stripe)) return EXIT_FAILURE;
  const std::size_t first_number = 4 * striped::stripe / sizeof(std::uint64_t);
  if (!std::equal(second.begin(), second.end(), numbers.begin() + static_cast<std::ptrdiff_t>(first_number))) {
    return EXIT_FAILURE;
  }
  std::printf("%llu KiB on 3 files, through a cache of %llu KiB at most\n",
              static_cast<unsigned long long>(disk.size() / 1_KiB),
              static_cast<unsigned long long>(budget.peak() / 1_KiB));
}
