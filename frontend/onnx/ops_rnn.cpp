// Recurrent layers.
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::onnx {
namespace {

bool all_zero(const Tensor &t) {
  for (int64_t i = 0; i < t.count(); ++i)
    if (t.at_f64(i) != 0)
      return false;
  return true;
}

Status check_lstm(OnnxNode &n, const Dim &steps) {
  n.ignore({"hidden_size", "output_sequence", "activation_alpha", "activation_beta"});
  auto names = n.get_strings("activations");
  constexpr std::string_view kUsual[] = {"sigmoid", "tanh", "tanh"};
  for (size_t i = 0; i < names.size(); ++i) {
    std::string lower = names[i];
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](char c) { return char(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c); });
    if (lower != kUsual[i % 3])
      return Error{fmt::format("the activation {} is not supported; only Sigmoid, Tanh, Tanh are", names[i])};
  }
  if (n.has_attr("clip"))
    return Error{"the attribute 'clip' is not supported"};
  if (n.get_flag("input_forget", false))
    return Error{"the attribute 'input_forget' is not supported"};
  if (n.has(4)) {
    auto lengths = n.emitter().dims(n.in(4));
    bool full = lengths.has_value();
    for (size_t i = 0; full && i < lengths->size(); ++i)
      full = (*lengths)[i] == steps;
    if (!full)
      return Error{"sequences of different lengths (sequence_lens) are not supported"};
  }
  if (n.has(7) && !(n.in(7).constant && all_zero(*n.in(7).constant)))
    return Error{"peepholes (the input P) are not supported"};
  return Unit{};
}

} // namespace

Status import_lstm(OnnxNode &n) {
  Emitter &e = n.emitter();
  if (n.rank(0) != 3 || n.rank(1) != 3 || n.rank(2) != 3)
    return Error{"its operands X, W and R must have three dims"};
  bool batch_first = n.get_flag("layout", false);
  std::string direction = n.get_string("direction", "forward");
  KILN_TRY(x, batch_first ? permute(e, n.in(0), {1, 0, 2}) : Result<Val>(n.in(0)));
  KILN_RETURN_IF_ERROR(check_lstm(n, x.dim(0)));
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
    if (!n.has(i)) {
      KILN_TRY(state, zeros({directions, batch, hidden}));
      operands.push_back(state);
    } else if (batch_first && n.rank(i) == 3) {
      KILN_TRY(state, permute(e, n.in(i), {1, 0, 2}));
      operands.push_back(state);
    } else {
      operands.push_back(n.in(i));
    }
  }
  KILN_TRY(results, e.emit_all(Op::lstm, operands, {{"direction", direction}}));
  if (batch_first) {
    KILN_TRY(y, permute(e, results[0], {2, 0, 1, 3}));
    KILN_TRY(h, permute(e, results[1], {1, 0, 2}));
    KILN_TRY(c, permute(e, results[2], {1, 0, 2}));
    results = {y, h, c};
  }
  for (size_t i = 0; i < 3; ++i)
    n.set(i, results[i]);
  return Unit{};
}

} // namespace kiln::onnx
