// Maps a large file's pages ahead of whoever reads it.
//
// A file of 500 MB has 120,000 pages. They are in memory as a rule, but each has to be entered in the
// page table, which can take longer than reading them all; so a helper thread does it while the digest is
// computed, and who reads helps where the helper is not far enough ahead. Small files are done at once. Where
// the system gives no thread, reading does it. Pages of 2 MiB, where the system keeps files in such, need a
// touch each: it is asked to.
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

  // Before bytes up to `end` (of the file) are read: maps blocks itself until some are mapped ahead of there.
  void reach(uint64_t end);

private:
  static void *touch_all(void *self);
  bool touch_next();

  const uint8_t *data_;
  uint64_t size_;
  bool has_thread_ = false;
  bool stops_ = false; // atomic accesses only, as `taken_`
  uint64_t taken_ = 0; // bytes of blocks that someone has touched or is touching
  Thread thread_;
};

} // namespace kiln::rt
