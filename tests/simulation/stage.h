// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <larder/memory_budget.h>
#include <larder/page_cache.h>

#include "tests/simulation/contents_model.h"
#include "tests/simulation/story.h"
#include "tests/simulation/virtual_disk.h"
#include "tests/simulation/world.h"

namespace larder::simulation {

// A file with its disk and with what it may hold.
struct staged_file {
  staged_file(world& whole, const disk_settings& chosen, std::uint64_t file_number)
      : disk(whole, chosen), model(file_number, chosen.size) {}

  virtual_disk disk;
  contents_model model;
  page_cache* cache = nullptr;
  std::unique_ptr<cached_file> file;
};

// What a story is played on: the world, a budget, caches and files, and operations that check themselves.
class stage {
 public:
  explicit stage(const story_settings& chosen);

  // For the first actor: makes everything; and ends it, checking all that is left.
  void build();
  void take_down();
  // Starts actors and waits for their end, from an actor.
  void play(std::vector<std::pair<std::string, std::function<void()>>> parts);
  // Nobody does anything: every audit.
  void audit();
  // Every file is flushed to a disk that works, and is there what it should be.
  void flush_and_compare();

  // Operations on files; ranges in units. With an admission they use that.
  void read(staged_file& at, std::uint64_t first, std::uint64_t count, pin_admission* admission = nullptr);
  void write(staged_file& at, std::uint64_t first, std::uint64_t count, pin_admission* admission = nullptr);
  void zero(staged_file& at, std::uint64_t first, std::uint64_t count, bool keep_blocks);
  // A read that waits for nothing, of what is in one page.
  void try_read(staged_file& at, std::uint64_t first, std::uint64_t count);
  void load(staged_file& at, std::uint64_t first, std::uint64_t count);
  void flush(staged_file& at);
  void flush_range(staged_file& at, std::uint64_t first, std::uint64_t count);
  // What a pinned page holds now, and a change to it.
  void check_page(staged_file& at, std::uint64_t page, page_ref& pinned);
  bool change_page(staged_file& at, std::uint64_t page, page_ref& pinned);
  // An admission of so many pages; empty if it was refused as it may be.
  pin_admission admit(page_cache& cache, std::uint32_t least, std::uint32_t most, time_point deadline);
  // What a power cut would leave now must be what the flushes allow.
  void cut_power(bool worst);
  // An error of an operation on a file must have a reason.
  void expect_reason(const std::error_code& error, const staged_file& at, std::uint64_t failures_before,
                     const char* what);

  // Between two operations.
  void pause();
  // A time to hold something.
  void hold();
  random_source& random() { return world_->random(); }

  const story_settings settings;
  world& whole() { return *world_; }
  memory_budget& budget() { return *budget_; }
  std::vector<std::unique_ptr<page_cache>>& caches() { return caches_; }
  std::vector<std::unique_ptr<staged_file>>& files() { return files_; }
  std::uint64_t extra_bytes() const { return settings.extra_pages * settings.page_length; }
  std::uint64_t units_in_page() const { return settings.page_length / unit_size; }
  bytes highest_limit() const { return highest_limit_; }
  outcome result_of();

  // Runs the whole: `director` is the first actor. What failed is never destroyed.
  static outcome perform(const story_settings& chosen, const std::function<void(stage&)>& director);

 private:
  void run_page_daemon();
  std::uint64_t next_stamp() { return ++stamps_; }

  std::unique_ptr<world> world_;
  bytes highest_limit_;
  std::unique_ptr<memory_budget> budget_;
  std::vector<std::unique_ptr<page_cache>> caches_;
  std::vector<std::unique_ptr<staged_file>> files_;
  std::uint64_t stamps_ = 0;
  bool daemon_may_end_ = false;
  outcome result_;
};

// Says what the running actor does, for reports, while it exists.
class doing {
 public:
  explicit doing(const char* what) : who_(*world::actor_of_now()), before_(std::exchange(who_.doing, what)) {}
  ~doing() {
    who_.doing = before_;
    world::of_now()->note_progress();
  }
  doing(const doing&) = delete;
  doing& operator=(const doing&) = delete;

 private:
  actor& who_;
  const char* const before_;
};

}  // namespace larder::simulation
