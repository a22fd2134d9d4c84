// SPDX-License-Identifier: Apache-2.0
//
// A file is replaced by making a new one beside it, writing that, and renaming it over the old one. The new one's name
// is the old one's with an ending that no other process uses at the time.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <utility>

#include "os/fault.h"
#include "os/file.h"

namespace larder::os {
namespace {

// A file that is removed again unless it was renamed.
class new_file {
 public:
  static result<new_file> beside(const std::string& path) {
    if (fault::fires(call::open)) return error_from(errno);
    const std::string start = path + ".new-" + std::to_string(::getpid());
    for (unsigned number = 0;; ++number) {
      std::string name = start + "-" + std::to_string(number);
      descriptor file(::open(name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
      if (file) return new_file(std::move(name), std::move(file));
      // A killed process with our number may have left some behind.
      if (errno != EEXIST || number == 100) return error_from(errno);
    }
  }
  new_file(new_file&& other) noexcept
      : name_(std::exchange(other.name_, std::string())), file_(std::move(other.file_)) {}
  new_file& operator=(new_file&&) = delete;
  ~new_file() {
    if (!name_.empty()) ::unlink(name_.c_str());
  }

  int number() const { return file_.number(); }
  result<void> rename_to(const std::string& path) {
    if (::rename(name_.c_str(), path.c_str()) != 0) return error_from(errno);
    name_.clear();
    return {};
  }

 private:
  new_file(std::string name, descriptor file) : name_(std::move(name)), file_(std::move(file)) {}
  std::string name_;
  descriptor file_;
};

// What is there, is to be kept, and takes writes.
bool is_written_to(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode);
}

bool is_directory(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

result<void> write_next(int file, std::string_view contents) {
  if (fault::fires(call::write)) return error_from(errno);
  while (!contents.empty()) {
    const ssize_t written = ::write(file, contents.data(), contents.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return error_from(errno);
    contents.remove_prefix(static_cast<std::size_t>(written));
  }
  return {};
}

}  // namespace

result<void> replace_file(const std::string& path, std::string_view contents) {
  if (is_directory(path)) return error_from(EISDIR);
  if (is_written_to(path)) {
    if (fault::fires(call::open)) return error_from(errno);
    const descriptor file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    if (!file) return error_from(errno);
    return write_next(file.number(), contents);
  }
  auto made = new_file::beside(path);
  if (!made) return made.error();
  if (const auto written = write_next(made->number(), contents); !written) return written;
  // Or a crash after the rename could leave an empty file in the old one's place.
  if (const auto synced = sync_data(made->number()); !synced) return synced;
  return made->rename_to(path);
}

result<void> check_replaceable(const std::string& path) {
  if (is_directory(path)) return error_from(EISDIR);
  if (is_written_to(path)) return {};
  auto made = new_file::beside(path);
  if (!made) return made.error();
  return {};
}

result<std::size_t> read_next(int file, std::span<char> into) {
  if (fault::fires(call::read)) return error_from(errno);
  for (;;) {
    const ssize_t got = ::read(file, into.data(), into.size());
    if (got >= 0) return static_cast<std::size_t>(got);
    if (errno != EINTR) return error_from(errno);
  }
}

}  // namespace larder::os
