// RNN, GRU and LSTM.
#include "frontend/onnx/ops.h"
#include "frontend/onnx/recurrent.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::onnx {
namespace {

// H R^T + the bias of R: [B, gates * H].
Result<Val> recurrent_gates(const Cell &c, const Val &h) {
  std::vector<Val> operands = {h, c.recurrent};
  if (c.bias)
    operands.push_back(*c.bias);
  return c.emit(Op::dot, operands, {{"transpose_b", true}});
}

Result<std::vector<Val>> rnn_step(const Cell &c, const std::vector<Val> &states, const Val &gates) {
  KILN_TRY(recurrent, recurrent_gates(c, states[0]));
  KILN_TRY(sum, c.emit(Op::add, {gates, recurrent}));
  KILN_TRY(h, c.activations[0](sum));
  return std::vector<Val>{h};
}

// (1 - z) * candidate + z * h
Result<Val> mixed(const Cell &c, const Val &z, const Val &candidate, const Val &h) {
  KILN_TRY(rest, c.emit(Op::sub, {c.e.scalar(h.dtype(), 1), z}));
  KILN_TRY(fresh, c.emit(Op::mul, {rest, candidate}));
  KILN_TRY(old, c.emit(Op::mul, {z, h}));
  return c.emit(Op::add, {fresh, old});
}

// Gates z r h. The reset applies to the recurrent product, its bias included.
Result<std::vector<Val>> gru_step_reset_after(const Cell &c, const std::vector<Val> &states, const Val &gates) {
  KILN_TRY(recurrent, recurrent_gates(c, states[0]));
  std::vector<Val> zr;
  for (int64_t i = 0; i < 2; ++i) {
    KILN_TRY(x, c.gate(gates, i));
    KILN_TRY(h, c.gate(recurrent, i));
    KILN_TRY(sum, c.emit(Op::add, {x, h}));
    KILN_TRY(gate, c.activations[0](sum));
    zr.push_back(gate);
  }
  KILN_TRY(x, c.gate(gates, 2));
  KILN_TRY(h, c.gate(recurrent, 2));
  KILN_TRY(reset, c.emit(Op::mul, {zr[1], h}));
  KILN_TRY(sum, c.emit(Op::add, {x, reset}));
  KILN_TRY(candidate, c.activations[1](sum));
  KILN_TRY(next, mixed(c, zr[0], candidate, states[0]));
  return std::vector<Val>{next};
}

// The reset applies to the state before the recurrent product.
Result<std::vector<Val>> gru_step_reset_before(const Cell &c, const std::vector<Val> &states, const Val &gates) {
  Emitter &e = c.e;
  auto product = [&](const Val &h, int64_t first, int64_t count) -> Result<Val> {
    KILN_TRY(rows, slice_axis(e, c.recurrent, 0, c.hidden * Dim(first), c.hidden * Dim(count)));
    std::vector<Val> operands = {h, rows};
    if (c.bias) {
      KILN_TRY(bias, slice_axis(e, *c.bias, 0, c.hidden * Dim(first), c.hidden * Dim(count)));
      operands.push_back(bias);
    }
    return c.emit(Op::dot, operands, {{"transpose_b", true}});
  };
  KILN_TRY(both, product(states[0], 0, 2));
  std::vector<Val> zr;
  for (int64_t i = 0; i < 2; ++i) {
    KILN_TRY(x, c.gate(gates, i));
    KILN_TRY(h, c.gate(both, i));
    KILN_TRY(sum, c.emit(Op::add, {x, h}));
    KILN_TRY(gate, c.activations[0](sum));
    zr.push_back(gate);
  }
  KILN_TRY(reset, c.emit(Op::mul, {zr[1], states[0]}));
  KILN_TRY(recurrent, product(reset, 2, 1));
  KILN_TRY(x, c.gate(gates, 2));
  KILN_TRY(sum, c.emit(Op::add, {x, recurrent}));
  KILN_TRY(candidate, c.activations[1](sum));
  KILN_TRY(next, mixed(c, zr[0], candidate, states[0]));
  return std::vector<Val>{next};
}

// Gates i o f c, with peepholes in the order i o f.
Result<std::vector<Val>> lstm_step(const Cell &c, const std::vector<Val> &states, const Val &gates,
                                   bool coupled) {
  KILN_TRY(recurrent, recurrent_gates(c, states[0]));
  KILN_TRY(sum, c.emit(Op::add, {gates, recurrent}));
  auto gate = [&](int64_t i, const Val &cell_state) -> Result<Val> {
    KILN_TRY(part, c.gate(sum, i));
    if (!c.peephole)
      return c.activations[0](part);
    KILN_TRY(weights, c.gate(*c.peephole, i));
    KILN_TRY(seen, c.emit(Op::mul, {weights, cell_state}));
    KILN_TRY(all, c.emit(Op::add, {part, seen}));
    return c.activations[0](all);
  };
  KILN_TRY(in, gate(0, states[1]));
  KILN_TRY(forget, coupled ? c.emit(Op::sub, {c.e.scalar(in.dtype(), 1), in}) : gate(2, states[1]));
  KILN_TRY(candidate_sum, c.gate(sum, 3));
  KILN_TRY(candidate, c.activations[1](candidate_sum));
  KILN_TRY(kept, c.emit(Op::mul, {forget, states[1]}));
  KILN_TRY(fresh, c.emit(Op::mul, {in, candidate}));
  KILN_TRY(next_c, c.emit(Op::add, {kept, fresh}));
  KILN_TRY(out, gate(1, next_c));
  KILN_TRY(shown, c.activations[2](next_c));
  KILN_TRY(next_h, c.emit(Op::mul, {out, shown}));
  return std::vector<Val>{next_h, next_c};
}

// Whether Kiln's lstm says all that the node says.
bool is_plain_lstm(OnnxNode &n) {
  constexpr std::string_view kUsual[] = {"Sigmoid", "Tanh", "Tanh"};
  auto names = n.get_strings("activations");
  for (size_t i = 0; i < names.size(); ++i)
    if (names[i] != kUsual[i % 3])
      return false;
  if (n.has_attr("clip") || n.get_flag("input_forget", false) || n.has(7))
    return false;
  if (!n.has(4))
    return true;
  auto lengths = n.emitter().dims(n.in(4));
  bool full = lengths.has_value();
  for (size_t i = 0; full && i < lengths->size(); ++i)
    full = (*lengths)[i] == n.in(0).dim(n.get_flag("layout", false) ? 1 : 0);
  return full;
}

Status plain_lstm(OnnxNode &n) {
  Emitter &e = n.emitter();
  n.ignore({"output_sequence", "activation_alpha", "activation_beta"});
  KILN_RETURN_IF_ERROR(check_hidden_size(n));
  std::string direction = n.get_string("direction", "forward");
  KILN_TRY(x, moved_batch(n, n.in(0)));
  Dim directions = n.in(1).dim(0), batch = x.dim(1), hidden = n.in(2).dim(2);
  std::vector<Val> operands = {x, n.in(1), n.in(2)};
  auto zeros = [&](Shape shape) { return broadcast_to(e, e.scalar(x.dtype(), 0), shape); };
  bool states = n.has(5) || n.has(6);
  if (n.has(3)) {
    operands.push_back(n.in(3));
  } else if (states) {
    KILN_TRY(bias, zeros({directions, Dim(8) * hidden}));
    operands.push_back(bias);
  }
  for (size_t i = 5; states && i < 7; ++i) {
    KILN_TRY(state, n.has(i) ? moved_batch(n, n.in(i)) : zeros({directions, batch, hidden}));
    operands.push_back(state);
  }
  KILN_TRY(results, e.emit_all(Op::lstm, operands, {{"direction", direction}}));
  for (size_t i = 0; i < 3; ++i) {
    KILN_TRY(result, moved_batch(n, results[i]));
    n.set(i, result);
  }
  return Unit{};
}

} // namespace

Status import_lstm(OnnxNode &n) {
  if (n.rank(0) != 3 || n.rank(1) != 3 || n.rank(2) != 3)
    return Error{"its operands X, W and R must have three dims"};
  if (is_plain_lstm(n))
    return plain_lstm(n);
  bool coupled = n.get_flag("input_forget", false);
  return import_recurrent(n, {4, 2, 7, {"sigmoid", "tanh", "tanh"},
                              [coupled](const Cell &c, const std::vector<Val> &states, const Val &gates) {
                                return lstm_step(c, states, gates, coupled);
                              }});
}

Status import_gru(OnnxNode &n) {
  bool after = n.get_flag("linear_before_reset", false);
  return import_recurrent(
      n, {3, 1, 0, {"sigmoid", "tanh"}, after ? gru_step_reset_after : gru_step_reset_before});
}

Status import_rnn(OnnxNode &n) { return import_recurrent(n, {1, 1, 0, {"tanh"}, rnn_step}); }

} // namespace kiln::onnx
