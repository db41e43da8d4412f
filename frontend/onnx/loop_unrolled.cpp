// A Loop that carries sequences, optionals or tensors that grow. A step may make a sequence longer, so that every step has values of
// its own: they are imported one after the other, which needs their number, and whether one ends the loop, to
// be known.
#include "frontend/onnx/importer.h"
#include "frontend/onnx/lists.h"

#include <fmt/format.h>

namespace kiln::onnx {
namespace {

constexpr int64_t kMaxSteps = 1 << 14;

// Nothing where it is computed at run time.
std::optional<bool> known_bool(Emitter &e, const Val &v) {
  auto list = e.elements(v);
  if (!list || list->size() != 1 || !(*list)[0].try_int())
    return std::nullopt;
  return *(*list)[0].try_int() != 0;
}

} // namespace

Status loop_unrolled(OnnxNode &n, const GraphView &graph, const std::vector<Val> &initial) {
  Emitter &e = n.emitter();
  std::optional<int64_t> count;
  if (n.has(0)) {
    auto list = e.dims(n.in(0));
    if (!list || list->size() != 1 || !(*list)[0].is_const())
      return Error{"it carries sequences, optionals or tensors whose sizes change, so that its number of steps must be known at compile time; fix "
                   "sizes with --dim or --shape"};
    count = (*list)[0].as_const();
  }
  Val go = n.has(1) ? n.in(1) : e.scalar(DType::bool_, 1);
  std::vector<Val> carried = initial;
  std::vector<std::vector<Val>> stacked(graph.outputs.size() - initial.size() - 1);
  for (int64_t step = 0; !count || step < *count; ++step) {
    auto goes_on = known_bool(e, go);
    if (!goes_on)
      return Error{"it carries sequences, optionals or tensors whose sizes change, and whether it goes on is computed at run time; make its "
                   "condition a constant"};
    if (!*goes_on)
      break;
    if (step >= kMaxSteps)
      return Error{fmt::format("it carries sequences, optionals or tensors whose sizes change, which is supported for {} steps at most", kMaxSteps)};
    std::vector<Val> inputs = {e.constant(Tensor::scalar_i64(DType::i64, step)), go};
    inputs.insert(inputs.end(), carried.begin(), carried.end());
    KILN_TRY(results, n.importer().import_subgraph(graph, inputs));
    go = results[0];
    carried.assign(results.begin() + 1, results.begin() + 1 + std::ptrdiff_t(carried.size()));
    for (size_t i = 0; i < stacked.size(); ++i) {
      if (!results[1 + carried.size() + i].is_tensor())
        return Error{"it stacks sequences or optionals"};
      stacked[i].push_back(results[1 + carried.size() + i]);
    }
  }
  for (size_t i = 0; i < carried.size(); ++i)
    n.set(i, carried[i]);
  for (size_t i = 0; i < stacked.size(); ++i) {
    if (!n.wants(carried.size() + i))
      continue;
    if (stacked[i].empty())
      return Error{"it makes no step, so that the shapes of what it stacks are unknown"};
    KILN_TRY(joined, stack(e, stacked[i], 0));
    n.set(carried.size() + i, joined);
  }
  return Unit{};
}

} // namespace kiln::onnx
