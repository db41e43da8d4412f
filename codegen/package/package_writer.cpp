// Streams the sections of a package, digesting them on the way, and its header page last.
#include "codegen/package/package_writer.h"

#include <algorithm>
#include <cstring>

#include "runtime/digest.h"
#include "runtime/file.h"

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

// What follows each other is written in whole blocks of 2 MiB: the system then keeps the file in pages of that size,
// which are mapped at a touch each.
class BlockFile {
public:
  explicit BlockFile(rt::WholeFile &file) : file_(file) {}

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

  std::string flush() {
    std::string error = write(held_at_, held_.data(), held_.size());
    held_at_ += held_.size();
    held_.clear();
    return error;
  }

private:
  static constexpr uint64_t kBlock = uint64_t{2} << 20;

  std::string write(uint64_t offset, const void *data, size_t size) {
    KilnError error{};
    file_.put(offset, data, size, &error);
    return error.message;
  }

  rt::WholeFile &file_;
  std::vector<uint8_t> held_; // of the block that is being filled
  uint64_t held_at_ = 0;
};

// A package's first page is written last, which a pipe does not take.
std::string write_to_pipe(const PackageSpec &spec, rt::WholeFile &file) {
  std::vector<uint8_t> bytes;
  if (std::string error = build_package(spec, bytes); !error.empty())
    return error;
  KilnError error{};
  file.put(0, bytes.data(), bytes.size(), &error);
  return error.message;
}

std::string write_to_file(const PackageSpec &spec, rt::WholeFile &file) {
  BlockFile blocks(file);
  std::string error = write_package_to(spec, [&](uint64_t offset, const void *data, size_t size) {
    return blocks.put(offset, data, size);
  });
  return error.empty() ? blocks.flush() : error;
}

} // namespace

std::string write_package_to(const PackageSpec &spec, const PackageSink &sink) {
  return Writer(spec, sink).write();
}

std::string write_package(const PackageSpec &spec, const std::string &path) {
  rt::WholeFile file;
  KilnError failure{};
  if (file.create(path.c_str(), &failure) != KILN_OK)
    return failure.message;
  std::string error = file.is_pipe() ? write_to_pipe(spec, file) : write_to_file(spec, file);
  if (!error.empty())
    return error;
  file.commit(&failure);
  return failure.message;
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
