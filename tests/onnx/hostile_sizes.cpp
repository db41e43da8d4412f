// Small files that ask for much: constants that would be folded to gigabytes, sizes that multiply, loops that
// never end. Most are sound programs; they compile without computing what is large, or are refused.
#include "tests/onnx/hostile_cases.h"

#include <fmt/format.h>

namespace kiln::test {
namespace {

constexpr DType kF = DType::f32;
constexpr int64_t kMega = 1 << 20;

HostileCase large(HostileCase c) {
  c.may_compile = true;
  return c;
}

void add_bombs(HostileCases &c) {
  for (int64_t n : {int64_t(1) << 20, int64_t(1) << 31, int64_t(1) << 40, INT64_MAX}) {
    c.push_back(large(NodeModel(fmt::format("size_constant_of_shape_{}", n)).weight("s", ints({n})).node("ConstantOfShape")));
    c.push_back(large(NodeModel(fmt::format("size_constant_of_shape_squared_{}", n)).weight("s", ints({n, n})).node("ConstantOfShape")));
    c.push_back(large(NodeModel(fmt::format("size_expand_{}", n)).weight("x", floats({1}, {1})).weight("s", ints({n})).node("Expand")));
    c.push_back(large(NodeModel(fmt::format("size_tile_{}", n)).weight("x", floats({1}, {1})).weight("r", ints({n})).node("Tile")));
    c.push_back(large(NodeModel(fmt::format("size_range_{}", n)).weight("a", Tensor::scalar_i64(DType::i64, 0)).weight("b", Tensor::scalar_i64(DType::i64, n)).weight("d", Tensor::scalar_i64(DType::i64, 1)).node("Range")));
    c.push_back(large(NodeModel(fmt::format("size_onehot_{}", n)).weight("x", ints({1, 2})).weight("d", Tensor::scalar_i64(DType::i64, n)).weight("v", floats({2}, {0, 1})).node("OneHot")));
    c.push_back(large(NodeModel(fmt::format("size_pad_{}", n)).weight("x", floats({1}, {1})).weight("p", ints({0, n})).node("Pad")));
    c.push_back(large(NodeModel(fmt::format("size_eye_{}", n)).weight("s", ints({n, n})).node("ConstantOfShape")));
    c.push_back(large(NodeModel(fmt::format("size_resize_{}", n), 13).weight("x", floats({1, 1, 1, 1}, {1})).weight("r", Tensor(kF, {0})).weight("q", Tensor(kF, {0})).weight("s", ints({1, 1, n, n})).node("Resize")));
    c.push_back(large(NodeModel(fmt::format("size_reshape_{}", n)).input("x", kF, {"N"}).weight("s", ints({n, -1})).node("Reshape")));
    c.push_back(large(NodeModel(fmt::format("size_depth_{}", n)).input("x", kF, {1, n, 1, 1}).node("DepthToSpace", {attr_i("blocksize", 1)}, "x")));
  }
  for (const char *type : {"RandomNormal", "RandomUniform"})
    c.push_back(large(NodeModel(fmt::format("size_{}", type)).node(type, {attr_ints("shape", {kMega, kMega})})));
  for (const char *type : {"HannWindow", "HammingWindow", "BlackmanWindow"})
    c.push_back(large(NodeModel(fmt::format("size_{}", type)).weight("n", Tensor::scalar_i64(DType::i64, INT64_MAX)).node(type)));
  c.push_back(large(NodeModel("size_eye_like").weight("x", Tensor(kF, {1, 1})).node("EyeLike", {attr_i("k", INT64_MIN)})));
  c.push_back(large(NodeModel("size_trilu_k").input("x", kF, {4, 4}).weight("k", Tensor::scalar_i64(DType::i64, INT64_MIN)).node("Trilu")));
  c.push_back(large(NodeModel("size_dft").input("x", kF, {1, 1 << 20, 1}).weight("n", Tensor::scalar_i64(DType::i64, INT64_MAX)).node("DFT")));
  c.push_back(large(NodeModel("size_mel").weight("a", Tensor::scalar_i64(DType::i64, kMega)).weight("b", Tensor::scalar_i64(DType::i64, INT64_MAX)).weight("r", Tensor::scalar_i64(DType::i64, 1)).weight("l", Tensor::scalar_f64(kF, 0)).weight("h", Tensor::scalar_f64(kF, 1)).node("MelWeightMatrix")));
}

void add_growth(HostileCases &c) {
  auto add = [&](const std::string &name, const std::function<void(GraphMaker &)> &build, const std::string &expect = "") {
    GraphMaker g;
    g.input("x", kF, {"N", "M"});
    build(g);
    c.push_back({"growth_" + name, g.model(), expect, true});
  };
  auto at = [](const std::string &s, int i) { return i ? s + std::to_string(i) : s; };
  add("of_shapes", [&](GraphMaker &g) {
    g.node("Shape", {"x"}, {"s"});
    for (int i = 0; i < 200; ++i)
      g.node("Mul", {at("s", i), at("s", i)}, {at("s", i + 1)});
    g.node("Expand", {"x", "s200"}, {"y"}, {}, kBad).output("y");
  });
  add("of_sums", [&](GraphMaker &g) {
    g.node("Shape", {"x"}, {"s0"}).node("ReduceSum", {"s0"}, {"t"});
    for (int i = 0; i < 100; ++i)
      g.node("Mul", {at("t", i), at("t", i)}, {at("u", i + 1)}).node("Add", {at("u", i + 1), at("t", i)}, {at("t", i + 1)});
    g.node("Expand", {"x", "t100"}, {"y"}, {}, kBad).output("y");
  });
  add("by_concat", [&](GraphMaker &g) {
    for (int i = 0; i < 100; ++i)
      g.node("Concat", {at("x", i), at("x", i)}, {at("x", i + 1)}, {attr_i("axis", 0)});
    g.output("x100");
  }, "Concat");
  add("by_tile", [&](GraphMaker &g) {
    g.weight("r", ints({1 << 10, 1 << 10}));
    for (int i = 0; i < 20; ++i)
      g.node("Tile", {at("x", i), "r"}, {at("x", i + 1)});
    g.output("x20");
  }, "Tile");
  add("by_constants", [&](GraphMaker &g) {
    g.weight("w", floats({64}, std::vector<double>(64, 1)));
    for (int i = 0; i < 40; ++i)
      g.node("Concat", {at("w", i), at("w", i)}, {at("w", i + 1)}, {attr_i("axis", 0)});
    g.output("w40");
  }, "Concat");
  add("by_outer_products", [&](GraphMaker &g) {
    g.weight("w", floats({64, 1}, std::vector<double>(64, 1))).weight("v", floats({1, 64}, std::vector<double>(64, 1)));
    for (int i = 0; i < 30; ++i)
      g.node("Mul", {at("w", i), "v"}, {at("p", i + 1)}).node("Reshape", {at("p", i + 1), "shape"}, {at("w", i + 1)});
    g.weight("shape", ints({-1, 1})).output("w30");
  });
  add("of_strides", [&](GraphMaker &g) {
    g.input("z", kF, {1, 1, "L"});
    for (int i = 0; i < 1500; ++i)
      g.node("MaxPool", {at("z", i)}, {at("z", i + 1)}, {attr_ints("kernel_shape", {3}), attr_ints("strides", {2}), attr_ints("pads", {1, 0})});
    g.output("z1500");
  });
  add("of_upsampling", [&](GraphMaker &g) {
    g.input("z", kF, {1, 1, 8, 8});
    g.weight("s", floats({4}, {1, 1, 4, 4}));
    for (int i = 0; i < 40; ++i)
      g.node("Resize", {at("z", i), "", "s"}, {at("z", i + 1)});
    g.output("z40");
  });
  add("of_symbols", [&](GraphMaker &g) {
    for (int i = 0; i < 300; ++i)
      g.input(fmt::format("i{}", i), kF, {fmt::format("D{}", i)});
    g.node("Concat", [] { Names names; for (int i = 0; i < 300; ++i) names.push_back(fmt::format("i{}", i)); return names; }(), {"q"}, {attr_i("axis", 0)});
    g.node("Shape", {"q"}, {"s"}).node("Mul", {"s", "s"}, {"s2"}).node("Mul", {"s2", "s2"}, {"s4"}).node("Expand", {"x", "s4"}, {"y"}, {}, kBad).output("y");
  });
  add("long_line_of_nodes", [&](GraphMaker &g) {
    for (int i = 0; i < 20000; ++i)
      g.node("Neg", {at("x", i)}, {at("x", i + 1)});
    g.output("x20000");
  });
  add("many_uses", [&](GraphMaker &g) {
    for (int i = 0; i < 300; ++i)
      g.node("Add", {at("x", i), at("x", i)}, {at("x", i + 1)});
    g.output("x300");
  });
  add("many_inputs", [&](GraphMaker &g) {
    g.node("Sum", Names(20000, "x"), {"y"}, {}, kBad).output("y");
  });
}

// Loops whose conditions are known and never false.
void add_loops(HostileCases &c) {
  for (int64_t count : {INT64_MAX, int64_t(1) << 40, int64_t(-1), INT64_MIN}) {
    GraphMaker body, g;
    body.input("i", DType::i64, {}).input("k", DType::bool_, {}).input("s", DType::i64, {});
    body.node("Add", {"s", "i"}, {"s2"}).node("Identity", {"k"}, {"k2"}).output("k2").output("s2");
    g.weight("n", Tensor::scalar_i64(DType::i64, count)).weight("k", [] { Tensor t(DType::bool_, {}); t.set_i64(0, 1); return t; }());
    g.weight("s", Tensor::scalar_i64(DType::i64, 1)).node("Loop", {"n", "k", "s"}, {"y"}, {attr_graph("body", body.bytes())}, kBad).output("y");
    c.push_back({fmt::format("loop_of_constants_{}", count), g.model(), kBad, true});
  }
  {
    GraphMaker body, g;
    body.input("i", DType::i64, {}).input("k", DType::bool_, {}).input("s", kF, {2});
    body.node("Identity", {"k"}, {"k2"}).node("Neg", {"s"}, {"s2"}).output("k2").output("s2").output("s2");
    g.weight("k", [] { Tensor t(DType::bool_, {}); t.set_i64(0, 1); return t; }()).input("x", kF, {2});
    g.node("Loop", {"", "k", "x"}, {"y", "z"}, {attr_graph("body", body.bytes())}, kBad).output("y").output("z");
    c.push_back({"loop_without_end_that_stacks", g.model(), kBad, true});
  }
}

} // namespace

void add_size_cases(HostileCases &cases) {
  add_bombs(cases);
  add_growth(cases);
  add_loops(cases);
}

} // namespace kiln::test
