// SPDX-License-Identifier: Apache-2.0
//
// The debug layer. Each object has a record, beside the object in its slab, that says what state it is in; only the
// moves below are allowed, and each is made where the object passes from one owner to the next:
//
//   unbuilt, destroyed → constructing → free ⇄ out            constructing → destroyed where the constructor fails
//                         free → destroying → destroyed        out → resetting → free in a put
//
// guards:    | 0xb5 … before | object | 0xa7 … after |         checked at get, put, audit and destruction
// contents:  unbuilt memory is 0xcd, destroyed memory 0xdd     checked before construction, and as the slab ends
//            a free object must stay as its put left it: it is constructed, so no pattern can be written into it.
//            Instead eight sums are kept, one of each eighth of it, which also tell where a change was.
//
// An object with a part that is not resident (a stack with its guard page) has neither: the page guards it, and sums
// would fault there.
#include "cache/debug_layer.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <new>

#include "base/check.h"

#if defined(__clang__)
#define LARDER_READS_FORBIDDEN __attribute__((noinline, no_sanitize("address", "thread")))
#else
#define LARDER_READS_FORBIDDEN __attribute__((noinline, no_sanitize("address"), no_sanitize("thread")))
#endif

namespace larder::cache {
namespace {

constexpr unsigned char guard_before = 0xb5;
constexpr unsigned char guard_after = 0xa7;
constexpr unsigned char fill_unbuilt = 0xcd;
constexpr unsigned char fill_destroyed = 0xdd;
// As long as the structures that are overrun by one.
constexpr std::size_t guard_length = 32;

const unsigned char* bytes_at(const void* start) { return static_cast<const unsigned char*>(start); }

// The first byte in [from, to) that is not the pattern; `to` if all are. Free memory is forbidden to everyone else.
LARDER_READS_FORBIDDEN std::ptrdiff_t first_other(const unsigned char* object, std::ptrdiff_t from, std::ptrdiff_t to,
                                                  unsigned char pattern) {
  while (from < to && object[from] == pattern) ++from;
  return from;
}
LARDER_READS_FORBIDDEN unsigned char byte_at(const unsigned char* object, std::ptrdiff_t at) { return object[at]; }

// Eight bytes of whatever type, wherever.
using any_word [[gnu::may_alias, gnu::aligned(1)]] = std::uint64_t;

LARDER_READS_FORBIDDEN std::uint32_t sum_of(const unsigned char* start, std::size_t length) {
  constexpr std::uint64_t odd = 0xff51afd7ed558ccd;
  std::uint64_t sum = length;
  for (; length >= 8; start += 8, length -= 8) {
    sum = (sum ^ *reinterpret_cast<const any_word*>(start)) * odd;
    sum ^= sum >> 29;
  }
  for (; length > 0; ++start, --length) sum = (sum ^ *start) * odd;
  return static_cast<std::uint32_t>(sum ^ sum >> 32);
}

// What the library itself reads is no error of the program.
class quiet {
 public:
  explicit quiet(bool on_valgrind) : on_valgrind_(on_valgrind) {
    if (on_valgrind_) valgrind::set_quiet(true);
  }
  ~quiet() {
    if (on_valgrind_) valgrind::set_quiet(false);
  }
  quiet(const quiet&) = delete;
  quiet& operator=(const quiet&) = delete;

 private:
  const bool on_valgrind_;
};

debug_checks without_resident_memory(debug_checks checks) {
  return static_cast<debug_checks>(static_cast<unsigned>(checks) & ~static_cast<unsigned>(debug_checks::guards) &
                                   ~static_cast<unsigned>(debug_checks::contents));
}

}  // namespace

slab_margins debug_layer::margins_for(debug_checks checks, const raw_cache::options& chosen) {
  if (checks == debug_checks::none) return {};
  slab_margins margins;
  if (has(checks, debug_checks::guards) && chosen.uncharged_per_object == bytes{} && chosen.scratch.length == 0) {
    margins.before = margins.after = guard_length;
  }
  margins.table_head = sizeof(debug_table);
  margins.table_entry = sizeof(debug_record) + (has(checks, debug_checks::audit) ? sizeof(debug_owners) : 0);
  return margins;
}

std::unique_ptr<debug_layer> debug_layer::make(debug_checks checks, const std::string& name,
                                               const slab_geometry& geometry, const raw_cache::options& chosen) {
  static_assert(sizeof(debug_record) % alignof(debug_owners) == 0 && sizeof(debug_table) % alignof(debug_owners) == 0);
  if (checks == debug_checks::none) return nullptr;
  return std::unique_ptr<debug_layer>(new debug_layer(checks, name, geometry, chosen));
}

debug_layer::debug_layer(debug_checks checks, const std::string& name, const slab_geometry& geometry,
                         const raw_cache::options& chosen)
    : checks_(chosen.uncharged_per_object == bytes{} && chosen.scratch.length == 0 ? checks
                                                                                   : without_resident_memory(checks)),
      name_(name),
      geometry_(geometry),
      resets_(chosen.reset != nullptr),
      on_valgrind_(chosen.uncharged_per_object == bytes{} && valgrind::running()) {
  if (on_valgrind_) valgrind::create_pool(this);
  const base::lock locked(debug_table::guard());
  debug_table::add(*this);
}

debug_layer::~debug_layer() {
  if (on_valgrind_) valgrind::destroy_pool(this);
  const base::lock locked(debug_table::guard());
  debug_table::remove(*this);
}

// -- messages

debug_record& debug_layer::record_of(const void* object) const {
  const auto address = reinterpret_cast<std::uintptr_t>(object);
  const auto& owner = *reinterpret_cast<const slab*>(address & ~(geometry_.shape.alignment - 1));
  return debug_table::of(owner, geometry_).record(geometry_, owner.index_of(object));
}

std::string debug_layer::who(const debug_record& record) const {
  if (!traces()) return {};
  const debug_owners& owners = debug_table::owners(record);
  return describe_trace("got", owners.got) + describe_trace("put", owners.put);
}

void debug_layer::die_of_no_object(const void* pointer) const {
  const char* name = name_.c_str();
  LARDER_CHECK(pointer != nullptr, "cache \"%s\": put of a null pointer", name);
  debug_table* found = debug_table::find(pointer);
  LARDER_CHECK(found != nullptr, "cache \"%s\": put of %p, which is in no slab of any cache that is checked", name,
               pointer);
  const slab_geometry& layout = found->layer.geometry_;
  const char* other = found->layer.name().c_str();
  const auto offset =
      static_cast<std::size_t>(static_cast<const char*>(pointer) - reinterpret_cast<const char*>(&found->owner));
  LARDER_CHECK(offset >= layout.first_offset - layout.margins.before,
               "cache \"%s\": put of %p, which points into the header of a slab of cache \"%s\"", name, pointer, other);
  LARDER_CHECK(offset < layout.first_offset + layout.capacity * layout.stride - layout.margins.before,
               "cache \"%s\": put of %p, which points past the objects of a slab of cache \"%s\"", name, pointer,
               other);
  const std::size_t from_first = offset + layout.margins.before - layout.first_offset;
  const void* object = found->owner.object(from_first / layout.stride);
  const std::ptrdiff_t within = static_cast<const char*>(pointer) - static_cast<const char*>(object);
  LARDER_CHECK(within >= 0, "cache \"%s\": put of %p, which is %td bytes before the object at %p of cache \"%s\"", name,
               pointer, -within, object, other);
  LARDER_CHECK(within == 0,
               "cache \"%s\": put of %p, which is %td bytes after the start of the object at %p of cache \"%s\"", name,
               pointer, within, object, other);
  const debug_record& record = found->record(layout, from_first / layout.stride);
  base::die(__FILE__, __LINE__, "cache \"%s\": put of %p, which is an object of cache \"%s\"%s", name, pointer, other,
            found->layer.who(record).c_str());
}

void debug_layer::die_of_state(const void* object, const debug_record& record, object_state seen) const {
  const char* problem = "";
  switch (seen) {
    case object_state::unbuilt:
      problem = "was never built";
      break;
    case object_state::constructing:
      problem = "is under its constructor";
      break;
    case object_state::free:
      problem = "is free already (put twice?)";
      break;
    case object_state::out:
      problem = "is with a user";
      break;
    case object_state::resetting:
      problem = "is being put already";
      break;
    case object_state::destroying:
      problem = "is under its destructor";
      break;
    case object_state::destroyed:
      problem = "is destroyed, or was never built because its constructor failed";
      break;
  }
  base::die(__FILE__, __LINE__, "cache \"%s\": put of %p, which %s%s", name_.c_str(), object, problem,
            who(record).c_str());
}

// A move that only the library makes: another state was written by somebody else, or is our own mistake.
void debug_layer::move(void* object, object_state from, object_state to) const {
  const object_state seen = record_of(object).state.exchange(to);
  LARDER_CHECK(seen == from, "cache \"%s\": the record of %p says %u where it must be %u", name_.c_str(), object,
               static_cast<unsigned>(seen), static_cast<unsigned>(from));
}

// -- guards and contents

void debug_layer::check_guard(const void* object, std::ptrdiff_t from, std::ptrdiff_t to, unsigned char pattern,
                              const char* kind, const char* when) const {
  const std::ptrdiff_t at = first_other(bytes_at(object), from, to, pattern);
  if (at == to) return;
  base::die(__FILE__, __LINE__, "cache \"%s\": object %p of %zu bytes: %s, found %s: byte %td is 0x%02x, not 0x%02x%s",
            name_.c_str(), object, geometry_.object_size, kind, when, at, byte_at(bytes_at(object), at), pattern,
            who(record_of(object)).c_str());
}

void debug_layer::check_guards(const void* object, const char* when) const {
  if (!has(checks_, debug_checks::guards)) return;
  const quiet reads(on_valgrind_);
  check_guard(object, -static_cast<std::ptrdiff_t>(guard_length), 0, guard_before, "underrun", when);
  check_guard(object, static_cast<std::ptrdiff_t>(geometry_.object_size),
              static_cast<std::ptrdiff_t>(geometry_.stride - guard_length), guard_after, "overrun", when);
}

void debug_layer::check_fill(const void* object, unsigned char pattern, const char* before_or_after,
                             const char* when) const {
  if (!has(checks_, debug_checks::contents)) return;
  const quiet reads(on_valgrind_);
  const auto size = static_cast<std::ptrdiff_t>(geometry_.object_size);
  const std::ptrdiff_t at = first_other(bytes_at(object), 0, size, pattern);
  if (at == size) return;
  base::die(__FILE__, __LINE__,
            "cache \"%s\": memory %p of %zu bytes: written %s, found %s: byte %td is 0x%02x, not 0x%02x%s",
            name_.c_str(), object, geometry_.object_size, before_or_after, when, at, byte_at(bytes_at(object), at),
            pattern, who(record_of(object)).c_str());
}

std::size_t debug_layer::piece_length() const {
  return round_up((geometry_.object_size + debug_record::pieces - 1) / debug_record::pieces, 8);
}

void debug_layer::sum_contents(const void* object, std::uint32_t* sums) const {
  const quiet reads(on_valgrind_);
  const std::size_t length = piece_length();
  for (std::size_t piece = 0, at = 0; piece < debug_record::pieces; ++piece, at += length) {
    const std::size_t left = geometry_.object_size - std::min(at, geometry_.object_size);
    sums[piece] = left == 0 ? 0 : sum_of(bytes_at(object) + at, std::min(left, length));
  }
}

void debug_layer::check_contents(const void* object, const char* when) const {
  if (!has(checks_, debug_checks::contents)) return;
  std::uint32_t now[debug_record::pieces];
  sum_contents(object, now);
  const debug_record& record = record_of(object);
  const auto* changed = std::mismatch(now, now + debug_record::pieces, record.sums).first;
  if (changed == now + debug_record::pieces) return;
  const std::size_t start = static_cast<std::size_t>(changed - now) * piece_length();
  const std::size_t last = std::min(start + piece_length(), geometry_.object_size) - 1;
  base::die(__FILE__, __LINE__,
            "cache \"%s\": object %p of %zu bytes: written while it was free, found %s: of bytes %zu to %zu%s",
            name_.c_str(), object, geometry_.object_size, when, start, last, who(record).c_str());
}

// -- a slab's life

void debug_layer::begin_slab(slab& made) {
  auto* table = ::new (&debug_table::of(made, geometry_)) debug_table(*this, made);
  for (std::size_t index = 0; index < geometry_.capacity; ++index) {
    debug_record* record = ::new (&table->record(geometry_, index)) debug_record;
    if (traces()) ::new (&debug_table::owners(*record)) debug_owners;
    auto* object = static_cast<unsigned char*>(made.object(index));
    if (has(checks_, debug_checks::guards)) {
      std::memset(object - guard_length, guard_before, guard_length);
      std::memset(object + geometry_.object_size, guard_after, geometry_.stride - guard_length - geometry_.object_size);
    }
    if (has(checks_, debug_checks::contents)) std::memset(object, fill_unbuilt, geometry_.object_size);
    if (on_valgrind_) valgrind::forbid(object, geometry_.stride - geometry_.margins.before);
    if (on_valgrind_) valgrind::forbid(object - geometry_.margins.before, geometry_.margins.before);
  }
  const base::lock locked(debug_table::guard());
  slabs_.push_front(*table);
  debug_table::insert(*table);
}

void debug_layer::end_slab(slab& ending) {
  debug_table& table = debug_table::of(ending, geometry_);
  for (std::size_t index = 0; index < geometry_.capacity; ++index) {
    const void* object = ending.object(index);
    const object_state now = table.record(geometry_, index).state.load();
    check_guards(object, "as its slab ended");
    if (now == object_state::unbuilt) check_fill(object, fill_unbuilt, "before its construction", "as its slab ended");
    if (now == object_state::destroyed) {
      check_fill(object, fill_destroyed, "after its destruction", "as its slab ended");
    }
  }
  if (on_valgrind_) valgrind::allow(&ending, geometry_.shape.length.count);
  const base::lock locked(debug_table::guard());
  debug_table::remove(table);
  base::intrusive_list<debug_table, layer_tag>::remove(table);
}

// -- an object's life

void debug_layer::before_construct(void* object) {
  if (on_valgrind_) valgrind::allow(object, geometry_.object_size);
  const object_state before = record_of(object).state.load();
  check_guards(object, "before its construction");
  if (before == object_state::destroyed) {
    check_fill(object, fill_destroyed, "after its destruction", "before its construction");
  } else {
    check_fill(object, fill_unbuilt, "before its construction", "then");
  }
  move(object, before == object_state::destroyed ? before : object_state::unbuilt, object_state::constructing);
}

void debug_layer::after_construct(void* object) {
  check_guards(object, "after its construction");
  if (has(checks_, debug_checks::contents)) sum_contents(object, record_of(object).sums);
  move(object, object_state::constructing, object_state::free);
  if (on_valgrind_) valgrind::forbid(object, geometry_.object_size);
}

void debug_layer::construct_failed(void* object) {
  check_guards(object, "after its construction");
  if (has(checks_, debug_checks::contents)) std::memset(object, fill_destroyed, geometry_.object_size);
  move(object, object_state::constructing, object_state::destroyed);
  if (on_valgrind_) valgrind::forbid(object, geometry_.object_size);
}

void debug_layer::before_destroy(void* object) {
  if (on_valgrind_) valgrind::allow(object, geometry_.object_size);
  check_guards(object, "before its destruction");
  check_contents(object, "before its destruction");
  move(object, object_state::free, object_state::destroying);
}

void debug_layer::after_destroy(void* object) {
  check_guards(object, "after its destruction");
  if (has(checks_, debug_checks::contents)) std::memset(object, fill_destroyed, geometry_.object_size);
  move(object, object_state::destroying, object_state::destroyed);
  if (on_valgrind_) valgrind::forbid(object, geometry_.object_size);
}

void debug_layer::hand_out(void* object) {
  if (on_valgrind_) valgrind::allocate(this, object, geometry_.object_size);
  check_guards(object, "at its get");
  check_contents(object, "at its get");
  if (!traces()) return move(object, object_state::free, object_state::out);
  const debug_trace getter = debug_trace::here();
  const base::lock locked(debug_table::guard());
  debug_table::owners(record_of(object)).got = getter;
  move(object, object_state::free, object_state::out);
}

void debug_layer::begin_take_back(void* object) {
  debug_trace putter;
  if (traces()) putter = debug_trace::here();
  {
    const base::lock locked(debug_table::guard());  // so that the slab stays while its table is read
    debug_table* found = debug_table::find(object, geometry_.shape.alignment);
    if (found == nullptr || &found->layer != this || found->owner.index_of(object) >= geometry_.capacity) {
      die_of_no_object(object);
    }
    debug_record& record = record_of(object);
    object_state seen = object_state::out;
    if (!record.state.compare_exchange_strong(seen, object_state::resetting)) die_of_state(object, record, seen);
    if (traces()) debug_table::owners(record).put = putter;
  }
  check_guards(object, "at its put");
}

void debug_layer::end_take_back(void* object) {
  if (resets_) check_guards(object, "after its reset");
  if (has(checks_, debug_checks::contents)) sum_contents(object, record_of(object).sums);
  move(object, object_state::resetting, object_state::free);
  if (on_valgrind_) valgrind::free(this, object);
}

// -- the whole

void debug_layer::audit_object(const void* object) const {
  check_guards(object, "in an audit");
  switch (record_of(object).state.load()) {
    case object_state::unbuilt:
      return check_fill(object, fill_unbuilt, "before its construction", "in an audit");
    case object_state::destroyed:
      return check_fill(object, fill_destroyed, "after its destruction", "in an audit");
    case object_state::free:
      return check_contents(object, "in an audit");
    default:
      return;
  }
}

void debug_layer::audit(std::size_t objects_out) const {
  std::size_t out = 0;
  const base::lock locked(debug_table::guard());
  for (debug_table* at = slabs_.front(); at != nullptr; at = slabs_.after(*at)) {
    for (std::size_t index = 0; index < geometry_.capacity; ++index) {
      audit_object(at->owner.object(index));
      if (at->record(geometry_, index).state.load() == object_state::out) ++out;
    }
  }
  LARDER_CHECK(out == objects_out, "cache \"%s\": %zu objects out counted, %zu recorded", name_.c_str(), objects_out,
               out);
}

void debug_layer::die_of_objects_out(std::size_t objects_out) const {
  const std::string owners = describe_leaks(find_leaks_of(this));
  base::die(__FILE__, __LINE__, "cache \"%s\" destroyed while %zu objects are out%s%s", name_.c_str(), objects_out,
            owners.empty() ? "" : "\n", owners.c_str());
}

}  // namespace larder::cache
