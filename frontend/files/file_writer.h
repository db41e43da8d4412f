// Files from their first byte to their last, whole or not at all: the runtime's WholeFile (runtime/file.h) with the
// compiler's errors.
#pragma once

#include "ir/support/result.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace kiln {
namespace rt {
class WholeFile;
}

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
  FileWriter();
  std::unique_ptr<rt::WholeFile> file_;
  uint64_t written_ = 0;
};

// Whether `file` is what a process that was killed has left of writing `target`.
bool is_temporary_of(std::string_view file, std::string_view target);

// All of it at once.
Status write_file(const std::string &path, std::span<const std::byte> bytes);
Status write_file(const std::string &path, std::string_view text);

} // namespace kiln
