// SPDX-License-Identifier: Apache-2.0
#include <larder/page_cache.h>

#include "page/cache_core.h"

namespace larder {

result<std::unique_ptr<page_cache>> page_cache::create(std::string_view name, options chosen) {
  auto core = page::cache_core::create(name, chosen);
  if (!core) return core.error();
  return std::unique_ptr<page_cache>(new page_cache(*std::move(core)));
}

page_cache::page_cache(std::unique_ptr<page::cache_core> core) : core_(std::move(core)) {}
page_cache::~page_cache() = default;

bytes page_cache::least_memory(options chosen) { return page::cache_core::least_memory(chosen); }

result<std::unique_ptr<cached_file>> page_cache::open(backing& source) {
  const auto opened = core_->open(source);
  if (!opened) return opened.error();
  return std::unique_ptr<cached_file>(new cached_file(**opened));
}

result<pin_admission> page_cache::admit(std::uint32_t min_pages, std::uint32_t max_pages, time_point deadline) {
  return core_->admit(min_pages, max_pages, deadline);
}

page_cache_stats page_cache::stats() const { return core_->stats(); }
void page_cache::audit() const { core_->audit(); }

}  // namespace larder
