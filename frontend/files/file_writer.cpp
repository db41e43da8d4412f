#include "frontend/files/file_writer.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>

namespace kiln {
namespace {

Error failed(const std::string &path) {
  return Error{fmt::format("cannot write {}: {}", path, std::strerror(errno))};
}

std::string folder_of(const std::string &path) {
  size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

} // namespace

Result<FileWriter> FileWriter::create(const std::string &path) {
  FileWriter out;
  out.path_ = path;
  struct stat info {};
  bool exists = ::stat(path.c_str(), &info) == 0;
  if (exists && S_ISDIR(info.st_mode)) {
    errno = EISDIR;
    return failed(path);
  }
  if (exists && !S_ISREG(info.st_mode)) {
    out.fd_ = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
    return out.fd_ < 0 ? Result<FileWriter>(failed(path)) : Result<FileWriter>(std::move(out));
  }
  if (char *real = exists ? ::realpath(path.c_str(), nullptr) : nullptr) {
    out.path_ = real;
    std::free(real);
  }
  std::string name = out.path_ + ".XXXXXX";
  out.fd_ = ::mkostemp(name.data(), O_CLOEXEC);
  if (out.fd_ < 0)
    return failed(path);
  out.temporary_ = name;
  // mkostemp makes files that only their owner reads; give the target what open() would have.
  mode_t mask = ::umask(0);
  ::umask(mask);
  if (::fchmod(out.fd_, 0666 & ~mask) != 0)
    return failed(path);
  return out;
}

FileWriter::FileWriter(FileWriter &&other) noexcept
    : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)) {
  other.temporary_.clear();
}

FileWriter::~FileWriter() {
  if (fd_ >= 0)
    ::close(fd_);
  if (!temporary_.empty())
    ::unlink(temporary_.c_str());
}

Status FileWriter::write(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    ssize_t n = ::write(fd_, bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return failed(path_);
    bytes = bytes.subspan(size_t(n));
  }
  return Unit{};
}

Status FileWriter::commit() {
  bool in_place = temporary_.empty();
  if (!in_place && ::fsync(fd_) != 0)
    return failed(path_);
  if (::close(std::exchange(fd_, -1)) != 0)
    return failed(path_);
  if (in_place)
    return Unit{};
  if (::rename(temporary_.c_str(), path_.c_str()) != 0)
    return failed(path_);
  temporary_.clear();
  // The rename itself reaches the disk with its folder.
  int folder = ::open(folder_of(path_).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    ::fsync(folder);
    ::close(folder);
  }
  return Unit{};
}

Status write_file(const std::string &path, std::span<const std::byte> bytes) {
  KILN_TRY(writer, FileWriter::create(path));
  KILN_RETURN_IF_ERROR(writer.write(bytes));
  return writer.commit();
}

Status write_file(const std::string &path, std::string_view text) {
  return write_file(path, std::as_bytes(std::span(text)));
}

} // namespace kiln
