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

// Between a target's name and what tells its temporaries apart.
constexpr char kTemporaryMark[] = ".tmp";

// The one way in which Kiln writes files, the compiler's too: whole or not at all. Writes go to a temporary beside the
// target; commit() syncs it and renames it over it. Whoever reads the target sees the old file or the new one, never a
// part, also where the process is killed. Without a commit() nothing is left behind. A link stays a link to what is
// replaced; what is no file (a device, a pipe) is written into, a pipe from its first byte on.
class WholeFile {
public:
  WholeFile() = default;
  WholeFile(const WholeFile &) = delete;
  WholeFile &operator=(const WholeFile &) = delete;
  ~WholeFile();

  int32_t create(const char *path, KilnError *error);
  // Whether it takes its bytes in their order only.
  bool is_pipe() const;
  int32_t put(uint64_t offset, const void *data, uint64_t size, KilnError *error);
  int32_t put_zeros(uint64_t offset, uint64_t size, KilnError *error);
  int32_t commit(KilnError *error);

private:
  static constexpr uint32_t kMaxPath = 4096; // the system's limit

  int32_t fail_with_errno(const char *verb, KilnError *error);
  bool follow_links(const char *path);
  void sync_folder();

  char path_[kMaxPath]; // where links lead
  char temporary_[kMaxPath];
  uint64_t put_ = 0; // bytes, from the first on
  int descriptor_ = -1;
  bool is_there_ = false; // the temporary
};

} // namespace kiln::rt
