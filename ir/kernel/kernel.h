// Kernel IR: loop nests over flat buffers. The one language that every fused region lowers to, that the
// kernel passes rewrite (tile, vectorise, parallelise) and that each target translates.
//
// A kernel is a value tree: statements own their bodies, expressions their arguments; copying copies,
// == compares. Index arithmetic is not made of expressions: every offset, bound and count is a Dim over
// the kernel's dims, the loop variables and the i64 scalars bound by `let`, so strides can be read off.
//
//   kernel add(a: f32[N] in, b: f32[N] in, out: f32[N] out) dims(N) {
//     for i in 0..N parallel {
//       out[i] = add(a[i], b[i])
//     }
//   }
//
// Naive nests, as lowering makes them, have this form, which the passes match:
//   * loops whose iterations are independent are `parallel`; loops of a reduction are `reduce`, which
//     means that their iterations may be reordered by a pass (the order it chooses is then fixed);
//   * an accumulator is `alloc acc: f32[1] reg`, set before the reduce loops and updated in their
//     innermost body by one store `acc[0] = op(acc[0], term)`; what follows reads acc[0];
//   * `let`s may stand before any store, for values used more than once and for indices read from data;
//   * a reduction that does not depend on an inner parallel loop stands before that loop, so bodies may
//     hold accumulators, lets and several loops one after the other (softmax, norms), and the loop with
//     unit stride may be the outer one (a block of 16 channels around reductions over pixels);
//   * a kernel may have several nests at top level: zeroing a halo, then the values.
//
// Arithmetic is on f32, f64, integers and bool. f16 and bf16 appear in loads, stores and converts only.
// Values of narrow dtypes (ir/narrow.h) are moved, picked, converted, bitcast and compared by eq and ne; the
// numbers among them are written as codes. expand_narrow() makes bytes of them before code is made.
#pragma once

#include "ir/dim.h"
#include "ir/dtype.h"
#include "ir/support/diagnostic.h"

#include <optional>
#include <string>
#include <vector>

namespace kiln {

enum class UnaryOp : uint8_t {
#define KILN_UNARY(name, primitive) name,
#include "ir/kernel/scalar_ops.def"
};
enum class BinaryOp : uint8_t {
#define KILN_BINARY(name, primitive) name,
#include "ir/kernel/scalar_ops.def"
};

std::string_view unary_name(UnaryOp op);
std::string_view binary_name(BinaryOp op);
bool is_primitive(UnaryOp op);
bool is_primitive(BinaryOp op);
bool is_comparison(BinaryOp op);

struct Expr {
  enum class Kind : uint8_t {
    none,
    number,    // a constant (all lanes): `number` for floats, `integer` for integers, bool and codes
    index,     // `index` as an i64 scalar
    var,       // the value of a `let`
    load,      // lanes elements of buffer `name` from `index` on, `stride` apart. With `count`: lanes at
               // and past count read as 0 and touch no memory
    gather,    // args[0]: i64 offsets, one a lane, into buffer `name`
    unary,     // `unary` of args[0]
    binary,    // `binary` of args[0], args[1], same dtype and lanes
    select,    // args[0] (bool) ? args[1] : args[2]; both sides are evaluated
    convert,   // args[0] to `dtype` by the language's rules
    bitcast,   // args[0]'s bits as `dtype` of the same width
    broadcast, // scalar args[0] in every lane
    iota,      // 0, 1, 2, ... of an integer dtype
    fma,       // args[0] * args[1] + args[2], rounded once where the target has it, else mul and add
    reduce,    // `binary` (add, mul, min, max, bit_and, bit_or) over the lanes of args[0], by halving:
               // lane i with lane i + lanes/2, and so on. Result scalar
    extract,   // lane `integer` of args[0]
    concat,    // the lanes of all args, one after the other
    shuffle,   // lanes of concat(args[0], args[1]) picked by `lanes_map`
  };

  Kind kind = Kind::none;
  DType dtype = DType::f32;
  int lanes = 1;
  UnaryOp unary{};
  BinaryOp binary{};
  double number = 0;
  int64_t integer = 0;
  Symbol name;
  Dim index;
  Dim stride = 1;
  std::optional<Dim> count;
  std::vector<int> lanes_map;
  std::vector<Expr> args;

  bool is(Kind k) const { return kind == k; }
  friend bool operator==(const Expr &, const Expr &) = default;
};

enum class MemorySpace : uint8_t {
  reg,    // a register tile: indices are constants once `unroll` loops are expanded
  stack,  // private to the thread, small (a row, a tile)
  shared, // shared by a thread block; GPU only
};

enum class LoopKind : uint8_t {
  serial,
  parallel, // iterations independent; says nothing of how they run
  reduce,   // serial, order free to choose
  unroll,   // constant bounds; targets expand it
  threads,  // independent, split over worker threads; outermost in a kernel, not nested
  block_x, block_y, block_z, thread_x, thread_y, thread_z, // GPU axes
};
std::string_view loop_kind_name(LoopKind kind);

struct Stmt {
  enum class Kind : uint8_t {
    let,      // name = value, immutable; an i64 scalar may be used in Dims as a symbol
    alloc,    // buffer `name` of `size` elements, each `lanes` x dtype, contents undefined, until the
              // end of the enclosing body. Indices into it count such elements
    store,    // buffer `name` at `index`, `stride` apart, = value (lanes from value); with `count`:
              // only lanes below count
    loop,     // for name in begin..end step `step`; from the last on where `index` is odd and threads are at most `integer`
    if_,      // if value (bool scalar) body else other
    while_,   // while value: body
    barrier,  // all threads of a block
    prefetch, // hint: buffer `name` at `index` into cache level `integer` (1 or 2)
    assert_,  // trap `integer` (KilnTrap) unless value (bool; all lanes) holds
  };

  Kind kind = Kind::let;
  Symbol name;
  Expr value;
  Dim index;
  Dim stride = 1;
  std::optional<Dim> count;
  Dim begin, end;
  int64_t step = 1;
  LoopKind loop = LoopKind::serial;
  DType dtype = DType::f32;
  int lanes = 1;
  int64_t size = 0;
  MemorySpace space = MemorySpace::reg;
  int64_t integer = 0;
  std::vector<Stmt> body, other;

  bool is(Kind k) const { return kind == k; }
  friend bool operator==(const Stmt &, const Stmt &) = default;
};

enum class Access : uint8_t { in, out, inout };

// Different parameters of a kernel never overlap, except that an out parameter may be the same buffer
// as an in parameter where every element is read before, in the same iteration, it is written.
struct KernelBuffer {
  Symbol name;
  DType dtype = DType::f32;
  Dim size; // elements
  Access access = Access::in;
  bool constant = false; // weights: the same in every run
  friend bool operator==(const KernelBuffer &, const KernelBuffer &) = default;
};

struct Kernel {
  std::string name;
  std::vector<KernelBuffer> buffers;
  std::vector<Symbol> dims; // i64 scalars handed in
  std::vector<Stmt> body;
  Location location;
  Dim flops;  // of one run, as a function of dims; 0 if unknown
  Dim bytes;  // read and written at least once

  const KernelBuffer *find_buffer(Symbol buffer) const;
  // Location and estimates do not take part.
  friend bool operator==(const Kernel &a, const Kernel &b) {
    return a.name == b.name && a.buffers == b.buffers && a.dims == b.dims && a.body == b.body;
  }
};

// Text that parse_kernels() reads back to an equal value.
std::string print_kernel(const Kernel &kernel);
Result<std::vector<Kernel>> parse_kernels(std::string_view text);
// Types, lanes, scopes, loop bounds, nesting rules; the first violation.
Status verify_kernel(const Kernel &kernel);

} // namespace kiln
