// Files as the runtime needs them: mapped whole to read, written whole or not at all.
#pragma once

#include <cstdint>

#include "runtime/errors.h"

namespace kiln::rt {

// A read-only, private mapping of a whole file; `descriptor` stays open until it is closed.
struct MappedFile {
  const uint8_t *data = nullptr;
  uint64_t size = 0;
  int descriptor = -1;
};

int32_t map_file(const char *path, MappedFile *file, KilnError *error);
void close_descriptor(MappedFile *file);
void unmap_file(MappedFile *file);

// Writes go to a temporary in the same folder; commit() syncs it and renames it over `path`.
// Without a commit() nothing is left behind.
class WholeFile {
public:
  WholeFile() = default;
  WholeFile(const WholeFile &) = delete;
  WholeFile &operator=(const WholeFile &) = delete;
  ~WholeFile();

  int32_t create(const char *path, KilnError *error);
  int32_t put(uint64_t offset, const void *data, uint64_t size, KilnError *error);
  int32_t put_zeros(uint64_t offset, uint64_t size, KilnError *error);
  int32_t commit(KilnError *error);

private:
  int32_t fail_with_errno(const char *verb, KilnError *error);

  const char *path_ = nullptr;
  char *temporary_ = nullptr;
  int descriptor_ = -1;
  bool is_there_ = false;
};

} // namespace kiln::rt
