// The samples of every op with an `element` or `lower` form: lowered to a kernel, interpreted, and held
// against ref; with parallel loops run in both directions.
#include "ir/kernel/interpret.h"
#include "passes/lower/lower.h"
#include "tests/ops_b/build.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <string.h>

using namespace kiln;
using namespace kiln::test;

namespace {

double worst_difference(const Tensor &got, const Tensor &want) {
  double worst = 0;
  for (int64_t i = 0; i < want.count(); ++i) {
    double g = got.at_f64(i), w = want.at_f64(i);
    if (std::isnan(g) && std::isnan(w))
      continue;
    if (std::isnan(g) != std::isnan(w))
      return INFINITY;
    if (g != w)
      worst = std::max(worst, std::abs(g - w) / std::max(1.0, std::abs(w)));
  }
  return worst;
}

struct Outcome {
  int trap = 0;
  std::vector<Tensor> results;
};

// Runs the one node of `n` as lower_node() makes it.
Outcome run_kernel(OneNode &n, const std::vector<Tensor> &operands,
                   const std::function<std::optional<int64_t>(Symbol)> &dim, bool reverse) {
  LoweredNode lowered = lower_node(n.module, n.function(), n.node);
  INFO(print_kernel(lowered.kernel));
  auto valid = verify_kernel(lowered.kernel);
  INFO((valid.ok() ? "" : valid.error().message));
  REQUIRE(valid.ok());
  Outcome out;
  const Node &node = n.function().node(n.node);
  for (ValueId v : node.results) {
    std::vector<int64_t> dims;
    for (const Dim &d : n.function().type(v).shape)
      dims.push_back(*d.evaluate(dim));
    out.results.emplace_back(n.function().type(v).dtype, dims);
    if (!out.results.back().bytes().empty())
      memset(out.results.back().mutable_bytes(), 0x5a, out.results.back().bytes().size());
  }
  std::vector<Tensor> inputs = operands;
  std::vector<std::span<std::byte>> buffers;
  for (ValueId v : lowered.values) {
    Tensor *t = nullptr;
    for (size_t i = 0; i < node.operands.size(); ++i)
      if (node.operands[i] == v)
        t = &inputs[i];
    for (size_t i = 0; i < node.results.size(); ++i)
      if (node.results[i] == v)
        t = &out.results[i];
    REQUIRE(t);
    buffers.push_back({t->mutable_bytes(), t->bytes().size()});
  }
  std::vector<int64_t> dims;
  for (Symbol s : lowered.kernel.dims)
    dims.push_back(*dim(s));
  InterpretOptions options;
  options.reverse_parallel = reverse;
  auto trap = interpret_kernel(lowered.kernel, buffers, dims, options);
  INFO((trap.ok() ? "" : trap.error().message));
  REQUIRE(trap.ok());
  out.trap = *trap;
  return out;
}

void check_against_ref(Op op, const std::vector<TensorType> &types, const Attrs &attrs,
                       const std::vector<Tensor> &operands,
                       const std::function<std::optional<int64_t>(Symbol)> &dim = [](Symbol) {
                         return std::optional<int64_t>();
                       }) {
  OneNode n = one_node(op, types, attrs);
  INFO(n.error);
  REQUIRE(n.node.valid());
  // For ref the attributes must be concrete as well.
  Attrs concrete;
  for (const auto &[name, value] : attrs.all()) {
    Attr a = value;
    if (auto *d = std::get_if<Dim>(&a))
      *d = *d->evaluate(dim);
    if (auto *list = std::get_if<std::vector<Dim>>(&a))
      for (Dim &d : *list)
        d = *d.evaluate(dim);
    concrete.set(name, a);
  }
  auto want = run_ref(op, operands, concrete);
  for (bool reverse : {false, true}) {
    Outcome got = run_kernel(n, operands, dim, reverse);
    if (!want.ok()) {
      CHECK(got.trap != 0);
      continue;
    }
    REQUIRE(got.trap == 0);
    REQUIRE(got.results.size() == want->size());
    for (size_t i = 0; i < want->size(); ++i) {
      REQUIRE(got.results[i].dims() == (*want)[i].dims());
      CHECK(worst_difference(got.results[i], (*want)[i]) <= std::max(op_def(op).tolerance, 1e-7));
    }
  }
}

} // namespace

TEST_CASE("code forms agree with ref on the samples") {
  std::mt19937 random(7);
  for (const OpDef *def : all_ops()) {
    if (!def->element && !def->lower)
      continue;
    Op op = *find_op(def->name);
    CHECK(!def->samples.empty());
    for (size_t s = 0; s < def->samples.size(); ++s) {
      INFO(def->name << ", sample " << s);
      const OpSample &sample = def->samples[s];
      std::vector<Tensor> operands;
      for (const TensorType &type : sample.operands)
        operands.push_back(random_tensor(type, sample.lo, sample.hi, random));
      check_against_ref(op, sample.operands, sample.attrs, operands);
    }
  }
}

TEST_CASE("composites agree with their f64 evaluation on the samples") {
  std::mt19937 random(9);
  for (const OpDef *def : all_ops()) {
    if (!def->decompose)
      continue;
    INFO(def->name);
    CHECK(!def->samples.empty());
    for (const OpSample &sample : def->samples) {
      std::vector<Tensor> operands;
      for (const TensorType &type : sample.operands)
        operands.push_back(random_tensor(type, sample.lo, sample.hi, random));
      auto result = run_ref(*find_op(def->name), operands, sample.attrs);
      INFO((result.ok() ? "" : result.error().message));
      REQUIRE(result.ok());
      for (const Tensor &t : *result)
        for (double v : values_of(t))
          REQUIRE(std::isfinite(v));
    }
  }
}

TEST_CASE("an index out of range traps in code and fails in ref") {
  for (double bad : {3.0, -4.0, 2e18}) {
    Tensor x = tensor(DType::f32, {3}, {1, 2, 3});
    Tensor indices = tensor(DType::i64, {2}, {0, bad}), updates = tensor(DType::f32, {2}, {5, 6});
    Attrs axis = {{"axis", Dim(0)}};
    Tensor empty = tensor(DType::f32, {3, 0}, {}), rows = tensor(DType::i64, {2, 1}, {0, bad}), none = tensor(DType::f32, {2, 0}, {});
    check_against_ref(Op::scatter_nd, {empty.type(), rows.type(), none.type()}, {}, {empty, rows, none});
    check_against_ref(Op::gather, {x.type(), indices.type()}, axis, {x, indices});
    check_against_ref(Op::gather_elements, {x.type(), indices.type()}, axis, {x, indices});
    check_against_ref(Op::scatter_elements, {x.type(), indices.type(), updates.type()}, axis, {x, indices, updates});
  }
  // Unsigned ones do not count from the end.
  Tensor x = tensor(DType::f32, {3}, {1, 2, 3}), updates = tensor(DType::f32, {2}, {5, 6}), large = tensor(DType::u64, {2}, {0, 0});
  large.set_i64(1, -2);
  check_against_ref(Op::gather, {x.type(), large.type()}, {{"axis", Dim(0)}}, {x, large});
  check_against_ref(Op::gather_elements, {x.type(), large.type()}, {{"axis", Dim(0)}}, {x, large});
  check_against_ref(Op::scatter_elements, {x.type(), large.type(), updates.type()}, {{"axis", Dim(0)}}, {x, large, updates});
}

TEST_CASE("sorting with NaN, infinities and ties") {
  double nan = std::nan("");
  Tensor x = tensor(DType::f32, {2, 9}, {2,   nan, 1,  2, -INFINITY, 1, nan, INFINITY, 0, //
                                         nan, nan, -1, 0, -0.0,      0, -1,  INFINITY, 5});
  for (bool flag : {false, true}) {
    check_against_ref(Op::sort, {x.type()}, {{"axis", Dim(1)}, {"descending", flag}}, {x});
    for (int64_t k : {1, 4, 9})
      check_against_ref(Op::topk, {x.type()}, {{"k", Dim(k)}, {"largest", flag}}, {x});
  }
}

TEST_CASE("code forms over symbolic sizes") {
  std::mt19937 random(3);
  Dim n = Dim::symbol("N"), k = Dim::symbol("K");
  for (int64_t n_value : {1, 2, 7}) {
    auto dim = [&](Symbol s) { return std::optional<int64_t>(s.text() == "N" ? n_value : std::min<int64_t>(n_value, 3)); };
    auto values = [&](DType dtype, std::vector<int64_t> dims) {
      TensorType type{dtype, Shape(dims.begin(), dims.end())};
      return random_tensor(type, -double(n_value), double(n_value - 1), random);
    };
    Tensor matrix = values(DType::f32, {n_value, 6}), column = values(DType::f32, {6, n_value});
    TensorType matrix_type{DType::f32, {n, 6}}, column_type{DType::f32, {6, n}};
    using Dims = std::vector<Dim>;
    check_against_ref(Op::topk, {matrix_type}, {{"k", k}, {"axis", Dim(0)}}, {matrix}, dim);
    check_against_ref(Op::sort, {column_type}, {{"axis", Dim(1)}}, {column}, dim);
    check_against_ref(Op::reshape, {matrix_type}, {{"shape", Dims{n, 2, 3}}}, {matrix}, dim);
    check_against_ref(Op::reshape, {matrix_type}, {{"shape", Dims{Dim(3) * n, 2}}}, {matrix}, dim);
    check_against_ref(Op::pad, {column_type}, {{"lo", Dims{0, n}}, {"hi", Dims{1, k}}, {"value", 2.0}}, {column}, dim);
    check_against_ref(Op::pad, {column_type}, {{"lo", Dims{2, 3}}, {"hi", Dims{1, k}}, {"mode", std::string("wrap")}},
                      {column}, dim);
    check_against_ref(Op::concat, {column_type, column_type}, {{"axis", Dim(1)}}, {column, column}, dim);
    check_against_ref(Op::flip, {column_type}, {{"axes", Dims{1}}}, {column}, dim);
    check_against_ref(Op::gather, {matrix_type, {DType::i64, {n}}}, {{"axis", Dim(0)}},
                      {matrix, values(DType::i64, {n_value})}, dim);
    check_against_ref(Op::cumsum, {column_type}, {{"axis", Dim(1)}, {"reverse", true}}, {column}, dim);
    check_against_ref(Op::trilu, {column_type}, {{"k", n - Dim(2)}}, {column}, dim);
    for (std::string mode : {"nearest", "linear", "cubic"})
      for (std::string coordinates : {"half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"})
        for (double scale : {2.0, 1.5, 1.0 / 3, 2.2360679}) {
          INFO(mode << " " << coordinates << " " << scale);
          Dim size = scale == 2 ? Dim(2) * n : Dim(5);
          check_against_ref(Op::resize, {column_type},
                            {{"sizes", Dims{6, size}}, {"scales", std::vector<double>{1, scale}}, {"mode", mode},
                             {"coordinates", coordinates}, {"exclude_outside", true}},
                            {column}, dim);
        }
  }
}

// What a nest reads, so that strides stay visible: no division where dims merge or split evenly.
TEST_CASE("reshape of whole dims needs no division") {
  Dim n = Dim::symbol("N");
  for (auto [from, to] : {std::pair{Shape{n, 12, 64}, Shape{n, 768}}, std::pair{Shape{n, 1, 6}, Shape{1, n, 6, 1}},
                          std::pair{Shape{n, 7, 32}, Shape{n * Dim(7), 32}}}) {
    OneNode down = one_node(Op::reshape, {{DType::f32, from}}, {{"shape", to}});
    std::string text = print_kernel(lower_node(down.module, down.function(), down.node).kernel);
    INFO(text);
    CHECK(text.find('%') == std::string::npos);
    CHECK(text.find(" / ") == std::string::npos);
  }
}
