// See file.h. All of it is plain system calls: stdio would double a static program.
#include "runtime/file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace kiln::rt {

int32_t map_file(const char *path, MappedFile *file, KilnError *error) {
  int descriptor = ::open(path, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0)
    return fail(error, KILN_ERROR_IO, "cannot open '", path, "': ", errno_text(errno));
  struct stat status;
  const char *flaw = nullptr;
  if (fstat(descriptor, &status) != 0)
    flaw = errno_text(errno);
  else if (S_ISDIR(status.st_mode))
    flaw = errno_text(EISDIR);
  else if (!S_ISREG(status.st_mode))
    flaw = "it is not a regular file";
  if (flaw != nullptr) {
    ::close(descriptor);
    return fail(error, KILN_ERROR_IO, "cannot open '", path, "': ", flaw);
  }
  file->descriptor = descriptor;
  file->size = static_cast<uint64_t>(status.st_size);
  file->data = nullptr;
  if (file->size == 0)
    return KILN_OK;
  void *data = mmap(nullptr, file->size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  if (data == MAP_FAILED) {
    int number = errno;
    close_descriptor(file);
    return fail(error, KILN_ERROR_MEMORY, "cannot map '", path, "' of ", file->size,
                " bytes: ", errno_text(number));
  }
  file->data = static_cast<const uint8_t *>(data);
  return KILN_OK;
}

void close_descriptor(MappedFile *file) {
  if (file->descriptor >= 0)
    ::close(file->descriptor);
  file->descriptor = -1;
}

void unmap_file(MappedFile *file) {
  if (file->data != nullptr)
    munmap(const_cast<uint8_t *>(file->data), file->size);
  close_descriptor(file);
  *file = MappedFile();
}

WholeFile::~WholeFile() {
  if (descriptor_ >= 0)
    ::close(descriptor_);
  if (is_there_)
    unlink(temporary_);
}

int32_t WholeFile::fail_with_errno(const char *verb, KilnError *error) {
  return fail(error, KILN_ERROR_IO, "cannot ", verb, " '", path_, "': ", errno_text(errno));
}

// What a link says begins in the link's folder unless it begins with a slash. False with errno where it leads nowhere.
bool WholeFile::follow_links(const char *path) {
  constexpr int32_t kMaxLinks = 40;
  size_t size = std::strlen(path);
  std::memcpy(path_, path, size < kMaxPath ? size + 1 : 0);
  for (int32_t hop = 0; size < kMaxPath && hop < kMaxLinks; ++hop) {
    ssize_t length = readlink(path_, temporary_, kMaxPath);
    if (length < 0)
      return true;
    char *slash = temporary_[0] == '/' ? nullptr : std::strrchr(path_, '/');
    char *at = slash != nullptr ? slash + 1 : path_;
    size = static_cast<size_t>(at - path_) + static_cast<size_t>(length);
    if (size < kMaxPath) {
      std::memcpy(at, temporary_, static_cast<size_t>(length));
      path_[size] = 0;
    }
  }
  errno = size < kMaxPath ? ELOOP : ENAMETOOLONG;
  return false;
}

int32_t WholeFile::create(const char *path, KilnError *error) {
  struct stat info {};
  if (stat(path, &info) == 0 && !S_ISREG(info.st_mode)) { // by its own name: where a pipe's link leads is no path
    Text(path_, kMaxPath) << path;
    errno = EISDIR;
    if (!S_ISDIR(info.st_mode))
      descriptor_ = ::open(path, O_WRONLY | O_CLOEXEC);
    return descriptor_ >= 0 ? KILN_OK : fail_with_errno("write", error);
  }
  if (!follow_links(path))
    return fail(error, KILN_ERROR_IO, "cannot create '", path, "': ", errno_text(errno));
  // O_EXCL never follows what lies there; the count steps over what a killed process left.
  for (int32_t attempt = 0; attempt < 100 && descriptor_ < 0; ++attempt) {
    Text(temporary_, kMaxPath) << path_ << kTemporaryMark << int64_t{getpid()} << "." << attempt;
    descriptor_ = ::open(temporary_, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (descriptor_ < 0 && errno != EEXIST)
      break;
  }
  is_there_ = descriptor_ >= 0;
  return is_there_ ? KILN_OK : fail_with_errno("create", error);
}

bool WholeFile::is_pipe() const { return !is_there_ && lseek(descriptor_, 0, SEEK_CUR) < 0; }

int32_t WholeFile::put(uint64_t offset, const void *data, uint64_t size, KilnError *error) {
  auto *bytes = static_cast<const uint8_t *>(data);
  while (size != 0) {
    constexpr uint64_t kStep = uint64_t{1} << 30;
    uint64_t step = size < kStep ? size : kStep;
    bool is_next = !is_there_ && offset == put_; // a pipe takes nothing else
    ssize_t done = is_next ? ::write(descriptor_, bytes, step)
                           : pwrite(descriptor_, bytes, step, static_cast<off_t>(offset));
    if (done < 0 && errno == EINTR)
      continue;
    if (done <= 0)
      return fail_with_errno("write", error);
    bytes += done;
    offset += static_cast<uint64_t>(done);
    put_ = is_next ? offset : put_;
    size -= static_cast<uint64_t>(done);
  }
  return KILN_OK;
}

int32_t WholeFile::put_zeros(uint64_t offset, uint64_t size, KilnError *error) {
  static constexpr uint8_t kZeros[512] = {};
  for (; size > sizeof kZeros; offset += sizeof kZeros, size -= sizeof kZeros)
    if (int32_t code = put(offset, kZeros, sizeof kZeros, error))
      return code;
  return put(offset, kZeros, size, error);
}

int32_t WholeFile::commit(KilnError *error) {
  if (is_there_ && fsync(descriptor_) != 0)
    return fail_with_errno("write", error);
  int closed = ::close(descriptor_);
  descriptor_ = -1;
  if (closed != 0 || (is_there_ && rename(temporary_, path_) != 0))
    return fail_with_errno("replace", error);
  if (is_there_)
    sync_folder();
  is_there_ = false;
  return KILN_OK;
}

// The rename itself reaches the disk with its folder.
void WholeFile::sync_folder() {
  char *slash = std::strrchr(temporary_, '/');
  if (slash != nullptr)
    slash[slash == temporary_ ? 1 : 0] = 0;
  int folder = ::open(slash != nullptr ? temporary_ : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder >= 0) {
    fsync(folder);
    ::close(folder);
  }
}

} // namespace kiln::rt
