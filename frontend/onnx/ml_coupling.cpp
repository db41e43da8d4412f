// Probabilities of k classes from those of their pairs: the second method of Wu, Lin and Weng, "Probability
// Estimates for Multi-class Classification by Pairwise Coupling" (2004), which minimises
//
//   sum over i, j of (r[j, i] p[i] - r[i, j] p[j])^2        sum of p = 1
//
// by coordinate descent, with the steps and the stop of libsvm, which models with such probabilities come
// from: the result is where the descent stops, not the minimum.
#include "frontend/onnx/ml_scores.h"

#include <algorithm>

namespace kiln::onnx {
namespace {

class Coupling {
public:
  Coupling(OnnxNode &n, int64_t classes, DType dtype) : n_(n), k_(classes), dtype_(dtype) {}

  Result<Val> run(const Val &pairs) {
    KILN_RETURN_IF_ERROR(make_matrix(pairs));
    Emitter &e = n_.emitter();
    Dim rows = pairs.dim(0);
    TensorType types[] = {{DType::i64, {}}, {DType::bool_, {rows, 1}}, {dtype_, {rows, Dim(k_)}}};
    KILN_TRY(done, broadcast_to(e, e.constant(Tensor(DType::bool_, {1, 1})), types[1].shape));
    KILN_TRY(start, broadcast_to(e, e.scalar(dtype_, 1.0 / double(k_)), types[2].shape));
    std::vector<Val> operands = {e.constant(Tensor::scalar_i64(DType::i64, 0)), done, start};
    std::vector<Block> regions(2);
    std::vector<Val> carried[2];
    for (size_t r : {0, 1})
      for (const TensorType &type : types)
        carried[r].push_back(e.argument(regions[r], type, ""));
    {
      IntoBlock scope(e.builder(), regions[0]);
      KILN_TRY(goes_on, condition(carried[0]));
      KILN_TRY(id, e.materialize(goes_on));
      regions[0].results = {id};
    }
    {
      IntoBlock scope(e.builder(), regions[1]);
      KILN_TRY(next, step(carried[1]));
      for (const Val &v : next) {
        KILN_TRY(id, e.materialize(v));
        regions[1].results.push_back(id);
      }
    }
    KILN_TRY(results, e.emit_all(Op::while_, operands, {}, std::move(regions)));
    return results[2];
  }

private:
  Result<Val> op(Op op, std::vector<Val> operands, Attrs attrs = {}) { return n_.emit(op, std::move(operands), std::move(attrs)); }
  Result<Val> over(Op reduction, const Val &x, int64_t axis) {
    return op(reduction, {x}, {{"axes", attr_ints(std::vector<int64_t>{axis})}, {"keepdims", true}});
  }
  Result<Val> class_of(const Val &x, int64_t t) { return slice_axis(n_.emitter(), x, 1, t, 1); }

  // Q[t, t] = sum of r[j, t]^2, Q[t, j] = -r[j, t] r[t, j]
  Status make_matrix(const Val &pairs) {
    int64_t count = k_ * (k_ - 1) / 2, pair = 0;
    std::vector<double> upper(size_t(count * k_ * k_)), lower = upper, eye(size_t(k_ * k_));
    for (int64_t i = 0; i < k_; ++i) {
      eye[size_t(i * k_ + i)] = 1;
      for (int64_t j = i + 1; j < k_; ++j, ++pair)
        upper[size_t((pair * k_ + i) * k_ + j)] = lower[size_t((pair * k_ + j) * k_ + i)] = 1;
    }
    Emitter &e = n_.emitter();
    KILN_TRY(others, op(Op::sub, {e.scalar(dtype_, 1), pairs}));
    KILN_TRY(above, op(Op::dot, {pairs, floats(n_, upper, {count, k_ * k_}, dtype_)}));
    KILN_TRY(below, op(Op::dot, {others, floats(n_, lower, {count, k_ * k_}, dtype_)}));
    KILN_TRY(both, op(Op::add, {above, below}));
    KILN_TRY(r, reshape(e, both, {pairs.dim(0), Dim(k_), Dim(k_)}));
    KILN_TRY(turned, permute(e, r, {0, 2, 1}));
    KILN_TRY(products, op(Op::mul, {r, turned}));
    KILN_TRY(squares, op(Op::mul, {r, r}));
    KILN_TRY(sums, over(Op::reduce_sum, squares, 1));
    KILN_TRY(diagonal, op(Op::mul, {sums, floats(n_, eye, {1, k_, k_}, dtype_)}));
    KILN_TRY(q, op(Op::sub, {diagonal, products}));
    q_ = q;
    KILN_TRY(only, reshape(e, sums, {pairs.dim(0), Dim(k_)}));
    diagonal_ = only;
    return Unit{};
  }

  Result<Val> condition(const std::vector<Val> &carried) {
    Emitter &e = n_.emitter();
    KILN_TRY(open, op(Op::logical_not, {carried[1]}));
    KILN_TRY(any, op(Op::reduce_any, {open}, {{"axes", attr_ints(std::vector<int64_t>{0, 1})}, {"keepdims", false}}));
    int64_t most = std::max<int64_t>(100, k_);
    KILN_TRY(early, op(Op::lt, {carried[0], e.constant(Tensor::scalar_i64(DType::i64, most))}));
    return op(Op::logical_and, {any, early});
  }

  // Rows that have stopped stay as they are.
  Result<std::vector<Val>> step(const std::vector<Val> &carried) {
    Emitter &e = n_.emitter();
    const Val start = carried[2];
    Dim rows = start.dim(0);
    KILN_TRY(vector, reshape(e, start, {rows, Dim(k_), 1}));
    KILN_TRY(product, op(Op::dot, {q_, vector}));
    KILN_TRY(qp, reshape(e, product, {rows, Dim(k_)}));
    KILN_TRY(weighted, op(Op::mul, {start, qp}));
    KILN_TRY(pqp, over(Op::reduce_sum, weighted, 1));
    KILN_TRY(off, op(Op::sub, {qp, pqp}));
    KILN_TRY(size, op(Op::abs, {off}));
    KILN_TRY(worst, over(Op::reduce_max, size, 1));
    KILN_TRY(close, op(Op::lt, {worst, e.scalar(dtype_, 0.005 / double(k_))}));
    KILN_TRY(done, op(Op::logical_or, {carried[1], close}));
    Val p = start;
    for (int64_t t = 0; t < k_; ++t) {
      KILN_TRY(qp_t, class_of(qp, t));
      KILN_TRY(q_tt, class_of(diagonal_, t));
      KILN_TRY(gap, op(Op::sub, {pqp, qp_t}));
      KILN_TRY(d, op(Op::div, {gap, q_tt}));
      KILN_TRY(whole, op(Op::add, {d, e.scalar(dtype_, 1)}));
      std::vector<double> unit(static_cast<size_t>(k_));
      unit[size_t(t)] = 1;
      KILN_TRY(moved, op(Op::mul, {d, floats(n_, unit, {1, k_}, dtype_)}));
      KILN_TRY(p_sum, op(Op::add, {p, moved}));
      KILN_TRY(p_next, op(Op::div, {p_sum, whole}));
      // pQp = (pQp + d (d Q[t, t] + 2 Qp[t])) / (1 + d)^2
      KILN_TRY(d_q, op(Op::mul, {d, q_tt}));
      KILN_TRY(twice, op(Op::add, {qp_t, qp_t}));
      KILN_TRY(slope, op(Op::add, {d_q, twice}));
      KILN_TRY(change, op(Op::mul, {d, slope}));
      KILN_TRY(pqp_sum, op(Op::add, {pqp, change}));
      KILN_TRY(whole_square, op(Op::mul, {whole, whole}));
      KILN_TRY(pqp_next, op(Op::div, {pqp_sum, whole_square}));
      KILN_TRY(slice, slice_axis(e, q_, 1, t, 1));
      KILN_TRY(q_t, reshape(e, slice, {rows, Dim(k_)}));
      KILN_TRY(qp_change, op(Op::mul, {d, q_t}));
      KILN_TRY(qp_sum, op(Op::add, {qp, qp_change}));
      KILN_TRY(qp_next, op(Op::div, {qp_sum, whole}));
      p = p_next;
      pqp = pqp_next;
      qp = qp_next;
    }
    KILN_TRY(kept, op(Op::where, {done, start, p}));
    KILN_TRY(count, op(Op::add, {carried[0], e.constant(Tensor::scalar_i64(DType::i64, 1))}));
    return std::vector<Val>{count, done, kept};
  }

  OnnxNode &n_;
  int64_t k_;
  DType dtype_;
  Val q_, diagonal_; // [N, k, k] and [N, k]
};

} // namespace

Result<Val> couple_pairs(OnnxNode &n, const Val &pairs, int64_t classes) {
  return Coupling(n, classes, pairs.dtype()).run(pairs);
}

} // namespace kiln::onnx
