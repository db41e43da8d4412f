// if, while and for over tensors: regions. The names that a body assigns become the region's results (and,
// for loops, what is carried from one turn to the next); params and states assigned within are carried
// too, and written once, after the region.
//
//     s = 0.0                          s0: f32[] = constant(f32[]: 0.0)
//     for row in x {                   s: f32[] = scan(s0, x, carried=1) { (s_in: f32[], row: f32[3]) ->
//       s = s + sum(row)        ->       ...
//     }                                  yield s_next
#include "frontend/kir/blocks.h"

#include "ir/ops/op.h"

#include <algorithm>

#include <fmt/format.h>

namespace kiln::kir {
namespace {

bool same_datum(const Datum &a, const Datum &b) {
  if (a.v.index() != b.v.index())
    return false;
  return std::visit(
      [&](const auto &x) -> bool {
        using T = std::decay_t<decltype(x)>;
        const T &y = std::get<T>(b.v);
        if constexpr (std::is_same_v<T, TensorRef>)
          return x.id == y.id;
        else if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, Dim> || std::is_same_v<T, double> ||
                           std::is_same_v<T, std::string> || std::is_same_v<T, DType> || std::is_pointer_v<T>)
          return x == y;
        else
          return true;
      },
      a.v);
}

} // namespace

void Elaborator::restore(const Snapshot &s) {
  frame_->locals = s.locals;
  fn_->current = s.current;
  fn_->written = s.written;
}

std::vector<Elaborator::Carry> Elaborator::changes_since(const Snapshot &before) const {
  std::vector<Carry> out;
  for (const auto &[name, after] : frame_->locals) {
    auto it = before.locals.find(name);
    if (it != before.locals.end() && !same_datum(it->second, after))
      out.push_back({name, VariableId(), it->second, after});
  }
  for (VariableId id : fn_->written) {
    auto old = before.current.find(id);
    ValueId now = fn_->current.at(id);
    if (old == before.current.end() || old->second != now)
      out.push_back({"", id, {None{}}, {TensorRef{now}}});
  }
  return out;
}

// What a carried name is before the loop, as tensors in the block around it.
std::vector<ValueId> Elaborator::carry_inputs(std::vector<Carry> &carries, const Location &where) {
  std::vector<ValueId> out;
  for (Carry &c : carries) {
    std::optional<ValueId> id;
    if (c.variable.valid()) {
      id = read(c.variable, where);
    } else if (c.before.number() && c.after.is<TensorRef>()) {
      id = as_tensor(c.before, where); // the trial's tensor is gone; its own dtype serves
    } else {
      id = as_tensor(c.before, where);
    }
    if (!id)
      return {};
    out.push_back(*id);
  }
  return out;
}

void Elaborator::bind_carry(const Carry &carry, ValueId value) {
  if (carry.variable.valid())
    fn_->current[carry.variable] = value;
  else
    frame_->locals[carry.name] = tensor(value);
}

void Elaborator::finish_carry(const Carry &carry, ValueId value, const Location &where) {
  if (!carry.variable.valid()) {
    frame_->locals[carry.name] = tensor(value);
    name_value(tensor(value), carry.name, false);
    return;
  }
  fn_->current[carry.variable] = value;
  fn_->written.insert(carry.variable);
  if (fn_->region_depth == 0)
    emit(Op::assign, {value}, {{"variable", carry.variable}}, where);
}

// The carried names' values now, as results of a block; their types must be those of its arguments.
bool Elaborator::yield_carries(const std::vector<Carry> &carries, Block &block, const Location &where) {
  for (size_t i = 0; i < carries.size(); ++i) {
    const Carry &c = carries[i];
    Datum now = c.variable.valid() ? tensor(fn_->current.at(c.variable)) : frame_->locals.at(c.name);
    TensorType wanted = type_of(block.args[i]);
    auto id = now.number() ? number_tensor(now, wanted.dtype, where) : as_tensor(now, where);
    if (!id)
      return false;
    TensorType type = type_of(*id);
    bool fits = type.dtype == wanted.dtype && type.rank() == wanted.rank();
    for (size_t d = 0; fits && d < type.shape.size(); ++d)
      fits = require_equal(type.shape[d], wanted.shape[d], where, "a loop keeps its types");
    if (!fits) {
      error(where, fmt::format("'{}' is {} when the loop begins and {} after one turn", c.name,
                               wanted.text(), type.text()),
            {"what a loop over tensors carries keeps its dtype and shape"});
      return false;
    }
    block.results.push_back(*id);
  }
  return true;
}

Flow Elaborator::tensor_if(const Stmt &s, ValueId condition) {
  const TensorType &type = type_of(condition);
  if (!is_bool(type.dtype) || type.rank() != 0) {
    error(s.value->location, fmt::format("the condition of an if is one bool, not {}", type.text()),
          {"choose element by element with where(condition, a, b)"});
    return Flow::error;
  }
  Snapshot before = snapshot();
  const Body *bodies[2] = {&s.body, &s.other};
  Block blocks[2];
  Snapshot after[2];
  Flow flows[2];
  Datum returned[2];
  for (int i = 0; i < 2; ++i) {
    frame_->result = {None{}};
    in_block(blocks[i], [&] { flows[i] = run_body(*bodies[i]); });
    returned[i] = frame_->result;
    after[i] = snapshot();
    restore(before);
  }
  if (flows[0] == Flow::error || flows[1] == Flow::error)
    return Flow::error;
  bool returns = flows[0] == Flow::return_ && flows[1] == Flow::return_;
  if (!returns && (flows[0] != Flow::next || flows[1] != Flow::next)) {
    error(s.location, "return, break and continue within an if over tensors must stand in both branches",
          {"assign to a name in both branches and return it after the if"});
    return Flow::error;
  }
  // What either branch changed, or both made.
  std::vector<Carry> carries;
  std::vector<std::pair<Datum, Datum>> sides;
  auto lookup = [](const Locals &locals, const std::string &name) -> const Datum * {
    auto it = locals.find(name);
    return it == locals.end() ? nullptr : &it->second;
  };
  for (const auto &[name, then_value] : after[0].locals) {
    const Datum *other = lookup(after[1].locals, name);
    if (returns || !other || same_datum(then_value, *other))
      continue;
    carries.push_back({name, VariableId(), {None{}}, {None{}}});
    sides.emplace_back(then_value, *other);
  }
  std::set<VariableId> written = after[0].written;
  written.insert(after[1].written.begin(), after[1].written.end());
  for (VariableId id : written) {
    auto now = [&](int i) {
      auto it = after[i].current.find(id);
      return it != after[i].current.end() && after[i].written.count(id) ? it->second : ValueId();
    };
    auto old = before.current.find(id);
    ValueId unchanged = old == before.current.end() ? ValueId() : old->second;
    ValueId a = now(0), b = now(1);
    if ((!a.valid() || a == unchanged) && (!b.valid() || b == unchanged))
      continue;
    carries.push_back({"", id, {None{}}, {None{}}});
    auto side = [&](ValueId v) { return v.valid() ? tensor(v) : Datum{None{}}; };
    sides.emplace_back(side(a), side(b));
  }
  size_t kept = carries.size();
  std::vector<Datum> parts[2];
  if (returns) {
    for (int i = 0; i < 2; ++i) {
      if (auto *list = returned[i].get<ListData *>())
        parts[i] = (*list)->items;
      else if (!returned[i].none())
        parts[i].push_back(returned[i]);
    }
    if (parts[0].size() != parts[1].size()) {
      error(s.location, fmt::format("one branch returns {} values, the other {}", parts[0].size(), parts[1].size()));
      return Flow::error;
    }
    for (size_t i = 0; i < parts[0].size(); ++i)
      sides.emplace_back(parts[0][i], parts[1][i]);
  }
  // Numbers take the dtype that the other branch's tensor has.
  std::vector<size_t> dropped;
  for (int i = 0; i < 2; ++i) {
    in_block(blocks[i], [&] {
      for (size_t k = 0; k < sides.size(); ++k) {
        const Datum &mine = i ? sides[k].second : sides[k].first;
        const Datum &other = i ? sides[k].first : sides[k].second;
        std::optional<ValueId> id;
        auto *t = other.get<TensorRef>();
        if (mine.none() && k < kept && carries[k].variable.valid())
          id = read(carries[k].variable, s.location);
        else if (mine.number() && t)
          id = number_tensor(mine, type_of(t->id).dtype, s.location);
        else if (mine.is<TensorRef>() || mine.is<VariableDatum *>() || mine.number())
          id = as_tensor(mine, s.location);
        else if (k >= kept)
          id = as_tensor(mine, s.location);
        if (id)
          blocks[i].results.push_back(*id);
        else if (i == 0)
          dropped.push_back(k), blocks[i].results.push_back(ValueId());
        else
          blocks[i].results.push_back(ValueId());
      }
    });
  }
  // Names that are no tensors in one of the branches (lists, modules) cannot be merged: they go.
  std::vector<Carry> merged;
  std::vector<ValueId> results[2];
  for (size_t k = 0; k < sides.size(); ++k) {
    ValueId a = blocks[0].results[k], b = blocks[1].results[k];
    if (!a.valid() || !b.valid()) {
      if (k < kept)
        frame_->locals[carries[k].name] = {Poison{}};
      continue;
    }
    TensorType ta = type_of(a), tb = type_of(b);
    bool fits = ta.dtype == tb.dtype && ta.rank() == tb.rank();
    for (size_t d = 0; fits && d < ta.shape.size(); ++d)
      fits = ta.shape[d] == tb.shape[d];
    if (!fits) {
      bool fresh = k < kept && !carries[k].name.empty() && !before.locals.count(carries[k].name);
      if (fresh)
        continue; // a helper of one branch's own; not visible after the if
      error(s.location, fmt::format("{} is {} in one branch and {} in the other",
                                    k < kept ? "'" + carries[k].name + "'" : "the result", ta.text(), tb.text()));
      return Flow::error;
    }
    if (k < kept)
      merged.push_back(carries[k]);
    results[0].push_back(a);
    results[1].push_back(b);
  }
  blocks[0].results = results[0];
  blocks[1].results = results[1];
  std::vector<Block> regions;
  regions.push_back(std::move(blocks[0]));
  regions.push_back(std::move(blocks[1]));
  auto node = emit_node(Op::if_, {condition}, {}, std::move(regions), s.location);
  if (!node) {
    error(s.location, node.error().message);
    return Flow::error;
  }
  std::vector<ValueId> values = fn_->function.node(*node).results;
  for (size_t k = 0; k < merged.size(); ++k)
    finish_carry(merged[k], values[k], s.location);
  if (!returns)
    return Flow::next;
  std::vector<Datum> out;
  for (size_t k = merged.size(); k < values.size(); ++k)
    out.push_back(tensor(values[k]));
  frame_->result = out.size() == 1 ? out[0] : make_list(std::move(out), true);
  return Flow::return_;
}

Flow Elaborator::tensor_while(const Stmt &s) {
  while (true) {
    // Is the condition a tensor? Evaluated aside, since it belongs into the loop.
    Datum c;
    auto look = [&] {
      c = eval(*s.value);
      if (c.is<VariableDatum *>())
        c = {TensorRef{}};
    };
    if (fn_)
      trial(look);
    else
      look();
    if (c.poison())
      return Flow::error;
    if (c.is<TensorRef>())
      break;
    auto truth = condition(c, s.value->location);
    if (!truth)
      return Flow::error;
    if (!*truth)
      return Flow::next;
    Flow flow = run_body(s.body);
    if (flow == Flow::break_)
      return Flow::next;
    if (flow == Flow::return_ || flow == Flow::error)
      return flow;
    if (!spend(1, s.location))
      return Flow::error;
  }
  if (++trial_depth_ > 8) {
    error(s.location, "loops over tensors are nested too deeply");
    --trial_depth_;
    return Flow::error;
  }
  Flow flow = Flow::next;
  std::vector<Carry> carries = trial([&] { flow = run_body(s.body); });
  --trial_depth_;
  if (flow != Flow::next) {
    if (flow != Flow::error)
      error(s.location, "return, break and continue have no place in a while over tensors",
            {"make them part of the condition"});
    return Flow::error;
  }
  std::vector<ValueId> inputs = carry_inputs(carries, s.location);
  if (inputs.size() != carries.size())
    return Flow::error;
  Snapshot before = snapshot();
  Block blocks[2];
  bool ok = true;
  for (int i = 0; i < 2; ++i) {
    for (size_t k = 0; k < carries.size(); ++k) {
      std::string name = carries[k].variable.valid()
                             ? module_.variables[size_t(carries[k].variable)].name : carries[k].name;
      ValueId arg = fn_->function.add_argument(blocks[i], type_of(inputs[k]), name);
      bind_carry(carries[k], arg);
    }
    in_block(blocks[i], [&] {
      if (i == 0) {
        Datum c = eval(*s.value);
        auto id = as_tensor(c, s.value->location);
        ok &= id.has_value();
        if (id && (!is_bool(type_of(*id).dtype) || type_of(*id).rank() != 0)) {
          error(s.value->location, fmt::format("the condition of a while is one bool, not {}", type_of(*id).text()));
          ok = false;
        }
        if (id)
          blocks[0].results.push_back(*id);
      } else {
        ok &= run_body(s.body) == Flow::next && yield_carries(carries, blocks[1], s.location);
      }
    });
    restore(before);
    if (!ok)
      return Flow::error;
  }
  std::vector<Block> regions;
  regions.push_back(std::move(blocks[0]));
  regions.push_back(std::move(blocks[1]));
  auto node = emit_node(Op::while_, inputs, {}, std::move(regions), s.location);
  if (!node) {
    error(s.location, node.error().message);
    return Flow::error;
  }
  std::vector<ValueId> values = fn_->function.node(*node).results;
  for (size_t k = 0; k < carries.size(); ++k)
    finish_carry(carries[k], values[k], s.location);
  return Flow::next;
}

Flow Elaborator::tensor_for(const Stmt &s, ValueId over) {
  TensorType type = type_of(over);
  if (type.rank() == 0 || s.names.size() != 1) {
    error(s.value->location, type.rank() == 0 ? fmt::format("a loop runs over axis 0, and {} has none", type.text())
                                              : "a loop over a tensor has one name");
    return Flow::error;
  }
  TensorType slice{type.dtype, Shape(type.shape.begin() + 1, type.shape.end())};
  if (++trial_depth_ > 8) {
    error(s.location, "loops over tensors are nested too deeply");
    --trial_depth_;
    return Flow::error;
  }
  Flow flow = Flow::next;
  std::vector<Carry> carries = trial([&] {
    frame_->locals[s.names[0]] = tensor(fn_->function.add_value(slice, s.names[0]));
    flow = run_body(s.body);
  });
  --trial_depth_;
  std::erase_if(carries, [&](const Carry &c) { return c.name == s.names[0]; });
  if (flow != Flow::next) {
    if (flow != Flow::error)
      error(s.location, "return, break and continue have no place in a for over tensors");
    return Flow::error;
  }
  std::vector<ValueId> inputs = carry_inputs(carries, s.location);
  if (inputs.size() != carries.size())
    return Flow::error;
  Snapshot before = snapshot();
  Block block;
  for (size_t k = 0; k < carries.size(); ++k) {
    std::string name = carries[k].variable.valid()
                           ? module_.variables[size_t(carries[k].variable)].name : carries[k].name;
    bind_carry(carries[k], fn_->function.add_argument(block, type_of(inputs[k]), name));
  }
  frame_->locals[s.names[0]] = tensor(fn_->function.add_argument(block, slice, s.names[0]));
  bool ok = true;
  in_block(block, [&] {
    ok = run_body(s.body) == Flow::next && yield_carries(carries, block, s.location);
  });
  restore(before);
  if (!ok)
    return Flow::error;
  std::vector<ValueId> operands = inputs;
  operands.push_back(over);
  std::vector<Block> regions;
  regions.push_back(std::move(block));
  auto node = emit_node(Op::scan, std::move(operands), {{"carried", Dim(int64_t(carries.size()))}},
                        std::move(regions), s.location);
  if (!node) {
    error(s.location, node.error().message);
    return Flow::error;
  }
  std::vector<ValueId> values = fn_->function.node(*node).results;
  for (size_t k = 0; k < carries.size() && k < values.size(); ++k)
    finish_carry(carries[k], values[k], s.location);
  return Flow::next;
}

// y: f32[N] = fusion(x) { (a: f32[N]) -> ... yield b }: an op with its regions written out.
Datum Elaborator::region_call(const Stmt &s) {
  const Expr &e = *s.value;
  const Expr *callee = e.kind == ExprKind::call ? e.kids[0].get() : nullptr;
  auto op = callee && callee->kind == ExprKind::name ? find_op(callee->text) : std::nullopt;
  if (!op)
    return error(e.location, "only ops such as if, while, scan and fusion are followed by { }");
  Args args;
  if (!eval_args(e, args) || !in_function(e.location))
    return {Poison{}};
  auto matched = match_op(*op, args);
  bool ok = matched.ok();
  std::vector<Block> blocks;
  for (const Region &r : s.regions) {
    Snapshot before = snapshot();
    Block block;
    for (const Param &p : r.args) {
      auto type = p.type ? concrete_type(*p.type) : std::nullopt;
      if (!type) {
        if (!p.type)
          error(p.location, fmt::format("the region's argument '{}' needs a type", p.name));
        frame_->locals[p.name] = {Poison{}};
        ok = false;
        continue;
      }
      ValueId id = fn_->function.add_argument(block, *type, p.name);
      fn_->function.value(id).layout = p.layout;
      frame_->locals[p.name] = tensor(id);
    }
    bool saved = std::exchange(frame_->in_region, true);
    Datum saved_result = std::exchange(frame_->result, Datum{None{}});
    in_block(block, [&] {
      Flow flow = run_body(r.body);
      ok &= flow == Flow::next || flow == Flow::return_;
      std::vector<Datum> items;
      if (auto *list = frame_->result.get<ListData *>())
        items = (*list)->items;
      else if (!frame_->result.none())
        items.push_back(frame_->result);
      for (const Datum &item : items) {
        auto id = item.poison() ? std::nullopt : as_tensor(item, r.location);
        ok &= id.has_value();
        if (id)
          block.results.push_back(*id);
      }
    });
    frame_->in_region = saved;
    frame_->result = saved_result;
    restore(before);
    blocks.push_back(std::move(block));
  }
  if (!matched.ok() && !matched.error().message.empty())
    error(e.location, matched.error().message);
  if (!ok)
    return {Poison{}};
  std::string types;
  for (ValueId v : matched->operands)
    types += (types.empty() ? "" : ", ") + type_of(v).text();
  auto node = emit_node(*op, matched->operands, matched->attrs, std::move(blocks), e.location);
  if (!node)
    return error(e.location, node.error().message,
                 types.empty() ? std::vector<std::string>{} : std::vector<std::string>{"operands: " + types});
  return node_results(*node);
}

} // namespace kiln::kir
