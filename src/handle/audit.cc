// SPDX-License-Identifier: Apache-2.0
//
// The laws of a table (table_state.cc), checked one by one (KF-29).
#include <vector>

#include "base/check.h"
#include "handle/table_state.h"

namespace larder {

using namespace handle_layer;

// Checks an entry that is on a list, and that it is on no other.
void raw_handle_table::state::audit_free(std::uint32_t index, std::vector<bool>& seen) const {
  LARDER_CHECK(index < limit && entries.is_there(index / entries_per_frame),
               "handle table \"%s\": entry %u is free, but does not exist", name.c_str(), index);
  const std::uint64_t word = entries.at(index).word.load();
  LARDER_CHECK(!seen[index], "handle table \"%s\": entry %u is on two lists, or twice on one", name.c_str(), index);
  LARDER_CHECK(format.index(~tag_of(word)) == index, "handle table \"%s\": entry %u is free, but its tag is %#x",
               name.c_str(), index, tag_of(word));
  seen[index] = true;
}

std::uint64_t raw_handle_table::state::audit_chain(chain from, std::vector<bool>& seen) const {
  std::uint64_t length = 0;
  for (link at = from.first; at != no_link; at = free.next_of(at)) {
    audit_free(index_of(at), seen);
    ++length;
  }
  LARDER_CHECK(length == from.size, "handle table \"%s\": a chain of %llu is %llu long", name.c_str(),
               static_cast<unsigned long long>(from.size), static_cast<unsigned long long>(length));
  return length;
}

// Looks at one entry that is on no list: 1 if it is used, or erased and still pinned.
std::uint64_t raw_handle_table::state::audit_taken(std::uint32_t index) const {
  const std::uint64_t word = entries.at(index).word.load();
  const std::uint32_t tag = tag_of(word);
  LARDER_CHECK(format.is_used(index, tag) || (format.index(~tag) == index && pins_of(word) > 0),
               "handle table \"%s\": entry %u is lost: on no list, and its tag is %#x", name.c_str(), index, tag);
  LARDER_CHECK(entries.at(index).object.load() != 0, "handle table \"%s\": entry %u is used, but empty", name.c_str(),
               index);
  LARDER_CHECK(owner_of(word) < free.count(), "handle table \"%s\": entry %u belongs to list %u of %u", name.c_str(),
               index, owner_of(word), free.count());
  return 1;
}

void raw_handle_table::state::audit() const {
  const base::lock locked(guard);
  // Up to the last frame that is there: the most that there may be are many.
  std::uint32_t frames_end = entries.frames_max();
  while (frames_end > frames_reserved && !entries.is_there(frames_end - 1)) --frames_end;
  std::vector<bool> seen(std::size_t{frames_end} * entries_per_frame);
  std::uint64_t unused = audit_chain(spare, seen);
  LARDER_CHECK(spare_size.value() == spare.size, "handle table \"%s\": %llu entries spare, %llu counted", name.c_str(),
               static_cast<unsigned long long>(spare.size), static_cast<unsigned long long>(spare_size.value()));
  for (std::uint32_t number = 0; number < free.count(); ++number) {
    const cpu_list& list = free.at(number);
    const gate open = free.gate_of(number);
    LARDER_CHECK((open == gate::shared || (open == gate::biased && sequences)) && list.closed.load() == 0,
                 "handle table \"%s\": the gate of list %u was left at %u", name.c_str(), number,
                 static_cast<unsigned>(open));
    const std::uint64_t sent = list.inbox_head.load();
    const std::uint64_t end = list.inbox_tail.load();
    LARDER_CHECK(end - sent <= 2 * free.batch(), "handle table \"%s\": %llu places of list %u's inbox are taken",
                 name.c_str(), static_cast<unsigned long long>(end - sent), number);
    for (std::uint64_t position = sent; position < end; ++position) {
      const std::uint32_t content = list.inbox[position & (2 * free.batch() - 1)].load();
      LARDER_CHECK(content != 0, "handle table \"%s\": a place of list %u's inbox is taken, but empty", name.c_str(),
                   number);
      if (content == free_lists::was_taken) continue;
      audit_free(index_of(content), seen);
      ++unused;
    }
    const std::uint64_t head = list.head.load();
    const std::uint64_t length = list.tail.load() - head;
    LARDER_CHECK(length <= 2 * free.batch(), "handle table \"%s\": list %u holds %llu entries", name.c_str(), number,
                 static_cast<unsigned long long>(length));
    for (std::uint64_t position = head; position < head + length; ++position) {
      audit_free(free.ring_entry(number, position), seen);
    }
    unused += length;
  }
  std::uint64_t taken = 0;
  std::uint32_t frames = 0;
  for (std::uint32_t number = 0; number < frames_end; ++number) {
    if (!entries.is_there(number)) {
      LARDER_CHECK(number >= frames_reserved, "handle table \"%s\": frame %u of the reservation is missing",
                   name.c_str(), number);
      continue;
    }
    ++frames;
    const std::uint32_t first = number * entries_per_frame;
    for (std::uint32_t index = first; index < first + entries.entries_of(number); ++index) {
      if (!seen[index]) taken += audit_taken(index);
    }
  }
  LARDER_CHECK(frames == entries.frames_there() && taken + unused == entries.entries(),
               "handle table \"%s\": %llu used and %llu free of %zu entries in %u of %u frames", name.c_str(),
               static_cast<unsigned long long>(taken), static_cast<unsigned long long>(unused), entries.entries(),
               frames, entries.frames_there());
  const std::uint64_t inserts = free.takes() + direct_inserts.value() - moved.value();
  LARDER_CHECK(used() == taken && inserts >= taken,
               "handle table \"%s\": %zu entries counted, %llu inserted, %llu used", name.c_str(), used(),
               static_cast<unsigned long long>(inserts), static_cast<unsigned long long>(taken));
  LARDER_CHECK(waiters == nullptr, "handle table \"%s\": somebody waits for an unpin", name.c_str());
}

}  // namespace larder
