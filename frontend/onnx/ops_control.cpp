// Control flow: graphs inside of nodes become regions.
#include "frontend/onnx/importer.h"
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

namespace kiln::onnx {
namespace {

// New ops go to `block` while this lives.
class IntoBlock {
public:
  IntoBlock(GraphBuilder &builder, Block &block)
      : builder_(builder), outer_(&builder.block()), position_(builder.position()) {
    builder_.set_position(block, SIZE_MAX);
  }
  ~IntoBlock() { builder_.set_position(*outer_, position_); }
  IntoBlock(const IntoBlock &) = delete;
  IntoBlock &operator=(const IntoBlock &) = delete;

private:
  GraphBuilder &builder_;
  Block *outer_;
  size_t position_;
};

Result<Block> branch(OnnxNode &n, std::string_view name) {
  KILN_TRY(graph, n.get_graph(name));
  Block block;
  IntoBlock scope(n.emitter().builder(), block);
  KILN_TRY(values, n.importer().import_subgraph(graph, {}));
  for (const Val &v : values) {
    KILN_TRY(id, n.emitter().materialize(v));
    block.results.push_back(id);
  }
  return block;
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
    KILN_TRY(block, branch(n, i == 0 ? "then_branch" : "else_branch"));
    for (ValueId id : block.results)
      ranks[i].push_back(n.emitter().function().type(id).rank());
  }
  return ranks[0] != ranks[1];
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
  for (std::string_view name : {"then_branch", "else_branch"}) {
    KILN_TRY(block, branch(n, name));
    regions.push_back(std::move(block));
  }
  KILN_TRY(condition, reshape(e, n.in(0), {}));
  std::vector<Val> operands = {condition};
  KILN_TRY(results, e.emit_all(Op::if_, operands, {}, std::move(regions)));
  for (size_t i = 0; i < results.size(); ++i)
    n.set(i, results[i]);
  return Unit{};
}

} // namespace kiln::onnx
