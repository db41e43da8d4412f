#include "ir/interpret.h"

#include "ir/ops/op.h"

#include <algorithm>
#include <cstring>
#include <fmt/format.h>
#include <unordered_map>

namespace kiln {
namespace {

constexpr int kMaxDepth = 200; // of calls and regions

std::optional<int64_t> find_dim(const DimValues &dims, Symbol name) {
  for (const auto &[symbol, value] : dims)
    if (symbol == name)
      return value;
  return std::nullopt;
}

std::string dims_text(const std::vector<int64_t> &dims) {
  return shape_text(Shape(dims.begin(), dims.end()));
}

Tensor view_of(const Tensor &tensor) {
  return Tensor(tensor.dtype(), tensor.dims(), tensor.bytes());
}

Tensor owned(Tensor tensor) {
  if (tensor.owns())
    return tensor;
  Tensor copy(tensor.dtype(), tensor.dims());
  std::memcpy(copy.mutable_bytes(), tensor.bytes().data(), tensor.bytes().size());
  return copy;
}

// The values, blocks and dims of one activation of a function.
struct Frame {
  const Function &function;
  DimValues dims;
  std::vector<std::optional<Tensor>> values;
  bool reported = false; // nodes are handed to the hook
};

class Interpreter {
public:
  Interpreter(const Module &module, VariableValues &variables, const EvaluateOptions &options)
      : module_(module), variables_(variables), options_(options), capacities_(module.capacities) {
    for (const Function &function : module.functions)
      for (const Node &node : function.nodes)
        if (node.op == Op::assign && !node.removed)
          assigned_.push_back(node.attrs.get_variable("variable"));
  }

  Result<std::vector<Tensor>> run_function(const Function &function, std::span<const Tensor> inputs,
                                           bool reported) {
    const Block &body = function.body;
    std::vector<TensorType> types;
    std::vector<std::string> names;
    for (ValueId arg : body.args) {
      types.push_back(function.type(arg));
      names.push_back(function.value(arg).name);
    }
    KILN_TRY(dims, bind_dims(types, names, inputs));
    for (const auto &[name, value] : capacities_)
      if (!find_dim(dims, Symbol(name)))
        dims.emplace_back(Symbol(name), value);
    for (const auto &[name, variable] : module_.dim_variables)
      if (!find_dim(dims, Symbol(name)))
        dims.emplace_back(Symbol(name), variables_[size_t(variable)].at_i64(0));
    KILN_RETURN_IF_ERROR(check_constraints(dims));
    Frame frame{function, std::move(dims), {}, reported};
    frame.values.resize(function.values.size());
    std::vector<Tensor> args;
    for (const Tensor &input : inputs)
      args.push_back(view_of(input));
    return run_block(frame, body, std::move(args));
  }

  // Room for what did not fit in the run that has just failed; false where that was not the reason.
  bool grow() {
    if (!needed_)
      return false;
    capacities_[needed_->first] = needed_->second;
    needed_.reset();
    live_ = 0;
    return true;
  }

private:
  // Which values of a block are not used after its node i.
  using Releases = std::vector<std::vector<ValueId>>;

  Status check_constraints(const DimValues &dims) const {
    auto lookup = [&](Symbol name) { return find_dim(dims, name); };
    for (const Module::Constraint &constraint : module_.constraints) {
      auto a = constraint.a.evaluate(lookup), b = constraint.b.evaluate(lookup);
      if (a && b && *a != *b)
        return Error{
            fmt::format("{}{}: {} and {} must be equal, but are {} and {}",
                        constraint.location.known() ? constraint.location.text() + ": " : "",
                        constraint.reason, constraint.a.text(), constraint.b.text(), *a, *b)};
    }
    for (const auto &[name, bounds] : module_.dim_bounds)
      if (auto value = lookup(Symbol(name));
          value && (*value < bounds.first || *value > bounds.second))
        return Error{fmt::format("{} is {}; it must be from {} to {}", name, *value, bounds.first,
                                 bounds.second)};
    return Unit{};
  }

  static void visit_uses(const Function &function, const Node &node,
                         const std::function<void(ValueId)> &visit) {
    for (ValueId operand : node.operands)
      visit(operand);
    for (const Block &region : node.regions) {
      for (NodeId inner : region.nodes)
        visit_uses(function, function.node(inner), visit);
      for (ValueId result : region.results)
        visit(result);
    }
  }

  const Releases &releases_of(const Function &function, const Block &block) {
    auto [entry, fresh] = releases_.try_emplace(&block);
    if (!fresh)
      return entry->second;
    std::unordered_map<ValueId, size_t> last;
    for (ValueId arg : block.args)
      last.emplace(arg, 0);
    for (size_t i = 0; i < block.nodes.size(); ++i) {
      const Node &node = function.node(block.nodes[i]);
      visit_uses(function, node, [&](ValueId use) {
        if (auto it = last.find(use); it != last.end())
          it->second = i;
      });
      for (ValueId result : node.results)
        last.emplace(result, i);
    }
    for (ValueId result : block.results)
      last.erase(result);
    Releases releases(block.nodes.size());
    for (const auto &[value, at] : last)
      if (at < releases.size())
        releases[at].push_back(value);
    return entry->second = std::move(releases);
  }

  void set(Frame &frame, ValueId id, Tensor tensor) {
    release(frame, id);
    if (tensor.owns())
      live_ += int64_t(tensor.bytes().size());
    frame.values[size_t(id)] = std::move(tensor);
  }

  void release(Frame &frame, ValueId id) {
    auto &slot = frame.values[size_t(id)];
    if (slot && slot->owns())
      live_ -= int64_t(slot->bytes().size());
    slot.reset();
  }

  const Tensor &get(const Frame &frame, ValueId id) const {
    const auto &slot = frame.values[size_t(id)];
    KILN_CHECK(slot.has_value(), "a value is used before it is defined or after its last use");
    return *slot;
  }

  Result<std::vector<Tensor>> run_block(Frame &frame, const Block &block,
                                        std::vector<Tensor> args) {
    if (depth_ >= kMaxDepth)
      return Error{"calls and regions nest too deeply"};
    ++depth_;
    size_t sizes = frame.dims.size();
    auto out = run_nodes(frame, block, std::move(args));
    frame.dims.resize(sizes); // those that the block bound end with it
    --depth_;
    return out;
  }

  Result<std::vector<Tensor>> run_nodes(Frame &frame, const Block &block,
                                        std::vector<Tensor> args) {
    const Releases &releases = releases_of(frame.function, block);
    for (size_t i = 0; i < args.size(); ++i)
      set(frame, block.args[i], std::move(args[i]));
    for (size_t i = 0; i < block.nodes.size(); ++i) {
      NodeId id = block.nodes[i];
      const Node &node = frame.function.node(id);
      auto fail = [&](const std::string &message) {
        std::string place = node.location.known() ? node.location.text() + ": " : "";
        return Error{fmt::format("{}{}: {}", place, op_def(node.op).name, message)};
      };
      if (++steps_ > options_.max_steps)
        return fail(fmt::format("gave up after {} nodes", options_.max_steps));
      auto results = run_node(frame, node);
      if (!results)
        return node.regions.empty() && node.op != Op::call ? fail(results.error().message)
                                                           : results.error();
      if (options_.perturb && !op_def(node.op).structural)
        options_.perturb(node, *results);
      if (frame.reported && options_.after_node)
        options_.after_node(id, *results);
      KILN_CHECK(results->size() == node.results.size(),
                 "a node gives as many values as it has results");
      for (size_t r = 0; r < results->size(); ++r)
        set(frame, node.results[r], std::move((*results)[r]));
      for (ValueId value : releases[i])
        release(frame, value);
    }
    return take_results(frame, block);
  }

  // Results leave the frame, as tensors that own their bytes. A value of an outer block, or one
  // that is several results, is copied.
  std::vector<Tensor> take_results(Frame &frame, const Block &block) {
    std::vector<Tensor> out;
    for (size_t i = 0; i < block.results.size(); ++i) {
      ValueId id = block.results[i];
      bool again =
          std::count(block.results.begin() + std::ptrdiff_t(i) + 1, block.results.end(), id) > 0;
      if (again || !defines(frame.function, block, id)) {
        out.push_back(owned(view_of(get(frame, id))));
      } else {
        get(frame, id);
        Tensor value = std::move(*frame.values[size_t(id)]);
        frame.values[size_t(id)].reset();
        if (value.owns())
          live_ -= int64_t(value.bytes().size());
        out.push_back(owned(std::move(value)));
      }
    }
    return out;
  }

  static bool defines(const Function &function, const Block &block, ValueId id) {
    NodeId def = function.value(id).def;
    return def.valid() ? std::find(block.nodes.begin(), block.nodes.end(), def) != block.nodes.end()
                       : std::find(block.args.begin(), block.args.end(), id) != block.args.end();
  }

  std::vector<Tensor> operand_views(const Frame &frame, const Node &node, size_t begin = 0,
                                    size_t end = SIZE_MAX) {
    std::vector<Tensor> out;
    for (size_t i = begin; i < std::min(end, node.operands.size()); ++i)
      out.push_back(view_of(get(frame, node.operands[i])));
    return out;
  }

  Result<std::vector<Tensor>> run_node(Frame &frame, const Node &node) {
    switch (node.op) {
    case Op::constant:
      return std::vector{
          view_of(module_.constants[size_t(node.attrs.get_constant("value"))].tensor)};
    case Op::read_variable: {
      VariableId id = node.attrs.get_variable("variable");
      bool changes = std::find(assigned_.begin(), assigned_.end(), id) != assigned_.end();
      Tensor view = view_of(variables_[size_t(id)]);
      return std::vector{changes ? owned(std::move(view)) : std::move(view)};
    }
    case Op::assign:
      return assign(frame, node);
    case Op::bind_size:
      return bind_size(frame, node);
    case Op::call:
      return run_function(module_.functions[size_t(node.attrs.get_function("function"))],
                          operand_views(frame, node), false);
    case Op::if_: {
      bool condition = get(frame, node.operands[0]).at_i64(0) != 0;
      return run_block(frame, node.regions[condition ? 0 : 1], {});
    }
    case Op::while_:
      return run_while(frame, node);
    case Op::scan:
      return run_scan(frame, node);
    case Op::fusion:
      return run_block(frame, node.regions[0], operand_views(frame, node));
    default:
      return run_op(frame, node);
    }
  }

  Result<std::vector<Tensor>> bind_size(Frame &frame, const Node &node) {
    int64_t value = get(frame, node.operands[0]).at_i64(0);
    const std::string &name = node.attrs.get_string("symbol");
    const Dim &bound = node.attrs.get_dim("bound");
    KILN_TRY(limit, concrete(frame, bound));
    if (value < 0 || value > limit) {
      if (auto symbol = bound.try_symbol(); symbol && value > limit)
        if (std::string text(symbol->text()); capacities_.contains(text))
          needed_ = {text, value};
      return Error{fmt::format("the size {} is {}; it must be from 0 to {}, which is {}", name, value, bound.text(), limit)};
    }
    frame.dims.emplace_back(Symbol(name), value);
    KILN_RETURN_IF_ERROR(check_constraints(frame.dims));
    return std::vector<Tensor>();
  }

  Result<std::vector<Tensor>> assign(Frame &frame, const Node &node) {
    Tensor &variable = variables_[size_t(node.attrs.get_variable("variable"))];
    const Tensor &value = get(frame, node.operands[0]);
    if (const Dim &at = node.attrs.get_dim("at"); !at.is_const(-1))
      return assign_rows(frame, at, value, variable);
    if (value.dtype() != variable.dtype() || value.dims() != variable.dims())
      return Error{fmt::format("the value is {}, the variable {}", value.type().text(),
                               variable.type().text())};
    variable = owned(view_of(value));
    return std::vector<Tensor>();
  }

  Result<std::vector<Tensor>> assign_rows(const Frame &frame, const Dim &at, const Tensor &value,
                                          Tensor &variable) const {
    auto first = at.evaluate([&](Symbol name) { return find_dim(frame.dims, name); });
    bool fits = first && *first >= 0 && value.rank() > 0 && value.rank() == variable.rank() &&
                value.dtype() == variable.dtype() && value.dims()[0] <= variable.dims()[0] &&
                *first <= variable.dims()[0] - value.dims()[0] &&
                std::equal(value.dims().begin() + 1, value.dims().end(), variable.dims().begin() + 1);
    if (!fits)
      return Error{fmt::format("rows {} from {} on do not fit the variable, {}", value.type().text(),
                               first.value_or(-1), variable.type().text())};
    variable = owned(std::move(variable));
    if (size_t rows = size_t(value.dims()[0]); rows > 0 && !value.bytes().empty())
      std::memcpy(variable.mutable_bytes() + size_t(*first) * (value.bytes().size() / rows),
                  value.bytes().data(), value.bytes().size());
    return std::vector<Tensor>();
  }

  Result<std::vector<Tensor>> run_while(Frame &frame, const Node &node) {
    std::vector<Tensor> carried = operand_views(frame, node);
    for (;;) {
      // The carried values own nothing that the loop could release: the condition gets views of
      // them.
      std::vector<Tensor> views;
      for (const Tensor &value : carried)
        views.push_back(view_of(value));
      KILN_TRY(condition, run_block(frame, node.regions[0], std::move(views)));
      if (condition[0].at_i64(0) == 0)
        break;
      if (++steps_ > options_.max_steps)
        return Error{fmt::format("while: gave up after {} nodes", options_.max_steps)};
      KILN_TRY(next, run_block(frame, node.regions[1], std::move(carried)));
      carried = std::move(next);
    }
    for (Tensor &value : carried)
      value = owned(std::move(value));
    return carried;
  }

  Result<std::vector<Tensor>> run_scan(Frame &frame, const Node &node) {
    size_t carried_count = size_t(node.attrs.get_int("carried"));
    bool reverse = node.attrs.get_bool("reverse");
    std::vector<Tensor> carried = operand_views(frame, node, 0, carried_count);
    std::vector<Tensor> scanned = operand_views(frame, node, carried_count);
    std::vector<Tensor> stacked;
    KILN_TRY(types, result_types(frame, node));
    for (size_t i = carried_count; i < types.size(); ++i) {
      KILN_RETURN_IF_ERROR(check_size({types.data() + i, 1}));
      std::vector<int64_t> dims;
      for (const Dim &d : types[i].shape)
        dims.push_back(d.as_const());
      stacked.emplace_back(types[i].dtype, dims);
    }
    int64_t length = scanned[0].dims()[0];
    for (const Tensor &tensor : scanned)
      if (tensor.dims()[0] != length)
        return Error{fmt::format("scan: the scanned operands have {} and {} slices", length,
                                 tensor.dims()[0])};
    for (int64_t step = 0; step < length; ++step) {
      if (++steps_ > options_.max_steps)
        return Error{fmt::format("scan: gave up after {} nodes", options_.max_steps)};
      size_t at = size_t(reverse ? length - 1 - step : step);
      std::vector<Tensor> args = std::move(carried);
      for (const Tensor &tensor : scanned) {
        size_t bytes = tensor.bytes().size() / size_t(length);
        args.emplace_back(tensor.dtype(),
                          std::vector<int64_t>(tensor.dims().begin() + 1, tensor.dims().end()),
                          tensor.bytes().subspan(at * bytes, bytes));
      }
      KILN_TRY(results, run_block(frame, node.regions[0], std::move(args)));
      carried.assign(std::make_move_iterator(results.begin()),
                     std::make_move_iterator(results.begin() + std::ptrdiff_t(carried_count)));
      for (size_t i = 0; i < stacked.size(); ++i) {
        std::span<const std::byte> slice = results[carried_count + i].bytes();
        if (slice.size() * size_t(length) != stacked[i].bytes().size())
          return Error{fmt::format("scan: slice {} is {}, which does not stack to {}", i,
                                   results[carried_count + i].type().text(),
                                   stacked[i].type().text())};
        if (!slice.empty())
          std::memcpy(stacked[i].mutable_bytes() + at * slice.size(), slice.data(), slice.size());
      }
    }
    for (Tensor &value : carried)
      value = owned(std::move(value));
    for (Tensor &value : stacked)
      carried.push_back(std::move(value));
    return carried;
  }

  // The declared types of a node's results with this run's dims.
  Result<std::vector<TensorType>> result_types(const Frame &frame, const Node &node) const {
    std::vector<TensorType> out;
    for (ValueId result : node.results) {
      TensorType type = frame.function.type(result);
      for (Dim &d : type.shape) {
        KILN_TRY(value, concrete(frame, d));
        d = value;
      }
      out.push_back(std::move(type));
    }
    return out;
  }

  Result<int64_t> concrete(const Frame &frame, const Dim &dim) const {
    auto value = dim.evaluate([&](Symbol name) { return find_dim(frame.dims, name); });
    if (!value)
      return Error{fmt::format("the size {} is not determined by the inputs", dim.text())};
    return *value;
  }

  Result<Attrs> concrete_attrs(const Frame &frame, const Attrs &attrs) const {
    Attrs out = attrs;
    for (const auto &[name, attr] : attrs.all()) {
      if (const Dim *dim = std::get_if<Dim>(&attr); dim && !dim->is_const()) {
        KILN_TRY(value, concrete(frame, *dim));
        out.set(name, Dim(value));
      }
      if (const auto *list = std::get_if<std::vector<Dim>>(&attr); list && !is_static(*list)) {
        std::vector<Dim> values;
        for (const Dim &d : *list) {
          KILN_TRY(value, concrete(frame, d));
          values.push_back(value);
        }
        out.set(name, std::move(values));
      }
    }
    return out;
  }

  Status check_size(std::span<const TensorType> types) const {
    int64_t total = live_;
    for (const TensorType &type : types) {
      std::vector<int64_t> dims;
      for (const Dim &d : type.shape) {
        auto size = d.try_const();
        if (!size || *size < 0)
          return Error{fmt::format("the result would be {}", type.text())};
        dims.push_back(*size);
      }
      auto bytes = checked_bytes(type.dtype, dims);
      if (!bytes || __builtin_add_overflow(total, *bytes, &total) || total > options_.max_bytes)
        return Error{fmt::format("a result of {} exceeds the interpreter's limit of {} bytes",
                                 type.text(), options_.max_bytes)};
    }
    return Unit{};
  }

  Result<std::vector<Tensor>> run_op(const Frame &frame, const Node &node) {
    std::vector<const Tensor *> operands;
    for (ValueId operand : node.operands)
      operands.push_back(&get(frame, operand));
    KILN_TRY(attrs, concrete_attrs(frame, node.attrs));
    return apply(node.op, operands, attrs);
  }

public:
  Result<std::vector<Tensor>> apply(Op op, std::span<const Tensor *const> operands,
                                    const Attrs &attrs) const {
    const OpDef &def = op_def(op);
    KILN_CHECK(def.ref, "the op " + std::string(def.name) + " has no ref");
    std::vector<TensorType> types;
    for (const Tensor *operand : operands)
      types.push_back(operand->type());
    InferContext context{types, attrs, {}, nullptr, &module_, {}};
    KILN_TRY(results, def.infer(context));
    KILN_RETURN_IF_ERROR(check_size(results));
    KILN_TRY(tensors, def.ref({operands, attrs, results}));
    KILN_CHECK(tensors.size() == results.size(),
               std::string(def.name) + ": ref and infer differ in results");
    for (size_t i = 0; i < tensors.size(); ++i)
      KILN_CHECK(tensors[i].type() == results[i], std::string(def.name) + ": ref gives " +
                                                      tensors[i].type().text() + ", infer " +
                                                      results[i].text());
    return std::move(tensors);
  }

private:
  const Module &module_;
  VariableValues &variables_;
  const EvaluateOptions &options_;
  std::map<std::string, int64_t> capacities_;
  std::optional<std::pair<std::string, int64_t>> needed_; // of a capacity that was too small
  std::vector<VariableId> assigned_; // by any function: reads of them are copies
  std::unordered_map<const Block *, Releases> releases_;
  int64_t steps_ = 0, live_ = 0;
  int depth_ = 0;
};

} // namespace

Result<VariableValues> initial_variables(const Module &module) {
  VariableValues out;
  for (const Variable &variable : module.variables) {
    if (variable.initial.valid()) {
      out.push_back(owned(view_of(module.constants[size_t(variable.initial)].tensor)));
      continue;
    }
    std::vector<int64_t> dims;
    for (const Dim &d : variable.type.shape)
      dims.push_back(d.try_const().value_or(-1));
    if (!checked_bytes(variable.type.dtype, dims))
      return Error{fmt::format("the variable '{}' is {}: its size must be known", variable.name,
                               variable.type.text())};
    out.emplace_back(variable.type.dtype, dims);
  }
  return out;
}

Result<DimValues> bind_dims(std::span<const TensorType> types, std::span<const std::string> names,
                            std::span<const Tensor> inputs) {
  if (types.size() != inputs.size())
    return Error{
        fmt::format("{} inputs are given; the function takes {}", inputs.size(), types.size())};
  DimValues dims;
  auto mismatch = [&](size_t i) {
    return Error{fmt::format("the input '{}' is {}{}, not {}", names[i],
                             dtype_name(inputs[i].dtype()), dims_text(inputs[i].dims()),
                             types[i].text())};
  };
  for (size_t i = 0; i < types.size(); ++i) {
    if (types[i].dtype != inputs[i].dtype() || types[i].rank() != inputs[i].rank())
      return mismatch(i);
    for (size_t d = 0; d < types[i].shape.size(); ++d)
      if (auto symbol = types[i].shape[d].try_symbol(); symbol && !find_dim(dims, *symbol))
        dims.emplace_back(*symbol, inputs[i].dims()[d]);
  }
  // A symbol that only stands in an expression is solved for where that is linear in it alone.
  for (size_t i = 0; i < types.size(); ++i)
    for (size_t d = 0; d < types[i].shape.size(); ++d) {
      const Dim &dim = types[i].shape[d];
      std::vector<Symbol> unknown = dim.symbols();
      std::erase_if(unknown, [&](Symbol s) { return find_dim(dims, s).has_value(); });
      if (unknown.size() != 1)
        continue;
      Dim known = dim.substitute([&](Symbol s) -> std::optional<Dim> {
        auto value = find_dim(dims, s);
        return value ? std::optional<Dim>(*value) : std::nullopt;
      });
      auto coefficient = known.coefficient_of(unknown[0]);
      if (!coefficient)
        continue;
      int64_t factor = coefficient->try_const().value_or(0);
      Dim rest = Dim(inputs[i].dims()[d]) - (known - *coefficient * Dim::symbol(unknown[0]));
      if (factor > 0 && mod(rest, factor).is_const(0))
        dims.emplace_back(unknown[0], floordiv(rest, factor).as_const());
    }
  for (size_t i = 0; i < types.size(); ++i)
    for (size_t d = 0; d < types[i].shape.size(); ++d) {
      auto value = types[i].shape[d].evaluate([&](Symbol s) { return find_dim(dims, s); });
      if (!value || *value != inputs[i].dims()[d])
        return mismatch(i);
    }
  for (const auto &[symbol, value] : dims)
    if (value < 0)
      return Error{fmt::format("the inputs' shapes make the size {} negative", symbol.text())};
  return dims;
}

Result<std::vector<Tensor>> interpret(const Module &module, const Function &function,
                                      std::span<const Tensor> inputs, VariableValues &variables,
                                      const EvaluateOptions &options) {
  KILN_CHECK(variables.size() == module.variables.size(),
             "a value for each of the module's variables");
  Interpreter interpreter(module, variables, options);
  if (module.capacities.empty())
    return interpreter.run_function(function, inputs, true);
  // What a run that ended early has assigned is taken back.
  VariableValues before;
  for (const Tensor &variable : variables)
    before.push_back(owned(view_of(variable)));
  for (;;) {
    auto out = interpreter.run_function(function, inputs, true);
    if (out || !interpreter.grow())
      return out;
    for (size_t i = 0; i < variables.size(); ++i)
      variables[i] = owned(view_of(before[i]));
  }
}

Result<std::vector<Tensor>> evaluate(const Module &module, Op op,
                                     std::span<const Tensor *const> operands, const Attrs &attrs) {
  VariableValues none;
  EvaluateOptions options;
  return Interpreter(module, none, options).apply(op, operands, attrs);
}

} // namespace kiln
