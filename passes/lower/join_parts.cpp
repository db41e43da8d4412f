// A concat whose parts lie one after the other in its result is no kernel: whoever makes a part
// writes it to its place. That is so where the dims before the axis are of size 1 and the parts
// have the result's layout, blocks full and starts aligned: nearly always for channels of one
// image.
//
//   a = conv(x, w0); b = conv(x, w1); y = concat(a, b, axis=1)   ->   a and b are views of y's
//   buffer
#include "passes/lower/plan_builder.h"

#include "ir/ops/op.h"
#include "runtime/entry_abi.h"

#include <algorithm>

namespace kiln {
namespace {

bool lies_in_one_piece(const Function &function, const Node &concat) {
  const Value &whole = function.value(concat.results[0]);
  int rank = whole.type.rank();
  int64_t axis = concat.attrs.get_int("axis");
  axis = axis < 0 ? axis + rank : axis;
  if (!whole.layout.order.empty() || axis >= rank)
    return false;
  for (int64_t d = 0; d < axis; ++d)
    if (!whole.type.shape[size_t(d)].is_const(1) || whole.layout.halo_of(int(d)).lo ||
        whole.layout.halo_of(int(d)).hi)
      return false;
  auto halo = whole.layout.halo_of(int(axis));
  if (halo.lo || halo.hi)
    return false;
  int64_t block = whole.layout.block_of(int(axis));
  return std::all_of(concat.operands.begin(), concat.operands.end(), [&](ValueId v) {
    auto size = function.type(v).shape[size_t(axis)].try_const();
    Dim bytes = physical_size(function.type(v), function.value(v).layout) *
                Dim(dtype_bytes(whole.type.dtype));
    return function.value(v).layout == whole.layout &&
           (block == 1 || (size && *size % block == 0)) &&
           simplify(mod(bytes, KILN_ALIGNMENT), {}).is_const(0);
  });
}

} // namespace

void PlanBuilder::join_parts(const Block &block) {
  auto made_here = [&](ValueId v) {
    const Node *def = function_.def(v);
    return def &&
           std::find(block.nodes.begin(), block.nodes.end(), function_.value(v).def) !=
               block.nodes.end() &&
           (!op_def(def->op).structural || def->op == Op::fusion) && !is_alias(function_, *def);
  };
  for (NodeId id : block.nodes) {
    const Node &node = function_.node(id);
    if (node.op != Op::concat || !lies_in_one_piece(function_, node))
      continue;
    std::vector<ValueId> parts = node.operands;
    std::sort(parts.begin(), parts.end());
    bool fits = std::adjacent_find(parts.begin(), parts.end()) == parts.end() &&
                std::all_of(parts.begin(), parts.end(), [&](ValueId v) {
                  return made_here(v) && !destination_.contains(v) && !part_of_.contains(v) &&
                         !joined_.contains(v);
                });
    if (!fits)
      continue;
    joined_.insert(node.results[0]);
    Dim offset = 0;
    for (ValueId v : node.operands) {
      const Value &part = function_.value(v);
      part_of_[v] = {node.results[0], offset};
      offset += physical_size(part.type, part.layout) * Dim(dtype_bytes(part.type.dtype));
    }
  }
}

// The buffer for a result that a kernel is about to write.
int PlanBuilder::result_buffer(ValueId value) {
  if (auto destination = destination_.find(value); destination != destination_.end())
    return destination->second;
  auto part = part_of_.find(value);
  if (part == part_of_.end())
    return arena_buffer(value);
  auto [whole, offset] = part->second;
  if (!buffers_.contains(whole))
    buffers_[whole] = result_buffer(whole);
  const Value &v = function_.value(value);
  int id = view(buffers_.at(whole), offset, v.type, v.name);
  PlanBuffer &buffer = plan_->buffers[size_t(id)];
  buffer.layout = v.layout;
  buffer.size = physical_size(v.type, v.layout) * Dim(dtype_bytes(v.type.dtype));
  return id;
}

} // namespace kiln
