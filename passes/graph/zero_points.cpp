#include "passes/graph/zero_points.h"

#include "passes/graph/rewrite.h"

#include <algorithm>
#include <optional>

namespace kiln {
namespace {

constexpr int64_t kLeast = 8; // rows and columns of weights that are multiplied as bytes (integer_products.cpp)

// convert(bytes, i32) - zero
struct Centred {
  ValueId wide, bytes;
  ValueId zero; // invalid where there is none
};

class ZeroPoints {
public:
  ZeroPoints(Sweep &sweep, NodeId id)
      : s_(sweep), f_(sweep.function()), node_(sweep.node(id)), b_(sweep.builder()), transposed_(node_.attrs.get_bool("transpose_b")) {}

  void rewrite(const PassFlags &flags) {
    auto a = centred(node_.operands[0]);
    if (!a || node_.operands.size() > 2)
      return;
    if (const Tensor *w = constant_tensor(s_.module(), f_, node_.operands[1]))
      return constant_weights(*a, *w);
    auto b = flags.gpu ? centred(node_.operands[1]) : std::nullopt;
    if (b && (a->zero.valid() || b->zero.valid()) && is_row(a->zero) && is_column(b->zero))
      split(*a, *b);
  }

private:
  const TensorType &type(ValueId v) const { return f_.type(v); }
  int depth_of(ValueId b) const { return type(b).rank() - (transposed_ ? 1 : 2); }

  std::optional<Centred> centred(ValueId v) const {
    Centred out{v, {}, {}};
    const Node *n = f_.def(v);
    if (n && n->op == Op::sub && type(n->operands[0]) == type(v)) {
      out.zero = n->operands[1];
      out.wide = n->operands[0];
      n = f_.def(out.wide);
    }
    if (!n || n->op != Op::convert || type(out.wide).dtype != DType::i32)
      return std::nullopt;
    out.bytes = n->operands[0];
    DType from = type(out.bytes).dtype;
    if ((from != DType::i8 && from != DType::u8) || constant_tensor(s_.module(), f_, out.bytes))
      return std::nullopt;
    return out;
  }

  bool is_one(ValueId zero) const { return !zero.valid() || element_count(type(zero).shape).is_const(1); }
  // One for all, or one for each row; each column.
  bool is_row(ValueId zero) const { return is_one(zero) || (type(zero).rank() >= 2 && type(zero).shape.back().is_const(1)); }
  bool is_column(ValueId zero) const {
    return is_one(zero) || (!transposed_ && type(zero).rank() > 0 && (type(zero).rank() == 1 || type(zero).shape[size_t(type(zero).rank()) - 2].is_const(1)));
  }

  ValueId scalar(ValueId zero) { return type(zero).rank() == 0 || !is_one(zero) ? zero : b_(Op::reshape, {zero}, {{"shape", Shape{}}}); }
  ValueId sum(ValueId v, int axis) { return b_(Op::reduce_sum, {v}, {{"axes", std::vector<Dim>{Dim(axis)}}, {"keepdims", true}}); }

  void split(const Centred &a, const Centred &b) {
    ValueId right = node_.operands[1], y = b_(Op::dot, {a.wide, b.wide}, node_.attrs);
    if (a.zero.valid()) {
      ValueId columns = sum(right, depth_of(right));
      if (transposed_) { // [.., N, 1]
        Shape shape = type(columns).shape;
        std::swap(shape[shape.size() - 1], shape[shape.size() - 2]);
        columns = b_(Op::reshape, {columns}, {{"shape", shape}});
      }
      y = b_(Op::sub, {y, b_(Op::mul, {columns, scalar(a.zero)})});
    }
    if (b.zero.valid())
      y = b_(Op::sub, {y, b_(Op::mul, {sum(a.wide, type(a.wide).rank() - 1), scalar(b.zero)})});
    s_.replace(node_.results[0], y);
  }

  void constant_weights(const Centred &a, const Tensor &w) {
    if (w.dtype() != DType::i32 || w.rank() != 2 || w.count() == 0 || !is_one(a.zero))
      return;
    int64_t depth = w.dims()[transposed_ ? 1 : 0], outputs = w.dims()[transposed_ ? 0 : 1];
    if (outputs < kLeast || depth < kLeast || depth % 4 != 0)
      return;
    int64_t least = w.at_i64(0), most = least;
    for (int64_t i = 0; i < w.count(); ++i)
      least = std::min(least, w.at_i64(i)), most = std::max(most, w.at_i64(i));
    bool is_signed = type(a.bytes).dtype == DType::i8;
    int64_t moved = least < -128 ? least + 128 : most > 127 ? most - 127 : 0;
    if (most - least > 255 || (!is_signed && moved == 0))
      return;
    ValueId x = node_.operands[0], right = node_.operands[1];
    if (is_signed) {
      ValueId up = b_.scalar(DType::i32, 128), codes = b_(Op::convert, {b_(Op::add, {a.wide, up})}, {{"dtype", DType::u8}});
      ValueId zero = a.zero.valid() ? b_(Op::add, {scalar(a.zero), up}) : up;
      x = b_(Op::sub, {b_(Op::convert, {codes}, {{"dtype", DType::i32}}), zero});
    }
    if (moved != 0) {
      Tensor narrow(DType::i32, w.dims());
      for (int64_t i = 0; i < w.count(); ++i)
        narrow.set_i64(i, w.at_i64(i) - moved);
      right = b_.constant(std::move(narrow));
    }
    ValueId y = b_(Op::dot, {x, right}, node_.attrs);
    if (moved != 0)
      y = b_(Op::add, {y, b_(Op::mul, {sum(node_.operands[0], type(a.wide).rank() - 1), b_.scalar(DType::i32, moved)})});
    s_.replace(node_.results[0], y);
  }

  Sweep &s_;
  Function &f_;
  const Node node_;
  GraphBuilder &b_;
  bool transposed_;
};

} // namespace

Changed split_zero_points(Module &module, Function &function, const PassFlags &flags) {
  return Sweep(module, function).run([&](Sweep &s, NodeId id) {
    const Node &node = s.node(id);
    if (node.op == Op::dot && function.type(node.results[0]).dtype == DType::i32)
      ZeroPoints(s, id).rewrite(flags);
  });
}

} // namespace kiln
