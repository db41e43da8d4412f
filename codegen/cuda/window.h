// Reductions whose neighbouring results share what they read: depthwise convolutions, pools, convolutions to few channels,
//
//   for y, x, c parallel { acc = 0; for i in 0..3, j in 0..3 reduce { acc += in[y + i, x + j, c] * w[i, j, c] }; out[y, x, c] = acc }
//
// A thread has a strip of neighbours along x and the next channels, so that an element of the window comes once for all results of the
// strip that it is part of, and one of the weights once for the whole strip:
//
//   for i { in0..in5 = in[y + i, x .. x + 5, c .. c + 3]; w0..w2 = w[i, 0 .. 2, c .. c + 3]; acc0 += in0 * w0; acc0 += in1 * w1; ... }
//
// Loops that the window does not know and that have few iterations (three channels that come of the same window) are a
// thread's too.
#pragma once

#include "codegen/cuda/product.h"
#include "codegen/cuda/rectangle.h"
#include "codegen/cuda/sums.h"

#include <optional>

namespace kiln::cuda {

struct WindowReduction {
  const Stmt *init = nullptr;
  Update how;
  Stmt update;                  // of the accumulator, without lets
  Loops results;                // what the threads share, the fastest last
  Loops columns;                // few iterations, a thread's
  const Stmt *strip = nullptr;  // of the results, or nothing: neighbours along it share elements as `inner` moves
  const Stmt *inner = nullptr;  // of the sum
  Loops sum;                    // the others
  std::vector<Stmt> after;      // what is done with each result
};

// `rectangle` has to outlive it.
std::optional<WindowReduction> match_window(const Rectangle &rectangle);

// What a thread does in an iteration of the other loops of the sum.
struct WindowLoad {
  Symbol name;  // of the registers that it comes to
  Expr value;
  std::vector<Guard> guards; // where one does not hold it is not read
  int64_t first = 0;         // of the strip's results that need it
  bool in_pack = false;      // an element for each lane
};
struct WindowSteps {
  std::vector<WindowLoad> loads;
  std::vector<Stmt> updates; // of window_sums(), lane by lane
};
WindowSteps window_steps(const WindowReduction &w, const Rectangle &rectangle, int64_t strip, int64_t width);

// A thread's accumulators, by results of the strip, columns and lanes; a statement for one of them has the lane as a symbol.
Symbol window_sums();
Dim window_sum_at(const WindowReduction &w, int64_t result, int64_t column, int64_t width);
int64_t count_columns(const WindowReduction &w);
// What the variables of the columns and of the strip are for one of its results.
std::optional<Dim> place_in_window(const WindowReduction &w, Symbol name, int64_t result, int64_t column);

} // namespace kiln::cuda
