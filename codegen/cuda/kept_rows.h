// Rows that a group of threads loads once and keeps.
//
//   for k in 0..768 reduce { m = max(m, x[768*i + k]) }
//   for k in 0..768 reduce { s += exp(x[768*i + k] - m) }
//   for k in 0..768 parallel { y[768*i + k] = exp(x[768*i + k] - m) / s }
//
// reads x three times. Each thread takes the same iterations of all of these loops, so what it has loaded for one of them is
// what it needs for the others:
//
//   alloc row: f32[768] reg
//   for k in 0..768 parallel { row[k] = x[768*i + k] }
//   for k in 0..768 reduce { m = max(m, row[k]) }
//   ...
//
// As Kernel IR that is the same meaning; `row` is no memory that threads share. Each has its part of it, in registers where
// loops are unrolled so that no index is left, or in shared memory where rows are longer. What such loops leave for each other
// in memory of the nest's own is a row too.
#pragma once

#include "codegen/cuda/nest.h"

#include <map>

namespace kiln::cuda {

struct KeptRow {
  DType dtype = DType::f32;
  int place = 0; // rows with the same one are not there at the same time
};

struct KeptRows {
  // Of rows that a thread keeps in registers; it has 64 of those where there are most threads.
  static constexpr int64_t kThreadBytes = 128;

  std::vector<Stmt> body;        // with the rows; as it was where there are none
  std::map<Symbol, KeptRow> rows;
  int64_t count = 0;             // elements of each
  int width = 1;                 // neighbouring ones that a thread takes together
  int64_t element_bytes = 0;     // of all places
  bool in_registers = true;

  bool any() const { return !rows.empty(); }
  bool is_used_in(const Stmt &s) const;
  // Threads that share a row: as few as have room for it, more where `groups` of them would leave the device idle.
  int threads(int64_t groups, const GpuMachine &machine) const;
};

// `body`: of the loops `outer`.
KeptRows keep_rows(const std::vector<const Stmt *> &outer, const std::vector<Stmt> &body, const NestContext &context);
// Whether there are some, and neighbouring lanes would have neighbouring elements of them rather than of the outer loops.
bool has_rows_along(const std::vector<const Stmt *> &outer, const std::vector<Stmt> &body, const NestContext &context);

} // namespace kiln::cuda
