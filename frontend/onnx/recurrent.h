// Recurrent layers written as a scan over time: the input's part of all gates is one matrix product, the
// rest a step that a caller writes for its kind of cell.
#pragma once

#include "frontend/onnx/node.h"

#include <functional>
#include <optional>

namespace kiln::onnx {

// What a direction's step works with; all without the leading dim of the direction.
struct Cell {
  Emitter &e;
  Dim batch, hidden;
  Val recurrent;             // R: [gates * H, H]
  std::optional<Val> bias;   // of R: [gates * H]
  std::optional<Val> peephole; // P: [3 * H]
  std::vector<std::function<Result<Val>(Val)>> activations;

  // Columns of gate i of [B, gates * H].
  Result<Val> gate(const Val &gates, int64_t i) const;
  Result<Val> emit(Op op, std::vector<Val> operands, Attrs attrs = {}) const {
    return e.emit(op, std::move(operands), std::move(attrs));
  }
};

// The next states from those before, [B, H] each, the hidden state first, and the input's part of the
// gates, [B, gates * H], which includes the bias of W.
using Step = std::function<Result<std::vector<Val>>(const Cell &, const std::vector<Val> &states, const Val &gates)>;

struct RecurrentKind {
  int64_t gates;
  size_t states;           // 1, or 2 with a cell state
  size_t peephole_input = 0; // 0: none
  std::vector<std::string> activations; // of one direction
  Step step;
};

// Where the node keeps the batch first (layout = 1): its X [B, T, I] and states [B, D, H] with the batch second and
// back, and results [T, D, B, H] as [B, T, D, H]. Otherwise x.
Result<Val> moved_batch(OnnxNode &n, const Val &x);

// The whole operator: operands X, W, R, B, sequence_lens, initial states; results Y, Y_h, Y_c.
// The attribute agrees with the weights.
Status check_hidden_size(OnnxNode &n);
Status import_recurrent(OnnxNode &n, const RecurrentKind &kind);

} // namespace kiln::onnx
