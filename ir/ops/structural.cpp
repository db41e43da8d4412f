// Ops that the plan handles itself: constants, variables, calls and control flow. What they have in
// common is that their types come from the module or from the blocks they hold.
#include "ir/ops/infer_util.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln {
namespace {

using Types = std::vector<TensorType>;

constexpr int64_t kWholeVariable = -1; // of `assign`'s `at`

// The types of a block's arguments and results.
struct Signature {
  Types args, results;
};

Result<Types> types_of(const Function &function, const std::vector<ValueId> &ids) {
  Types out;
  for (ValueId id : ids) {
    if (!id.valid() || size_t(id) >= function.values.size())
      return Error{"a region names a value that does not exist"};
    out.push_back(function.type(id));
  }
  return out;
}

Result<Signature> signature(const InferContext &context, size_t region) {
  if (!context.function)
    return Error{"a region can only stand in a function"};
  const Block &block = context.regions[region];
  KILN_TRY(args, types_of(*context.function, block.args));
  KILN_TRY(results, types_of(*context.function, block.results));
  return Signature{std::move(args), std::move(results)};
}

void add_bound_sizes(const Function &function, const Block &block, std::vector<Symbol> &out) {
  for (NodeId id : block.nodes) {
    if (!id.valid() || size_t(id) >= function.nodes.size())
      continue;
    const Node &node = function.node(id);
    const Attr *symbol = node.op == Op::bind_size ? node.attrs.find("symbol") : nullptr;
    if (const auto *name = symbol ? std::get_if<std::string>(symbol) : nullptr)
      out.push_back(Symbol(*name));
    for (const Block &region : node.regions)
      add_bound_sizes(function, region, out);
  }
}

// A size that is found in a region means nothing outside of it.
Status check_escapes(const InferContext &context) {
  for (const Block &region : context.regions) {
    std::vector<Symbol> bound;
    add_bound_sizes(*context.function, region, bound);
    if (bound.empty())
      continue;
    for (ValueId id : region.results)
      for (const Dim &d : context.function->type(id).shape)
        for (Symbol s : bound)
          if (d.depends_on(s))
            return Error{fmt::format("a result of the region is {}: how large {} is is only known inside",
                                     context.function->type(id).text(), s.text())};
  }
  return Unit{};
}

Status check_regions(const InferContext &context, size_t count) {
  if (context.regions.size() == count)
    return Unit{};
  return Error{fmt::format("it has {} regions; it takes {}", context.regions.size(), count)};
}

Status check_list(InferContext &context, const Types &got, const Types &want, std::string_view what) {
  if (got.size() != want.size())
    return Error{fmt::format("{}: there are {}, it takes {}", what, got.size(), want.size())};
  for (size_t i = 0; i < got.size(); ++i)
    KILN_RETURN_IF_ERROR(equal_types(context, got[i], want[i], fmt::format("{}, number {}", what, i)));
  return Unit{};
}

Types operand_types(const InferContext &context, size_t begin = 0, size_t end = SIZE_MAX) {
  auto all = context.operands;
  return Types(all.begin() + std::ptrdiff_t(begin),
               all.begin() + std::ptrdiff_t(std::min(end, all.size())));
}

Result<Types> infer_constant(InferContext &context) {
  ConstantId id = context.attrs.get_constant("value");
  if (!context.module || !id.valid() || size_t(id) >= context.module->constants.size())
    return Error{"'value' names no constant of the module"};
  return Types{context.module->constants[size_t(id)].tensor.type()};
}

Result<const Variable *> find_variable(const InferContext &context) {
  VariableId id = context.attrs.get_variable("variable");
  if (!context.module || !id.valid() || size_t(id) >= context.module->variables.size())
    return Error{"'variable' names no variable of the module"};
  return &context.module->variables[size_t(id)];
}

Result<Types> infer_read_variable(InferContext &context) {
  KILN_TRY(variable, find_variable(context));
  return Types{variable->type};
}

Result<Types> infer_assign(InferContext &context) {
  KILN_TRY(variable, find_variable(context));
  const Dim &at = context.attrs.get_dim("at");
  TensorType type = variable->type;
  if (!at.is_const(kWholeVariable)) {
    const TensorType &rows = context.operands[0];
    if (type.rank() == 0 || rows.rank() != type.rank())
      return Error{fmt::format("rows {} of the variable '{}', which is {}", rows.text(), variable->name, type.text())};
    if (at.is_const() && at.as_const() < 0)
      return Error{fmt::format("'at' is {}; the first row is 0", at.text())};
    Dim end = at + rows.shape[0];
    if (!require_at_most(context, end, type.shape[0]))
      return Error{fmt::format("the rows end at {}, the variable '{}' has {}", end.text(), variable->name,
                               type.shape[0].text())};
    type.shape[0] = rows.shape[0];
  }
  KILN_RETURN_IF_ERROR(equal_types(context, context.operands[0], type,
                                   fmt::format("the value and the variable '{}'", variable->name)));
  return Types{};
}

// The callee's types with its symbols replaced by what the operands' dims say they are. A symbol is
// bound by the first argument that has it alone as a dim; all other dims must then agree.
Result<Types> infer_call(InferContext &context) {
  FunctionId id = context.attrs.get_function("function");
  if (!context.module || !id.valid() || size_t(id) >= context.module->functions.size())
    return Error{"'function' names no function of the module"};
  const Function &callee = context.module->functions[size_t(id)];
  KILN_TRY(args, types_of(callee, callee.body.args));
  KILN_TRY(results, types_of(callee, callee.body.results));
  if (args.size() != context.operands.size())
    return Error{fmt::format("'{}' takes {} arguments, not {}", callee.name, args.size(),
                             context.operands.size())};
  std::vector<std::pair<Symbol, Dim>> bound;
  auto lookup = [&](Symbol name) -> std::optional<Dim> {
    for (const auto &[symbol, value] : bound)
      if (symbol == name)
        return value;
    return std::nullopt;
  };
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i].dtype != context.operands[i].dtype || args[i].rank() != context.operands[i].rank())
      return Error{fmt::format("argument {} of '{}' is {}, not {}", i, callee.name, args[i].text(),
                               context.operands[i].text())};
    for (size_t d = 0; d < args[i].shape.size(); ++d)
      if (auto symbol = args[i].shape[d].try_symbol(); symbol && !lookup(*symbol))
        bound.emplace_back(*symbol, context.operands[i].shape[d]);
  }
  for (size_t i = 0; i < args.size(); ++i)
    for (size_t d = 0; d < args[i].shape.size(); ++d)
      KILN_RETURN_IF_ERROR(equal_dims(context, context.operands[i].shape[d],
                                      args[i].shape[d].substitute(lookup),
                                      fmt::format("argument {} of '{}', dim {}", i, callee.name, d)));
  std::vector<Symbol> own;
  add_bound_sizes(callee, callee.body, own);
  for (TensorType &type : results)
    for (Dim &d : type.shape) {
      for (Symbol s : own)
        if (d.depends_on(s))
          return Error{fmt::format("'{}' gives {}, whose size {} it finds itself: only an entry can", callee.name,
                                   type.text(), s.text())};
      d = d.substitute(lookup);
    }
  return results;
}

Result<Types> infer_if(InferContext &context) {
  KILN_RETURN_IF_ERROR(check_regions(context, 2));
  KILN_RETURN_IF_ERROR(check_dtype(context, 0, context.operands[0] == TensorType{DType::bool_, {}},
                                   "the condition, bool[]; reduce it with reduce_any or reduce_all"));
  KILN_TRY(then, signature(context, 0));
  KILN_TRY(other, signature(context, 1));
  KILN_RETURN_IF_ERROR(check_escapes(context));
  if (!then.args.empty() || !other.args.empty())
    return Error{"the regions of if take no arguments; they use the values around them"};
  KILN_RETURN_IF_ERROR(check_list(context, other.results, then.results, "results of else against then"));
  return then.results;
}

Result<Types> infer_while(InferContext &context) {
  KILN_RETURN_IF_ERROR(check_regions(context, 2));
  KILN_TRY(condition, signature(context, 0));
  KILN_TRY(body, signature(context, 1));
  KILN_RETURN_IF_ERROR(check_escapes(context));
  Types carried = operand_types(context);
  KILN_RETURN_IF_ERROR(check_list(context, condition.args, carried, "arguments of the condition"));
  KILN_RETURN_IF_ERROR(check_list(context, body.args, carried, "arguments of the body"));
  KILN_RETURN_IF_ERROR(check_list(context, condition.results, {TensorType{DType::bool_, {}}},
                                  "results of the condition"));
  KILN_RETURN_IF_ERROR(check_list(context, body.results, carried, "results of the body"));
  return carried;
}

Result<Types> infer_scan(InferContext &context) {
  KILN_RETURN_IF_ERROR(check_regions(context, 1));
  KILN_TRY(carried_count, int_attr(context.attrs, "carried"));
  int64_t operands = int64_t(context.operands.size());
  if (carried_count < 0 || carried_count >= operands)
    return Error{fmt::format("'carried' is {} of {} operands; at least one operand must be scanned",
                             carried_count, operands)};
  KILN_TRY(body, signature(context, 0));
  KILN_RETURN_IF_ERROR(check_escapes(context));
  Types carried = operand_types(context, 0, size_t(carried_count));
  Types expected = carried;
  const Dim *length = nullptr;
  for (int64_t i = carried_count; i < operands; ++i) {
    KILN_RETURN_IF_ERROR(check_rank_at_least(context, int(i), 1));
    const TensorType &type = context.operands[size_t(i)];
    if (!length || !length->is_const())
      length = &type.shape[0];
    KILN_RETURN_IF_ERROR(equal_dims(context, context.operands[size_t(carried_count)].shape[0],
                                    type.shape[0], "lengths of the scanned operands along axis 0"));
    expected.push_back({type.dtype, Shape(type.shape.begin() + 1, type.shape.end())});
  }
  KILN_RETURN_IF_ERROR(check_list(context, body.args, expected, "arguments of the body"));
  if (body.results.size() < carried.size())
    return Error{fmt::format("the body has {} results; the first {} must be what is carried",
                             body.results.size(), carried.size())};
  Types next(body.results.begin(), body.results.begin() + carried_count);
  KILN_RETURN_IF_ERROR(check_list(context, next, carried, "what the body carries on"));
  Types out = carried;
  for (size_t i = carried.size(); i < body.results.size(); ++i) {
    TensorType stacked = body.results[i];
    stacked.shape.insert(stacked.shape.begin(), *length);
    out.push_back(std::move(stacked));
  }
  return out;
}

Result<Types> infer_fusion(InferContext &context) {
  KILN_RETURN_IF_ERROR(check_regions(context, 1));
  KILN_TRY(body, signature(context, 0));
  KILN_RETURN_IF_ERROR(check_list(context, body.args, operand_types(context), "arguments of the body"));
  if (body.results.empty())
    return Error{"the body has no result"};
  const std::vector<Dim> &block = context.attrs.get_dims("block");
  bool sound = std::all_of(block.begin(), block.end(), [](const Dim &d) { return d.is_const() && d.as_const() > 0; });
  if (!block.empty() && (block.size() < 2 || block.size() > 3 || !sound))
    return Error{"'block' is two or three numbers above 0: channels, rows and, unless they are whole, columns"};
  return body.results;
}

} // namespace

const OpDef op_constant{
    .name = "constant",
    .doc = "A tensor that is part of the module.",
    .attrs = {{"value", AttrKind::constant}},
    .infer = infer_constant,
    .structural = true,
};

const OpDef op_read_variable{
    .name = "read_variable",
    .doc = "The value a param or state has when the op runs.",
    .attrs = {{"variable", AttrKind::variable}},
    .infer = infer_read_variable,
    .structural = true,
    .traits = kNoFold | kSideEffect,
};

const OpDef op_assign{
    .name = "assign",
    .doc = "Gives a variable a new value, or rows of it (along axis 0) from `at` on. It has no result.",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"variable", AttrKind::variable},
              {"at", AttrKind::integer, Attr(Dim(kWholeVariable)), "the first row written; -1: all of it"}},
    .infer = infer_assign,
    .structural = true,
    .traits = kNoFold | kSideEffect,
};

const OpDef op_call{
    .name = "call",
    .doc = "Calls a function of the module. The callee's symbolic dims are bound by the operands.",
    .min_operands = 0,
    .max_operands = -1,
    .attrs = {{"function", AttrKind::function}},
    .infer = infer_call,
    .structural = true,
    .traits = kSideEffect, // the callee may assign
};

const OpDef op_if_{
    .name = "if",
    .doc = "Runs its first region where the condition is true, else its second. Both give the same types.",
    .min_operands = 1,
    .max_operands = 1,
    .infer = infer_if,
    .structural = true,
    .traits = kRegions,
};

const OpDef op_while_{
    .name = "while",
    .doc = "Regions condition(carried) -> bool[] and body(carried) -> carried: runs the body while the "
           "condition holds; results are the last carried values.",
    .min_operands = 1,
    .max_operands = -1,
    .infer = infer_while,
    .structural = true,
    .traits = kRegions | kExpensive,
};

const OpDef op_scan{
    .name = "scan",
    .doc = "Runs body(carried, slices) -> carried, slices once for each index of axis 0 of the scanned "
           "operands, from the last to the first with reverse. Results: the last carried values, then "
           "the slices stacked along a new axis 0, each at the index it was computed from.",
    .min_operands = 1,
    .max_operands = -1,
    .attrs = {{"carried", AttrKind::integer, std::nullopt, "how many operands are carried"},
              {"reverse", AttrKind::boolean, Attr(false)}},
    .infer = infer_scan,
    .structural = true,
    .traits = kRegions | kExpensive,
};

const OpDef op_fusion{
    .name = "fusion",
    .doc = "Ops that become one kernel. The region has an argument for each operand and uses nothing else.",
    .min_operands = 0,
    .max_operands = -1,
    .attrs = {{"block", AttrKind::dims, Attr(std::vector<Dim>()),
               "of a chain of fusions: how many channels, rows and, unless all of them, columns of the result are computed at a time"}},
    .infer = infer_fusion,
    .structural = true,
    .traits = kRegions,
};

} // namespace kiln
