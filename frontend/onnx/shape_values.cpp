#include "frontend/onnx/shape_values.h"

#include <cmath>
#include <numeric>

namespace kiln::onnx {
namespace {

int count_atoms(const Dim &d, int budget) {
  int n = 1;
  for (const DimTerm &term : d.terms()) {
    for (const DimAtom &factor : term.factors) {
      ++n;
      for (const Dim &arg : factor.args) {
        if (n > budget)
          return n;
        n += count_atoms(arg, budget - n);
      }
    }
    if (n > budget)
      return n;
  }
  return n;
}

bool nonnegative(const Dim &d) { return d.is_valid() && known_nonnegative(d, DimRanges()); }

// 1 for what has no positive counterpart.
int64_t common_factor(int64_t a, int64_t b) { return a == INT64_MIN ? 1 : std::gcd(a, b); }

std::optional<Element> make(Dim numerator, int64_t denominator) {
  if (!numerator.is_valid() || denominator <= 0 || complexity(numerator) > kMaxDimComplexity)
    return std::nullopt;
  // Kept small where that is plain to see.
  int64_t common = common_factor(numerator.constant_part(), denominator);
  for (const DimTerm &term : numerator.terms())
    common = common_factor(term.coefficient, common);
  if (common > 1)
    return Element{floordiv(numerator, common), denominator / common};
  return Element{std::move(numerator), denominator};
}

std::optional<int64_t> product(int64_t a, int64_t b) {
  int64_t out;
  return __builtin_mul_overflow(a, b, &out) ? std::nullopt : std::optional(out);
}

using Binary = std::optional<Element> (*)(const Element &, const Element &, bool integer);

std::optional<Element> add(const Element &a, const Element &b, bool) {
  auto d = product(a.denominator, b.denominator);
  return d ? make(a.numerator * b.denominator + b.numerator * a.denominator, *d) : std::nullopt;
}
std::optional<Element> sub(const Element &a, const Element &b, bool integer) {
  return add(a, {-b.numerator, b.denominator}, integer);
}
std::optional<Element> mul(const Element &a, const Element &b, bool) {
  if ((a.numerator.terms().size() + 1) * (b.numerator.terms().size() + 1) > kMaxProductTerms)
    return std::nullopt;
  auto d = product(a.denominator, b.denominator);
  return d ? make(a.numerator * b.numerator, *d) : std::nullopt;
}
std::optional<Element> div(const Element &a, const Element &b, bool integer) {
  if (integer) {
    // Division rounds towards zero: the same as rounding down where nothing is negative.
    bool known = a.numerator.is_const() && b.numerator.is_const();
    if (b.numerator.is_const(0))
      return std::nullopt;
    if (known) {
      int64_t n = a.numerator.as_const(), d = b.numerator.as_const();
      return d == -1 ? make(-a.numerator, 1) : make(n / d, 1);
    }
    if (!nonnegative(a.numerator) || !nonnegative(b.numerator))
      return std::nullopt;
    return make(floordiv(a.numerator, b.numerator), 1);
  }
  auto by = b.numerator.try_const();
  if (!by || *by == 0 || *by == INT64_MIN)
    return std::nullopt;
  auto d = product(a.denominator, *by < 0 ? -*by : *by);
  return d ? make(a.numerator * Dim(b.denominator) * Dim(*by < 0 ? -1 : 1), *d) : std::nullopt;
}
std::optional<Element> mod_of(const Element &a, const Element &b, bool integer) {
  if (!integer || !nonnegative(a.numerator) || !nonnegative(b.numerator - Dim(1)))
    return std::nullopt;
  return make(mod(a.numerator, b.numerator), 1);
}
std::optional<Element> min_of(const Element &a, const Element &b, bool) {
  auto d = product(a.denominator, b.denominator);
  return d ? make(min(a.numerator * b.denominator, b.numerator * a.denominator), *d) : std::nullopt;
}
std::optional<Element> max_of(const Element &a, const Element &b, bool) {
  auto d = product(a.denominator, b.denominator);
  return d ? make(max(a.numerator * b.denominator, b.numerator * a.denominator), *d) : std::nullopt;
}

// Sign of a - b where it holds for all sizes.
struct Order {
  bool ge = false, gt = false, le = false, lt = false;
};
Order order(const Element &a, const Element &b) {
  Dim d = a.numerator * Dim(b.denominator) - b.numerator * Dim(a.denominator);
  if (!d.is_valid())
    return {};
  return {nonnegative(d), nonnegative(d - Dim(1)), nonnegative(-d), nonnegative(-d - Dim(1))};
}
std::optional<Element> decided(bool yes, bool no) {
  return yes ? std::optional(Element{1}) : no ? std::optional(Element{0}) : std::nullopt;
}
std::optional<Element> eq(const Element &a, const Element &b, bool) {
  Order o = order(a, b);
  return decided(o.ge && o.le, o.gt || o.lt);
}
std::optional<Element> ne(const Element &a, const Element &b, bool) {
  Order o = order(a, b);
  return decided(o.gt || o.lt, o.ge && o.le);
}
std::optional<Element> lt(const Element &a, const Element &b, bool) {
  Order o = order(a, b);
  return decided(o.lt, o.ge);
}
std::optional<Element> gt(const Element &a, const Element &b, bool) {
  return lt(b, a, false);
}
std::optional<Element> le(const Element &a, const Element &b, bool) {
  Order o = order(a, b);
  return decided(o.le, o.gt);
}
std::optional<Element> ge(const Element &a, const Element &b, bool) {
  return le(b, a, false);
}
std::optional<Element> both(const Element &a, const Element &b, bool) {
  return make(a.numerator * b.numerator, 1);
}
std::optional<Element> either(const Element &a, const Element &b, bool) {
  return make(max(a.numerator, b.numerator), 1);
}

constexpr std::pair<Op, Binary> kBinary[] = {
    {Op::add, add},         {Op::sub, sub},           {Op::mul, mul},
    {Op::div, div},         {Op::remainder, mod_of},  {Op::fmod, mod_of},
    {Op::minimum, min_of},  {Op::maximum, max_of},    {Op::eq, eq},
    {Op::ne, ne},           {Op::lt, lt},             {Op::le, le},
    {Op::gt, gt},           {Op::ge, ge},             {Op::logical_and, both},
    {Op::logical_or, either}};

using Unary = std::optional<Element> (*)(const Element &);
constexpr std::pair<Op, Unary> kUnary[] = {
    {Op::neg, [](const Element &a) { return make(-a.numerator, a.denominator); }},
    {Op::floor,
     [](const Element &a) { return make(floordiv(a.numerator, a.denominator), 1); }},
    {Op::ceil, [](const Element &a) { return make(ceildiv(a.numerator, a.denominator), 1); }},
    {Op::abs,
     [](const Element &a) {
       return nonnegative(a.numerator) ? std::optional(a) : std::nullopt;
     }},
    {Op::relu, [](const Element &a) { return make(max(a.numerator, 0), a.denominator); }},
    {Op::logical_not, [](const Element &a) { return make(Dim(1) - a.numerator, 1); }},
};

// Where the element at `flat` of a result of `out` lies in an operand of `in`, which broadcasts to it.
size_t broadcast_index(int64_t flat, std::span<const int64_t> out, std::span<const int64_t> in) {
  size_t index = 0, stride = 1;
  for (size_t i = 0; i < in.size(); ++i) {
    size_t o = out.size() - 1 - i, k = in.size() - 1 - i;
    int64_t at = flat % out[o];
    flat /= out[o];
    if (in[k] != 1)
      index += size_t(at) * stride;
    stride *= size_t(in[k]);
  }
  return index;
}

using Elements = std::optional<std::vector<Element>>;

Elements elementwise(Binary f, std::span<const SymbolicOperand> operands, bool integer,
                     std::span<const int64_t> out, int64_t count) {
  std::vector<Element> result;
  for (int64_t i = 0; i < count; ++i) {
    auto e = f((*operands[0].elements)[broadcast_index(i, out, operands[0].dims)],
               (*operands[1].elements)[broadcast_index(i, out, operands[1].dims)], integer);
    if (!e)
      return std::nullopt;
    result.push_back(*std::move(e));
  }
  return result;
}

Elements select(std::span<const SymbolicOperand> operands, std::span<const int64_t> out,
                int64_t count) {
  std::vector<Element> result;
  for (int64_t i = 0; i < count; ++i) {
    auto c = (*operands[0].elements)[broadcast_index(i, out, operands[0].dims)].try_int();
    if (!c)
      return std::nullopt;
    const SymbolicOperand &from = operands[*c ? 1 : 2];
    result.push_back((*from.elements)[broadcast_index(i, out, from.dims)]);
  }
  return result;
}

Elements convert(const SymbolicOperand &operand, DType to) {
  if (is_narrow(to))
    return std::nullopt;
  std::vector<Element> result;
  for (const Element &e : *operand.elements) {
    if (is_float(to)) {
      result.push_back(e);
    } else if (is_bool(to)) {
      auto c = ne(e, Element{0}, false);
      if (!c)
        return std::nullopt;
      result.push_back(*c);
    } else if (e.denominator == 1) {
      result.push_back(e);
    } else if (nonnegative(e.numerator)) {
      result.push_back({floordiv(e.numerator, e.denominator), 1});
    } else {
      return std::nullopt;
    }
  }
  return result;
}

// All elements to one.
Elements fold_all(Binary f, const SymbolicOperand &operand, bool integer) {
  if (operand.elements->empty())
    return std::nullopt;
  Element out = operand.elements->front();
  for (size_t i = 1; i < operand.elements->size(); ++i) {
    auto next = f(out, (*operand.elements)[i], integer);
    if (!next)
      return std::nullopt;
    out = *next;
  }
  return std::vector<Element>{out};
}

std::optional<Tensor> tensor_of(const SymbolicOperand &operand) {
  Tensor out(DType::i64, operand.dims);
  for (size_t i = 0; i < operand.elements->size(); ++i) {
    auto value = (*operand.elements)[i].try_int();
    if (!value)
      return std::nullopt;
    out.set_i64(int64_t(i), *value);
  }
  return out;
}

// Ops that only move elements: the op runs on their numbers, which say where each came from.
Elements movement(Op op, std::span<const SymbolicOperand> operands, const Attrs &attrs) {
  std::vector<const Element *> pool;
  std::vector<Tensor> tensors;
  for (size_t i = 0; i < operands.size(); ++i) {
    if (i > 0 && op != Op::concat) {
      auto indices = tensor_of(operands[i]);
      if (!indices)
        return std::nullopt;
      tensors.push_back(*std::move(indices));
      continue;
    }
    Tensor labels(DType::i64, operands[i].dims);
    for (size_t k = 0; k < operands[i].elements->size(); ++k) {
      labels.set_i64(int64_t(k), int64_t(pool.size()));
      pool.push_back(&(*operands[i].elements)[k]);
    }
    tensors.push_back(std::move(labels));
  }
  std::vector<const Tensor *> pointers;
  for (const Tensor &t : tensors)
    pointers.push_back(&t);
  auto moved = evaluate_concrete(op, pointers, attrs);
  if (!moved || moved->empty())
    return std::nullopt;
  std::vector<Element> result;
  for (int64_t i = 0; i < (*moved)[0].count(); ++i) {
    int64_t label = (*moved)[0].at_i64(i);
    if (label < 0 || label >= int64_t(pool.size()))
      return std::nullopt;
    result.push_back(*pool[size_t(label)]);
  }
  return result;
}

bool moves_elements(Op op) {
  for (Op known : {Op::reshape, Op::permute, Op::slice, Op::broadcast_to, Op::concat, Op::flip,
                   Op::gather, Op::gather_elements, Op::gather_nd})
    if (op == known)
      return true;
  return false;
}

bool all_constant(const Attrs &attrs) {
  for (const auto &[name, value] : attrs.all()) {
    if (const Dim *d = std::get_if<Dim>(&value); d && !d->is_const())
      return false;
    if (const auto *list = std::get_if<std::vector<Dim>>(&value); list && !is_static(*list))
      return false;
  }
  return true;
}

} // namespace

int complexity(const Dim &d) { return count_atoms(d, kMaxDimComplexity); }

std::optional<Element> element_from_f64(double value) {
  if (!std::isfinite(value) || std::abs(value) > 1e15)
    return std::nullopt;
  int64_t denominator = 1;
  while (value != std::floor(value)) {
    value *= 2;
    denominator *= 2;
    if (denominator > (1 << 20) || std::abs(value) > 1e15)
      return std::nullopt;
  }
  return Element{int64_t(value), denominator};
}

Elements evaluate_symbolic(Op op, std::span<const SymbolicOperand> operands, const Attrs &attrs,
                           const TensorType &result) {
  if (operands.empty() || !is_static(result.shape) || !all_constant(attrs))
    return std::nullopt;
  auto bytes = element_count(result.shape).try_const();
  if (!bytes || *bytes > kMaxSymbolicElements)
    return std::nullopt;
  std::vector<int64_t> out;
  for (const Dim &d : result.shape)
    out.push_back(d.as_const());
  bool integer = is_integer(result.dtype);
  if (operands.size() == 2)
    for (auto [known, f] : kBinary)
      if (known == op)
        return elementwise(f, operands, integer, out, *bytes);
  for (auto [known, f] : kUnary) {
    if (known != op)
      continue;
    std::vector<Element> list;
    for (const Element &e : *operands[0].elements) {
      auto value = f(e);
      if (!value)
        return std::nullopt;
      list.push_back(*value);
    }
    return list;
  }
  if (op == Op::where && operands.size() == 3)
    return select(operands, out, *bytes);
  if (op == Op::convert)
    return convert(operands[0], result.dtype);
  if (*bytes == 1) {
    if (op == Op::reduce_prod)
      return fold_all(mul, operands[0], integer);
    if (op == Op::reduce_sum)
      return fold_all(add, operands[0], integer);
    if (op == Op::reduce_max)
      return fold_all(max_of, operands[0], integer);
    if (op == Op::reduce_min)
      return fold_all(min_of, operands[0], integer);
  }
  if (moves_elements(op))
    return movement(op, operands, attrs);
  return std::nullopt;
}

Result<Inferred> infer_alone(Op op, std::span<const TensorType> operands, const Attrs &attrs) {
  Module module;
  module.functions.emplace_back();
  Function &function = module.functions.back();
  std::vector<ValueId> ids;
  for (const TensorType &type : operands)
    ids.push_back(function.add_argument(function.body, type, ""));
  GraphBuilder builder(module, function, function.body);
  KILN_TRY(id, builder.emit(op, ids, attrs));
  const Node &node = function.node(id);
  Inferred out{{}, node.attrs};
  for (ValueId value : node.results)
    out.results.push_back(function.type(value));
  return out;
}

Result<std::vector<Tensor>> evaluate_concrete(Op op, std::span<const Tensor *const> operands,
                                              const Attrs &attrs) {
  std::vector<TensorType> types;
  for (const Tensor *t : operands)
    types.push_back(t->type());
  KILN_TRY(inferred, infer_alone(op, types, attrs));
  for (const TensorType &type : inferred.results)
    if (!is_static(type.shape))
      return Error{"its result has an unknown size"};
  const OpDef &def = op_def(op);
  if (!def.ref)
    return Error{std::string(def.name) + " is not evaluated at compile time"};
  return def.ref(RefContext{operands, inferred.attrs, inferred.results});
}

} // namespace kiln::onnx
