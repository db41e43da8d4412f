// What exporters write that is unusual: sizes that they do not know, sparse tensors, text with zero bytes,
// loops whose tensors grow.
#include "tests/onnx/harness.h"

#include <algorithm>

using namespace kiln;
using namespace kiln::test;
using Catch::Contains;

namespace {

std::string sparse(const Tensor &values, const std::string &indices, const std::vector<int64_t> &dims, const std::string &name = "w") {
  std::string out;
  pbf_writer w(out);
  w.add_message(1, tensor_proto(name, values)), w.add_message(2, indices);
  for (int64_t d : dims)
    w.add_int64(3, d);
  return out;
}

// A model whose graph has one more field.
std::string with_field(const GraphMaker &g, uint32_t field, const std::string &message, bool in_model = false) {
  std::string graph = g.bytes(), out, opset;
  pbf_writer(opset).add_int64(2, 17);
  if (!in_model)
    pbf_writer(graph).add_message(field, message);
  pbf_writer w(out);
  w.add_int64(1, 8), w.add_message(7, graph), w.add_message(8, opset);
  if (in_model)
    w.add_message(field, message);
  return out;
}

Tensor matrix(std::vector<int64_t> dims, const std::vector<int64_t> &values) {
  Tensor out(DType::i64, std::move(dims));
  for (size_t i = 0; i < values.size(); ++i)
    out.set_i64(int64_t(i), values[i]);
  return out;
}

} // namespace

TEST_CASE("sizes of -1 and names without letters are sizes that the exporter does not know") {
  GraphMaker g;
  g.input("x", DType::f32, {-1, "?"}).node("Relu", {"x"}, {"y"}).output("y");
  Imported m(g.model());
  INFO(m.errors());
  REQUIRE(m.ok);
  CHECK(m.result_type().text() == "f32[x_d0, x_d1]");
  GraphMaker negative;
  negative.input("x", DType::f32, {-2}).node("Relu", {"x"}, {"y"}).output("y");
  CHECK_THAT(Imported(negative.model()).errors(), Contains("negative size"));
}

TEST_CASE("sparse initializers and constants are dense ones") {
  GraphMaker g;
  g.input("x", DType::f32, {2, 3}).node("Add", {"x", "w"}, {"y"}).output("y");
  Tensor values = floats({2}, {5, 7});
  Tensor x = floats({2, 3}, {1, 2, 3, 4, 5, 6});
  auto run = [&](const std::string &message) { return Imported(with_field(g, 15, message)).run({x})[0]; };
  check_near(run(sparse(values, tensor_proto("", ints({1, 5})), {2, 3})), {1, 7, 3, 4, 5, 13});
  check_near(run(sparse(values, tensor_proto("", matrix({2, 2}, {0, 2, 1, 0})), {2, 3})), {1, 2, 8, 11, 5, 6});

  auto refused = [&](const std::string &message) { return Imported(with_field(g, 15, message)).errors(); };
  CHECK_THAT(refused(sparse(values, tensor_proto("", ints({1, 6})), {2, 3})), Contains("'w'") && Contains("value 1 is outside"));
  CHECK_THAT(refused(sparse(values, tensor_proto("", matrix({2, 2}, {0, 2, 0, 3})), {2, 3})), Contains("value 1 is outside"));
  CHECK_THAT(refused(sparse(values, tensor_proto("", ints({1})), {2, 3})), Contains("do not fit its values"));
  CHECK_THAT(refused(sparse(values, tensor_proto("", ints({1, 2})), {1 << 20, 1 << 20})), Contains("store it dense"));
  CHECK_THAT(refused(sparse(values, tensor_proto("", ints({1, 2})), {int64_t(1) << 40, int64_t(1) << 40})), Contains("too large"));

  GraphMaker c;
  c.input("x", DType::f32, {2, 3});
  c.node("Constant", {}, {"w"}, {attr_bytes("sparse_value", 22, 11, sparse(values, tensor_proto("", ints({1, 5})), {2, 3}))});
  c.node("Add", {"x", "w"}, {"y"}).output("y");
  check_near(Imported(c.model()).run({x})[0], {1, 7, 3, 4, 5, 13});
}

TEST_CASE("names and metadata may hold zero bytes") {
  GraphMaker g;
  g.input("x", DType::f32, {2}).node("Relu", {"x"}, {"y"}).output("y");
  std::string entry;
  pbf_writer w(entry);
  w.add_string(1, "key"), w.add_bytes(2, std::string("a\0b", 3));
  Imported m(with_field(g, 14, entry, true));
  REQUIRE(m.ok);
  CHECK(m.module.metadata.at("key") == "ab");
}

TEST_CASE("a loop of known steps may carry a tensor that grows") {
  GraphMaker body;
  body.input("i", DType::i64, {}).input("go", DType::bool_, {}).input("v", DType::f32, {});
  body.node("Identity", {"go"}, {"go_on"}).node("Concat", {"v", "x"}, {"more"}, {attr_i("axis", 0)});
  body.node("ReduceSum", {"v"}, {"sum"}, {attr_i("keepdims", 0)});
  body.output("go_on").output("more").output("sum");
  auto model = [&](bool known) {
    GraphMaker g;
    g.input("x", DType::f32, {1, 2}).weight("yes", Tensor::scalar_i64(DType::bool_, 1));
    if (known)
      g.weight("steps", Tensor::scalar_i64(DType::i64, 3));
    else
      g.input("steps", DType::i64, {});
    g.node("Loop", {"steps", "yes", "x"}, {"y", "sums"}, {attr_graph("body", body.bytes())}).output("y").output("sums");
    return g.model();
  };
  auto out = Imported(model(true)).run({floats({1, 2}, {1, 2})});
  check_near(out[0], {1, 2, 1, 2, 1, 2, 1, 2});
  check_near(out[1], {3, 6, 9});
  CHECK_THAT(Imported(model(false)).errors(), Contains("tensors whose sizes change") && Contains("known at compile time"));
}

TEST_CASE("images of any size are resized to one that is known") {
  auto model = [](const std::string &mode, const std::string &coordinates, std::vector<std::string> more = {}) {
    GraphMaker g;
    g.input("x", DType::f32, {"N", 1, "H", "W"}).weight("sizes", ints({1, 1, 1, 4}));
    more.push_back(attr_s("mode", mode)), more.push_back(attr_s("coordinate_transformation_mode", coordinates));
    g.node("Resize", {"x", "", "", "sizes"}, {"y"}, more).output("y");
    return g.model(18);
  };
  Tensor two = floats({1, 1, 1, 2}, {0, 4}), eight = floats({1, 1, 1, 8}, {0, 1, 2, 3, 4, 5, 6, 7});
  check_near(Imported(model("linear", "asymmetric")).run({two})[0], {0, 2, 4, 4});
  check_near(Imported(model("linear", "asymmetric")).run({eight})[0], {0, 2, 4, 6});
  check_near(Imported(model("linear", "half_pixel")).run({two})[0], {0, 1, 3, 4});
  check_near(Imported(model("linear", "align_corners")).run({eight})[0], {0, 7.0 / 3, 14.0 / 3, 7});
  check_near(Imported(model("nearest", "asymmetric", {attr_s("nearest_mode", "floor")})).run({eight})[0], {0, 2, 4, 6});
  check_near(Imported(model("cubic", "half_pixel")).run({floats({1, 1, 1, 4}, {1, 5, 2, 3})})[0], {1, 5, 2, 3});
  Imported m(model("linear", "half_pixel"));
  CHECK(m.result_type().text() == "f32[N, 1, 1, 4]");
  CHECK_THAT(Imported(model("linear", "half_pixel", {attr_i("antialias", 1)})).errors(), Contains("antialiasing needs the ratio"));
}

TEST_CASE("a number that several nodes read from a tensor is one size") {
  auto sizes = [](const Imported &m) {
    auto names = m.ops();
    return std::count(names.begin(), names.end(), Op::bind_size);
  };
  GraphMaker g;
  g.input("x", DType::f32, {1, 2}).input("z", DType::f32, {1, 2}).input("shape", DType::i64, {2});
  g.node("Expand", {"x", "shape"}, {"a"}).node("Expand", {"z", "shape"}, {"b"}).node("Add", {"a", "b"}, {"y"}).output("y");
  Imported m(g.model());
  auto out = m.run({floats({1, 2}, {1, 2}), floats({1, 2}, {10, 20}), ints({3, 2})});
  check_near(out[0], {11, 22, 11, 22, 11, 22});
  CHECK(sizes(m) == 2);
  CHECK(m.module.capacities.size() == 1);

  // One element of a row by Gather, by Slice and Squeeze, through another dtype, and joined again.
  GraphMaker r;
  r.input("shape", DType::i32, {2}).weight("one", Tensor::scalar_i64(DType::i64, 1)).weight("ones", ints({1})).weight("two", ints({2}));
  r.weight("zero", Tensor::scalar_i64(DType::i64, 0)).weight("from", ints({0})).weight("v", floats({1}, {5}));
  r.node("Gather", {"shape", "one"}, {"g"}).node("Cast", {"g"}, {"n"}, {attr_i("to", 7)});
  r.node("Range", {"zero", "n", "one"}, {"a"});
  r.node("Cast", {"shape"}, {"wide"}, {attr_i("to", 7)}).node("Slice", {"wide", "ones", "two", "from"}, {"s"});
  r.node("Concat", {"ones", "s"}, {"both"}, {attr_i("axis", 0)}).node("Expand", {"v", "both"}, {"b"});
  r.node("Max", {"s", "from"}, {"some"}).node("ConstantOfShape", {"some"}, {"c"});
  r.node("Cast", {"a"}, {"f"}, {attr_i("to", 1)}).node("Add", {"f", "c"}, {"d"}).node("Add", {"d", "b"}, {"y"}).output("y");
  Imported n(r.model());
  Tensor shape(DType::i32, {2});
  shape.set_i64(0, 7), shape.set_i64(1, 3);
  check_near(n.run({shape})[0], {5, 6, 7});
  CHECK(n.result_type().text() == "f32[1, range]");
  CHECK(sizes(n) == 2); // Range takes negative numbers for 0, Expand does not
  shape.set_i64(1, -1);
  VariableValues variables;
  CHECK(!interpret(n.module, n.main(), std::vector<Tensor>{shape}, variables).ok());
}

TEST_CASE("a size that was bound by more is held against what bounds it now") {
  GraphMaker g;
  g.input("n", DType::i64, {1}).input("x", DType::f32, {4});
  g.node("ConstantOfShape", {"n"}, {"zeros"}).node("TopK", {"x", "n"}, {"best", ""}, {attr_i("axis", 0)});
  g.node("Add", {"zeros", "best"}, {"y"}).output("y");
  Imported m(g.model());
  check_near(m.run({ints({2}), floats({4}, {1, 4, 2, 3})})[0], {4, 3});
  VariableValues variables;
  std::vector<Tensor> five = {ints({5}), floats({4}, {1, 4, 2, 3})};
  auto results = interpret(m.module, m.main(), five, variables);
  REQUIRE(!results.ok());
  CHECK_THAT(results.error().message, Contains("min(") && Contains("k"));
}

TEST_CASE("a loop that a step may end runs once") {
  // Halves x until its sum is below the limit, and stacks what it was before and the sum.
  GraphMaker body;
  body.input("i", DType::i64, {}).input("go", DType::bool_, {}).input("v", DType::f32, {2});
  body.weight("half", Tensor::scalar_f64(DType::f32, 0.5)).node("Mul", {"v", "half"}, {"w"});
  body.node("ReduceSum", {"w"}, {"sum"}, {attr_i("keepdims", 0)}).node("Greater", {"sum", "limit"}, {"more"});
  body.output("more").output("w").output("v").output("sum");
  auto model = [&](std::optional<int64_t> most, bool stacks = true) {
    GraphMaker g;
    g.input("x", DType::f32, {2}).input("limit", DType::f32, {}).weight("yes", Tensor::scalar_i64(DType::bool_, 1));
    if (most)
      g.weight("most", Tensor::scalar_i64(DType::i64, *most));
    g.node("Loop", {most ? "most" : "", "yes", "x"}, {"y", "rows", stacks ? "sums" : ""}, {attr_graph("body", body.bytes())});
    g.output("y").output("rows");
    if (stacks)
      g.output("sums");
    return g.model();
  };
  Tensor x = floats({2}, {8, 16}), limit(DType::f32, {});
  limit.set_f64(0, 5);
  for (std::optional<int64_t> most : {std::optional<int64_t>(), std::optional<int64_t>(3), std::optional<int64_t>(50),
                                      std::optional<int64_t>(INT64_MAX)}) {
    Imported m(model(most));
    auto out = m.run({x, limit});
    check_near(out[0], {1, 2});
    check_near(out[1], {8, 16, 4, 8, 2, 4});
    check_near(out[2], {12, 6, 3});
    auto names = m.ops();
    CHECK(std::count(names.begin(), names.end(), Op::while_) == 1);
    CHECK(std::count(names.begin(), names.end(), Op::scan) == 0);
    CHECK(m.module.capacities.size() == (most && *most < 100 ? 0 : 1));
  }
  auto two = Imported(model(2)).run({x, limit});
  check_near(two[0], {2, 4});
  check_near(two[2], {12, 6});
  check_near(Imported(model(50, false)).run({x, limit})[1], {8, 16, 4, 8, 2, 4});
  // More steps than there is room for: they are counted, and the run after it has room.
  Imported far(model(std::nullopt));
  far.module.capacities.begin()->second = 1;
  check_near(far.run({x, limit})[1], {8, 16, 4, 8, 2, 4});
}
