// The table of ONNX operators that can be imported; the list is onnx_ops.def.
#pragma once

#include "frontend/onnx/node.h"

#include <span>
#include <string_view>

namespace kiln::onnx {

using Handler = Status (*)(OnnxNode &);

// What operands may be beside tensors of numbers: strings that the handler moves without knowing (text.h),
// strings that it knows, or anything, sequences and optionals included.
enum class Takes : uint8_t { numbers, moves, text, any };

struct OnnxOp {
  std::string_view domain, name;
  int min_inputs, max_inputs; // required ones; all of them (-1: any number)
  Handler handler;
  Takes takes = Takes::numbers;
};

const OnnxOp *find_onnx_op(std::string_view domain, std::string_view name);
std::span<const OnnxOp> onnx_ops(); // all of them

// One row of onnx_ops.def is one handler, in one of the ops_*.cpp.
#define KILN_ONNX(name, min_inputs, max_inputs, handler) Status handler(OnnxNode &);
#define KILN_ONNX_MOVES(name, min_inputs, max_inputs, handler) Status handler(OnnxNode &);
#define KILN_ONNX_TEXT(name, min_inputs, max_inputs, handler) Status handler(OnnxNode &);
#define KILN_ONNX_ML_TEXT(name, min_inputs, max_inputs, handler) Status handler(OnnxNode &);
#define KILN_ONNX_ML_MOVES(name, min_inputs, max_inputs, handler) Status handler(OnnxNode &);
#define KILN_ONNX_ML_ANY(name, min_inputs, max_inputs, handler) Status handler(OnnxNode &);
#define KILN_ONNX_ANY(name, min_inputs, max_inputs, handler) Status handler(OnnxNode &);
#define KILN_ONNX_ML(name, min_inputs, max_inputs, handler) Status handler(OnnxNode &);
#define KILN_ONNX_TRAIN(name, min_inputs, max_inputs, handler) Status handler(OnnxNode &);
#define KILN_ONNX_PREVIEW(name, min_inputs, max_inputs, handler) Status handler(OnnxNode &);
#define KILN_ONNX_MS(name, min_inputs, max_inputs, handler) Status handler(OnnxNode &);
#define KILN_ONNX_UNARY(name, op)
#define KILN_ONNX_BINARY(name, op)
#include "frontend/onnx/onnx_ops.def"
#undef KILN_ONNX
#undef KILN_ONNX_MOVES
#undef KILN_ONNX_TEXT
#undef KILN_ONNX_ML_TEXT
#undef KILN_ONNX_ML_MOVES
#undef KILN_ONNX_ML_ANY
#undef KILN_ONNX_ANY
#undef KILN_ONNX_ML
#undef KILN_ONNX_TRAIN
#undef KILN_ONNX_PREVIEW
#undef KILN_ONNX_MS
#undef KILN_ONNX_UNARY
#undef KILN_ONNX_BINARY

// The node with other operands (those left out are empty) by the handler of another operator, which sees the
// default domain's opset and the node's attributes and results.
Status import_as(OnnxNode &n, std::vector<Val> operands, Handler handler);

// A convolution of operands x, w and perhaps a bias, with the node's attributes. Sizes are those of the
// node's first operand, which x has too.
Result<Val> convolve(OnnxNode &n, const std::vector<Val> &operands);

// x[B, L, H, E] with the first elements of each head turned by angles [B or 1, L, 1, A]: element i with i + A,
// or 2 i with 2 i + 1 where they are interleaved (ops_rotary.cpp).
Result<Val> rotate_pairs(OnnxNode &n, const Val &x, const Val &cosines, const Val &sines, bool interleaved);
// The rows of table[P, A] at positions[B, L], as [B, L, 1, A].
Result<Val> angles_at(OnnxNode &n, const Val &table, const Val &positions);

// An average pool of codes whose channels come first.
Status qlinear_average_pool(OnnxNode &n);

// Scan of opset 8.
Status import_batch_scan(OnnxNode &n);

// MaxPool with its second output.
Status max_pool_with_indices(OnnxNode &n);

// Forms of the first opsets (ops_retired.cpp).
Status import_position_batch_normalization(OnnxNode &n);
Status import_first_tile(OnnxNode &n);
Status import_first_upsample(OnnxNode &n, std::vector<double> &scales);

// x rounded to the 256 steps of its own range with 0, as DynamicQuantizeLinear does, and back.
Result<Val> rounded_to_range(OnnxNode &n, const Val &x);

} // namespace kiln::onnx
