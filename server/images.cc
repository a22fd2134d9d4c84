// SPDX-License-Identifier: Apache-2.0
#include "server/images.h"

#include <cstdlib>

#include <fmt/format.h>

#include "os/file.h"

namespace larder::server {
namespace {

constexpr std::uint64_t sector_size = 512;

std::string advice_for(std::error_code error, const serve_options::image& image) {
  switch (error.value()) {
    case ENOENT:
      return fmt::format("there is no such file; make one with: truncate -s 1G {}", image.path);
    case EISDIR:
      return "is a directory; name a disk image or a block device";
    case EINVAL:
      return "is neither a file nor a block device; name a disk image";
    case EACCES:
    case EPERM:
    case EROFS:
      return image.read_only ? "may not be read; change its permissions, or run as who may"
                             : fmt::format(
                                   "may not be read and written; change its permissions, or export it read-only: "
                                   "--export {}={},ro",
                                   image.name, image.path);
    default:
      return fmt::format("cannot be opened: {}", error.message());
  }
}

disk open_image(const serve_options::image& image) {
  auto opened = file_backing::open(image.path, image.read_only);
  if (!opened) throw bad_start(fmt::format("{}: {}", image.path, advice_for(opened.error(), image)));
  const std::uint64_t size = (*opened)->size().count;
  if (size == 0) {
    throw bad_start(fmt::format("{}: is empty; give it a size with: truncate -s 1G {}", image.path, image.path));
  }
  if (size % sector_size != 0) {
    throw bad_start(
        fmt::format("{}: has {} bytes, which is no whole number of {}-byte sectors; if it was not cut short, "
                    "fill it up with: truncate -s {} {}",
                    image.path, size, sector_size, round_up(size, sector_size), image.path));
  }
  return {image.name, std::move(*opened), image.read_only};
}

}  // namespace

std::vector<disk> open_images(const std::vector<serve_options::image>& images) {
  std::vector<disk> disks;
  disks.reserve(images.size());
  for (const auto& image : images) disks.push_back(open_image(image));
  return disks;
}

disk make_demonstration_disk() {
  const char* chosen = std::getenv("TMPDIR");
  const std::string directory = chosen != nullptr && *chosen != '\0' ? chosen : "/var/tmp";
  auto file = os::open_nameless_file(directory, demonstration_size);
  if (!file) {
    throw bad_start(
        fmt::format("no demonstration disk can be made in {}: {}; set TMPDIR, or name an image: larder serve "
                    "disk.img",
                    directory, file.error().message()));
  }
  auto source = file_backing::adopt(file->release(), false);
  if (!source) throw bad_start(fmt::format("no demonstration disk in {}: {}", directory, source.error().message()));
  return {demonstration_name, std::move(*source), false};
}

}  // namespace larder::server
