// Sizes that a run finds in its data, on every target of this machine, against the interpreter or numbers
// worked out by hand.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "frontend/onnx/import.h"
#include "ir/interpret.h"
#include "tests/onnx/model_maker.h"
#include "tests/targets/load.h"
#include "tests/targets/targets.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdlib>

using namespace kiln;
using namespace kiln::test;

namespace {

std::vector<std::unique_ptr<Target>> all_targets() {
  auto out = native_targets();
  out.push_back(c_target());
  if (std::getenv("KILN_CUDA_DRIVER"))
    out.push_back(cuda_target());
  return out;
}

bool same(const Tensor &a, const Tensor &b) {
  if (a.type() != b.type())
    return false;
  for (int64_t i = 0; i < a.count(); ++i)
    if (std::abs(a.at_f64(i) - b.at_f64(i)) > 1e-4)
      return false;
  return true;
}

Module import_model(const GraphMaker &g, int64_t opset = 18) {
  Module module;
  Diagnostics diagnostics;
  static std::vector<std::unique_ptr<std::string>> kept; // constants are views of the bytes
  kept.push_back(std::make_unique<std::string>(g.model(opset)));
  bool ok = import_onnx(std::as_bytes(std::span(*kept.back())), "test.onnx", {}, module, diagnostics);
  INFO(diagnostics.render());
  REQUIRE(ok);
  module.name = "sample";
  return module;
}

using Sets = std::vector<std::vector<Tensor>>;

// Every target computes what the interpreter does, or fails where it does.
void check_all(const Module &module, const Sets &sets, size_t entry = 0) {
  for (auto &target : all_targets()) {
    auto loaded = target->load(module);
    INFO(target->name() << ": " << (loaded ? "" : loaded.error().message));
    REQUIRE(loaded.ok());
    for (const auto &inputs : sets) {
      VariableValues variables;
      auto want = interpret(module, module.functions[entry], inputs, variables);
      auto got = (*loaded)->run(entry, inputs);
      INFO((want ? "" : "interpreter: " + want.error().message) << (got ? "" : ", compiled: " + got.error().message));
      REQUIRE(got.ok() == want.ok());
      for (size_t i = 0; got && i < want->size(); ++i) {
        INFO("result " << i << ": " << (*got)[i].type().text() << " against " << (*want)[i].type().text());
        CHECK(same((*got)[i], (*want)[i]));
      }
    }
  }
}

std::vector<double> numbers(const Tensor &t) {
  std::vector<double> out;
  for (int64_t i = 0; i < t.count(); ++i)
    out.push_back(t.at_f64(i));
  return out;
}

Tensor row(const std::vector<double> &values) { return floats({int64_t(values.size())}, values); }
Tensor one(int64_t value) { return Tensor::scalar_i64(DType::i64, value); }

} // namespace

TEST_CASE("elements that are not 0") {
  Module module = load(R"(
export func f(x: f32[N, 3]) {
  i = nonzero(x)
  y = masked_select(x, x > 0.0)
  return i, y, exp(y) * 2, sum(y)
}
)");
  Tensor none(DType::f32, {0, 3});
  check_all(module, {{floats({2, 3}, {0, 1, 0, -2, 3, 4})}, {floats({1, 3}, {0, 0, 0})}, {floats({1, 3}, {1, 1, 1})}, {none}});
}

TEST_CASE("loops bind sizes anew in each turn, and capacities grow") {
  Module module = load(R"(
capacity C = 4
export func sums(x: f32[N], n: i64[]) -> f32[] {
  s = 0.0
  i = 0
  while i < n {
    size K <= N = i
    s = s + sum(x[:K])
    i = i + 1
  }
  return s
}
export func squares(n: i64[]) -> f32[L] {
  size L <= C = n
  i = iota(shape=[L], axis=0, dtype=f32)
  return i * i
}
)");
  check_all(module, {{row({1, 2, 3, 4}), one(4)}, {row({1, 2, 3, 4}), one(0)}, {row({1, 2}), one(9)}});
  check_all(module, {{one(3)}, {one(0)}, {one(1000)}, {one(-1)}}, 1);
}

TEST_CASE("sizes that must be equal are compared when they are found") {
  Module module = load(R"(
export func f(x: f32[N], a: i64[], b: i64[]) {
  size K <= N = a
  size L <= N = b
  return x[:K] + x[:L]
}
)");
  check_all(module, {{row({1, 2, 3}), one(2), one(2)}, {row({1, 2, 3}), one(2), one(3)}});
}

TEST_CASE("models select elements") {
  GraphMaker g;
  g.input("x", DType::f32, {"n", int64_t(4)}).input("keep", DType::bool_, {"n"});
  g.node("Compress", {"x", "keep"}, {"rows"}, {attr_i("axis", 0)});
  g.node("NonZero", {"rows"}, {"where"});
  g.node("Unique", {"rows"}, {"values", "first", "inverse", "counts"});
  g.node("Unique", {"rows"}, {"seen", "", "seen_inverse"}, {attr_i("sorted", 0)});
  g.node("Shape", {"rows"}, {"shape"});
  for (const char *name : {"rows", "where", "values", "first", "inverse", "counts", "seen", "seen_inverse", "shape"})
    g.output(name);
  Module module = import_model(g);
  Tensor keep(DType::bool_, {3});
  keep.set_i64(0, 1), keep.set_i64(2, 1);
  Tensor x = floats({3, 4}, {3, 0, 1, 3, 9, 9, 9, 9, 2, 0, 0, 1});
  VariableValues variables;
  auto out = interpret(module, module.functions[0], std::vector<Tensor>{x, keep}, variables);
  INFO((out ? "" : out.error().message));
  REQUIRE(out.ok());
  CHECK(numbers((*out)[0]) == std::vector<double>{3, 0, 1, 3, 2, 0, 0, 1});
  CHECK(numbers((*out)[1]) == std::vector<double>{0, 0, 0, 1, 1, 0, 2, 3, 0, 3});
  CHECK(numbers((*out)[2]) == std::vector<double>{0, 1, 2, 3});
  CHECK(numbers((*out)[3]) == std::vector<double>{1, 2, 4, 0});
  CHECK(numbers((*out)[4]) == std::vector<double>{3, 0, 1, 3, 2, 0, 0, 1});
  CHECK(numbers((*out)[5]) == std::vector<double>{3, 2, 1, 2});
  CHECK(numbers((*out)[6]) == std::vector<double>{3, 0, 1, 2});
  CHECK(numbers((*out)[7]) == std::vector<double>{0, 1, 2, 0, 3, 1, 1, 2});
  CHECK(numbers((*out)[8]) == std::vector<double>{2, 4});
  check_all(module, {{x, keep}, {x, Tensor(DType::bool_, {3})}, {Tensor(DType::f32, {0, 4}), Tensor(DType::bool_, {0})}});
}

// The end of a detector as exporters write it: boxes and scores, suppression, and the boxes and scores of what
// is kept looked up by its result.
TEST_CASE("a detector ends in boxes that are kept") {
  GraphMaker g;
  g.input("features", DType::f32, {int64_t(1), int64_t(8), "anchors"});
  Tensor to_boxes(DType::f32, {4, 8}), to_scores(DType::f32, {3, 8});
  for (int64_t i = 0; i < 4; ++i)
    to_boxes.set_f64(i * 8 + i, 1);
  for (int64_t i = 0; i < 3; ++i)
    to_scores.set_f64(i * 8 + 4 + i, 1);
  g.weight("to_boxes", to_boxes).weight("to_scores", to_scores);
  g.node("MatMul", {"to_boxes", "features"}, {"box_columns"});
  g.node("Transpose", {"box_columns"}, {"boxes"}, {attr_ints("perm", {0, 2, 1})});
  g.node("MatMul", {"to_scores", "features"}, {"logits"});
  g.node("Sigmoid", {"logits"}, {"scores"});
  g.weight("most", ints({2})).weight("iou", floats({1}, {0.5})).weight("least", floats({1}, {0.4}));
  g.node("NonMaxSuppression", {"boxes", "scores", "most", "iou", "least"}, {"kept"});
  g.weight("column", ints({2})).weight("flat", ints({-1})).weight("first", ints({0}));
  g.node("Gather", {"kept", "column"}, {"box_index_2d"}, {attr_i("axis", 1)});
  g.node("Reshape", {"box_index_2d", "flat"}, {"box_index"});
  g.node("Squeeze", {"boxes", "first"}, {"box_rows"});
  g.node("Gather", {"box_rows", "box_index"}, {"kept_boxes"}, {attr_i("axis", 0)});
  g.weight("order", ints({0, 1, 2}));
  g.node("GatherND", {"scores", "kept"}, {"kept_scores"});
  g.output("kept").output("kept_boxes").output("kept_scores");
  Module module = import_model(g);

  // Four boxes: the second overlaps the first, the fourth is far away.
  auto features = [](const std::vector<std::array<double, 7>> &anchors) {
    Tensor out(DType::f32, {1, 8, int64_t(anchors.size())});
    for (size_t a = 0; a < anchors.size(); ++a)
      for (size_t k = 0; k < 7; ++k)
        out.set_f64(int64_t(k * anchors.size() + a), anchors[a][k]);
    return out;
  };
  Tensor x = features({{0, 0, 1, 1, 2, -9, -9}, {0, 0.1, 1, 1.1, 3, -9, -9}, {0, 0, 1, 1, 1, 4, -9}, {5, 5, 6, 6, 1, -9, -9}});
  VariableValues variables;
  auto out = interpret(module, module.functions[0], std::vector<Tensor>{x}, variables);
  INFO((out ? "" : out.error().message));
  REQUIRE(out.ok());
  CHECK(numbers((*out)[0]) == std::vector<double>{0, 0, 1, 0, 0, 3, 0, 1, 2});
  CHECK((*out)[1].type().text() == "f32[3, 4]");
  CHECK((*out)[2].at_f64(2) == Approx(1 / (1 + std::exp(-4.0))));
  check_all(module, {{x}, {features({{0, 0, 1, 1, -9, -9, -9}})}, {features({{0, 0, 1, 1, 9, 9, 9}, {0, 0, 1, 1, 9, 9, 9}})},
                     {Tensor(DType::f32, {1, 8, 0})}});
}

TEST_CASE("shapes that a model reads from a tensor") {
  GraphMaker g;
  g.input("x", DType::f32, {int64_t(2), int64_t(6)}).input("shape", DType::i64, {int64_t(2)}).input("n", DType::i64, {});
  g.node("Reshape", {"x", "shape"}, {"reshaped"});
  g.weight("zero", one(0)).weight("step", one(2));
  g.node("Range", {"zero", "n", "step"}, {"range"});
  g.weight("axis", ints({0}));
  g.node("Unsqueeze", {"n", "axis"}, {"count"});
  g.node("ConstantOfShape", {"count"}, {"filled"});
  g.weight("single", floats({1, 2}, {1, 2})).weight("two", ints({1}));
  g.node("Concat", {"count", "two"}, {"repeats"}, {attr_i("axis", 0)});
  g.node("Tile", {"single", "repeats"}, {"tiled"});
  g.node("Expand", {"single", "repeats"}, {"expanded"});
  g.node("Slice", {"x", "axis", "count", "two"}, {"cut"});
  for (const char *name : {"reshaped", "range", "filled", "tiled", "expanded", "cut"})
    g.output(name);
  Module module = import_model(g);
  Tensor x = floats({2, 6}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  VariableValues variables;
  auto out = interpret(module, module.functions[0], std::vector<Tensor>{x, ints({-1, 4}), one(3)}, variables);
  INFO((out ? "" : out.error().message));
  REQUIRE(out.ok());
  CHECK((*out)[0].type().text() == "f32[3, 4]");
  CHECK(numbers((*out)[1]) == std::vector<double>{0, 2});
  CHECK((*out)[2].type().text() == "f32[3]");
  CHECK(numbers((*out)[3]) == std::vector<double>{1, 2, 1, 2, 1, 2});
  CHECK((*out)[4].type().text() == "f32[3, 2]");
  CHECK(numbers((*out)[5]) == std::vector<double>{0, 1, 2, 6, 7, 8});
  check_all(module, {{x, ints({0, 6}), one(5)}, {x, ints({12, 1}), one(6000)}, {x, ints({5, 2}), one(1)}, {x, ints({6, -1}), one(0)}});
}

TEST_CASE("loops stack results of as many steps as a tensor says, and branches differ in size") {
  auto loop = [](bool early) {
    GraphMaker body;
    body.input("i", DType::i64, {}).input("go", DType::bool_, {}).input("sum", DType::f32, {int64_t(1)});
    body.weight("ten", floats({1}, {10})).weight("half", floats({1}, {0.5}));
    body.node("Add", {"sum", "half"}, {"next"});
    body.node("Less", {"next", "ten"}, {"small"});
    body.node(early ? "Squeeze" : "Identity", {early ? "small" : "go"}, {"goes_on"});
    body.node("Mul", {"next", "next"}, {"square"});
    body.output("goes_on").output("next").output("square");
    return body.bytes();
  };
  for (bool early : {false, true}) {
    GraphMaker g;
    g.input("n", DType::i64, {}).input("start", DType::f32, {int64_t(1)});
    Tensor yes(DType::bool_, {});
    yes.set_i64(0, 1);
    g.weight("yes", yes);
    g.node("Loop", {"n", "yes", "start"}, {"end", "squares"}, {attr_graph("body", loop(early))});
    g.output("end").output("squares");
    check_all(import_model(g), {{one(3), row({0})}, {one(0), row({0})}, {one(700), row({0})}, {one(30), row({8})}});
  }
  auto branch = [](bool longer) {
    GraphMaker b;
    b.weight("two", floats({1}, {2}));
    b.node("Add", {"x", "two"}, {"sum"});
    if (longer)
      b.node("Concat", {"sum", "x"}, {"y"}, {attr_i("axis", 0)});
    else
      b.node("NonZero", {"sum"}, {"places"}), b.weight("flat", ints({-1})), b.node("Reshape", {"places", "flat"}, {"row"}),
          b.node("Cast", {"row"}, {"y"}, {attr_i("to", 1)});
    b.output("y");
    return b.bytes();
  };
  GraphMaker g;
  g.input("c", DType::bool_, {}).input("x", DType::f32, {"n"});
  g.node("If", {"c"}, {"y"}, {attr_graph("then_branch", branch(true)), attr_graph("else_branch", branch(false))});
  g.output("y");
  Tensor yes(DType::bool_, {}), no(DType::bool_, {});
  yes.set_i64(0, 1);
  check_all(import_model(g), {{yes, row({1, -2})}, {no, row({1, -2, 3})}, {no, Tensor(DType::f32, {0})}});
}
