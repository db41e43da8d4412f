// Operators, over numbers (computed now) and tensors (nodes); numbers as tensors.
#include "frontend/kir/elaborator.h"

#include <algorithm>
#include <array>
#include <cmath>

#include <fmt/format.h>

namespace kiln::kir {
namespace {

constexpr std::array<std::pair<std::string_view, Op>, 19> kOperators = {{
    {"+", Op::add}, {"-", Op::sub}, {"*", Op::mul}, {"/", Op::div}, {"%", Op::remainder},
    {"**", Op::pow}, {"==", Op::eq}, {"!=", Op::ne}, {"<", Op::lt}, {"<=", Op::le}, {">", Op::gt},
    {">=", Op::ge}, {"and", Op::logical_and}, {"or", Op::logical_or}, {"&", Op::bitwise_and},
    {"|", Op::bitwise_or}, {"^", Op::bitwise_xor}, {"<<", Op::shift_left}, {">>", Op::shift_right},
}};

bool tensor_like(const Datum &d) { return d.is<TensorRef>() || d.is<VariableDatum *>(); }

bool same(const Datum &a, const Datum &b) {
  if (a.v.index() != b.v.index())
    return false;
  if (auto *x = a.get<bool>())
    return *x == *b.get<bool>();
  if (auto *x = a.get<std::string>())
    return *x == *b.get<std::string>();
  if (auto *x = a.get<DType>())
    return *x == *b.get<DType>();
  if (auto *x = a.get<Object *>())
    return *x == *b.get<Object *>();
  return a.none();
}

} // namespace

std::optional<ValueId> Elaborator::as_tensor(const Datum &d, const Location &where) {
  if (auto *t = d.get<TensorRef>())
    return t->id;
  if (auto *v = d.get<VariableDatum *>())
    return in_function(where) ? std::optional(read(**v, where)) : std::nullopt;
  if (d.is<bool>())
    return number_tensor(d, DType::bool_, where);
  if (d.is<double>())
    return number_tensor(d, DType::f32, where);
  if (auto *dim = d.get<Dim>()) {
    Datum t = dim_tensor(*dim, where);
    return t.poison() ? std::nullopt : std::optional(t.get<TensorRef>()->id);
  }
  if (auto *list = d.get<ListData *>(); list && !(*list)->items.empty()) {
    const Datum *leaf = &d;
    for (int depth = 0; depth < 16; ++depth)
      if (auto *inner = leaf->get<ListData *>(); inner && !(*inner)->items.empty())
        leaf = &(*inner)->items[0];
    if (leaf->number())
      return number_tensor(d, leaf->is<bool>() ? DType::bool_ : leaf->is<double>() ? DType::f32 : DType::i64,
                           where);
  }
  if (!d.poison())
    error(where, fmt::format("a tensor is needed here, not {}", describe(d)));
  return std::nullopt;
}

namespace {

struct Flat {
  std::vector<int64_t> dims;
  std::vector<const Datum *> leaves;
};

// Dims of a nested list of numbers; an error text where it is ragged.
std::string flatten(const Datum &d, size_t depth, Flat &out) {
  auto *list = d.get<ListData *>();
  if (!list) {
    if (depth != out.dims.size() || !d.number())
      return "the lists are not all as deep as each other, or hold something other than numbers";
    out.leaves.push_back(&d);
    return "";
  }
  if (depth > 16)
    return "the lists are nested too deeply";
  int64_t size = int64_t((*list)->items.size());
  if (out.dims.size() == depth && out.leaves.empty())
    out.dims.push_back(size);
  if (depth >= out.dims.size() || out.dims[depth] != size)
    return "the lists are not all as long as each other";
  for (const Datum &item : (*list)->items)
    if (std::string message = flatten(item, depth + 1, out); !message.empty())
      return message;
  return "";
}

} // namespace

std::optional<ValueId> Elaborator::number_tensor(const Datum &d, DType dtype, const Location &where) {
  if (!in_function(where))
    return std::nullopt;
  Flat flat;
  if (std::string message = flatten(d, 0, flat); !message.empty()) {
    error(where, message);
    return std::nullopt;
  }
  if (flat.leaves.empty())
    flat.dims.resize(std::max<size_t>(flat.dims.size(), 1));
  Tensor t(dtype, flat.dims);
  for (size_t i = 0; i < flat.leaves.size() && int64_t(i) < t.count(); ++i) {
    const Datum &leaf = *flat.leaves[i];
    if (auto *b = leaf.get<bool>()) {
      if (!is_bool(dtype)) {
        error(where, fmt::format("{} is no {}", *b ? "true" : "false", dtype_name(dtype)));
        return std::nullopt;
      }
      t.set_i64(int64_t(i), *b);
    } else if (auto *dim = leaf.get<Dim>()) {
      if (!dim->is_const()) {
        if (flat.dims.empty()) { // the size of a dim, known when it runs
          Datum out = dim_tensor(*dim, where);
          auto *ref = out.get<TensorRef>();
          if (ref && dtype != DType::i64)
            out = emit(Op::convert, {ref->id}, {{"dtype", dtype}}, where);
          return out.poison() ? std::nullopt : std::optional(out.get<TensorRef>()->id);
        }
        error(where, fmt::format("{} is not known at compile time", dim->text()));
        return std::nullopt;
      }
      int64_t value = dim->as_const();
      if (is_bool(dtype) || (!holds_floats(dtype) && (t.set_i64(int64_t(i), value), t.at_i64(int64_t(i)) != value)) ||
          (is_unsigned_int(dtype) && value < 0)) {
        error(where, fmt::format("{} does not fit {}", value, dtype_name(dtype)),
              {is_bool(dtype) ? "use true or false" : "convert the tensor to a wider type with .to(i64)"});
        return std::nullopt;
      }
      if (holds_floats(dtype))
        t.set_f64(int64_t(i), double(value));
    } else {
      double value = *leaf.get<double>();
      if (!holds_floats(dtype)) {
        error(where, fmt::format("the number {} cannot become {}", value, dtype_name(dtype)),
              {"convert the tensor first: x.to(f32)"});
        return std::nullopt;
      }
      t.set_f64(int64_t(i), value);
    }
  }
  ConstantId id = module_.add_constant(std::move(t));
  Datum out = emit(Op::constant, {}, {{"value", id}}, where);
  return out.poison() ? std::nullopt : std::optional(out.get<TensorRef>()->id);
}

// A symbolic size as i64[]: the sum of as many ones.
Datum Elaborator::dim_tensor(const Dim &d, const Location &where) {
  if (d.is_const()) {
    auto id = number_tensor({d}, DType::i64, where);
    return id ? tensor(*id) : Datum{Poison{}};
  }
  if (!in_function(where))
    return {Poison{}};
  auto one = number_tensor({Dim(1)}, DType::i64, where);
  if (!one)
    return {Poison{}};
  Datum ones = emit(Op::broadcast_to, {*one}, {{"shape", std::vector<Dim>{d}}}, where);
  if (ones.poison())
    return ones;
  return emit(Op::reduce_sum, {ones.get<TensorRef>()->id},
              {{"axes", std::vector<Dim>{Dim(0)}}, {"keepdims", false}}, where);
}

Datum Elaborator::unary(std::string_view op, const Datum &a, const Location &where) {
  if (a.poison())
    return a;
  if (op == "not" && !tensor_like(a)) {
    auto truth = condition(a, where);
    return truth ? Datum{!*truth} : Datum{Poison{}};
  }
  if (auto *f = a.get<double>(); f && op != "~")
    return {op == "-" ? -*f : *f};
  if (auto *d = a.get<Dim>()) {
    if (op != "~")
      return {op == "-" ? -*d : *d};
    if (d->is_const())
      return {Dim(~d->as_const())};
  }
  if (!tensor_like(a))
    return error(where, fmt::format("'{}' has no meaning for {}", op, describe(a)));
  auto id = as_tensor(a, where);
  if (!id)
    return {Poison{}};
  if (op == "+")
    return tensor(*id);
  bool boolean = is_bool(type_of(*id).dtype);
  return emit(op == "-" ? Op::neg : op == "not" || boolean ? Op::logical_not : Op::bitwise_not, {*id}, {},
              where);
}

Datum Elaborator::binary_numbers(std::string_view op, const Datum &a, const Datum &b,
                                 const Location &where) {
  auto *x = a.get<Dim>();
  auto *y = b.get<Dim>();
  if (x && y) {
    bool known = x->is_const() && y->is_const();
    int64_t i = known ? x->as_const() : 0, j = known ? y->as_const() : 0;
    std::optional<Dim> out;
    if (op == "+")
      out = *x + *y;
    else if (op == "-")
      out = *x - *y;
    else if (op == "*")
      out = *x * *y;
    else if (op == "/" || op == "%") {
      if (y->is_const() && y->as_const() <= 0)
        return error(where, fmt::format("'{}' of integers needs a positive divisor, not {}", op, y->text()),
                     {"write 1.0 * a / b for a fraction"});
      out = op == "/" ? floordiv(*x, *y) : mod(*x, *y);
    } else if (op == "**" && known && j >= 0 && j < 64) {
      Dim power = 1;
      for (int64_t k = 0; k < j; ++k)
        power = power * *x;
      out = power;
    } else if (op == "&" && known)
      out = Dim(i & j);
    else if (op == "|" && known)
      out = Dim(i | j);
    else if (op == "^" && known)
      out = Dim(i ^ j);
    else if (op == "<<" && known && j >= 0 && j < 63 && int64_t(uint64_t(i) << j) >> j == i)
      out = Dim(int64_t(uint64_t(i) << j));
    else if (op == ">>" && known && j >= 0 && j < 63)
      out = Dim(i >> j);
    if (out)
      return out->is_valid() ? Datum{*out} : error(where, "the integer does not fit 64 bits");
    if (known && (op == "**" || op == "<<" || op == ">>"))
      return error(where, fmt::format("{} {} {} is no integer of 64 bits", i, op, j));
    Dim difference = *x - *y;
    if (op == "==" || op == "!=")
      if (*x == *y || difference.is_const())
        return {(*x == *y) == (op == "==")};
    if (difference.is_const()) {
      int64_t d = difference.as_const();
      if (op == "<" || op == "<=" || op == ">" || op == ">=")
        return {op == "<" ? d < 0 : op == "<=" ? d <= 0 : op == ">" ? d > 0 : d >= 0};
    }
    DimRanges none;
    if (op == "<" || op == "<=" || op == ">" || op == ">=") {
      bool less = op[0] == '<', strict = op.size() == 1;
      Dim gap = less ? *y - *x : *x - *y; // holds if gap >= (strict ? 1 : 0)
      if (known_nonnegative(gap - Dim(strict ? 1 : 0), none))
        return {true};
      if (known_nonnegative(-gap - Dim(strict ? 0 : 1), none))
        return {false};
    }
    return error(where, fmt::format("{} {} {} is not known at compile time", x->text(), op, y->text()),
                 {"fix the dim with --dim, or compare tensors"});
  }
  auto value = [](const Datum &d) -> std::optional<double> {
    if (auto *f = d.get<double>())
      return *f;
    if (auto *i = d.get<Dim>(); i && i->is_const())
      return double(i->as_const());
    if (auto *t = d.get<bool>())
      return double(*t);
    return std::nullopt;
  };
  auto f = value(a), g = value(b);
  if (!f || !g)
    return error(where, fmt::format("'{}' of {} and {} is not known at compile time", op, describe(a), describe(b)));
  if (op == "+")
    return {*f + *g};
  if (op == "-")
    return {*f - *g};
  if (op == "*")
    return {*f * *g};
  if (op == "/")
    return {*f / *g};
  if (op == "**")
    return {std::pow(*f, *g)};
  if (op == "%")
    return {*f - *g * std::floor(*f / *g)};
  if (op == "==" || op == "!=")
    return {(*f == *g) == (op == "==")};
  if (op == "<" || op == "<=" || op == ">" || op == ">=")
    return {op == "<" ? *f < *g : op == "<=" ? *f <= *g : op == ">" ? *f > *g : *f >= *g};
  return error(where, fmt::format("'{}' has no meaning for {} and {}", op, describe(a), describe(b)));
}

Datum Elaborator::matmul(ValueId a, ValueId b, const Location &where) {
  return call_named("matmul", Args{{{tensor(a), where}, {tensor(b), where}}, {}}, where);
}

Datum Elaborator::binary(std::string_view op, const Datum &a, const Datum &b, const Location &where) {
  if (a.poison() || b.poison())
    return {Poison{}};
  if (op == "and" || op == "or") {
    if (!tensor_like(a) && !tensor_like(b))
      return b; // the left side did not decide
  }
  if (tensor_like(a) || tensor_like(b)) {
    bool fits = (tensor_like(a) || a.number()) && (tensor_like(b) || b.number());
    if (!fits)
      return error(where, fmt::format("'{}' has no meaning for {} and {}", op, describe(a), describe(b)));
    if (op == "@") {
      auto x = as_tensor(a, where), y = as_tensor(b, where);
      return x && y ? matmul(*x, *y, where) : Datum{Poison{}};
    }
    auto it = std::find_if(kOperators.begin(), kOperators.end(), [&](const auto &e) { return e.first == op; });
    if (it == kOperators.end())
      return error(where, fmt::format("'{}' has no meaning for tensors", op));
    Op code = it->second;
    const Datum &first = tensor_like(a) ? a : b;
    DType dtype = first.is<TensorRef>() ? type_of(first.get<TensorRef>()->id).dtype
                                        : (*first.get<VariableDatum *>())->type.dtype;
    if (is_bool(dtype)) {
      code = code == Op::bitwise_and ? Op::logical_and : code == Op::bitwise_or ? Op::logical_or
             : code == Op::bitwise_xor ? Op::logical_xor : code;
    }
    if (op == "**" && b.number()) {
      auto x = as_tensor(a, where);
      auto *f = b.get<double>();
      auto *i = b.get<Dim>();
      if (x && i && i->is_const(2))
        return emit(Op::square, {*x}, {}, where);
      if (x && is_float(dtype) && f && *f == 0.5)
        return emit(Op::sqrt, {*x}, {}, where);
      if (x && is_float(dtype) && f && *f == -0.5)
        return emit(Op::rsqrt, {*x}, {}, where);
    }
    Args args{{{a, where}, {b, where}}, {}};
    return call_op(code, args, where);
  }
  if (a.number() && b.number())
    return binary_numbers(op, a, b, where);
  auto *l = a.get<ListData *>();
  auto *r = b.get<ListData *>();
  if (op == "+" && l && r) {
    std::vector<Datum> items = (*l)->items;
    items.insert(items.end(), (*r)->items.begin(), (*r)->items.end());
    if (items.size() > list_limit())
      return error(where, "the list grows too long");
    return make_list(std::move(items), (*l)->tuple);
  }
  if (op == "*" && l && b.is<Dim>() && b.get<Dim>()->is_const()) {
    int64_t n = std::max<int64_t>(0, b.get<Dim>()->as_const());
    if (n > 0 && (*l)->items.size() > list_limit() / size_t(n))
      return error(where, "the list grows too long");
    std::vector<Datum> items;
    for (int64_t i = 0; i < n; ++i)
      items.insert(items.end(), (*l)->items.begin(), (*l)->items.end());
    return make_list(std::move(items), (*l)->tuple);
  }
  if (op == "+" && a.is<std::string>() && b.is<std::string>()) {
    if (a.get<std::string>()->size() + b.get<std::string>()->size() > (size_t(1) << 20))
      return error(where, "the string grows too long");
    return {*a.get<std::string>() + *b.get<std::string>()};
  }
  if (op == "in") {
    auto items = iterate(b, where);
    if (!items)
      return {Poison{}};
    for (const Datum &item : *items) {
      Datum equal = item.number() && a.number() ? binary_numbers("==", a, item, where) : Datum{same(a, item)};
      if (equal.poison() || *equal.get<bool>())
        return equal;
    }
    return {false};
  }
  if (op == "==" || op == "!=") {
    bool equal = same(a, b);
    if (l && r) {
      Deeper deeper(*this);
      if (deeper.too_deep())
        return error(where, "the lists are nested too deeply to compare");
      equal = (*l)->items.size() == (*r)->items.size();
      for (size_t i = 0; equal && i < (*l)->items.size(); ++i) {
        Datum e = binary("==", (*l)->items[i], (*r)->items[i], where);
        if (!e.is<bool>())
          return e.poison() ? e : error(where, "lists of tensors cannot be compared");
        equal = *e.get<bool>();
      }
    }
    return {equal == (op == "==")};
  }
  return error(where, fmt::format("'{}' has no meaning for {} and {}", op, describe(a), describe(b)));
}

} // namespace kiln::kir
