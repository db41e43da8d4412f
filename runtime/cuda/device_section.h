// A device section, checked once when a package is opened and then only indexed.
#pragma once

#include "runtime/cuda/device_format.h"
#include "runtime/errors.h"
#include "runtime/manifest.h"

namespace kiln::rt {

class DeviceSection {
public:
  // `data` is aligned to 64 and outlives this.
  int32_t open(const uint8_t *data, uint64_t size, const Manifest &manifest, const char *what, KilnError *error);

  const package::DeviceHeader &header() const { return *header_; }
  const char *text(package::String s) const {
    return reinterpret_cast<const char *>(data_ + header_->strings.offset) + s.offset;
  }
  const uint8_t *image(uint32_t i) const { return data_ + images()[i].offset; }
  const package::DeviceImageRecord *images() const { return records<package::DeviceImageRecord>(header_->images); }
  const package::DeviceFunctionRecord *functions() const { return records<package::DeviceFunctionRecord>(header_->functions); }
  const package::DeviceEntryRecord *entries() const { return records<package::DeviceEntryRecord>(header_->entries); }
  const package::DeviceStepRecord *steps() const { return records<package::DeviceStepRecord>(header_->steps); }
  const package::DeviceBufferRecord *buffers() const { return records<package::DeviceBufferRecord>(header_->buffers); }
  const package::DeviceMapRecord *maps() const { return records<package::DeviceMapRecord>(header_->maps); }
  const uint32_t *lists() const { return records<uint32_t>(header_->lists); }

  // The value of an expression; -1 where it overflows or divides by 0.
  int64_t evaluate(uint32_t expression, const int64_t *slots) const;

private:
  template <typename T>
  const T *records(package::Table table) const {
    return reinterpret_cast<const T *>(data_ + table.offset);
  }
  const package::Range *expressions() const { return records<package::Range>(header_->expressions); }
  const int64_t *words() const { return records<int64_t>(header_->words); }
  const char *flaw(const Manifest &manifest) const;
  const char *flaw_of_expression(uint32_t index, uint32_t slots) const;
  const char *flaw_of_entry(const package::DeviceEntryRecord &entry, uint32_t index, const Manifest &manifest) const;
  const char *flaw_of_step(uint32_t index, uint32_t end, uint32_t slots, uint32_t entry, const Manifest &manifest) const;
  const char *flaw_of_map(const package::DeviceMapRecord &map, uint32_t buffers, uint32_t slots) const;
  const char *flaw_of_nesting(uint32_t begin, uint32_t end) const;
  // Records may share what they point to, so that a small file could ask for years of checks.
  bool has_time(uint64_t checks) const;

  const uint8_t *data_ = nullptr;
  uint64_t size_ = 0;
  const package::DeviceHeader *header_ = nullptr;
  mutable uint64_t checks_left_ = 0; // of open()
};

} // namespace kiln::rt
