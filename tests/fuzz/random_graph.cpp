#include "tests/fuzz/random_graph.h"

#include "tests/fuzz/graph_maker.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace kiln::fuzz {
namespace {

bool structural(Op op) { return op_def(op).structural; }

// Nobody writes these: passes make them, and constants are drawn as values.
bool drawable(Op op) { return op != Op::constant && op != Op::fusion; }

std::vector<Op> ops_of_table() {
  std::vector<Op> out;
  for (const OpDef *def : all_ops())
    if (Op op = *find_op(def->name); drawable(op))
      out.push_back(op);
  return out;
}

// Some ops of the table, all of it, or those that networks are made of.
std::vector<Op> draw_theme(Random &random) {
  std::vector<Op> all = ops_of_table();
  if (random.chance(0.4))
    return all;
  std::vector<Op> out;
  if (random.chance(0.5)) {
    for (int i = 0; i < 8; ++i)
      out.push_back(random.pick(all));
    return out;
  }
  for (Op op : all) {
    const OpDef &def = op_def(op);
    if (def.has(kContraction) || def.has(kWindow) || def.has(kReduction) || (def.decompose && random.chance(0.5)) ||
        (def.has(kElementwise) && random.chance(0.3)))
      out.push_back(op);
  }
  return out;
}

} // namespace

Sizes sizes_of(const Shape &shape) {
  Sizes out;
  for (const Dim &d : shape)
    out.push_back(d.as_const());
  return out;
}

int64_t count_of(const Sizes &sizes) {
  int64_t n = 1;
  for (int64_t s : sizes)
    if (__builtin_mul_overflow(n, s, &n))
      return std::numeric_limits<int64_t>::max();
  return n;
}

Tensor random_tensor(Random &random, DType dtype, Sizes dims, double lo, double hi, bool nonzero) {
  Tensor out(dtype, std::move(dims));
  bool coarse = random.chance(0.15); // many equal values, exact sums, ties
  int64_t least = int64_t(std::ceil(lo)), most = std::max(least, int64_t(std::floor(hi)));
  if (is_unsigned_int(dtype))
    least = std::max<int64_t>(least, 0), most = std::max(most, least + int64_t(nonzero));
  for (int64_t i = 0; i < out.count(); ++i) {
    if (is_bool(dtype)) {
      out.set_i64(i, random.below(2));
    } else if (is_integer(dtype)) {
      int64_t v = random.between(least, most);
      out.set_i64(i, nonzero && v == 0 ? std::max<int64_t>(most, 1) : v);
    } else {
      double v = coarse && most > least ? double(random.between(least, most)) : random.uniform(lo, hi);
      out.set_f64(i, nonzero && v == 0 ? hi : v);
    }
  }
  return out;
}

GraphMaker::GraphMaker(Module &module, uint64_t seed, std::string name, GraphStyle style)
    : module_(module), name_(std::move(name)), style_(std::move(style)), random_{seed * 0x9E3779B97F4A7C15ull + 1},
      block_(&function_.body) {
  function_.name = name_;
  function_.exported = true;
  symbolic_ = random_.chance(0.25);
  wild_ = random_.chance(0.06);
  if (random_.chance(0.06))
    largest_ = 20000;
  if (style_.ops.empty())
    style_.ops = draw_theme(random_);
  if (style_.nodes == 0)
    style_.nodes = int(random_.between(1, 4) * random_.between(1, 4));
}

std::optional<int64_t> GraphMaker::size_of(const Dim &d) const {
  return d.evaluate([&](Symbol name) -> std::optional<int64_t> {
    for (const auto &[symbol, size] : dims_)
      if (symbol == name)
        return size;
    return std::nullopt;
  });
}

void GraphMaker::set_value(ValueId id, Tensor tensor, bool usable) {
  if (values_.size() <= size_t(id))
    values_.resize(size_t(id) + 1);
  values_[size_t(id)] = std::move(tensor);
  if (usable)
    pool_.push_back(id);
}

std::optional<Attrs> GraphMaker::known_attrs(const Attrs &attrs) const {
  Attrs out = attrs;
  for (const auto &[name, attr] : attrs.all()) {
    if (const Dim *dim = std::get_if<Dim>(&attr)) {
      auto size = size_of(*dim);
      if (!size)
        return std::nullopt;
      out.set(name, Dim(*size));
    }
    if (const auto *list = std::get_if<std::vector<Dim>>(&attr)) {
      std::vector<Dim> sizes;
      for (const Dim &d : *list) {
        auto size = size_of(d);
        if (!size)
          return std::nullopt;
        sizes.push_back(*size);
      }
      out.set(name, std::move(sizes));
    }
  }
  return out;
}

// Ops with regions and calls run as a function whose arguments are all the values in sight.
Result<std::vector<Tensor>> GraphMaker::evaluate_node(NodeId id) {
  const Node &node = function_.node(id);
  if (!structural(node.op)) {
    std::vector<const Tensor *> operands;
    for (ValueId v : node.operands)
      operands.push_back(&value(v));
    auto attrs = known_attrs(node.attrs);
    if (!attrs)
      return Error{"an attribute has no value"};
    return evaluate(module_, node.op, operands, *attrs);
  }
  Function probe = function_;
  probe.body = {};
  std::vector<Tensor> inputs;
  for (ValueId v : pool_) {
    probe.body.args.push_back(v);
    inputs.push_back(value(v));
  }
  probe.body.nodes = {id};
  probe.body.results = node.results;
  KILN_TRY(variables, initial_variables(module_));
  EvaluateOptions options;
  options.max_steps = 100000;
  return interpret(module_, probe, inputs, variables, options);
}

// Small enough, and finite and not huge (or, where the graph is wild, rarely).
bool GraphMaker::sound(const std::vector<Tensor> &results) {
  for (const Tensor &t : results) {
    if (t.count() > largest_ || t.rank() > 7)
      return false;
    if (!is_float(t.dtype()))
      continue;
    double most = t.dtype() == DType::f32 || t.dtype() == DType::f64 || t.dtype() == DType::bf16 ? 1e5 : 300;
    for (int64_t i = 0; i < t.count(); ++i)
      if (!(std::fabs(t.at_f64(i)) <= most) && !wild_)
        return false;
  }
  return true;
}

std::optional<std::vector<ValueId>> GraphMaker::emit(Op op, std::vector<ValueId> operands, Attrs attrs,
                                                     std::vector<Block> regions) {
  size_t constraints = module_.constraints.size(), nodes = function_.nodes.size(), count = function_.values.size();
  GraphBuilder builder(module_, function_, *block_);
  auto node = builder.emit(op, std::move(operands), std::move(attrs), std::move(regions));
  auto drop = [&] {
    module_.constraints.resize(constraints);
    if (function_.nodes.size() > nodes) {
      block_->nodes.pop_back();
      function_.nodes.resize(nodes);
      function_.values.resize(count);
    }
    return std::nullopt;
  };
  if (!node)
    return drop();
  std::vector<ValueId> results = function_.node(*node).results;
  for (ValueId r : results)
    if (size_of(element_count(type(r).shape)).value_or(0) > largest_)
      return drop();
  auto tensors = evaluate_node(*node);
  if (!tensors || !sound(*tensors))
    return drop();
  for (size_t i = 0; i < results.size(); ++i) {
    const TensorType &inferred = type(results[i]);
    const Tensor &t = (*tensors)[i];
    bool same = inferred.dtype == t.dtype() && inferred.rank() == t.rank();
    for (size_t d = 0; same && d < t.dims().size(); ++d)
      same = size_of(inferred.shape[d]).value_or(t.dims()[d]) == t.dims()[d];
    if (!same)
      error_ = fmt::format("{}: infer gives {}, the interpreter {}", op_def(op).name, inferred.text(), t.type().text());
  }
  for (size_t i = 0; i < results.size(); ++i)
    set_value(results[i], std::move((*tensors)[i]));
  return results;
}

std::optional<ValueId> GraphMaker::emit1(Op op, std::vector<ValueId> operands, Attrs attrs) {
  auto results = emit(op, std::move(operands), std::move(attrs));
  return results && results->size() == 1 ? std::optional(results->front()) : std::nullopt;
}

ValueId GraphMaker::new_input(const TensorType &type, const InputRange &range) {
  Sizes sizes;
  for (const Dim &d : type.shape)
    sizes.push_back(*size_of(d));
  ValueId id = function_.add_argument(function_.body, type, fmt::format("x{}", inputs_.size()));
  Tensor tensor = random_tensor(random_, type.dtype, sizes, range.lo, range.hi, range.nonzero);
  inputs_.push_back(tensor);
  ranges_.push_back(range);
  set_value(id, std::move(tensor));
  return id;
}

ValueId GraphMaker::new_constant(Tensor tensor) {
  GraphBuilder builder(module_, function_, *block_);
  ValueId id = builder.constant(tensor);
  set_value(id, std::move(tensor));
  return id;
}

// A number, a symbol that has it as its value, or twice such a symbol.
Dim GraphMaker::dim_for(int64_t size) {
  if (!symbolic_ || size < 2 || random_.chance(0.4))
    return size;
  for (const auto &[symbol, value] : dims_)
    if (value == size)
      return Dim::symbol(symbol);
  for (const auto &[symbol, value] : dims_)
    if (value * 2 == size)
      return Dim::symbol(symbol) * Dim(2);
  if (dims_.size() >= 3)
    return size;
  Symbol symbol(fmt::format("{}_{}", name_, char('M' + dims_.size())));
  dims_.emplace_back(symbol, size);
  return Dim::symbol(symbol);
}

ValueId GraphMaker::new_value(DType dtype, const Sizes &sizes, const InputRange &range) {
  if (random_.chance(0.35))
    return new_constant(random_tensor(random_, dtype, sizes, range.lo, range.hi, range.nonzero));
  TensorType type{dtype, {}};
  for (int64_t s : sizes)
    type.shape.push_back(dim_for(s));
  return new_input(type, range);
}

std::optional<ValueId> GraphMaker::any_value() {
  if (pool_.empty())
    return std::nullopt;
  size_t n = pool_.size(), newest = std::min<size_t>(n, 5);
  return random_.chance(0.6) ? pool_[n - 1 - size_t(random_.below(int64_t(newest)))] : random_.pick(pool_);
}

bool GraphMaker::in_range(ValueId id, const InputRange &range) const {
  const Tensor &t = value(id);
  if (is_bool(t.dtype()))
    return true;
  for (int64_t i = 0; i < t.count(); ++i) {
    double v = is_float(t.dtype()) ? t.at_f64(i) : double(t.at_i64(i));
    if (!(v >= range.lo && v <= range.hi) || (range.nonzero && v == 0))
      return false;
  }
  return true;
}

// What nobody uses, and a few others.
void GraphMaker::choose_results() {
  std::vector<int> uses = function_.use_counts();
  std::vector<ValueId> unused, others;
  for (ValueId id : pool_)
    if (function_.def(id) && function_.def(id)->op != Op::constant)
      (uses[size_t(id)] == 0 ? unused : others).push_back(id);
  auto &results = function_.body.results;
  for (ValueId id : unused)
    if (results.size() < 8 && random_.chance(0.9))
      results.push_back(id);
  for (ValueId id : others)
    if (results.size() < 10 && random_.chance(0.15))
      results.push_back(id);
  if (results.empty())
    results.push_back(!unused.empty() ? unused.back() : !others.empty() ? others.back() : pool_.back());
  if (random_.chance(0.03)) // the same twice, an argument or a constant
    results.push_back(random_.chance(0.5) ? results[0] : random_.pick(pool_));
  for (size_t i = 0; i < results.size(); ++i)
    function_.result_names.push_back(fmt::format("y{}", i));
}

Tensor GraphMaker::resized_input(size_t index, const std::map<std::string, int64_t> &sizes) {
  Sizes dims;
  for (const Dim &d : type(function_.body.args[index]).shape)
    dims.push_back(*d.evaluate([&](Symbol s) { return std::optional(sizes.at(std::string(s.text()))); }));
  const InputRange &range = ranges_[index];
  return random_tensor(random_, inputs_[index].dtype(), dims, range.lo, range.hi, range.nonzero);
}

RandomGraph GraphMaker::make() {
  for (int i = 0; i < style_.nodes * 3 && int(function_.nodes.size()) < style_.nodes * 3; ++i)
    step();
  if (pool_.empty())
    new_input({DType::f32, {Dim(3)}}, {});
  choose_results();
  RandomGraph out;
  out.error = error_;
  std::map<std::string, int64_t> sizes;
  for (const auto &[symbol, size] : dims_)
    sizes[std::string(symbol.text())] = random_.chance(0.2) ? random_.one_of({0, 1}) : random_.between(1, size * 2 + 3);
  if (!dims_.empty())
    for (size_t i = 0; i < inputs_.size(); ++i)
      out.resized.push_back(resized_input(i, sizes));
  out.inputs = std::move(inputs_);
  function_.compact();
  module_.functions.push_back(std::move(function_));
  return out;
}

RandomGraph make_random_graph(Module &module, uint64_t seed, const std::string &name, const GraphStyle &style) {
  return GraphMaker(module, seed, name, style).make();
}

} // namespace kiln::fuzz
