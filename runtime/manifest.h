// Reads manifest and locations sections in place: everything is checked once, then only indexed.
#pragma once

#include <cstdint>

#include "runtime/include/kiln/kiln.h"
#include "runtime/package_format.h"

namespace kiln::rt {

class Manifest {
public:
  // Instead of a size, where the weights are elsewhere (files of saved variables).
  static constexpr uint64_t kAnyWeights = ~uint64_t{0};

  // `data` is aligned to 8 and outlives this. `weights_size` is what the package really has; `what`
  // names the package in errors.
  int32_t open(const void *data, uint64_t size, uint64_t weights_size, const char *what,
               KilnError *error);

  struct Bytes {
    const uint8_t *data;
    uint64_t size;
  };
  Bytes bytes() const { return {data_, size_}; }
  const package::ManifestHeader &header() const { return *header_; }
  // Text of a checked string, NUL-terminated.
  const char *text(package::String string) const {
    return reinterpret_cast<const char *>(at(header_->strings.offset)) + string.offset;
  }
  // Of those that are called by name: the others come after them.
  uint32_t entry_count() const { return header_->entries.count - header_->hidden_entries; }
  const package::EntryRecord *entries() const {
    return records<package::EntryRecord>(header_->entries);
  }
  const package::ValueRecord *values() const {
    return records<package::ValueRecord>(header_->values);
  }
  const package::DimRecord *dims() const { return records<package::DimRecord>(header_->dims); }
  const package::SymbolRecord *symbols() const {
    return records<package::SymbolRecord>(header_->symbols);
  }
  const package::String *constraints() const {
    return records<package::String>(header_->constraints);
  }
  const package::KernelRecord *kernels() const {
    return records<package::KernelRecord>(header_->kernels);
  }
  const package::VariableRecord *variables() const {
    return records<package::VariableRecord>(header_->variables);
  }
  const package::MetadataRecord *metadata() const {
    return records<package::MetadataRecord>(header_->metadata);
  }
  const package::PartRecord *parts() const { return records<package::PartRecord>(header_->parts); }
  const package::PartArgumentRecord *part_arguments() const {
    return records<package::PartArgumentRecord>(header_->part_arguments);
  }

  // The bytes and dims of a variable.
  uint64_t variable_size(const package::VariableRecord &variable, int64_t *dims) const;

private:
  const uint8_t *at(uint32_t offset) const { return data_ + offset; }
  template <typename Record>
  const Record *records(package::Table table) const {
    return reinterpret_cast<const Record *>(at(table.offset));
  }

  // Tables may share what they point to, so that a small file could ask for years of checks.
  bool has_time(uint64_t checks) const;
  bool has_text(package::String string) const;
  bool has_tables() const;
  const char *flaw() const;
  const char *flaw_of_entry(const package::EntryRecord &entry) const;
  const char *flaw_of_parts(const package::EntryRecord &entry) const;
  bool has_arguments(const package::EntryRecord &entry, const package::PartRecord &part, uint32_t *borders) const;
  bool has_symbols(const package::EntryRecord &entry, const package::EntryRecord &part) const;
  const char *flaw_of_values(package::Range range, const package::EntryRecord &entry) const;
  const char *flaw_of_variable(const package::VariableRecord &variable) const;
  bool is_counter(uint32_t variable) const;

  const uint8_t *data_ = nullptr;
  uint64_t size_ = 0;
  const package::ManifestHeader *header_ = nullptr;
  mutable uint64_t checks_left_ = 0; // of open()
};

class Locations {
public:
  // No section at all (null, 0) is fine: there are then no locations.
  int32_t open(const void *data, uint64_t size, const char *what, KilnError *error);
  // Null where the index is kNoIndex or the package carries no locations.
  const package::LocationRecord *find(uint32_t index) const;
  const char *text(package::String string) const {
    return reinterpret_cast<const char *>(data_ + header_->strings.offset) + string.offset;
  }

private:
  const uint8_t *data_ = nullptr;
  const package::LocationsHeader *header_ = nullptr;
};

} // namespace kiln::rt
