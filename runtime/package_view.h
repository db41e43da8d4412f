// A package in memory whose every byte has been checked against its digests.
#pragma once

#include <cstdint>

#include "runtime/errors.h"
#include "runtime/package_format.h"

namespace kiln::rt {

class Prefault;

struct Section {
  const uint8_t *data = nullptr;
  uint64_t size = 0;
};

struct PackageView {
  const uint8_t *data = nullptr; // the whole file
  const package::FileHeader *header = nullptr;
  const package::SectionHeader *sections = nullptr;
  Section manifest;
  Section locations;
  Section weights;
  Section state;
};

// `what` names the package in errors; `data` is aligned to 64. Without `checks_weights` the digest
// of the weights is not computed. `prefault` maps the file's pages meanwhile; null where nothing does.
int32_t open_package(const uint8_t *data, uint64_t size, bool checks_weights, Prefault *prefault,
                     const char *what, PackageView *view, KilnError *error);

// The code section for `wanted`, or the best for this machine where that is null.
int32_t choose_code(const PackageView &view, const char *wanted, const char *what,
                    const package::SectionHeader **section, KilnError *error);

} // namespace kiln::rt
