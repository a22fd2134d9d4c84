// SPDX-License-Identifier: Apache-2.0
#include <new>
#include <utility>

#include <larder/raw_cache.h>

#include "cache/cache_state.h"

namespace larder {

namespace {

[[noreturn]] void throw_error(std::error_code error, const std::string& name) {
  if (error == std::errc::not_enough_memory) throw std::bad_alloc();
  throw std::system_error(error, "object cache \"" + name + "\"");
}

}  // namespace

raw_cache::raw_cache() = default;

raw_cache::raw_cache(std::string_view name, const options& chosen) {
  result<std::unique_ptr<state>> made = state::create(name, chosen, front_);
  if (!made) throw_error(made.error(), std::string(name));
  state_ = *std::move(made);
}

result<std::unique_ptr<raw_cache>> raw_cache::create(std::string_view name, const options& chosen) {
  std::unique_ptr<raw_cache> face(new raw_cache);
  result<std::unique_ptr<state>> made = state::create(name, chosen, face->front_);
  if (!made) return made.error();
  face->state_ = *std::move(made);
  return face;
}

raw_cache::~raw_cache() = default;

result<void*> raw_cache::get_below(time_point deadline) {
  if (void* object = state_->cpus.pop()) return state_->hand_out(object);
  return state_->get_below_array(deadline);
}

void* raw_cache::try_get_below() {
  if (void* object = state_->cpus.pop()) return state_->hand_out(object);
  return state_->try_get_below_array();
}

void raw_cache::put_below(void* object) {
  state_->take_back(object);
  if (state_->cpus.push(object)) return;
  state_->put_below_array(object);
  if (state_->somebody_waits()) [[unlikely]]
    state_->serve_queue();
}

std::size_t raw_cache::get_many(void** objects, std::size_t count) {
  std::size_t got = 0;
  while (got < count) {
    const std::size_t more = state_->cpus.pop_many(objects + got, count - got);
    for (std::size_t i = 0; i < more; ++i) state_->hand_out(objects[got + i]);
    got += more;
    if (got == count) break;
    // Refills the array too, from where the next ones come.
    void* object = state_->try_get_below_array();
    if (object == nullptr) break;
    objects[got++] = object;
  }
  return got;
}

void raw_cache::put_many(void* const* objects, std::size_t count) {
  for (std::size_t i = 0; i < count; ++i) state_->take_back(objects[i]);
  for (std::size_t done = 0; done < count;) {
    done += state_->cpus.push_many(objects + done, count - done);
    if (done < count) state_->put_below_array(objects[done++]);
  }
  if (state_->somebody_waits()) [[unlikely]]
    state_->serve_queue();
}

bytes raw_cache::trim(bytes wanted) { return state_->trim(wanted, true); }
bytes raw_cache::measure_scratch() { return state_->measure_scratch(); }
raw_cache::statistics raw_cache::stats() const { return state_->figures(); }
void raw_cache::audit() const { state_->audit(); }
raw_cache::mode raw_cache::active_mode() const { return cache::cpu_cache::active_mode(); }
const std::string& raw_cache::name() const { return state_->name; }
std::size_t raw_cache::limit() const { return state_->chosen.limit; }
std::size_t raw_cache::reservation() const {
  const base::lock locked(state_->slabs_guard);
  return state_->reservation;
}
result<void> raw_cache::set_reservation(std::size_t count) { return state_->set_reservation(count); }
memory_budget& raw_cache::budget() const { return state_->budget; }

}  // namespace larder
