#include "tests/onnx/harness.h"

using namespace kiln;
using namespace kiln::test;
using Catch::Contains;

TEST_CASE("a model runs, with the model's names") {
  GraphMaker g;
  g.input("x.1", DType::f32, {2, 3}).weight("w", floats({3}, {10, 20, 30}));
  g.node("Mul", {"x.1", "w"}, {"m"}).node("Relu", {"m"}, {"y"}).output("y");
  Imported m(g.model());
  auto out = m.run({floats({2, 3}, {1, -1, 2, 3, 4, -5})});
  CHECK(values(out[0]) == std::vector<double>{10, 0, 60, 30, 80, 0});
  CHECK(m.main().name == "main");
  CHECK(m.main().exported);
  CHECK(m.main().value(m.main().body.args[0]).name == "x.1");
  CHECK(m.main().result_names == std::vector<std::string>{"y"});
}

TEST_CASE("shape arithmetic becomes attributes and leaves no node") {
  GraphMaker g;
  g.input("x", DType::f32, {"N", 4, 6}).weight("i0", ints({0})).weight("two", ints({2})).weight("rest", ints({-1}));
  g.node("Shape", {"x"}, {"s"}).node("Gather", {"s", "i0"}, {"n"});
  g.node("Mul", {"n", "two"}, {"n2"}).node("Concat", {"n2", "two", "rest"}, {"to"}, {attr_i("axis", 0)});
  g.node("Reshape", {"x", "to"}, {"y"}).output("y");
  Imported m(g.model());
  INFO(m.errors());
  REQUIRE(m.ok);
  CHECK(m.result_type().text() == "f32[2*N, 2, 6]");
  CHECK(m.ops() == std::vector<Op>{Op::reshape});
}

TEST_CASE("sizes used as data are computed from the sizes of the run") {
  GraphMaker g;
  g.input("x", DType::f32, {"N", "M"});
  g.weight("two", ints({2})).weight("three", ints({3, 3}));
  g.node("Shape", {"x"}, {"s"}).node("Mul", {"s", "s"}, {"squares"}).node("Div", {"squares", "three"}, {"y"});
  g.node("Size", {"x"}, {"z"}).output("y").output("z");
  Imported m(g.model());
  auto out = m.run({floats({5, 4}, std::vector<double>(20, 1))});
  CHECK(values(out[0]) == std::vector<double>{8, 5});
  CHECK(values(out[1]) == std::vector<double>{20});
  CHECK(out[0].dtype() == DType::i64);
}

TEST_CASE("sizes computed in floating point") {
  GraphMaker g;
  g.input("x", DType::f32, {1, 1, "H"}).weight("half", floats({1}, {0.5})).weight("axis", ints({2}));
  g.weight("zero", ints({0}));
  g.node("Shape", {"x"}, {"s"}, {attr_i("start", 2)}).node("Cast", {"s"}, {"f"}, {attr_i("to", 1)});
  g.node("Mul", {"f", "half"}, {"h"}).node("Floor", {"h"}, {"fl"}).node("Cast", {"fl"}, {"e"}, {attr_i("to", 7)});
  g.node("Slice", {"x", "zero", "e", "axis"}, {"y"}).output("y");
  Imported m(g.model());
  INFO(m.errors());
  REQUIRE(m.ok);
  CHECK(m.result_type().text() == "f32[1, 1, H / 2]");
  CHECK(values(m.run({floats({1, 1, 5}, {1, 2, 3, 4, 5})})[0]) == std::vector<double>{1, 2});
}

TEST_CASE("open sizes get names") {
  GraphMaker g;
  g.input("in.put", DType::f32, {"", "batch size", 3, "batch size"}).node("Relu", {"in.put"}, {"y"}).output("y");
  Imported m(g.model());
  REQUIRE(m.ok);
  CHECK(m.result_type().text() == "f32[in_put_d0, batch_size, 3, batch_size]");
}

TEST_CASE("--dim and --shape fix sizes") {
  GraphMaker g;
  g.input("x", DType::f32, {"N", 3}).input("z", DType::f32, {"N", 1}).node("Add", {"x", "z"}, {"y"}).output("y");
  std::string model = g.model();
  OnnxOptions options;
  SECTION("a dim") {
    options.dims["N"] = 4;
    CHECK(Imported(model, options).result_type().text() == "f32[4, 3]");
  }
  SECTION("a shape") {
    options.shapes["x"] = {7, 3};
    CHECK(Imported(model, options).result_type().text() == "f32[7, 3]");
  }
  SECTION("shapes that contradict each other") {
    options.shapes["x"] = {7, 3};
    options.shapes["z"] = {8, 1};
    CHECK_THAT(Imported(model, options).errors(), Contains("the size N would be both 7 and 8"));
  }
  SECTION("a shape that the model does not allow") {
    options.shapes["x"] = {7, 4};
    CHECK_THAT(Imported(model, options).errors(), Contains("fixes dim 1 at 3, not 4"));
  }
  SECTION("names that are not there") {
    options.dims["Q"] = 4;
    options.shapes["q"] = {1};
    std::string errors = Imported(model, options).errors();
    CHECK_THAT(errors, Contains("no size of this name; it has: N"));
    CHECK_THAT(errors, Contains("no input of this name; it has: x, z"));
  }
}

TEST_CASE("an input fixed at compile time is no argument") {
  GraphMaker g;
  g.input("x", DType::f32, {2, 3}).input("to", DType::i64, {"r"}).node("Reshape", {"x", "to"}, {"y"}).output("y");
  std::string model = g.model();
  CHECK_THAT(Imported(model).errors(), Contains("how many dims the result has must be known at compile time"));
  OnnxOptions options;
  options.constants.emplace("to", ints({3, -1}));
  Imported m(model, options);
  REQUIRE(m.ok);
  CHECK(m.main().body.args.size() == 1);
  CHECK(m.result_type().text() == "f32[3, 2]");
  options.constants.clear();
  options.constants.emplace("to", floats({2}, {3, 2}));
  CHECK_THAT(Imported(model, options).errors(), Contains("does not fit"));
}

TEST_CASE("nodes in any order") {
  GraphMaker g;
  g.input("x", DType::f32, {2}).node("Relu", {"a"}, {"y"}).node("Neg", {"x"}, {"a"}).output("y");
  Imported m(g.model());
  CHECK(values(m.run({floats({2}, {1, -2})})[0]) == std::vector<double>{0, 2});
}

TEST_CASE("all unsupported operators are listed at once, each kind once") {
  GraphMaker g;
  g.input("x", DType::f32, {2}).node("Frob", {"x"}, {"a"}).node("Frob", {"a"}, {"b"}, {}, "second");
  g.node("Grub", {"b"}, {"y"}, {}, "", "my.domain").output("y");
  Imported m(g.model());
  CHECK_FALSE(m.ok);
  CHECK(m.diagnostics.error_count() == 2);
  CHECK_THAT(m.errors(), Contains("Frob") && Contains("used by: Frob#0, second") && Contains("my.domain.Grub"));
}

TEST_CASE("an error names the node and the shapes that led to it; nodes after it are passed over") {
  GraphMaker g;
  g.input("x", DType::f32, {1, 3, 8, 8}).weight("w", floats({4, 5, 1, 1}, std::vector<double>(20, 1)));
  g.node("Relu", {"x"}, {"a"}, {}, "act").node("Conv", {"a", "w"}, {"b"}).node("Relu", {"b"}, {"y"}).output("y");
  Imported m(g.model());
  CHECK_FALSE(m.ok);
  CHECK(m.diagnostics.error_count() == 1);
  CHECK_THAT(m.errors(), Contains("Conv#1") && Contains("'a': f32[1, 3, 8, 8], from act (Relu)") &&
                             Contains("'x': f32[1, 3, 8, 8], an input"));
}

TEST_CASE("functions of the model are expanded, with their attributes") {
  std::string leaky = attr_f("alpha", 0);
  {
    std::string out;
    pbf_writer w(out);
    w.add_string(1, "alpha"), w.add_string(21, "slope"), w.add_int32(20, 1);
    leaky = out;
  }
  std::string function, set, extra;
  {
    pbf_writer s(set);
    s.add_string(1, ""), s.add_int64(2, 17);
    pbf_writer w(function);
    w.add_string(1, "Twice"), w.add_string(4, "in"), w.add_string(5, "out"), w.add_string(6, "slope");
    w.add_message(7, GraphMaker::node_proto("LeakyRelu", {"in"}, {"t"}, {leaky}));
    w.add_message(7, GraphMaker::node_proto("Add", {"t", "t"}, {"out"}));
    w.add_message(9, set), w.add_string(10, "mine");
    pbf_writer(extra).add_message(25, function);
  }
  GraphMaker g;
  g.input("x", DType::f32, {2}).node("Twice", {"x"}, {"y"}, {attr_f("slope", 0.5)}, "", "mine").output("y");
  Imported m(g.model(17, extra));
  CHECK(values(m.run({floats({2}, {3, -4})})[0]) == std::vector<double>{6, -4});
}

TEST_CASE("a condition known from sizes chooses at import, others at run time") {
  GraphMaker yes, no;
  yes.node("Neg", {"x"}, {"t"}).output("t");
  no.node("Abs", {"x"}, {"e"}).output("e");
  GraphMaker g;
  g.input("x", DType::f32, {2}).input("c", DType::bool_, {});
  g.node("If", {"c"}, {"y"}, {attr_graph("then_branch", yes.bytes()), attr_graph("else_branch", no.bytes())});
  g.output("y");
  Imported m(g.model());
  CHECK(values(m.run({floats({2}, {3, -4}), Tensor::scalar_i64(DType::bool_, 1)})[0]) == std::vector<double>{-3, 4});
  CHECK(values(m.run({floats({2}, {3, -4}), Tensor::scalar_i64(DType::bool_, 0)})[0]) == std::vector<double>{3, 4});

  GraphMaker k;
  k.input("x", DType::f32, {2}).weight("c", Tensor::scalar_i64(DType::bool_, 1));
  k.node("If", {"c"}, {"y"}, {attr_graph("then_branch", yes.bytes()), attr_graph("else_branch", no.bytes())});
  k.output("y");
  Imported n(k.model());
  REQUIRE(n.ok);
  CHECK(n.ops() == std::vector<Op>{Op::neg});
}

TEST_CASE("before opset 13 softmax takes all dims from its axis on") {
  for (int64_t opset : {int64_t(11), int64_t(13)}) {
    GraphMaker g;
    g.input("x", DType::f32, {1, 2, 2}).node("Softmax", {"x"}, {"y"}, {attr_i("axis", 1)}).output("y");
    Imported m(g.model(opset));
    double expected = opset < 13 ? 0.25 : 0.5;
    for (double v : values(m.run({floats({1, 2, 2}, {1, 1, 1, 1})})[0]))
      CHECK(v == Approx(expected));
  }
}

TEST_CASE("slices clamp to axes whose size is open") {
  GraphMaker g;
  g.input("x", DType::f32, {"N"}).weight("s", ints({0})).weight("e", ints({3})).node("Slice", {"x", "s", "e"}, {"y"});
  g.output("y");
  Imported m(g.model());
  CHECK(m.run({floats({5}, {1, 2, 3, 4, 5})})[0].count() == 3);
  CHECK(m.run({floats({2}, {1, 2})})[0].count() == 2);
}

TEST_CASE("the same convolution for automatic padding and open sizes") {
  GraphMaker g;
  g.input("x", DType::f32, {1, 1, "W"}).weight("w", floats({1, 1, 3}, {1, 1, 1}));
  g.node("Conv", {"x", "w"}, {"y"}, {attr_s("auto_pad", "SAME_UPPER"), attr_ints("strides", {2})}).output("y");
  Imported m(g.model());
  CHECK(values(m.run({floats({1, 1, 4}, {1, 2, 3, 4})})[0]) == std::vector<double>{6, 7});
  CHECK(values(m.run({floats({1, 1, 5}, {1, 2, 3, 4, 5})})[0]) == std::vector<double>{3, 9, 9});
}

TEST_CASE("everything that is wrong is told at once") {
  GraphMaker branch, g;
  branch.node("Frobnicate", {"x"}, {"t"}, {}, "inside").output("t");
  g.input("x", DType::f32, {2, 3}).input("c", DType::bool_, {}).weight("s", ints({5, 5}));
  g.node("NoSuchOp", {"x"}, {"a"}, {}, "first").node("Relu", {"a"}, {"b"}, {}, "second");
  g.node("Reshape", {"x", "s"}, {"d"}, {}, "third").node("Conv", {"x"}, {"e"}, {}, "fourth");
  g.node("Softmax", {"x"}, {"h"}, {attr_i("axis", 7)}, "fifth").node("Another", {"h"}, {"i"}, {}, "sixth", "some.domain");
  g.node("If", {"c"}, {"j"}, {attr_graph("then_branch", branch.bytes()), attr_graph("else_branch", branch.bytes())}, "seventh");
  g.output("b").output("d").output("e").output("i").output("j");
  Imported m(g.model());
  CHECK_FALSE(m.ok);
  for (const char *place : {"NoSuchOp", "'first'", "'third'", "'fourth'", "'fifth'", "some.domain.Another", "'sixth'", "Frobnicate", "inside"})
    CHECK_THAT(m.errors(), Contains(place));
  CHECK_THAT(m.errors(), !Contains("'second'")); // only what it is made of is wrong
}
