// Read-only files in memory. Model files and tensors are mapped, not read, so that weights cost no
// memory until somebody looks at them; a constant is a view into the mapping, which the module keeps
// alive (Module::keep_alive). Only regular files are mapped: a pipe or a device never blocks us.
//
// A file that another process shortens while it is mapped raises SIGBUS on access, as for every
// program that maps files; writers that replace files whole (file_writer.h) never do that.
#pragma once

#include "ir/support/result.h"

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace kiln {

class MappedFile {
public:
  static Result<std::shared_ptr<const MappedFile>> open(const std::string &path);
  // A file below `folder`, named by a relative path without "..", none of whose parts is a symbolic
  // link: what a model file may name as its external data.
  static Result<std::shared_ptr<const MappedFile>> open_beneath(const std::string &folder,
                                                                std::string_view relative);

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  size_t size() const { return size_; }
  const std::string &path() const { return path_; }

  MappedFile(const MappedFile &) = delete;
  MappedFile &operator=(const MappedFile &) = delete;
  ~MappedFile();

private:
  MappedFile() = default;
  static Result<std::shared_ptr<const MappedFile>> map(int fd, std::string path);

  const std::byte *data_ = nullptr;
  size_t size_ = 0;
  std::string path_;
};

} // namespace kiln
