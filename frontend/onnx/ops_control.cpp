// Control flow: graphs inside of nodes become regions.
#include "frontend/onnx/importer.h"
#include "frontend/onnx/lists.h"
#include "frontend/onnx/ops.h"
#include "frontend/onnx/text.h"

#include <fmt/format.h>

namespace kiln::onnx {
namespace {

Result<Block> branch(OnnxNode &n, std::string_view name, std::vector<Form> &forms) {
  KILN_TRY(graph, n.get_graph(name));
  Block block;
  IntoBlock scope(n.emitter().builder(), block);
  KILN_TRY(values, n.importer().import_subgraph(graph, {}));
  for (const Val &v : flatten(values, forms)) {
    KILN_TRY(id, n.emitter().materialize(v));
    block.results.push_back(id);
  }
  return block;
}

// Strings that the branches give become as wide as the wider ones.
Status equal_widths(OnnxNode &n, std::vector<Block> &branches, const std::vector<bool> &text) {
  Emitter &e = n.emitter();
  for (size_t i = 0; i < text.size() && branches[0].results.size() == branches[1].results.size(); ++i) {
    std::vector<Val> values(2);
    Dim width = 0;
    for (size_t k = 0; text[i] && k < 2; ++k) {
      values[k].id = branches[k].results[i];
      values[k].type = e.function().type(values[k].id);
      width = max(width, values[k].type.shape.back());
    }
    for (size_t k = 0; text[i] && k < 2; ++k) {
      IntoBlock scope(e.builder(), branches[k]);
      KILN_TRY(wide, widen(e, values[k], width));
      branches[k].results[i] = wide.id;
    }
  }
  return Unit{};
}

Status inline_branch(OnnxNode &n, std::string_view name) {
  KILN_TRY(graph, n.get_graph(name));
  KILN_TRY(values, n.importer().import_subgraph(graph, {}));
  for (size_t i = 0; i < values.size(); ++i)
    n.set(i, values[i]);
  return Unit{};
}

// Whether the branches give results of different ranks. Both are imported to a block that is dropped.
Result<bool> branches_differ(OnnxNode &n) {
  std::vector<int> ranks[2];
  for (int i = 0; i < 2; ++i) {
    std::vector<Form> forms;
    KILN_TRY(block, branch(n, i == 0 ? "then_branch" : "else_branch", forms));
    for (ValueId id : block.results)
      ranks[i].push_back(n.emitter().function().type(id).rank());
  }
  return ranks[0] != ranks[1];
}

// Imports a graph into a region whose arguments are `inputs`; its first output goes to `first` instead of
// the region's results where that is given.
// `text`, where it is given, is told which of the region's results are strings.
Status fill(OnnxNode &n, Block &block, const GraphView &graph, std::span<const Val> inputs, Val *first,
            std::vector<bool> *text = nullptr) {
  IntoBlock scope(n.emitter().builder(), block);
  KILN_TRY(values, n.importer().import_subgraph(graph, inputs));
  for (size_t i = 0; i < values.size(); ++i) {
    if (i == 0 && first) {
      *first = values[0];
      continue;
    }
    KILN_TRY(id, n.emitter().materialize(values[i]));
    block.results.push_back(id);
    if (text)
      text->push_back(values[i].text);
  }
  return Unit{};
}

Result<Val> move_axis(Emitter &e, const Val &x, int from, int to) {
  std::vector<int64_t> order;
  for (int i = 0; i < x.rank(); ++i)
    if (i != from)
      order.push_back(i);
  order.insert(order.begin() + to, from);
  return permute(e, x, order);
}

Result<Val> flipped(Emitter &e, const Val &x, bool flip) {
  return flip ? e.emit(Op::flip, {x}, {{"axes", attr_ints(std::vector<int>{0})}}) : Result<Val>(x);
}

// False where the body may end the loop early; nothing has been emitted then.
Result<bool> loop_as_scan(OnnxNode &n, const GraphView &graph, const std::vector<Val> &initial, const Dim &count) {
  Emitter &e = n.emitter();
  Block body;
  Val yes = e.scalar(DType::bool_, 1), goes_on;
  std::vector<Val> carried;
  for (const Val &v : initial) {
    carried.push_back(e.argument(body, v.type, ""));
    carried.back().text = v.text;
  }
  std::vector<bool> text;
  Val step = e.argument(body, {DType::i64, {}}, "step");
  std::vector<Val> inner = {step, yes};
  inner.insert(inner.end(), carried.begin(), carried.end());
  KILN_RETURN_IF_ERROR(fill(n, body, graph, inner, &goes_on, &text));
  if (!goes_on.constant || goes_on.constant->count() != 1 || goes_on.constant->at_i64(0) == 0)
    return false;
  Dim steps = count.is_const() && count.as_const() < 0 ? Dim(0) : count;
  KILN_TRY(numbers, e.emit(Op::iota, {}, {{"shape", Shape{steps}}, {"axis", Dim(0)}, {"dtype", DType::i64}}));
  std::vector<Val> operands = initial;
  operands.push_back(numbers);
  std::vector<Block> regions;
  regions.push_back(std::move(body));
  KILN_TRY(results,
           e.emit_all(Op::scan, operands, {{"carried", attr_int(int64_t(initial.size()))}}, std::move(regions)));
  for (size_t i = 0; i < results.size(); ++i) {
    results[i].text = text[i];
    n.set(i, results[i]);
  }
  return true;
}

Status loop_as_while(OnnxNode &n, const GraphView &graph, const std::vector<Val> &initial) {
  Emitter &e = n.emitter();
  Val limit = e.constant(Tensor::scalar_i64(DType::i64, INT64_MAX)), go = e.scalar(DType::bool_, 1);
  if (n.has(0)) {
    KILN_TRY(given, reshape(e, n.in(0), {}));
    limit = given;
  }
  if (n.has(1)) {
    KILN_TRY(given, reshape(e, n.in(1), {}));
    go = given;
  }
  std::vector<Val> operands = {e.constant(Tensor::scalar_i64(DType::i64, 0)), go};
  operands.insert(operands.end(), initial.begin(), initial.end());
  std::vector<Block> regions(2);
  std::vector<Val> inner[2];
  for (int i = 0; i < 2; ++i)
    for (const Val &v : operands) {
      inner[i].push_back(e.argument(regions[size_t(i)], v.type, ""));
      inner[i].back().text = v.text;
    }
  {
    IntoBlock scope(e.builder(), regions[0]);
    KILN_TRY(more, e.emit(Op::lt, {inner[0][0], limit}));
    KILN_TRY(both, e.emit(Op::logical_and, {more, inner[0][1]}));
    KILN_TRY(id, e.materialize(both));
    regions[0].results = {id};
  }
  Val goes_on;
  KILN_RETURN_IF_ERROR(fill(n, regions[1], graph, inner[1], &goes_on));
  {
    IntoBlock scope(e.builder(), regions[1]);
    KILN_TRY(next, e.emit(Op::add, {inner[1][0], e.constant(Tensor::scalar_i64(DType::i64, 1))}));
    KILN_TRY(flag, reshape(e, goes_on, {}));
    KILN_TRY(next_id, e.materialize(next));
    KILN_TRY(flag_id, e.materialize(flag));
    regions[1].results.insert(regions[1].results.begin(), {next_id, flag_id});
  }
  KILN_TRY(results, e.emit_all(Op::while_, operands, {}, std::move(regions)));
  for (size_t i = 2; i < results.size(); ++i) {
    results[i].text = operands[i].text;
    n.set(i - 2, results[i]);
  }
  return Unit{};
}

} // namespace

Status import_if(OnnxNode &n) {
  Emitter &e = n.emitter();
  if (!element_count(n.shape()).is_const(1) || !is_bool(n.dtype()))
    return Error{fmt::format("the condition is {}, not one bool", n.in(0).type.text())};
  // A condition that follows from the sizes chooses now; the other branch may not even be valid.
  if (auto known = e.elements(n.in(0)); known && (*known)[0].try_int()) {
    n.ignore({"then_branch", "else_branch"});
    return inline_branch(n, *(*known)[0].try_int() != 0 ? "then_branch" : "else_branch");
  }
  // Where the condition asks whether two sizes are equal and the branches give different ranks (a
  // squeeze of what may not be 1, or nothing), they are taken to be: that is checked before a run.
  if (const auto *sizes = e.equality_of(n.in(0))) {
    KILN_TRY(ranks_differ, branches_differ(n));
    if (ranks_differ && e.require_equal(sizes->first, sizes->second, "If")) {
      n.ignore({"else_branch"});
      return inline_branch(n, "then_branch");
    }
  }
  std::vector<Block> regions;
  std::vector<Form> forms[2];
  for (std::string_view name : {"then_branch", "else_branch"}) {
    KILN_TRY(block, branch(n, name, forms[regions.size()]));
    regions.push_back(std::move(block));
  }
  for (size_t i = 0; i < std::min(forms[0].size(), forms[1].size()); ++i)
    if (forms[0][i] != forms[1][i])
      return Error{fmt::format("its output {} is {} in one branch and {} in the other, which must then be chosen at "
                               "compile time: make the condition a constant",
                               i, describe(forms[0][i]), describe(forms[1][i]))};
  KILN_RETURN_IF_ERROR(equal_widths(n, regions, text_flags(forms[0])));
  std::vector<Val> results;
  if (!regions[0].results.empty()) {
    KILN_TRY(condition, reshape(e, n.in(0), {}));
    std::vector<Val> operands = {condition};
    KILN_TRY(chosen, e.emit_all(Op::if_, operands, {}, std::move(regions)));
    results = chosen;
  }
  std::vector<Val> values = regroup(e, forms[0], results);
  for (size_t i = 0; i < values.size(); ++i)
    n.set(i, values[i]);
  return Unit{};
}

// A loop whose number of steps is known and that nothing ends early is a scan over 0, 1, 2, ...; any other
// is a while, which cannot stack results of its steps.
Status import_loop(OnnxNode &n) {
  Emitter &e = n.emitter();
  KILN_TRY(graph, n.get_graph("body"));
  std::vector<Val> initial(n.inputs().begin() + 2, n.inputs().end());
  for (size_t i = 2; i < n.input_count(); ++i)
    if (!n.has(i))
      return Error{fmt::format("its input {} is missing", i)};
  size_t carried = initial.size();
  if (graph.inputs.size() != carried + 2 || graph.outputs.size() < carried + 1)
    return Error{fmt::format("its body has {} inputs and {} outputs for {} values", graph.inputs.size(),
                             graph.outputs.size(), carried)};
  for (const Val &v : initial)
    if (!v.is_tensor())
      return loop_unrolled(n, graph, initial);
  std::optional<Dim> count;
  if (n.has(0))
    if (auto list = e.dims(n.in(0)); list && list->size() == 1)
      count = (*list)[0];
  bool starts = !n.has(1) || (n.in(1).constant && n.in(1).constant->count() == 1 && n.in(1).constant->at_i64(0) != 0);
  if (count && starts) {
    KILN_TRY(done, loop_as_scan(n, graph, initial, *count));
    if (done)
      return Unit{};
  }
  if (graph.outputs.size() > carried + 1)
    return Error{"it stacks results of its steps, but their number is not known before it runs"};
  return loop_as_while(n, graph, initial);
}

// Scan since opset 9: axes and directions are moved to axis 0, forwards.
Status import_scan(OnnxNode &n) {
  Emitter &e = n.emitter();
  if (n.opset() < 9)
    return import_batch_scan(n);
  for (size_t i = 0; i < n.input_count(); ++i)
    if (!n.has(i))
      return Error{fmt::format("its input {} is missing", i)};
  KILN_TRY(graph, n.get_graph("body"));
  int64_t scanned = n.get_int("num_scan_inputs", 0), total = int64_t(n.input_count());
  if (scanned <= 0 || scanned > total || int64_t(graph.inputs.size()) != total)
    return Error{fmt::format("it scans {} of {} inputs, and its body takes {}", scanned, total, graph.inputs.size())};
  size_t carried = size_t(total - scanned), stacked = graph.outputs.size() - std::min(graph.outputs.size(), carried);
  if (graph.outputs.size() < carried)
    return Error{"its body has too few outputs"};
  auto list = [&](std::string_view name, size_t count) { return n.get_ints(name, std::vector<int64_t>(count, 0)); };
  auto in_axes = list("scan_input_axes", size_t(scanned)), in_ways = list("scan_input_directions", size_t(scanned));
  auto out_axes = list("scan_output_axes", stacked), out_ways = list("scan_output_directions", stacked);
  if (in_axes.size() != size_t(scanned) || in_ways.size() != size_t(scanned) || out_axes.size() != stacked ||
      out_ways.size() != stacked)
    return Error{"its axes or directions are not one for each scanned value"};
  std::vector<Val> operands(n.inputs().begin(), n.inputs().begin() + std::ptrdiff_t(carried));
  Block body;
  std::vector<Val> inner;
  for (const Val &v : operands)
    inner.push_back(e.argument(body, v.type, ""));
  for (size_t i = 0; i < size_t(scanned); ++i) {
    Val x = n.in(carried + i);
    KILN_TRY(axis, n.axis(in_axes[i], x.rank()));
    KILN_TRY(front, move_axis(e, x, axis, 0));
    KILN_TRY(ordered, flipped(e, front, in_ways[i] != 0));
    operands.push_back(ordered);
    inner.push_back(e.argument(body, {x.dtype(), Shape(ordered.type.shape.begin() + 1, ordered.type.shape.end())}, ""));
  }
  KILN_RETURN_IF_ERROR(fill(n, body, graph, inner, nullptr));
  std::vector<Block> regions;
  regions.push_back(std::move(body));
  KILN_TRY(results, e.emit_all(Op::scan, operands, {{"carried", attr_int(int64_t(carried))}}, std::move(regions)));
  for (size_t i = 0; i < results.size(); ++i) {
    Val y = results[i];
    if (i >= carried) {
      KILN_TRY(ordered, flipped(e, y, out_ways[i - carried] != 0));
      KILN_TRY(axis, n.axis(out_axes[i - carried], y.rank()));
      KILN_TRY(moved, move_axis(e, ordered, 0, axis));
      y = moved;
    }
    n.set(i, y);
  }
  return Unit{};
}

} // namespace kiln::onnx
