#include "frontend/files/mapped_file.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace kiln {
namespace {

class Descriptor {
public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0)
      ::close(fd_);
  }
  Descriptor(const Descriptor &) = delete;
  Descriptor &operator=(const Descriptor &) = delete;
  int get() const { return fd_; }
  void reset(int fd) {
    if (fd_ >= 0)
      ::close(fd_);
    fd_ = fd;
  }

private:
  int fd_;
};

// O_NONBLOCK: opening a pipe that nobody writes to returns at once.
constexpr int kFlags = O_RDONLY | O_CLOEXEC | O_NONBLOCK;

} // namespace

Result<std::shared_ptr<const MappedFile>> MappedFile::map(int fd, std::string path) {
  struct stat info {};
  if (::fstat(fd, &info) != 0)
    return Error{fmt::format("cannot read {}: {}", path, std::strerror(errno))};
  if (!S_ISREG(info.st_mode))
    return Error{fmt::format("cannot read {}: it is not a regular file", path)};
  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = std::move(path);
  file->size_ = size_t(info.st_size);
  if (file->size_ > 0) {
    void *at = ::mmap(nullptr, file->size_, PROT_READ, MAP_PRIVATE, fd, 0);
    if (at == MAP_FAILED) {
      file->size_ = 0;
      return Error{fmt::format("cannot map {}: {}", file->path_, std::strerror(errno))};
    }
    file->data_ = static_cast<const std::byte *>(at);
  }
  return std::shared_ptr<const MappedFile>(std::move(file));
}

Result<std::shared_ptr<const MappedFile>> MappedFile::open(const std::string &path) {
  Descriptor fd(::open(path.c_str(), kFlags));
  if (fd.get() < 0)
    return Error{fmt::format("cannot open {}: {}", path, std::strerror(errno))};
  return map(fd.get(), path);
}

Result<std::shared_ptr<const MappedFile>> MappedFile::open_beneath(const std::string &folder,
                                                                   std::string_view relative) {
  auto refuse = [&](std::string_view why) {
    return Error{fmt::format("the file '{}' cannot be used: {}", relative, why)};
  };
  if (relative.empty() || relative.size() > 4096 || relative.find('\0') != std::string_view::npos)
    return refuse("the path is empty, too long or holds a zero byte");
  if (relative.front() == '/')
    return refuse("its path must be relative to the model's folder");
  std::string at = folder.empty() ? "." : folder;
  Descriptor fd(::open(at.c_str(), kFlags | O_DIRECTORY));
  if (fd.get() < 0)
    return Error{fmt::format("cannot open the folder {}: {}", at, std::strerror(errno))};
  while (!relative.empty()) {
    size_t slash = relative.find('/');
    std::string part(relative.substr(0, slash));
    bool last = slash == std::string_view::npos;
    relative = last ? std::string_view() : relative.substr(slash + 1);
    if (part == "..")
      return refuse("'..' leads out of the model's folder");
    at += "/" + part;
    if (part.empty() || part == ".")
      continue;
    fd.reset(::openat(fd.get(), part.c_str(), kFlags | O_NOFOLLOW | (last ? 0 : O_DIRECTORY)));
    if (fd.get() < 0)
      return Error{fmt::format("cannot open {}: {}", at,
                               errno == ELOOP ? "symbolic links are not followed here" : std::strerror(errno))};
  }
  return map(fd.get(), at);
}

MappedFile::~MappedFile() {
  if (data_)
    ::munmap(const_cast<std::byte *>(data_), size_);
}

} // namespace kiln
