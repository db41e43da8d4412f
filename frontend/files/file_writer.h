// Files are written whole or not at all: to a temporary beside the target, flushed to the disk, then
// renamed over it. Whoever reads the target sees the old file or the new one, never a part. A link stays a link to
// what is replaced; what is no file (a device, a pipe) is written into.
#pragma once

#include "ir/support/result.h"

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace kiln {

class FileWriter {
public:
  static Result<FileWriter> create(const std::string &path);

  Status write(std::span<const std::byte> bytes);
  Status write(std::string_view text) { return write(std::as_bytes(std::span(text))); }
  // The target holds the bytes written once this returns without an error; without a commit the
  // temporary is removed and the target is as it was.
  Status commit();

  FileWriter(FileWriter &&other) noexcept;
  FileWriter &operator=(FileWriter &&) = delete;
  ~FileWriter();

private:
  FileWriter() = default;
  int fd_ = -1;
  std::string path_, temporary_;
};

// All of it at once.
Status write_file(const std::string &path, std::span<const std::byte> bytes);
Status write_file(const std::string &path, std::string_view text);

} // namespace kiln
