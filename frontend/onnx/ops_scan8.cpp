// Scan as opset 8 had it: every value has a batch dim, sequences may have lengths of their own, and the
// body sees one sample. It becomes a scan over the batch of scans over the sequence.
#include "frontend/onnx/importer.h"
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

namespace kiln::onnx {
namespace {

class BatchScan {
public:
  explicit BatchScan(OnnxNode &n) : n_(n), e_(n.emitter()) {}

  Status run() {
    KILN_TRY(graph, n_.get_graph("body"));
    graph_ = graph;
    int64_t scanned = n_.get_int("num_scan_inputs", 0), total = int64_t(n_.input_count()) - 1;
    if (scanned < 1 || scanned > total || int64_t(graph_.inputs.size()) != total)
      return Error{fmt::format("it scans {} of {} inputs, and its body takes {}", scanned, total, graph_.inputs.size())};
    states_ = size_t(total - scanned);
    if (graph_.outputs.size() < states_)
      return Error{"its body has too few outputs"};
    directions_ = n_.get_ints("directions", std::vector<int64_t>(size_t(scanned), 0));
    if (directions_.size() != size_t(scanned))
      return Error{"its directions are not one for each scanned value"};
    for (size_t i = 1; i <= size_t(total); ++i) {
      if (!n_.has(i))
        return Error{fmt::format("its input {} is missing", i)};
      if (n_.rank(i) < (i > states_ ? 2 : 1) || n_.shape(i)[0] != n_.shape(1)[0] ||
          (i > states_ && n_.shape(i)[1] != n_.shape(states_ + 1)[1]))
        return Error{fmt::format("its input {} is {}, which has not the batch or the length of the others", i, n_.in(i).type.text())};
    }
    if (n_.has(0) && (n_.shape(0) != Shape{n_.shape(1)[0]} || !is_integer(n_.dtype(0))))
      return Error{fmt::format("its lengths are {}, not one for each sample", n_.in(0).type.text())};
    std::vector<Val> operands(n_.inputs().begin() + 1, n_.inputs().end());
    if (n_.has(0)) {
      KILN_TRY(lengths, convert(e_, n_.in(0), DType::i64));
      operands.push_back(lengths);
    }
    KILN_TRY(results, in_region(operands, 0, [&](const std::vector<Val> &sample) { return over_sequence(sample); }));
    for (size_t i = 0; i < results.size(); ++i)
      n_.set(i, results[i]);
    return Unit{};
  }

private:
  template <typename F>
  Result<std::vector<Val>> in_region(const std::vector<Val> &operands, size_t carried, F f) {
    Block body;
    std::vector<Val> inner;
    for (size_t i = 0; i < operands.size(); ++i) {
      const Val &x = operands[i];
      inner.push_back(e_.argument(body, {x.dtype(), i < carried ? x.type.shape : x.dims(1, x.rank())}, ""));
    }
    {
      IntoBlock scope(e_.builder(), body);
      KILN_TRY(values, f(inner));
      for (const Val &v : values) {
        KILN_TRY(id, e_.materialize(v));
        body.results.push_back(id);
      }
    }
    std::vector<Block> regions;
    regions.push_back(std::move(body));
    return e_.emit_all(Op::scan, operands, {{"carried", attr_int(int64_t(carried))}}, std::move(regions));
  }

  // x backwards; with a length, only its first elements.
  Result<Val> backwards(const Val &x, const Val &positions, const std::optional<Val> &length) {
    if (!length)
      return e_.emit(Op::flip, {x}, {{"axes", attr_ints(std::vector<int>{0})}});
    KILN_TRY(last, e_.emit(Op::sub, {*length, e_.constant(Tensor::scalar_i64(DType::i64, 1))}));
    KILN_TRY(mirrored, e_.emit(Op::sub, {last, positions}));
    KILN_TRY(inside, e_.emit(Op::lt, {positions, *length}));
    KILN_TRY(from, e_.emit(Op::where, {inside, mirrored, positions}));
    return e_.emit(Op::gather, {x, from}, {{"axis", attr_int(0)}});
  }

  // One sample: the states, the sequences, and the length where there is one.
  Result<std::vector<Val>> over_sequence(std::vector<Val> sample) {
    std::optional<Val> length;
    if (n_.has(0)) {
      length = sample.back();
      sample.pop_back();
    }
    const Dim &steps = sample[states_].dim(0);
    KILN_TRY(positions, e_.emit(Op::iota, {}, {{"shape", Shape{steps}}, {"axis", attr_int(0)}, {"dtype", DType::i64}}));
    for (size_t i = states_; i < sample.size(); ++i)
      if (directions_[i - states_] != 0) {
        KILN_TRY(turned, backwards(sample[i], positions, length));
        sample[i] = turned;
      }
    if (length)
      sample.push_back(positions);
    return in_region(sample, states_, [&](std::vector<Val> inner) -> Result<std::vector<Val>> {
      std::optional<Val> alive;
      if (length) {
        KILN_TRY(before, e_.emit(Op::lt, {inner.back(), *length}));
        alive = before;
        inner.pop_back();
      }
      KILN_TRY(values, n_.importer().import_subgraph(graph_, inner));
      for (size_t i = 0; alive && i < values.size(); ++i) { // past the end states stay, results are 0
        KILN_TRY(kept, e_.emit(Op::where, {*alive, values[i], i < states_ ? inner[i] : e_.scalar(values[i].dtype(), 0)}));
        values[i] = kept;
      }
      return values;
    });
  }

  OnnxNode &n_;
  Emitter &e_;
  GraphView graph_;
  size_t states_ = 0;
  std::vector<int64_t> directions_;
};

} // namespace

Status import_batch_scan(OnnxNode &n) { return BatchScan(n).run(); }

} // namespace kiln::onnx
