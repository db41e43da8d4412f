// Control flow: graphs inside of nodes become regions.
#include "frontend/onnx/importer.h"
#include "frontend/onnx/lists.h"
#include "frontend/onnx/ops.h"
#include "frontend/onnx/run_sizes.h"
#include "frontend/onnx/selection.h"
#include "frontend/onnx/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

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
      width = max(width, values[k].last_dim());
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

// Whether what a step carries on cannot have the type of what the loop began with: a tensor that grows.
bool changes_shape(const Function &f, const Block &body, const std::vector<Val> &initial) {
  for (size_t i = 0; i < std::min(initial.size(), body.results.size()); ++i) {
    const Shape &before = initial[i].type.shape, &after = f.type(body.results[i]).shape;
    if (before.size() != after.size())
      return true;
    for (size_t d = 0; d < before.size(); ++d)
      if (auto more = (after[d] - before[d]).try_const(); more && *more != 0)
        return true;
  }
  return false;
}

// False where the body may end the loop early; nothing has been emitted then. `count` is asked for the number of
// steps when it is needed.
Result<bool> loop_as_scan(OnnxNode &n, const GraphView &graph, const std::vector<Val> &initial,
                          const std::function<Result<Dim>()> &count) {
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
  bool always = goes_on.constant && goes_on.constant->count() == 1 && goes_on.constant->at_i64(0) != 0;
  if (!always)
    return false;
  if (changes_shape(e.function(), body, initial)) {
    KILN_RETURN_IF_ERROR(loop_unrolled(n, graph, initial));
    return true;
  }
  KILN_TRY(steps, count());
  if (steps.is_const() && steps.as_const() < 0)
    steps = 0;
  KILN_TRY(numbers, counted(e, steps));
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

// What each step of a loop stacks, while nobody knows how many steps there are: rows of a tensor that the loop
// carries, `room` of them and one for what goes beyond.
struct Rows {
  std::vector<size_t> output; // of the node
  std::vector<Val> blank;
  std::vector<bool> text;
};

Result<Rows> write_rows(OnnxNode &n, Block &body, size_t carried, const Val &step, const Dim &room, const std::vector<bool> &text) {
  Emitter &e = n.emitter();
  IntoBlock scope(e.builder(), body);
  Rows out;
  KILN_TRY(place, e.emit(Op::minimum, {step, number(e, room)}));
  KILN_TRY(index, reshape(e, place, {1, 1}));
  std::vector<ValueId> stacked(body.results.begin() + std::ptrdiff_t(carried), body.results.end());
  body.results.resize(carried);
  for (size_t i = carried; i < carried + stacked.size(); ++i) {
    if (!n.wants(i))
      continue;
    Val row;
    row.id = stacked[i - carried];
    row.type = e.function().type(row.id);
    if (std::any_of(row.type.shape.begin(), row.type.shape.end(), [&](const Dim &d) { return e.is_local(d); }))
      return Error{fmt::format("it stacks tensors whose sizes are found in each step ({})", row.type.text())};
    Shape whole = row.type.shape, one = whole;
    whole.insert(whole.begin(), room + Dim(1));
    one.insert(one.begin(), 1);
    Val rows = e.argument(body, {row.dtype(), whole}, "");
    KILN_TRY(update, reshape(e, row, one));
    KILN_TRY(next, e.emit(Op::scatter_nd, {rows, index, update}));
    body.results.push_back(next.id);
    out.output.push_back(i);
    Val zero = e.constant(Tensor(row.dtype(), {}));
    {
      IntoBlock outside(e.builder(), scope.outer());
      KILN_TRY(zero_id, e.materialize(zero)); // not folded: it is as large as all steps together
      KILN_TRY(node, e.builder().emit(Op::broadcast_to, {zero_id}, {{"shape", whole}}));
      Val blank;
      blank.id = e.function().node(node).results[0];
      blank.type = e.function().type(blank.id);
      out.blank.push_back(blank);
    }
    out.text.push_back(text.at(i));
  }
  return out;
}

// A loop that a step may end. What it stacks lies below `room` rows; `stacked` binds their number, which is the while's
// first result.
Status loop_as_while(OnnxNode &n, const GraphView &graph, const std::vector<Val> &initial, const std::function<Dim()> &room,
                     const std::function<Result<Dim>(const Val &, const Dim &)> &bind_steps) {
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
  std::vector<Val> inner;
  for (const Val &v : operands) {
    inner.push_back(e.argument(regions[1], v.type, ""));
    inner.back().text = v.text;
  }
  Val goes_on;
  std::vector<bool> text;
  KILN_RETURN_IF_ERROR(fill(n, regions[1], graph, inner, &goes_on, &text));
  if (changes_shape(e.function(), regions[1], initial))
    return loop_unrolled(n, graph, initial);
  Rows rows;
  Dim most;
  bool stacks = false;
  for (size_t i = initial.size(); i < regions[1].results.size(); ++i)
    stacks |= n.wants(i);
  if (!stacks)
    regions[1].results.resize(initial.size());
  if (stacks) {
    most = room();
    KILN_TRY(written, write_rows(n, regions[1], initial.size(), inner[0], most, text));
    rows = std::move(written);
    operands.insert(operands.end(), rows.blank.begin(), rows.blank.end());
  }
  {
    IntoBlock scope(e.builder(), regions[1]);
    KILN_TRY(next, e.emit(Op::add, {inner[0], e.constant(Tensor::scalar_i64(DType::i64, 1))}));
    KILN_TRY(flag, reshape(e, goes_on, {}));
    KILN_TRY(next_id, e.materialize(next));
    KILN_TRY(flag_id, e.materialize(flag));
    regions[1].results.insert(regions[1].results.begin(), {next_id, flag_id});
  }
  std::vector<Val> asked;
  for (const Val &v : operands)
    asked.push_back(e.argument(regions[0], v.type, ""));
  {
    IntoBlock scope(e.builder(), regions[0]);
    KILN_TRY(more, e.emit(Op::lt, {asked[0], limit}));
    KILN_TRY(both, e.emit(Op::logical_and, {more, asked[1]}));
    KILN_TRY(id, e.materialize(both));
    regions[0].results = {id};
  }
  KILN_TRY(results, e.emit_all(Op::while_, operands, {}, std::move(regions)));
  for (size_t i = 0; i < initial.size(); ++i) {
    results[2 + i].text = initial[i].text;
    n.set(i, results[2 + i]);
  }
  if (rows.blank.empty())
    return Unit{};
  KILN_TRY(steps, bind_steps(results[0], most));
  for (size_t i = 0; i < rows.blank.size(); ++i) {
    KILN_TRY(stacked, slice_axis(e, results[2 + initial.size() + i], 0, 0, steps));
    stacked.text = rows.text[i];
    n.set(rows.output[i], stacked);
  }
  return Unit{};
}

// Results whose sizes differ between the branches are filled up to the larger size in both, and cut
// to the size that the branch taken gives.
struct Filled {
  size_t result;               // of the branches
  std::vector<int> axes;       // whose sizes differ
  std::vector<Dim> most;       // their bounds
  size_t first_size = 0;       // of the numbers that follow the results, one for each axis
};

Status fill_up(OnnxNode &n, std::vector<Block> &regions, std::vector<Filled> &out) {
  Emitter &e = n.emitter();
  const Function &f = e.function();
  size_t count = regions[0].results.size();
  for (size_t i = 0; i < count && i < regions[1].results.size(); ++i) {
    TensorType types[2] = {f.type(regions[0].results[i]), f.type(regions[1].results[i])};
    if (types[0].dtype != types[1].dtype || types[0].rank() != types[1].rank())
      continue; // refused when the node is made
    Filled filled{i, {}, {}, 0};
    for (int d = 0; d < types[0].rank(); ++d)
      if (const Dim &a = types[0].shape[size_t(d)], &b = types[1].shape[size_t(d)]; a != b || e.is_local(a)) {
        filled.axes.push_back(d);
        filled.most.push_back(max(e.largest(a), e.largest(b)));
      }
    if (!filled.axes.empty())
      out.push_back(std::move(filled));
  }
  for (size_t r = 0; r < 2; ++r) {
    IntoBlock scope(e.builder(), regions[r]);
    for (Filled &filled : out) {
      Val x;
      x.id = regions[r].results[filled.result];
      x.type = f.type(x.id);
      std::vector<Dim> low(x.type.shape.size(), Dim(0)), high = low;
      filled.first_size = regions[r].results.size();
      for (size_t k = 0; k < filled.axes.size(); ++k) {
        const Dim &size = x.type.shape[size_t(filled.axes[k])];
        high[size_t(filled.axes[k])] = filled.most[k] - size;
        KILN_TRY(id, e.materialize(number(e, size)));
        regions[r].results.push_back(id);
      }
      KILN_TRY(full, e.emit(Op::pad, {x}, {{"lo", low}, {"hi", high}}));
      KILN_TRY(id, e.materialize(full));
      regions[r].results[filled.result] = id;
    }
  }
  return Unit{};
}

Result<Val> cut(Emitter &e, const std::vector<Val> &results, const Filled &filled) {
  Val x = results[filled.result];
  for (size_t k = 0; k < filled.axes.size(); ++k) {
    KILN_TRY(size, e.bind_size(results[filled.first_size + k], filled.most[k], "branch"));
    KILN_TRY(part, slice_axis(e, x, filled.axes[k], 0, size));
    x = part;
  }
  return x;
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
    std::vector<Filled> filled;
    size_t count = regions[0].results.size();
    KILN_RETURN_IF_ERROR(fill_up(n, regions, filled));
    KILN_TRY(chosen, e.emit_all(Op::if_, operands, {}, std::move(regions)));
    for (const Filled &f : filled) {
      KILN_TRY(part, cut(e, chosen, f));
      chosen[f.result] = part;
    }
    chosen.resize(count);
    results = chosen;
  }
  std::vector<Val> values = regroup(e, forms[0], results);
  for (size_t i = 0; i < values.size(); ++i)
    n.set(i, values[i]);
  return Unit{};
}

// A loop that nothing ends early is a scan over 0, 1, 2, ... as far as its number of steps, which may be found
// at run time; any other is a while.
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
  if (starts && (count || n.has(0))) {
    KILN_TRY(done, loop_as_scan(n, graph, initial, [&]() -> Result<Dim> {
               if (count)
                 return *count;
               KILN_TRY(given, reshape(e, n.in(0), {}));
               KILN_TRY(wide, convert(e, given, DType::i64));
               KILN_TRY(some, e.emit(Op::maximum, {wide, number(e, 0)}));
               return e.bind_free_size(some, 64, "loop_steps", "loop_room");
             }));
    if (done)
      return Unit{};
  }
  // At most as many steps as are asked for, where that is a number that one plans for; otherwise as there is room for.
  constexpr int64_t kMostPlanned = 4096;
  bool planned = count && (!count->is_const() || count->as_const() <= kMostPlanned);
  return loop_as_while(
      n, graph, initial, [&] { return planned ? max(*count, 0) : e.capacity("loop_room", 64); },
      [&](const Val &steps, const Dim &room) { return e.bind_size(steps, room, "loop_steps"); });
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
    inner.push_back(e.argument(body, {x.dtype(), ordered.dims(1, ordered.rank())}, ""));
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
