// Control flow, calls and variables around random blocks. A block sees the values around it; what it makes
// itself leaves the pool with it.
#include "tests/fuzz/graph_maker.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::fuzz {

// While alive, nodes go to `block`; afterwards the pool is as it was.
struct BlockScope {
  BlockScope(GraphMaker &maker, Block &block)
      : maker_(maker), before_(maker.block_), pool_(maker.pool_) {
    maker.block_ = &block;
    ++maker.depth_;
  }
  ~BlockScope() {
    // Arguments that were made inside are the function's, and stay in sight.
    for (ValueId arg : maker_.function_.body.args)
      if (std::find(pool_.begin(), pool_.end(), arg) == pool_.end())
        pool_.push_back(arg);
    maker_.pool_ = std::move(pool_);
    maker_.block_ = before_;
    --maker_.depth_;
  }
  GraphMaker &maker_;
  Block *before_;
  std::vector<ValueId> pool_;
};

void GraphMaker::fill_block(Block &, int nodes) {
  for (int i = 0; i < nodes; ++i)
    step();
}

std::optional<ValueId> GraphMaker::boolean_scalar() {
  auto v = any_value();
  if (!v || random_.chance(0.3))
    return new_value(DType::bool_, {}, {});
  return fit(*v, DType::bool_, {});
}

bool GraphMaker::try_if() {
  auto condition = boolean_scalar();
  if (!condition)
    return false;
  Block then, other;
  std::vector<std::pair<DType, Sizes>> types;
  {
    BlockScope scope(*this, then);
    fill_block(then, int(random_.between(1, 4)));
    for (int64_t n = random_.between(1, 2); n > 0; --n)
      if (auto v = any_value()) {
        then.results.push_back(*v);
        types.emplace_back(type(*v).dtype, value(*v).dims());
      }
  }
  {
    BlockScope scope(*this, other);
    fill_block(other, int(random_.between(0, 4)));
    for (const auto &[dtype, sizes] : types) {
      auto v = any_value();
      auto fitted = v ? fit(*v, dtype, sizes) : std::nullopt;
      other.results.push_back(fitted ? *fitted : new_value(dtype, sizes, {}));
    }
  }
  if (then.results.empty())
    return false;
  std::vector<Block> regions;
  regions.push_back(std::move(then)), regions.push_back(std::move(other));
  return emit(Op::if_, {*condition}, {}, std::move(regions)).has_value();
}

bool GraphMaker::try_while() {
  ValueId counter = new_constant(Tensor::scalar_i64(DType::i32, 0));
  ValueId limit = new_value(DType::i32, {}, {0, 4, false}), one = new_constant(Tensor::scalar_i64(DType::i32, 1));
  std::vector<ValueId> carried = {counter};
  for (int64_t n = random_.between(1, 2); n > 0; --n)
    if (auto v = any_value())
      carried.push_back(*v);
  auto arguments = [&](Block &block) {
    for (ValueId v : carried) {
      TensorType t = type(v);
      Tensor now = value(v);
      ValueId arg = function_.add_argument(block, t, fmt::format("c{}", function_.values.size()));
      set_value(arg, std::move(now));
    }
  };
  Block condition, body;
  {
    BlockScope scope(*this, condition);
    arguments(condition);
    auto less = emit1(Op::lt, {condition.args[0], limit});
    if (!less)
      return false;
    condition.results = {*less};
  }
  {
    BlockScope scope(*this, body);
    arguments(body);
    auto next = emit1(Op::add, {body.args[0], one});
    if (!next)
      return false;
    body.results = {*next};
    fill_block(body, int(random_.between(1, 4)));
    for (size_t i = 1; i < carried.size(); ++i) {
      auto v = any_value();
      auto fitted = v ? fit(*v, type(carried[i]).dtype, value(carried[i]).dims()) : std::nullopt;
      if (fitted && is_float(type(*fitted).dtype))
        fitted = fit_range(*fitted, {-4, 4, false});
      body.results.push_back(fitted ? *fitted : body.args[i]);
    }
  }
  std::vector<Block> regions;
  regions.push_back(std::move(condition)), regions.push_back(std::move(body));
  return emit(Op::while_, carried, {}, std::move(regions)).has_value();
}

bool GraphMaker::try_scan() {
  std::vector<ValueId> operands;
  int64_t carried = random_.between(0, 2);
  for (int64_t i = 0; i < carried; ++i) {
    auto v = any_value();
    operands.push_back(v ? *v : new_value(DType::f32, {3}, {}));
  }
  auto first = any_value();
  if (!first || type(*first).rank() == 0 || value(*first).dims()[0] > 12)
    first = new_value(DType::f32, {random_.between(0, 5), random_.between(1, 6)}, {});
  operands.push_back(*first);
  if (auto v = any_value(); v && random_.chance(0.4)) {
    Sizes sizes = value(*v).dims();
    if (sizes.empty())
      sizes = {1};
    sizes[0] = value(*first).dims()[0];
    if (auto fitted = fit(*v, type(*v).dtype, sizes))
      operands.push_back(*fitted);
  }
  Block body;
  {
    BlockScope scope(*this, body);
    for (size_t i = 0; i < operands.size(); ++i) {
      TensorType t = type(operands[i]);
      Tensor now = value(operands[i]);
      if (int64_t(i) >= carried) {
        t.shape.erase(t.shape.begin());
        Sizes sizes(now.dims().begin() + 1, now.dims().end());
        Tensor slice(now.dtype(), sizes);
        for (int64_t k = 0; k < std::min(slice.count(), now.count()); ++k)
          is_float(now.dtype()) ? slice.set_f64(k, now.at_f64(k)) : slice.set_i64(k, now.at_i64(k));
        now = std::move(slice);
      }
      ValueId arg = function_.add_argument(body, t, fmt::format("s{}", function_.values.size()));
      set_value(arg, std::move(now));
    }
    fill_block(body, int(random_.between(1, 4)));
    for (int64_t i = 0; i < carried; ++i) {
      ValueId start = operands[size_t(i)];
      auto v = any_value();
      auto fitted = v ? fit(*v, type(start).dtype, value(start).dims()) : std::nullopt;
      if (fitted && is_float(type(*fitted).dtype))
        fitted = fit_range(*fitted, {-4, 4, false});
      body.results.push_back(fitted ? *fitted : body.args[size_t(i)]);
    }
    for (int64_t n = random_.between(carried > 0 ? 0 : 1, 2); n > 0; --n)
      if (auto v = any_value())
        body.results.push_back(*v);
  }
  std::vector<Block> regions;
  regions.push_back(std::move(body));
  return emit(Op::scan, operands, {{"carried", Dim(carried)}, {"reverse", random_.chance(0.3)}}, std::move(regions)).has_value();
}

// A new function, called with values of this one; it may have symbolic dims of its own.
bool GraphMaker::try_call() {
  GraphStyle style = style_;
  style.no_control = true;
  style.nodes = int(random_.between(1, 4));
  std::string name = fmt::format("{}_g{}", name_, module_.functions.size());
  size_t constraints = module_.constraints.size();
  GraphMaker inner(module_, random_.next(), name, style);
  inner.symbolic_ = false;
  inner.largest_ = largest_;
  inner.make();
  module_.constraints.resize(constraints);
  FunctionId id(module_.functions.size() - 1);
  module_.functions.back().exported = false;
  const Function &callee = module_.functions.back();
  std::vector<ValueId> operands;
  for (ValueId arg : callee.body.args) {
    TensorType t = callee.type(arg);
    auto v = any_value();
    auto fitted = v ? fit(*v, t.dtype, sizes_of(t.shape)) : std::nullopt;
    if (fitted)
      fitted = fit_range(*fitted, {-2, 2, false});
    operands.push_back(fitted ? *fitted : new_value(t.dtype, sizes_of(t.shape), {0, 1, false}));
  }
  bool done = emit(Op::call, operands, {{"function", id}}).has_value();
  if (!done)
    module_.functions.pop_back(); // a dump does not keep what nobody calls
  if (done && random_.chance(0.3))
    emit(Op::call, operands, {{"function", id}});
  return done;
}

// A variable that is read, and given a new value that depends on the old one.
bool GraphMaker::try_variable() {
  auto from = any_value();
  if (!from || depth_ > 0)
    return false;
  Variable variable;
  variable.name = fmt::format("{}_v{}", name_, module_.variables.size());
  variable.kind = random_.chance(0.5) ? VariableKind::param : VariableKind::state;
  variable.type = {type(*from).dtype, {}};
  for (int64_t s : value(*from).dims())
    variable.type.shape.push_back(s);
  if (random_.chance(0.7))
    variable.initial = module_.add_constant(random_tensor(random_, variable.type.dtype, value(*from).dims(), -2, 2, false));
  VariableId id(module_.variables.size());
  module_.variables.push_back(variable);
  auto read = emit1(Op::read_variable, {}, {{"variable", id}});
  if (!read || random_.chance(0.3))
    return read.has_value();
  fill_block(function_.body, int(random_.between(0, 2)));
  auto next = any_value();
  auto fitted = fit(*next, variable.type.dtype, value(*from).dims());
  if (fitted && is_float(variable.type.dtype))
    fitted = fit_range(*fitted, {-4, 4, false});
  return fitted && emit(Op::assign, {*fitted}, {{"variable", id}}) && random_.chance(0.5) &&
         emit1(Op::read_variable, {}, {{"variable", id}});
}

bool GraphMaker::control_op(Op op) {
  if (style_.no_control || depth_ >= 2)
    return false;
  size_t functions = module_.functions.size();
  auto whole = [&](bool done) {
    if (!done) // nobody calls what blocks that are not there called
      module_.functions.resize(functions);
    return done;
  };
  switch (op) {
  case Op::if_:
    return whole(try_if());
  case Op::while_:
    return whole(try_while());
  case Op::scan:
    return whole(try_scan());
  case Op::call:
    return try_call();
  case Op::read_variable:
  case Op::assign:
    return try_variable();
  default:
    return false;
  }
}

} // namespace kiln::fuzz
