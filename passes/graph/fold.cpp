// Evaluates nodes whose operands are constants, by the op's ref. The result must be worth having:
// it is not larger than the limit (or than what it replaces), and not a mere expansion of something
// small, which a kernel does for free.
#include "passes/graph/rewrite.h"

#include "ir/ops/op.h"

#include <algorithm>

namespace kiln {
namespace {

// What is larger than each of its operands: a few constants that are joined again and again would fill any memory.
constexpr int64_t kJoinedBytes = 128 << 20;

// Results of broadcasts, iotas and the like above this many bytes are left to the kernels.
constexpr int64_t kExpandedBytes = 64 << 10;

// Weights of so few words may as well be floats.
constexpr int64_t kFewWords = 256;

bool attrs_are_static(const Attrs &attrs) {
  return std::all_of(attrs.all().begin(), attrs.all().end(), [](const auto &entry) {
    if (const Dim *dim = std::get_if<Dim>(&entry.second))
      return dim->is_const();
    if (const auto *list = std::get_if<std::vector<Dim>>(&entry.second))
      return is_static(*list);
    return true;
  });
}

std::optional<int64_t> bytes_of(const TensorType &type) {
  std::vector<int64_t> dims;
  for (const Dim &d : type.shape) {
    auto size = d.try_const();
    if (!size)
      return std::nullopt;
    dims.push_back(*size);
  }
  return checked_bytes(type.dtype, dims);
}

// Multiply-adds of one evaluation, roughly: ops that reduce visit every element of an operand for
// each result, at worst; others visit every element once or so.
bool within_work(const OpDef &def, std::span<const Tensor *const> operands, int64_t result_count,
                 int64_t limit) {
  if (!def.has(kContraction) && !def.has(kWindow))
    return true;
  int64_t terms = 1;
  for (size_t i = def.has(kContraction) ? 1 : 0; i < operands.size(); ++i)
    terms = std::max(terms, operands[i]->count());
  int64_t work = 0;
  if (def.has(kContraction))
    terms /= std::max<int64_t>(1, operands[1]->dims().empty() ? 1 : operands[1]->dims().back());
  return !__builtin_mul_overflow(terms, std::max<int64_t>(1, result_count), &work) && work <= limit;
}

// Quantised weights: what integer_products and pack_weights look for.
bool is_native_weight(Sweep &s, const Node &node, const PassContext &context) {
  if (node.op != Op::dequantize ||
      std::find(context.native.begin(), context.native.end(), node.op) == context.native.end())
    return false;
  const TensorType &codes = s.function().type(node.operands[0]);
  return codes.rank() >= 2 && dtype_bits(codes.dtype) <= 8;
}

// Codes that pack_weights has put into words: products take them apart as they read.
bool takes_words_apart(Sweep &s, const Node &node) {
  if ((node.op != Op::shift_right && node.op != Op::shift_left) || !constant_tensor(s.module(), s.function(), node.operands[0]))
    return false;
  auto words = element_count(s.function().type(node.operands[0]).shape).try_const(),
       codes = element_count(s.function().type(node.results[0]).shape).try_const();
  return words && codes && *codes >= kFewWords * 2 && *words >= kFewWords && *codes > *words;
}

bool try_fold(Sweep &s, NodeId id, const PassContext &context) {
  const Node &node = s.node(id);
  const OpDef &def = op_def(node.op);
  if (!def.ref || def.has(kNoFold) || def.has(kSideEffect) || !node.regions.empty() ||
      node.op == Op::constant || is_native_weight(s, node, context) || takes_words_apart(s, node) ||
      !attrs_are_static(node.attrs))
    return false;
  std::vector<const Tensor *> operands;
  int64_t operand_bytes = 0, largest = 0;
  for (ValueId operand : node.operands) {
    const Tensor *tensor = constant_tensor(s.module(), s.function(), operand);
    if (!tensor)
      return false;
    if (std::find(operands.begin(), operands.end(), tensor) == operands.end())
      operand_bytes += int64_t(tensor->bytes().size());
    largest = std::max(largest, int64_t(tensor->bytes().size()));
    operands.push_back(tensor);
  }
  std::vector<TensorType> types;
  int64_t bytes = 0, count = 0;
  for (ValueId result : node.results) {
    types.push_back(s.function().type(result));
    auto size = bytes_of(types.back());
    if (!size || __builtin_add_overflow(bytes, *size, &bytes))
      return false;
    count += *size / dtype_bytes(types.back().dtype);
  }
  if (bytes > std::max(context.limits.fold_bytes, std::min(operand_bytes, std::max(largest, kJoinedBytes))))
    return false;
  if (bytes > kExpandedBytes && bytes > operand_bytes && def.element)
    return false;
  if (!within_work(def, operands, count, context.limits.fold_work))
    return false;

  auto results = def.ref({operands, node.attrs, types});
  if (!results) // it fails at run time too, with the place
    return false;
  std::vector<ValueId> values;
  for (size_t i = 0; i < results->size(); ++i) {
    KILN_CHECK((*results)[i].type() == types[i],
               "ref gives a tensor of the inferred type: " + (*results)[i].type().text() + " for " +
                   types[i].text());
    std::string name = s.function().value(s.node(id).results[i]).name;
    values.push_back(s.builder().constant(std::move((*results)[i]), std::move(name)));
  }
  s.replace_results(id, values);
  return true;
}

} // namespace

Changed fold(Module &module, PassContext &context) {
  Changed changed = Changed::no;
  for (Function &function : module.functions)
    changed |= Sweep(module, function).run([&](Sweep &s, NodeId id) { try_fold(s, id, context); });
  return changed;
}

} // namespace kiln
