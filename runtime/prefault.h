// Maps a large file's pages ahead of whoever reads it.
//
// A file of 500 MB has 120,000 pages. They are in memory as a rule, but each has to be entered in the
// page table, which takes as long as reading them all; so a helper thread does it while the digest is
// computed. Small files are done at once. Where the system gives no thread, reading does it.
#pragma once

#include "runtime/file.h"
#include "runtime/thread.h"

namespace kiln::rt {

class Prefault {
public:
  explicit Prefault(const MappedFile &file);
  ~Prefault(); // stops
  Prefault(const Prefault &) = delete;
  Prefault &operator=(const Prefault &) = delete;

private:
  static void *touch_all(void *self);

  const uint8_t *data_;
  uint64_t size_;
  bool has_thread_ = false;
  bool stops_ = false; // atomic accesses only
  Thread thread_;
};

} // namespace kiln::rt
