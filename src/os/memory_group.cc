// SPDX-License-Identifier: Apache-2.0
//
// /proc/self/cgroup names the process's group of each hierarchy, `number:controllers:path`; version 2 has one, of
// number 0 and without controllers. /proc/self/mountinfo says where hierarchies are to be seen: `... root mount-point
// ... - type source options`, with the group that stands at the mount point as root. A group outside of what is mounted
// there (another namespace's) has no path that we could read: then the mount point's own files are all there is.
#include "os/memory_group.h"

#include <charconv>
#include <cstring>
#include <span>
#include <utility>

#include "base/check.h"

namespace larder::os {
namespace {

constexpr std::chrono::microseconds pressure_window = std::chrono::seconds(2);  // the least that anyone may ask for

// Empty where there is no such file; nothing where it cannot be read.
std::optional<std::string> contents_of(const std::string& path) {
  std::string text;
  const auto file = open_file(path, access::read_only);
  if (!file && file.error() == std::errc::no_such_file_or_directory) return text;
  if (!file) return std::nullopt;
  std::array<char, 4096> buffer;
  for (;;) {
    const auto got = read_next(file->number(), buffer);
    if (!got) return std::nullopt;
    if (*got == 0) return text;
    text.append(buffer.data(), *got);
  }
}

std::string_view take_until(std::string_view& rest, char end) {
  const std::size_t length = std::min(rest.find(end), rest.size());
  const std::string_view taken = rest.substr(0, length);
  rest.remove_prefix(std::min(length + 1, rest.size()));
  return taken;
}

bool lists(std::string_view names, std::string_view wanted) {
  while (!names.empty()) {
    if (take_until(names, ',') == wanted) return true;
  }
  return false;
}

// mountinfo writes space, tab, newline and backslash as a backslash and three octal digits.
std::string unescaped(std::string_view text) {
  std::string plain;
  while (!text.empty()) {
    unsigned char code = 0;
    const bool escaped = text.size() >= 4 && text[0] == '\\' &&
                         std::from_chars(text.data() + 1, text.data() + 4, code, 8).ptr == text.data() + 4;
    plain += escaped ? static_cast<char>(code) : text[0];
    text.remove_prefix(escaped ? 4 : 1);
  }
  return plain;
}

}  // namespace

memory_group::memory_group(const group_files& from)
    : memory_group(contents_of(from.groups), contents_of(from.mounts), from.pressure) {}

memory_group::memory_group(const std::optional<std::string>& groups, const std::optional<std::string>& mounts,
                           const std::string& pressure)
    : memory_group(std::string_view(groups ? *groups : ""), std::string_view(mounts ? *mounts : ""), pressure) {
  complete_ = groups.has_value() && mounts.has_value();
}

memory_group::memory_group(std::string_view groups, std::string_view mounts, std::string pressure)
    : pressure_file_(std::move(pressure)) {
  std::string first_version_path;
  std::string second_version_path;
  for (std::string_view rest = groups; !rest.empty();) {
    std::string_view line = take_until(rest, '\n');
    const std::string_view number = take_until(line, ':');
    const std::string_view controllers = take_until(line, ':');
    if (lists(controllers, "memory")) first_version_path = line;
    if (number == "0" && controllers.empty()) second_version_path = line;
  }
  for (std::string_view rest = mounts; !rest.empty();) {
    std::string_view line = take_until(rest, '\n');
    for (int skipped = 0; skipped < 3; ++skipped) take_until(line, ' ');
    const std::string root = unescaped(take_until(line, ' '));
    const std::string mount_point = unescaped(take_until(line, ' '));
    while (!line.empty() && take_until(line, ' ') != "-") {
    }
    const std::string_view type = take_until(line, ' ');
    take_until(line, ' ');
    if (type == "cgroup" && lists(line, "memory") && !first_version_path.empty()) {
      add_group(mount_point, root, first_version_path, true);
    }
    if (type == "cgroup2" && !second_version_path.empty()) add_group(mount_point, root, second_version_path, false);
  }
}

void memory_group::add_group(const std::string& mount_point, std::string_view mount_root, std::string_view path,
                             bool first_version) {
  if (mount_root == "/") mount_root = {};
  path = path.starts_with(mount_root) ? path.substr(mount_root.size()) : std::string_view();
  const bool is_below = path.empty() || (path.front() == '/' && path.find("/..") == std::string_view::npos);
  std::string group(is_below ? path : std::string_view());
  while (group.ends_with('/')) group.pop_back();
  if (!first_version) {
    const std::string own = mount_point + group + "/memory.pressure";
    if (open_file(own, access::read_only)) pressure_file_ = own;
  }
  for (;;) {
    limit_files_.push_back(mount_point + group + (first_version ? "/memory.limit_in_bytes" : "/memory.max"));
    if (group.empty()) return;
    group.resize(group.rfind('/'));
  }
}

std::optional<bytes> memory_group::limit() const {
  bytes lowest = unlimited;
  for (const std::string& file : limit_files_) {
    const auto contents = contents_of(file);
    if (!contents) return std::nullopt;
    const std::string& text = *contents;
    std::uint64_t value = 0;  // "max" is none, as is what version 1 shows for none: the largest number of whole pages
    if (std::from_chars(text.data(), text.data() + text.size(), value).ec == std::errc()) {
      lowest = std::min(lowest, bytes{value});
    }
  }
  constexpr bytes none{std::uint64_t{1} << 62};
  return lowest < none ? lowest : unlimited;
}

result<descriptor> memory_group::watch_pressure(std::chrono::microseconds stall) const {
  auto file = open_file(pressure_file_, access::read_write);
  if (!file) return file.error();
  std::string trigger = "some " + std::to_string(stall.count()) + " " + std::to_string(pressure_window.count());
  const iovec whole{trigger.data(), trigger.size() + 1};
  if (const auto written = write_at(file->number(), std::span(&whole, 1), 0); !written) return written.error();
  return file;
}

}  // namespace larder::os
