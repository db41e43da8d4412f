// Gradients of ops with regions. Each region runs backwards in a region of its own, which holds a copy of
// the forward region and then its gradient.
//
//   if      takes the same branch again and computes it again.
//   scan    saves what was carried into each turn and the results of its contractions; the rest of a
//           turn is computed again. It then runs the other way, carrying the gradients of what was carried. The
//           gradient of a captured matrix, a sum over turns of products, becomes one product after the loop.
//   while   has a number of turns that nobody knows beforehand, so nothing can be saved: each turn
//           backwards starts from the beginning. The work is quadratic in the number of turns.
#include "ir/grad/rules.h"

#include "ir/clone.h"
#include "ir/ops/infer_util.h"

#include <algorithm>
#include <unordered_set>

namespace kiln::grad {
namespace {

using R = Rule &;

ValueId mapped(const ValueMap &values, ValueId v) {
  auto it = values.find(v);
  return it == values.end() ? v : it->second;
}

void must(const Status &status) { KILN_CHECK(status.ok(), status.ok() ? "" : status.error().message); }

std::vector<ValueId> wanted_captures(R r) {
  std::vector<ValueId> out;
  for (ValueId v : captures(r.b().function(), r.node()))
    if (r.wants(v))
      out.push_back(v);
  return out;
}

std::vector<ValueId> emit_region_op(GraphBuilder &b, Op op, std::vector<ValueId> operands, Attrs attrs,
                                    std::vector<Block> regions) {
  auto node = b.emit(op, std::move(operands), std::move(attrs), std::move(regions));
  KILN_CHECK(node.ok(), node.ok() ? "" : node.error().message);
  return b.function().node(*node).results;
}

ValueId or_zeros(GraphBuilder &b, ValueId gradient, TensorType type) {
  return gradient.valid() ? gradient : zeros(b, type).id;
}

ValueId whole(GraphBuilder &b, int64_t value) { return b.constant(Tensor::scalar_i64(DType::i64, value)); }

bool is_float_value(const Function &f, ValueId v) { return is_float(f.type(v).dtype); }

void if_rule(R r) {
  Function &f = r.b().function();
  std::vector<ValueId> wrt = wanted_captures(r);
  std::vector<Block> regions;
  for (size_t i = 0; i < 2; ++i) {
    const Block branch = r.node().regions[i];
    Block block;
    GraphBuilder b(r.b().module(), f, block);
    b.set_location(r.node().location);
    ValueMap values;
    must(clone_nodes(b, f, branch, values));
    std::vector<ValueId> of, seeds;
    for (size_t k = 0; k < branch.results.size(); ++k)
      if (r.has_dy(k))
        of.push_back(mapped(values, branch.results[k])), seeds.push_back(r.dy(k).id);
    auto parts = inner_gradient(b, of, seeds, wrt);
    if (!parts)
      return r.fail(parts.error().message);
    for (size_t k = 0; k < wrt.size(); ++k)
      block.results.push_back(or_zeros(b, (*parts)[k], f.type(wrt[k])));
    regions.push_back(std::move(block));
  }
  if (wrt.empty())
    return;
  auto results = emit_region_op(r.b(), Op::if_, {r.x(0).id}, {}, std::move(regions));
  for (size_t k = 0; k < wrt.size(); ++k)
    r.add_to(wrt[k], {&r.b(), results[k]});
}

// Uses inside a block that no function holds yet, regions of its nodes included.
void replace_in(Function &f, Block &block, ValueId from, ValueId to) {
  for (NodeId id : block.nodes) {
    std::replace(f.node(id).operands.begin(), f.node(id).operands.end(), from, to);
    for (Block &region : f.node(id).regions)
      replace_in(f, region, from, to);
  }
  std::replace(block.results.begin(), block.results.end(), from, to);
}

void keep_live(Function &f, Block &block) {
  std::unordered_set<ValueId> live(block.results.begin(), block.results.end());
  std::vector<NodeId> kept;
  for (size_t i = block.nodes.size(); i-- > 0;) {
    const Node &node = f.node(block.nodes[i]);
    if (std::none_of(node.results.begin(), node.results.end(), [&](ValueId v) { return live.count(v) != 0; }))
      continue;
    kept.push_back(block.nodes[i]);
    live.insert(node.operands.begin(), node.operands.end());
    for (ValueId v : captures(f, node))
      live.insert(v);
  }
  std::reverse(kept.begin(), kept.end());
  block.nodes = std::move(kept);
}

// The backward loop of one scan.
class ScanGradient {
public:
  // `scan` is the node, or a copy of it that may be changed.
  ScanGradient(R r, NodeId scan)
      : r_(r), f_(r.b().function()), scan_(scan), carried_(size_t(r.attrs().get_int("carried"))),
        body_(f_.node(scan).regions[0]), inner_(r.b().module(), f_, block_) {
    inner_.set_location(r.node().location);
    for (size_t i = carried_; i < r.operands(); ++i) {
      Dim size = r.x(i).shape()[0];
      if (i == carried_ || !length_.is_const())
        length_ = size;
    }
  }
  void run();

private:
  ValueId saved(ValueId forward); // stacked over the turns
  ValueId carried_argument(ValueId start, const TensorType &type);
  ValueId slice_argument(ValueId stack);
  ValueId stacked(ValueId v);
  std::optional<Val> hoisted(ValueId sum);
  bool hoistable(ValueId sum) const;
  ValueId sum_of(ValueId v) const;
  void save_contractions();

  R r_;
  Function &f_;
  NodeId scan_;
  size_t carried_;
  Block body_; // forward
  Dim length_;
  Block block_; // backward
  GraphBuilder inner_;
  ValueMap values_;
  ValueMap read_; // what save_contractions reads, in place of what it computed
  std::vector<ValueId> starts_, carried_args_, stacks_, slice_args_, slices_;
  std::vector<ValueId> results_; // of the backward scan, once it stands
};

// Makes the forward scan give the value that `forward` has in each turn.
ValueId ScanGradient::saved(ValueId forward) {
  const Node &scan = f_.node(scan_);
  const auto &results = scan.regions[0].results;
  for (size_t i = carried_; i < results.size(); ++i)
    if (results[i] == forward)
      return scan.results[i];
  TensorType type = f_.type(forward);
  type.shape.insert(type.shape.begin(), length_);
  ValueId stack = f_.add_value(std::move(type));
  Node &again = f_.node(scan_);
  f_.value(stack).def = scan_;
  f_.value(stack).result = int(again.results.size());
  again.results.push_back(stack);
  again.regions[0].results.push_back(forward);
  return stack;
}

ValueId ScanGradient::carried_argument(ValueId start, const TensorType &type) {
  starts_.push_back(start);
  carried_args_.push_back(f_.add_argument(block_, type, ""));
  return carried_args_.back();
}

ValueId ScanGradient::slice_argument(ValueId stack) {
  for (size_t i = 0; i < stacks_.size(); ++i)
    if (stacks_[i] == stack)
      return slice_args_[i];
  TensorType type = f_.type(stack);
  type.shape.erase(type.shape.begin());
  stacks_.push_back(stack);
  slice_args_.push_back(f_.add_argument(block_, std::move(type), f_.value(stack).name));
  return slice_args_.back();
}

// dot(permute(a), b) of matrices that belong to the turn: the sum over turns is one product.
bool ScanGradient::hoistable(ValueId sum) const {
  const Node *node = f_.def(sum);
  auto of_turn = [&](ValueId v) {
    const Node *def = f_.def(v);
    return def ? std::find(block_.nodes.begin(), block_.nodes.end(), f_.value(v).def) != block_.nodes.end()
               : std::find(slice_args_.begin(), slice_args_.end(), v) != slice_args_.end();
  };
  if (!node || !of_turn(sum))
    return false;
  if (node->op == Op::add)
    return hoistable(node->operands[0]) && hoistable(node->operands[1]);
  if (node->op != Op::dot || node->operands.size() != 2 || node->attrs.get_bool("transpose_b") || f_.type(sum).rank() != 2)
    return false;
  const Node *left = f_.def(node->operands[0]);
  return left && left->op == Op::permute && f_.type(left->operands[0]).rank() == 2 && of_turn(left->operands[0]) &&
         of_turn(node->operands[1]) && axes_of(left->attrs, "dims", 2) == std::vector<int>{1, 0};
}

// The stack of a value of the backward turn, outside of it.
ValueId ScanGradient::stacked(ValueId v) {
  v = mapped(read_, v);
  for (size_t i = 0; i < slice_args_.size(); ++i)
    if (slice_args_[i] == v)
      return stacks_[i];
  size_t at = size_t(std::find(slices_.begin(), slices_.end(), v) - slices_.begin());
  if (results_.empty()) {
    if (at == slices_.size())
      slices_.push_back(v);
    return {};
  }
  return results_[carried_args_.size() + at];
}

// Called before the scan stands, to have its slices noted, and afterwards.
std::optional<Val> ScanGradient::hoisted(ValueId sum) {
  const Node node = *f_.def(sum);
  if (node.op == Op::add) {
    auto a = hoisted(node.operands[0]), b = hoisted(node.operands[1]);
    return a && b ? std::optional(*a + *b) : std::nullopt;
  }
  ValueId left = f_.def(node.operands[0])->operands[0], right = node.operands[1];
  ValueId lefts = stacked(left), rights = stacked(right);
  if (results_.empty())
    return {};
  auto rows = [&](ValueId stack) {
    Shape shape = f_.type(stack).shape;
    return reshape({&r_.b(), stack}, {shape[0] * shape[1], shape[2]});
  };
  return permute(rows(lefts), {1, 0}).op(Op::dot, {rows(rights)});
}

// What a contraction's result is added to before anything else reads it, so that the sum leaves registers once.
ValueId ScanGradient::sum_of(ValueId v) const {
  while (true) {
    const Node *reader = nullptr;
    size_t readers = size_t(std::count(body_.results.begin(), body_.results.end(), v));
    for (NodeId id : body_.nodes) {
      const Node &node = f_.node(id);
      std::vector<ValueId> read = captures(f_, node);
      read.insert(read.end(), node.operands.begin(), node.operands.end());
      if (std::find(read.begin(), read.end(), v) != read.end())
        ++readers, reader = &node;
    }
    if (readers != 1 || !reader || reader->op != Op::add || f_.type(reader->results[0]) != f_.type(v))
      return v;
    v = reader->results[0];
  }
}

// Contractions of the forward turn that the gradient needs, with what is added to them, are read, not computed again.
void ScanGradient::save_contractions() {
  keep_live(f_, block_);
  for (size_t i = body_.nodes.size(); i-- > 0;) {
    const Node forward = f_.node(body_.nodes[i]);
    if (!op_def(forward.op).has(kContraction) && forward.regions.empty())
      continue;
    for (ValueId result : forward.results)
      for (ValueId v : {sum_of(result), result}) {
        ValueId copy = mapped(values_, v);
        bool live = std::any_of(block_.nodes.begin(), block_.nodes.end(), [&](NodeId id) { return id == f_.value(copy).def; });
        if (!live)
          continue;
        ValueId arg = slice_argument(saved(v));
        replace_in(f_, block_, copy, arg);
        read_[copy] = arg;
        std::replace(slices_.begin(), slices_.end(), copy, arg);
        keep_live(f_, block_);
      }
  }
}

void ScanGradient::run() {
  std::vector<ValueId> captured = wanted_captures(r_);
  // Arguments: gradients of what is carried, then the forward turn's own.
  std::vector<ValueId> of, seeds, wrt;
  std::vector<size_t> floats;
  for (size_t i = 0; i < carried_; ++i)
    if (is_float_value(f_, body_.args[i])) {
      floats.push_back(i);
      seeds.push_back(carried_argument(r_.dy(i).id, r_.x(i).type()));
    }
  for (size_t i = 0; i < body_.args.size(); ++i)
    values_[body_.args[i]] = slice_argument(i < carried_ ? saved(body_.args[i]) : r_.x(i).id);
  must(clone_nodes(inner_, f_, body_, values_));
  for (size_t i : floats)
    of.push_back(mapped(values_, body_.results[i]));
  for (size_t i = carried_; i < body_.results.size(); ++i)
    if (r_.has_dy(i)) {
      of.push_back(mapped(values_, body_.results[i]));
      seeds.push_back(slice_argument(r_.dy(i).id));
    }
  for (size_t i : floats)
    wrt.push_back(values_[body_.args[i]]);
  std::vector<size_t> scanned;
  for (size_t i = carried_; i < r_.operands(); ++i)
    if (r_.wants(i))
      scanned.push_back(i), wrt.push_back(values_[body_.args[i]]);
  wrt.insert(wrt.end(), captured.begin(), captured.end());
  auto parts = inner_gradient(inner_, of, seeds, wrt);
  if (!parts)
    return r_.fail(parts.error().message);

  // Results: what is carried on, sums over the turns, slices.
  std::vector<ValueId> next, sums;
  for (size_t k = 0; k < floats.size(); ++k)
    next.push_back(or_zeros(inner_, (*parts)[k], f_.type(wrt[k])));
  for (size_t k = 0; k < scanned.size(); ++k)
    slices_.push_back(or_zeros(inner_, (*parts)[floats.size() + k], f_.type(wrt[floats.size() + k])));
  std::vector<ValueId> capture_parts(parts->end() - std::ptrdiff_t(captured.size()), parts->end());
  std::vector<int> summed(captured.size(), -1);
  for (size_t k = 0; k < captured.size(); ++k) {
    if (!capture_parts[k].valid())
      continue;
    if (hoistable(capture_parts[k])) {
      hoisted(capture_parts[k]);
      continue;
    }
    summed[k] = int(next.size());
    TensorType type = f_.type(captured[k]);
    ValueId sum = carried_argument(zeros(r_.b(), type).id, type);
    next.push_back(inner_(Op::add, {sum, capture_parts[k]}));
  }
  block_.results = next;
  block_.results.insert(block_.results.end(), slices_.begin(), slices_.end());
  save_contractions();
  // A stack that is read need not be written again.
  slices_.erase(std::remove_if(slices_.begin() + std::ptrdiff_t(scanned.size()), slices_.end(),
                               [&](ValueId v) {
                                 return std::find(slice_args_.begin(), slice_args_.end(), v) != slice_args_.end();
                               }),
                slices_.end());
  block_.results.resize(next.size());
  block_.results.insert(block_.results.end(), slices_.begin(), slices_.end());

  block_.args = carried_args_;
  block_.args.insert(block_.args.end(), slice_args_.begin(), slice_args_.end());
  std::vector<ValueId> operands = starts_;
  operands.insert(operands.end(), stacks_.begin(), stacks_.end());
  std::vector<Block> regions;
  regions.push_back(block_);
  results_ = emit_region_op(r_.b(), Op::scan, operands,
                            {{"carried", Dim(int64_t(carried_args_.size()))}, {"reverse", !r_.attrs().get_bool("reverse")}},
                            std::move(regions));
  for (size_t k = 0; k < floats.size(); ++k)
    r_.add(floats[k], {&r_.b(), results_[k]});
  for (size_t k = 0; k < scanned.size(); ++k)
    r_.add(scanned[k], {&r_.b(), results_[carried_args_.size() + k]});
  for (size_t k = 0; k < captured.size(); ++k) {
    if (summed[k] >= 0)
      r_.add_to(captured[k], {&r_.b(), results_[size_t(summed[k])]});
    else if (capture_parts[k].valid())
      r_.add_to(captured[k], *hoisted(capture_parts[k]));
  }
}

// A scan of a block around this one stays as it is: what it saves could not be seen here before it ran.
void scan_rule(R r) {
  const auto &here = r.b().block().nodes;
  NodeId scan = r.id();
  if (std::find(here.begin(), here.end(), scan) == here.end()) {
    ValueMap values;
    must(clone_node(r.b(), r.b().function(), scan, values));
    scan = r.b().function().value(values.at(r.node().results[0])).def;
  }
  ScanGradient(r, scan).run();
}

// What `count` turns of the body make of `start`.
std::vector<ValueId> run_turns(GraphBuilder &b, const Block &body, const std::vector<ValueId> &start, ValueId count) {
  Function &f = b.function();
  Block condition, turn;
  for (Block *block : {&condition, &turn}) {
    for (ValueId v : start)
      f.add_argument(*block, f.type(v), "");
    f.add_argument(*block, {DType::i64, {}}, "turn");
  }
  GraphBuilder in_condition(b.module(), f, condition), in_turn(b.module(), f, turn);
  condition.results = {in_condition(Op::lt, {condition.args.back(), count})};
  ValueMap values;
  for (size_t i = 0; i < body.args.size(); ++i)
    values[body.args[i]] = turn.args[i];
  must(clone_nodes(in_turn, f, body, values));
  for (ValueId v : body.results)
    turn.results.push_back(mapped(values, v));
  turn.results.push_back(in_turn(Op::add, {turn.args.back(), whole(in_turn, 1)}));
  std::vector<ValueId> operands = start;
  operands.push_back(whole(b, 0));
  auto results = emit_region_op(b, Op::while_, operands, {}, {condition, turn});
  results.pop_back();
  return results;
}

// How often the body runs.
ValueId count_turns(GraphBuilder &b, const Node &loop) {
  Function &f = b.function();
  Block blocks[2];
  for (int i = 0; i < 2; ++i) {
    ValueMap values;
    for (ValueId v : loop.regions[size_t(i)].args)
      values[v] = f.add_argument(blocks[i], f.type(v), "");
    f.add_argument(blocks[i], {DType::i64, {}}, "turns");
    GraphBuilder in(b.module(), f, blocks[i]);
    must(clone_nodes(in, f, loop.regions[size_t(i)], values));
    for (ValueId v : loop.regions[size_t(i)].results)
      blocks[i].results.push_back(mapped(values, v));
    if (i == 1)
      blocks[i].results.push_back(in(Op::add, {blocks[i].args.back(), whole(in, 1)}));
  }
  std::vector<ValueId> operands = loop.operands;
  operands.push_back(whole(b, 0));
  return emit_region_op(b, Op::while_, operands, {}, {blocks[0], blocks[1]}).back();
}

void while_rule(R r) {
  Function &f = r.b().function();
  const Node &loop = r.node();
  const Block &body = loop.regions[1];
  std::vector<ValueId> captured = wanted_captures(r);
  std::vector<size_t> floats;
  for (size_t i = 0; i < loop.operands.size(); ++i)
    if (is_float_value(f, loop.operands[i]))
      floats.push_back(i);
  ValueId count = count_turns(r.b(), loop);
  // Carried: the turn, counting down; gradients of what the forward loop carries; sums for what it captures.
  std::vector<ValueId> start = {r.b()(Op::sub, {count, whole(r.b(), 1)})};
  for (size_t i : floats)
    start.push_back(r.dy(i).id);
  for (ValueId v : captured)
    start.push_back(zeros(r.b(), TensorType(f.type(v))).id);
  Block condition, back;
  for (Block *block : {&condition, &back})
    for (ValueId v : start)
      f.add_argument(*block, f.type(v), "");
  GraphBuilder in_condition(r.b().module(), f, condition), b(r.b().module(), f, back);
  b.set_location(loop.location);
  condition.results = {in_condition(Op::ge, {condition.args[0], whole(in_condition, 0)})};
  std::vector<ValueId> before = run_turns(b, body, loop.operands, back.args[0]);
  ValueMap values;
  for (size_t i = 0; i < body.args.size(); ++i)
    values[body.args[i]] = before[i];
  must(clone_nodes(b, f, body, values));
  std::vector<ValueId> of, seeds, wrt;
  for (size_t k = 0; k < floats.size(); ++k) {
    of.push_back(mapped(values, body.results[floats[k]]));
    seeds.push_back(back.args[1 + k]);
    wrt.push_back(before[floats[k]]);
  }
  wrt.insert(wrt.end(), captured.begin(), captured.end());
  auto parts = inner_gradient(b, of, seeds, wrt);
  if (!parts)
    return r.fail(parts.error().message);
  back.results = {b(Op::sub, {back.args[0], whole(b, 1)})};
  for (size_t k = 0; k < wrt.size(); ++k) {
    ValueId part = (*parts)[k], arg = back.args[1 + k];
    if (k < floats.size())
      back.results.push_back(or_zeros(b, part, f.type(wrt[k])));
    else
      back.results.push_back(part.valid() ? b(Op::add, {arg, part}) : arg);
  }
  auto results = emit_region_op(r.b(), Op::while_, start, {}, {condition, back});
  for (size_t k = 0; k < floats.size(); ++k)
    r.add(floats[k], {&r.b(), results[1 + k]});
  for (size_t k = 0; k < captured.size(); ++k)
    r.add_to(captured[k], {&r.b(), results[1 + floats.size() + k]});
}

constexpr std::string_view kLate = "a pass makes it, after gradients are taken";

const OpGrad kRules[] = {
    {Op::constant, nullptr, "it has no operands"},
    {Op::read_variable, nullptr, "it has no operands"},
    {Op::assign, nullptr, "it has no result"},
    {Op::bind_size, nullptr, "it has no result"},
    {Op::call, nullptr, "the gradient of a call is taken where its callee is inlined"},
    {Op::if_, if_rule},
    {Op::while_, while_rule},
    {Op::scan, scan_rule},
    {Op::fusion, nullptr, kLate},
};

} // namespace

std::span<const OpGrad> region_rules() { return kRules; }

} // namespace kiln::grad
