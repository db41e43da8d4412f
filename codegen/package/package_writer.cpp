// Streams the sections of a package, digesting them on the way, and its header page last.
#include "codegen/package/package_writer.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/digest.h"

namespace kiln {
namespace {

using namespace package;

constexpr uint8_t kZeroPage[kPageSize] = {};

uint64_t round_up(uint64_t size, uint64_t unit) {
  return (size + unit - 1) / unit * unit;
}

class Writer {
public:
  Writer(const PackageSpec &spec, const PackageSink &sink) : spec_(spec), sink_(sink) {}

  std::string write() {
    std::vector<uint8_t> manifest = build_manifest(spec_, error_);
    if (!error_.empty())
      return error_;
    add_section(SectionKind::Manifest, "", manifest);
    for (const PackageCode &code : spec_.code)
      add_section(SectionKind::Code, code.target, code.image);
    for (const PackageCode &device : spec_.devices)
      add_section(SectionKind::Device, device.target, device.image);
    if (!spec_.locations.empty()) {
      std::string error;
      std::vector<uint8_t> locations = build_locations(spec_, error);
      if (!error.empty())
        return error;
      add_section(SectionKind::Locations, "", locations);
    }
    if (spec_.weights_size != 0)
      add_weights();
    if (error_.empty())
      write_header();
    return error_;
  }

private:
  void fail(std::string message) {
    if (error_.empty())
      error_ = std::move(message);
  }

  void put(const void *data, uint64_t size) {
    if (!error_.empty() || size == 0)
      return;
    digester_.update(data, size);
    error_ = sink_(offset_, data, size);
    offset_ += size;
  }

  void put_zeros(uint64_t size) {
    for (; size != 0 && error_.empty();) {
      uint64_t step = std::min<uint64_t>(size, kPageSize);
      put(kZeroPage, step);
      size -= step;
    }
  }

  SectionHeader begin_section(SectionKind kind, const std::string &name) {
    SectionHeader section{};
    section.kind = kind;
    section.offset = offset_;
    if (name.size() >= kTargetNameSize)
      fail("the target's name '" + name + "' is longer than 31 bytes");
    else
      std::memcpy(section.name, name.data(), name.size());
    digester_ = Digester();
    return section;
  }

  void end_section(SectionHeader &section, uint64_t size, uint64_t slack) {
    section.size = size;
    section.extent = round_up(size + slack, kPageSize);
    put_zeros(section.extent - size);
    section.digest = digester_.finish();
    sections_.push_back(section);
  }

  void add_section(SectionKind kind, const std::string &name, std::span<const uint8_t> bytes) {
    for (const SectionHeader &other : sections_)
      if ((kind == SectionKind::Code || kind == SectionKind::Device) && other.kind == kind && name == other.name)
        fail("two code sections for the target '" + name + "'");
    SectionHeader section = begin_section(kind, name);
    put(bytes.data(), bytes.size());
    end_section(section, bytes.size(), 0);
  }

  void add_weights() {
    std::vector<const PackageWeights *> spans;
    for (const PackageWeights &span : spec_.weights)
      spans.push_back(&span);
    std::sort(spans.begin(), spans.end(), [](auto *a, auto *b) {
      return std::pair(a->offset, a->size) < std::pair(b->offset, b->size);
    });
    SectionHeader section = begin_section(SectionKind::Weights, "");
    uint64_t at = 0;
    for (const PackageWeights *span : spans) {
      if (span->offset < at)
        fail("two weights overlap at byte " + std::to_string(span->offset));
      if (span->size > spec_.weights_size || span->offset > spec_.weights_size - span->size)
        fail("a weight at byte " + std::to_string(span->offset) + " ends after the weights");
      if (!error_.empty())
        return;
      put_zeros(span->offset - at);
      put_span(*span);
      at = span->offset + span->size;
    }
    put_zeros(spec_.weights_size - at);
    end_section(section, spec_.weights_size, kWeightSlack);
  }

  void put_span(const PackageWeights &span) {
    if (span.data != nullptr || span.size == 0) {
      put(span.data, span.size);
      return;
    }
    if (!span.fill) {
      fail("a weight at byte " + std::to_string(span.offset) + " has neither data nor fill");
      return;
    }
    std::vector<uint8_t> buffer(span.size);
    span.fill(buffer.data());
    put(buffer.data(), buffer.size());
  }

  void write_header() {
    if (sections_.size() > kMaxSections) {
      fail(std::to_string(sections_.size()) + " sections, more than the " +
           std::to_string(kMaxSections) + " a package can have");
      return;
    }
    FileHeader header{};
    std::memcpy(header.magic, kMagic, sizeof kMagic);
    header.format_version = kFormatVersion;
    header.section_count = static_cast<uint32_t>(sections_.size());
    header.file_size = offset_;
    uint8_t page[kPageSize] = {};
    std::memcpy(page, &header, sizeof header);
    std::memcpy(page + sizeof header, sections_.data(), sections_.size() * sizeof(SectionHeader));
    header.digest = digest_of(page, sizeof page);
    std::memcpy(page, &header, sizeof header);
    error_ = sink_(0, page, sizeof page);
  }

  const PackageSpec &spec_;
  const PackageSink &sink_;
  std::string error_;
  uint64_t offset_ = kPageSize;
  Digester digester_;
  std::vector<SectionHeader> sections_;
};

// A temporary beside `path` that is gone again unless commit() renamed it. What follows each other is written in
// whole blocks of 2 MiB: the system then keeps the file in pages of that size, which are mapped at a touch each.
class WholeFile {
public:
  explicit WholeFile(const std::string &path) : path_(path) {
    struct stat info {};
    bool exists = stat(path.c_str(), &info) == 0;
    if (exists && !S_ISREG(info.st_mode) && !S_ISDIR(info.st_mode)) { // a device is written into, never replaced
      fd_ = open(path.c_str(), O_WRONLY | O_CLOEXEC);
      if (fd_ < 0)
        fail("open");
      return;
    }
    if (char *real = exists ? realpath(path.c_str(), nullptr) : nullptr) { // a link stays a link
      path_ = real;
      std::free(real);
    }
    // O_EXCL never follows what lies there; the count steps over what a killed process left.
    for (int attempt = 0; attempt < 100 && fd_ < 0; ++attempt) {
      temporary_ = path_ + ".tmp" + std::to_string(getpid()) + "." + std::to_string(attempt);
      fd_ = open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
      if (fd_ < 0 && errno != EEXIST)
        break;
    }
    is_there_ = fd_ >= 0;
    if (!is_there_)
      fail("create");
  }
  WholeFile(const WholeFile &) = delete;
  WholeFile &operator=(const WholeFile &) = delete;
  ~WholeFile() {
    if (fd_ >= 0)
      close(fd_);
    if (is_there_)
      unlink(temporary_.c_str());
  }

  const std::string &error() const { return error_; }

  std::string put(uint64_t offset, const void *data, size_t size) {
    std::string error;
    if (offset != held_at_ + held_.size())
      error = flush(), held_at_ = offset;
    for (auto *bytes = static_cast<const uint8_t *>(data); size != 0 && error.empty();) {
      size_t whole = held_.empty() && held_at_ % kBlock == 0 ? size / kBlock * kBlock : 0;
      size_t step = whole != 0 ? whole : std::min<size_t>(size, kBlock - (held_at_ + held_.size()) % kBlock);
      if (whole != 0) {
        error = write(held_at_, bytes, whole);
        held_at_ += whole;
      } else {
        held_.insert(held_.end(), bytes, bytes + step);
        if ((held_at_ + held_.size()) % kBlock == 0)
          error = flush();
      }
      bytes += step, size -= step;
    }
    return error;
  }

  std::string commit() {
    if (std::string error = flush(); !error.empty())
      return error;
    if (is_there_ && fsync(fd_) != 0)
      return fail("write");
    int closed = close(fd_);
    fd_ = -1;
    if (closed != 0 || (is_there_ && rename(temporary_.c_str(), path_.c_str()) != 0))
      return fail("replace");
    is_there_ = false;
    return {};
  }

private:
  static constexpr uint64_t kBlock = uint64_t{2} << 20;

  std::string flush() {
    std::string error = write(held_at_, held_.data(), held_.size());
    held_at_ += held_.size();
    held_.clear();
    return error;
  }

  std::string write(uint64_t offset, const void *data, size_t size) {
    auto *bytes = static_cast<const uint8_t *>(data);
    while (size != 0) {
      size_t step = std::min<size_t>(size, size_t{1} << 30);
      ssize_t done = pwrite(fd_, bytes, step, static_cast<off_t>(offset));
      if (done < 0 && errno == EINTR)
        continue;
      if (done <= 0)
        return fail("write");
      bytes += done;
      offset += static_cast<uint64_t>(done);
      size -= static_cast<size_t>(done);
    }
    return {};
  }

  std::string fail(const char *verb) {
    error_ = "cannot " + std::string(verb) + " '" + path_ + "': " + std::strerror(errno);
    return error_;
  }

  std::string path_;
  std::string temporary_;
  std::string error_;
  std::vector<uint8_t> held_; // of the block that is being filled
  uint64_t held_at_ = 0;
  int fd_ = -1;
  bool is_there_ = false;
};

} // namespace

std::string write_package_to(const PackageSpec &spec, const PackageSink &sink) {
  return Writer(spec, sink).write();
}

std::string write_package(const PackageSpec &spec, const std::string &path) {
  WholeFile file(path);
  if (!file.error().empty())
    return file.error();
  std::string error = write_package_to(spec, [&](uint64_t offset, const void *data, size_t size) {
    return file.put(offset, data, size);
  });
  if (!error.empty())
    return error;
  return file.commit();
}

std::string build_package(const PackageSpec &spec, std::vector<uint8_t> &out) {
  out.clear();
  return write_package_to(spec, [&](uint64_t offset, const void *data, size_t size) {
    if (out.size() < offset + size)
      out.resize(offset + size);
    std::memcpy(out.data() + offset, data, size);
    return std::string();
  });
}

} // namespace kiln
