#include "passes/lower/kernel_lowering.h"

#include "ir/ops/index_util.h"
#include "passes/graph/chain.h"
#include "runtime/entry_abi.h"

#include <algorithm>
#include <utility>

namespace kiln {
namespace {

// What an op sees of the node being lowered.
class NodeContext : public LowerContext {
public:
  // Without `results`, what the node stores is not the kernel's result but leads to it.
  NodeContext(KernelLowering &lowering, const Node &node, std::vector<ValueId> results)
      : lowering_(lowering), node_(node), results_(std::move(results)) {}

  const Node &node() const override { return node_; }
  const TensorType &operand_type(int i) const override {
    return lowering_.type(node_.operands[size_t(i)]);
  }
  const TensorType &result_type(int i) const override {
    return lowering_.type(node_.results[size_t(i)]);
  }
  Expr operand(int i, std::span<const Dim> index) override {
    return lowering_.pull_operand(node_, i, index);
  }
  bool operand_zero_padded(int i, int d, const Dim &lo, const Dim &hi) const override {
    return lowering_.zero_padded(node_.operands[size_t(i)], d, lo, hi);
  }
  Dim bind_index(Expr value, const Dim &lo, const std::optional<Dim> &hi) override {
    return lowering_.bind_index(std::move(value), lo, hi);
  }
  Expr bind(Expr value) override { return lowering_.bind(std::move(value)); }
  void require(Expr condition, int trap) override {
    lowering_.emit(kb::assert_(std::move(condition), trap));
  }
  void emit(Stmt stmt) override { lowering_.emit(std::move(stmt)); }
  Dim simplified(const Dim &d) const override { return lowering_.simplified(d); }
  Stmt store_result(int i, std::span<const Dim> index, Expr value) override {
    if (results_.empty())
      return lowering_.store_through(node_.results[size_t(i)], index, std::move(value));
    return lowering_.store(results_[size_t(i)], index, std::move(value));
  }
  void loop(std::string_view name, const Dim &begin, const Dim &end, LoopKind kind,
            const std::function<void(const Dim &)> &body) override {
    lowering_.loop(name, begin, end, kind, body);
  }
  void if_then(Expr condition, const std::function<void()> &body) override {
    lowering_.if_then(std::move(condition), body);
  }

private:
  KernelLowering &lowering_;
  const Node &node_;
  std::vector<ValueId> results_;
};

// An element of a few integers that are equally far apart, such as shifts, is a function of its index.
std::optional<Expr> progression(const Tensor &tensor, std::span<const Dim> index) {
  constexpr int64_t kFew = 64;
  if (tensor.dtype() != DType::i32 || tensor.count() < 2 || tensor.count() > kFew)
    return std::nullopt;
  size_t along = 0;
  for (size_t d = 0; d < tensor.dims().size(); ++d)
    if (tensor.dims()[d] == tensor.count())
      along = d;
    else if (tensor.dims()[d] != 1)
      return std::nullopt;
  int64_t first = tensor.at_i64(0), step = tensor.at_i64(1) - first;
  for (int64_t i = 2; i < tensor.count(); ++i)
    if (tensor.at_i64(i) != first + i * step)
      return std::nullopt;
  return kb::convert(DType::i32, kb::index(Dim(first) + index[along] * Dim(step)));
}

bool is_leaf(const Expr &e) {
  return e.is(Expr::Kind::number) || e.is(Expr::Kind::var) || e.is(Expr::Kind::load) ||
         e.is(Expr::Kind::index);
}

} // namespace

KernelLowering::KernelLowering(const Module &module, const Function &function, const Node &node,
                               const ChainStage *stage)
    : module_(module), function_(function), node_(node), stage_(stage), inner_(function.values.size()),
      uses_(function.values.size()), materialised_(function.values.size()) {
  results_ = node.results;
  if (node.op == Op::fusion) {
    region_ = &node.regions.at(0);
    roots_ = region_->results;
    for (NodeId id : region_->nodes) {
      for (ValueId v : function.node(id).results)
        inner_[size_t(v)] = true;
      for (ValueId v : function.node(id).operands)
        ++uses_[size_t(v)];
    }
    for (ValueId v : roots_)
      ++uses_[size_t(v)];
  } else {
    roots_ = node.results;
    for (ValueId v : node.results)
      inner_[size_t(v)] = true;
  }
  kernel_.location = node.location;
  auto declare = [&](const TensorType &t) {
    for (const Dim &d : t.shape)
      for (Symbol s : d.symbols())
        if (!ranges_.find(s))
          ranges_.set(s, {Dim(1), std::nullopt});
  };
  for (const Value &v : function.values)
    declare(v.type);
  if (stage_) {
    for (const auto &[symbol, range] : stage_->ranges.all())
      ranges_.set(symbol, range);
    next_name_ = stage_->number * 100000; // symbols of one chain are distinct
    next_constant_ = size_t(stage_->number) * 100000;
  }
  owned_.push_back(std::make_unique<Scope>());
  stack_.push_back(owned_.back().get());
}

LoweredNode KernelLowering::run() {
  attention_ = find_attention();
  if (!attention_) {
    find_held_rows();
    find_row_axes();
    choose_materialised();
  }
  lower_results();
  kernel_.body = std::move(stack_.front()->stmts);
  kernel_.buffers = std::move(input_buffers_);
  LoweredNode out;
  out.values = inputs_;
  for (size_t i = 0; i < results_.size(); ++i) {
    const Value &value = function_.value(results_[i]);
    kernel_.buffers.push_back({Symbol("out" + std::to_string(i)), value.type.dtype,
                               physical_size(value.type, value.layout), Access::out, false});
    out.values.push_back(results_[i]);
  }
  split_loops(kernel_);
  rename_symbols(kernel_);
  finish_kernel(kernel_);
  out.kernel = std::move(kernel_);
  return out;
}

std::vector<Stmt> KernelLowering::run_stage() {
  find_row_axes();
  choose_materialised();
  lower_results();
  return std::move(stack_.front()->stmts);
}

std::vector<Stmt> KernelLowering::run_zero_halo() {
  for (ValueId result : results_)
    zero_halo(result);
  return std::move(stack_.front()->stmts);
}

ValueId KernelLowering::resolve(ValueId value) const {
  auto outer = [&](const Block &region, const Node &node) {
    for (size_t i = 0; i < region.args.size(); ++i)
      if (region.args[i] == value) {
        value = node.operands[i];
        return;
      }
  };
  if (region_)
    outer(*region_, node_);
  if (stage_)
    outer(stage_->chain.regions[0], stage_->chain);
  return value;
}

const Scratch *KernelLowering::scratch_of(ValueId value) const {
  if (!stage_)
    return nullptr;
  auto it = stage_->scratch.find(value);
  return it == stage_->scratch.end() ? nullptr : &it->second;
}

const IndexRange *KernelLowering::range_of(int dim) const {
  for (const IndexRange &range : stage_ ? stage_->block : held_block_)
    if (range.dim == dim)
      return &range;
  return nullptr;
}

Symbol KernelLowering::fresh(std::string_view stem) {
  return Symbol(std::string(stem) + "$" + std::to_string(next_name_++));
}

const KernelBuffer &KernelLowering::input_buffer(ValueId external) {
  for (size_t i = 0; i < inputs_.size(); ++i)
    if (inputs_[i] == external)
      return input_buffers_[i];
  const Value &value = function_.value(external);
  const Node *def = function_.def(external);
  // Named and ordered as the node's operands, not as expressions happen to be built.
  const auto &operands = stage_ ? stage_->chain.operands : node_.operands;
  size_t position = size_t(std::find(operands.begin(), operands.end(), external) - operands.begin());
  if (position == operands.size())
    position += next_constant_++; // a constant inside a fusion
  size_t at = size_t(std::lower_bound(positions_.begin(), positions_.end(), position) - positions_.begin());
  positions_.insert(positions_.begin() + std::ptrdiff_t(at), position);
  inputs_.insert(inputs_.begin() + std::ptrdiff_t(at), external);
  return *input_buffers_.insert(input_buffers_.begin() + std::ptrdiff_t(at),
                                {Symbol("in" + std::to_string(position)), value.type.dtype,
                                 physical_size(value.type, value.layout), Access::in,
                                 def && def->op == Op::constant});
}

size_t KernelLowering::level_of(std::span<const Dim> index) const {
  size_t level = least_level_;
  for (const Dim &d : index)
    for (Symbol s : d.symbols()) {
      auto it = symbol_scope_.find(s);
      if (it == symbol_scope_.end())
        continue;
      auto at = std::find(stack_.begin(), stack_.end(), it->second);
      KILN_CHECK(at != stack_.end(), "an index uses a symbol that is out of scope");
      level = std::max(level, size_t(at - stack_.begin()));
    }
  return level;
}

void KernelLowering::at_level(size_t level, const std::function<void()> &f) {
  std::vector<Scope *> deeper(stack_.begin() + std::ptrdiff_t(level) + 1, stack_.end());
  stack_.resize(level + 1);
  f();
  stack_.insert(stack_.end(), deeper.begin(), deeper.end());
}

std::vector<Stmt> KernelLowering::in_scope(Symbol var, const std::function<void()> &f) {
  owned_.push_back(std::make_unique<Scope>());
  Scope *scope = owned_.back().get();
  stack_.push_back(scope);
  if (!var.empty())
    symbol_scope_[var] = scope;
  f();
  KILN_CHECK(stack_.back() == scope, "scopes close in order");
  stack_.pop_back();
  return std::move(scope->stmts);
}

void KernelLowering::loop(std::string_view name, const Dim &begin, const Dim &end, LoopKind kind,
                          const std::function<void(const Dim &)> &body) {
  Dim lo = simplified(begin), hi = simplified(end);
  if ((hi - lo).is_const(1))
    return body(lo);
  Symbol var = fresh(name);
  ranges_.set(var, {lo, hi});
  auto stmts = in_scope(var, [&] { body(Dim::symbol(var)); });
  emit(kb::loop(var, lo, hi, kind, std::move(stmts)));
}

void KernelLowering::if_then(Expr condition, const std::function<void()> &body) {
  emit(kb::if_(std::move(condition), in_scope(Symbol(), body)));
}

Dim KernelLowering::bind_index(Expr value, const Dim &lo, const std::optional<Dim> &hi) {
  if (value.is(Expr::Kind::index))
    return value.index;
  if (value.is(Expr::Kind::number))
    return value.integer;
  KILN_CHECK(value.dtype == DType::i64 && value.lanes == 1, "an index is an i64 scalar");
  Symbol name = fresh("x");
  ranges_.set(name, {lo, hi});
  symbol_scope_[name] = stack_.back();
  emit(kb::let(name, std::move(value)));
  return Dim::symbol(name);
}

Expr KernelLowering::bind(Expr value) {
  if (value.is(Expr::Kind::number) || value.is(Expr::Kind::var))
    return value;
  Symbol name = fresh("t");
  Expr out = kb::var(name, value.dtype, value.lanes);
  emit(kb::let(name, std::move(value)));
  return out;
}

Stmt KernelLowering::store(ValueId result, std::span<const Dim> index, Expr value) {
  size_t i = size_t(std::find(results_.begin(), results_.end(), result) - results_.begin());
  KILN_CHECK(i < results_.size(), "a kernel stores its node's results only");
  const Value &v = function_.value(result);
  std::vector<Dim> at(index.begin(), index.end());
  if (const Scratch *scratch = scratch_of(result)) {
    BlockPlace place = block_place(v, scratch->block);
    for (size_t d = 0; d < at.size(); ++d)
      at[d] = simplified(at[d] - place.base[d]);
    return kb::store(scratch->buffer, simplified(physical_offset(place.shape, place.layout, at)),
                     kb::convert(v.type.dtype, std::move(value)));
  }
  for (Dim &d : at)
    d = simplified(d);
  return kb::store(Symbol("out" + std::to_string(i)),
                   simplified(physical_offset(v.type.shape, v.layout, at)),
                   kb::convert(v.type.dtype, std::move(value)));
}

Stmt KernelLowering::store_through(ValueId root, std::span<const Dim> index, Expr value) {
  KILN_CHECK(results_.size() == 1, "a kernel that computes on has one result");
  std::vector<Dim> at(index.begin(), index.end());
  for (size_t i = 0; i < at.size(); ++i)
    at[i] = type(root).shape[i].is_const(1) ? Dim(0) : simplified(at[i]);
  value = kb::convert(compute_dtype(type(root).dtype), std::move(value));
  if (uses_[size_t(root)] > 1 && !is_leaf(value))
    value = bind(std::move(value));
  stack_.back()->memos.push_back({root, at, std::move(value)});
  // The element is known in this scope only.
  size_t before = std::exchange(least_level_, stack_.size() - 1);
  Expr result = pull(roots_[0], at);
  least_level_ = before;
  return store(results_[0], at, std::move(result));
}

bool KernelLowering::zero_padded(ValueId value, int dim, const Dim &lo, const Dim &hi) const {
  if (is_inner(value))
    return false;
  auto halo = function_.value(resolve(value)).layout.halo_of(dim);
  return known_nonnegative(Dim(halo.lo) - lo, ranges_) && known_nonnegative(Dim(halo.hi) - hi, ranges_);
}

std::optional<Expr> KernelLowering::find_memo(ValueId value, std::span<const Dim> index) const {
  for (auto it = stack_.rbegin(); it != stack_.rend(); ++it)
    for (const Memo &memo : (*it)->memos)
      if (memo.value == value && std::equal(index.begin(), index.end(), memo.index.begin(), memo.index.end()))
        return memo.expr;
  return std::nullopt;
}

Expr KernelLowering::pull(ValueId value, std::span<const Dim> raw_index) {
  std::vector<Dim> index(raw_index.begin(), raw_index.end());
  for (size_t i = 0; i < index.size(); ++i)
    index[i] = type(value).shape[i].is_const(1) && !raw_index[i].is_const() ? Dim(0) : simplified(index[i]);
  if (!is_inner(value))
    return pull_external(value, raw_index);
  if (held_ && value == held_->value && !held_->buffer.empty())
    return load_held(index);
  if (materialised_[size_t(value)])
    return pull_row(value, index);
  return compute(value, index);
}

Expr KernelLowering::pull_operand(const Node &node, int i, std::span<const Dim> index) {
  for (const LocalOperand &local : local_operands_)
    if (local.operand == i && local.result == node.results[0])
      return local.load(index);
  return pull(node.operands[size_t(i)], index);
}

Expr KernelLowering::compute(ValueId value, std::span<const Dim> index) {
  if (auto memo = find_memo(value, index))
    return *memo;
  const Node &node = function_.node(function_.value(value).def);
  const OpDef &def = op_def(node.op);
  if (node.op == Op::constant)
    return pull_external(value, index);
  if (def.reduce)
    return pull_reduce(node, value, index);
  KILN_CHECK(def.scalar || def.element,
             std::string(def.name) + " has no form that a fusion can take elements of");
  // A value used more than once is named, in the outermost scope that knows its index.
  bool named = uses_[size_t(value)] > 1;
  size_t level = named ? level_of(index) : stack_.size() - 1;
  Expr out;
  at_level(level, [&] {
    if (def.scalar) {
      out = pull_scalar(node, index);
    } else {
      NodeContext context(*this, node, node.results);
      out = def.element(context, function_.value(value).result, index);
    }
    // What is stored as a half float is that number here too, as it is for the kernels that read it.
    DType stored = type(value).dtype;
    if (named && compute_dtype(stored) != stored && std::find(roots_.begin(), roots_.end(), value) != roots_.end())
      out = kb::convert(compute_dtype(stored), kb::convert(stored, std::move(out)));
    if (named && !is_leaf(out)) {
      out = bind(std::move(out));
      stack_.back()->memos.push_back({value, {index.begin(), index.end()}, out});
    }
  });
  return out;
}

Expr KernelLowering::pull_external(ValueId value, std::span<const Dim> index) {
  ValueId external = resolve(value);
  const Value &v = function_.value(external);
  const Node *def = function_.def(external);
  // Beside the one element there are zeros where the layout has a halo or blocks.
  if (def && def->op == Op::constant && v.layout.is_row_major()) {
    const Tensor &tensor = module_.constants[size_t(def->attrs.get_constant("value"))].tensor;
    if (tensor.count() == 1)
      return literal(tensor);
    if (auto computed = progression(tensor, index))
      return *computed;
  }
  std::vector<Dim> at;
  for (size_t i = 0; i < index.size(); ++i) {
    // A dim of size 1 has one index, but where a halo is read there are others.
    bool halo = v.layout.halo_of(int(i)).lo + v.layout.halo_of(int(i)).hi > 0;
    at.push_back(v.type.shape[i].is_const(1) && !halo ? Dim(0) : simplified(index[i]));
  }
  if (const Scratch *scratch = scratch_of(external)) {
    BlockPlace place = block_place(v, scratch->block);
    for (size_t d = 0; d < at.size(); ++d)
      at[d] = simplified(at[d] - place.base[d]);
    return kb::convert(compute_dtype(v.type.dtype),
                       kb::load(scratch->buffer, v.type.dtype,
                                simplified(physical_offset(place.shape, place.layout, at))));
  }
  const KernelBuffer &buffer = input_buffer(external);
  Dim offset = simplified(physical_offset(v.type.shape, v.layout, at));
  return kb::convert(compute_dtype(v.type.dtype), kb::load(buffer, offset));
}

Expr KernelLowering::pull_scalar(const Node &node, std::span<const Dim> index) {
  const OpDef &def = op_def(node.op);
  std::vector<Expr> args;
  for (size_t o = 0; o < node.operands.size(); ++o) {
    const Shape &shape = type(node.operands[o]).shape;
    std::vector<Dim> at;
    for (size_t i = 0; i < shape.size(); ++i) {
      const Dim &d = index[index.size() - shape.size() + i];
      at.push_back(shape[i].is_const(1) ? Dim(0) : d);
    }
    args.push_back(pull_operand(node, int(o), at));
  }
  const TensorType &result = type(node.results[0]);
  if (def.has(kTrapsOnZero) && is_integer(args.back().dtype)) {
    args.back() = bind(std::move(args.back()));
    emit(kb::assert_(kb::binary(BinaryOp::ne, args.back(), kb::constant(args.back().dtype, 0)),
                     KILN_TRAP_DIVIDE_BY_ZERO));
  }
  return def.scalar(node.attrs, compute_dtype(result.dtype), args);
}

Expr KernelLowering::pull_reduce(const Node &node, ValueId value, std::span<const Dim> index) {
  Expr out;
  size_t level = level_of(index);
  at_level(level, [&] {
    NodeContext context(*this, node, node.results);
    ReduceSpec spec = op_def(node.op).reduce(context, index);
    Symbol acc = fresh("acc");
    emit(kb::alloc(acc, spec.accumulator, 1, 1, MemorySpace::reg));
    emit(kb::store(acc, 0, spec.init));
    std::function<void(size_t)> nest = [&](size_t i) {
      if (i == spec.axes.size()) {
        Expr term = spec.term(context);
        emit(kb::store(acc, 0, kb::binary(spec.combine, kb::load(acc, spec.accumulator, 0), std::move(term))));
        return;
      }
      const auto &axis = spec.axes[i];
      Dim lo = simplified(axis.begin), hi = simplified(axis.end);
      ranges_.set(axis.var, {lo, hi});
      auto stmts = in_scope(axis.var, [&] { nest(i + 1); });
      emit(kb::loop(axis.var, lo, hi, LoopKind::reduce, std::move(stmts)));
    };
    nest(0);
    out = kb::load(acc, spec.accumulator, 0);
    if (spec.finish)
      out = spec.finish(std::move(out));
    out = kb::convert(compute_dtype(type(value).dtype), std::move(out));
    if (!is_leaf(out) && (uses_[size_t(value)] > 1 || level + 1 < stack_.size()))
      out = bind(std::move(out));
    stack_.back()->memos.push_back({value, {index.begin(), index.end()}, out});
  });
  return out;
}

Expr KernelLowering::pull_row(ValueId value, std::span<const Dim> index) {
  const Shape &shape = type(value).shape;
  auto is_row = [&](size_t d) {
    return std::find(row_axes_.begin(), row_axes_.end(), int(d)) != row_axes_.end();
  };
  std::vector<Dim> outer;
  Dim offset = 0;
  for (size_t d = 0; d < index.size(); ++d) {
    if (is_row(d))
      offset = offset * shape[d] + index[d];
    else
      outer.push_back(index[d]);
  }
  DType dtype = compute_dtype(type(value).dtype);
  for (Scope *scope : stack_)
    for (const RowBuffer &row : scope->rows)
      if (row.value == value && row.outer == outer)
        return kb::load(row.buffer, dtype, simplified(offset));
  Symbol buffer = fresh("row");
  at_level(level_of(outer), [&] {
    std::vector<Dim> at(index.begin(), index.end());
    // The allocation stands first, so that it is in scope for whatever follows in this body.
    Dim size = 1;
    for (size_t d = 0; d < shape.size(); ++d)
      if (is_row(d))
        size *= shape[d];
    emit(kb::alloc(buffer, dtype, size.as_const(), 1, MemorySpace::stack));
    std::function<void(size_t, Dim)> nest = [&](size_t d, Dim linear) {
      if (d == shape.size()) {
        emit(kb::store(buffer, simplified(linear), compute(value, at)));
        return;
      }
      if (!is_row(d))
        return nest(d + 1, linear);
      loop("r", 0, shape[d], LoopKind::parallel, [&](const Dim &var) {
        at[d] = var;
        nest(d + 1, linear * shape[d] + var);
      });
    };
    nest(0, 0);
    stack_.back()->rows.push_back({value, outer, buffer});
  });
  return kb::load(buffer, dtype, simplified(offset));
}

void KernelLowering::lower_root(const Node &root) {
  if (root.op == Op::concat && lower_concat_blocks(root))
    return;
  bool stores_results = !region_ || root.results == roots_;
  NodeContext context(*this, root, stores_results ? results_ : std::vector<ValueId>());
  op_def(root.op).lower(context);
}

LoweredNode lower_node(const Module &module, const Function &function, NodeId node, const LowerOptions &options) {
  if (is_chain(function.node(node)))
    return lower_chain(module, function, node);
  KernelLowering lowering(module, function, function.node(node));
  lowering.set_options(options);
  return lowering.run();
}

} // namespace kiln
