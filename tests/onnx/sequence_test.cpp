// Sequences and optionals: lists that are known while a model is imported, and groups of arguments at its border.
#include "tests/onnx/harness.h"

#include "ir/argument_notes.h"

using namespace kiln;
using namespace kiln::test;
using Catch::Contains;

namespace {

using List = OnnxList;
const std::string kRows = GraphMaker::sequence_of(GraphMaker::tensor_type(DType::f32, {"N", 2}));

OnnxOptions with_list(const std::string &name, std::vector<std::optional<std::vector<int64_t>>> items) {
  OnnxOptions options;
  options.lists[name] = {false, true, std::move(items)};
  return options;
}

Tensor position(int64_t at) { return Tensor::scalar_i64(DType::i64, at); }

} // namespace

TEST_CASE("a sequence is built, changed and read at known positions") {
  GraphMaker g;
  g.input("a", DType::f32, {1, 2}).input("b", DType::f32, {2, 2}).input("c", DType::f32, {3, 2});
  g.weight("one", position(1)).weight("last", position(-1));
  g.node("SequenceConstruct", {"a", "b"}, {"s"}).node("SequenceInsert", {"s", "c", "one"}, {"t"});
  g.node("SequenceErase", {"t"}, {"u"}).node("SequenceLength", {"t"}, {"length"});
  g.node("SequenceAt", {"t", "last"}, {"y"}).node("ConcatFromSequence", {"u"}, {"z"}, {attr_i("axis", 0)});
  g.output("y").output("z").output("length");
  Imported m(g.model());
  auto out = m.run({floats({1, 2}, {1, 2}), floats({2, 2}, {3, 4, 5, 6}), floats({3, 2}, {7, 8, 9, 10, 11, 12})});
  check_near(out[0], {3, 4, 5, 6});
  check_near(out[1], {1, 2, 7, 8, 9, 10, 11, 12});
  check_near(out[2], {3});
}

TEST_CASE("positions of run time choose among tensors of one type") {
  GraphMaker g;
  g.input("a", DType::f32, {1}).input("b", DType::f32, {1}).input("x", DType::f32, {1}).input("p", DType::i64, {});
  g.node("SequenceConstruct", {"a", "b"}, {"s"}).node("SequenceAt", {"s", "p"}, {"at"});
  g.node("SequenceInsert", {"s", "x", "p"}, {"t"}).node("SequenceErase", {"s", "p"}, {"u"});
  g.node("ConcatFromSequence", {"t"}, {"inserted"}, {attr_i("axis", 0)});
  g.node("ConcatFromSequence", {"u"}, {"left"}, {attr_i("axis", 0), attr_i("new_axis", 1)});
  g.output("at").output("inserted").output("left");
  Imported m(g.model());
  auto run = [&](int64_t p) { return m.run({floats({1}, {10}), floats({1}, {20}), floats({1}, {30}), position(p)}); };
  auto out = run(0);
  check_near(out[0], {10}), check_near(out[1], {30, 10, 20}), check_near(out[2], {20});
  out = run(1);
  check_near(out[0], {20}), check_near(out[1], {10, 30, 20}), check_near(out[2], {10});
  out = run(-1);
  check_near(out[0], {20}), check_near(out[1], {10, 30, 20}), check_near(out[2], {10});
  out = run(-2);
  check_near(out[0], {10}), check_near(out[1], {30, 10, 20}), check_near(out[2], {20});

  GraphMaker unequal;
  unequal.input("a", DType::f32, {1}).input("b", DType::f32, {2}).input("p", DType::i64, {});
  unequal.node("SequenceConstruct", {"a", "b"}, {"s"}).node("SequenceAt", {"s", "p"}, {"y"}).output("y");
  CHECK_THAT(Imported(unequal.model()).errors(), Contains("its position must be known at compile time"));
}

TEST_CASE("a sequence at the border is an argument for each of its tensors") {
  GraphMaker g;
  g.typed_input("x", kRows).typed_output("y", kRows);
  GraphMaker body;
  body.input("in", DType::f32, {"N", 2}).node("Neg", {"in"}, {"out"}).output("out");
  g.node("SequenceMap", {"x"}, {"y"}, {attr_graph("body", body.bytes())});
  CHECK_THAT(Imported(g.model()).errors(), Contains("--shape 'x=[2x3,4x3]', 'x=[3*2x3]' for three"));
  CHECK_THAT(Imported(g.model(), with_list("z", {})).errors(), Contains("no input of this name; it has: x"));
  CHECK_THAT(Imported(g.model(), with_list("x", {{{1, 3}}})).errors(), Contains("x.0") && Contains("fixes dim 1 at 2"));

  Imported m(g.model(), with_list("x", {{{1, 2}}, {{2, 2}}}));
  auto out = m.run({floats({1, 2}, {1, 2}), floats({2, 2}, {3, 4, 5, 6})});
  REQUIRE(out.size() == 2);
  check_near(out[1], {-3, -4, -5, -6});
  CHECK(m.main().result_names == Names{"y.0", "y.1"});
  CHECK(m.main().value(m.main().body.args[1]).name == "x.1");
  CHECK(m.module.metadata.at(note_key(false, "x")) == "sequence 2");
  CHECK(m.module.metadata.at(note_key(true, "y")) == "sequence 2");

  // Shapes as declared share the model's names for sizes.
  Imported open(g.model(), with_list("x", {std::nullopt, std::nullopt}));
  REQUIRE(open.ok);
  CHECK(open.result_type(1).text() == "f32[N, 2]");
  Imported empty(g.model(), with_list("x", {}));
  CHECK(empty.run({}).empty());
}

TEST_CASE("optionals are there or not when a model is compiled") {
  GraphMaker g;
  std::string type = GraphMaker::optional_of(GraphMaker::tensor_type(DType::f32, {"N"}));
  g.typed_input("x", type).weight("otherwise", floats({2}, {7, 8}));
  GraphMaker given, missing;
  given.node("OptionalGetElement", {"x"}, {"a"}).output("a");
  missing.node("Identity", {"otherwise"}, {"b"}).output("b");
  g.node("OptionalHasElement", {"x"}, {"has"});
  g.node("If", {"has"}, {"y"}, {attr_graph("then_branch", given.bytes()), attr_graph("else_branch", missing.bytes())});
  g.typed_output("y", type).output("has");
  CHECK_THAT(Imported(g.model(18)).errors(), Contains("leave it out with --shape x=none"));
  OnnxOptions absent, present;
  absent.lists["x"] = {true, false, {}};
  present.shapes["x"] = {3};
  Imported without(g.model(18), absent), with(g.model(18), present);
  auto out = without.run({});
  check_near(out[0], {7, 8}), check_near(out[1], {0});
  CHECK(without.module.metadata.at(note_key(false, "x")) == "optional none");
  out = with.run({floats({3}, {1, 2, 3})});
  check_near(out[0], {1, 2, 3}), check_near(out[1], {1});
}

TEST_CASE("a loop that makes a sequence longer is unrolled") {
  GraphMaker body;
  body.input("i", DType::i64, {}).input("go", DType::bool_, {}).typed_input("s", kRows);
  body.node("SequenceAt", {"s", "i"}, {"last"}).node("Concat", {"last", "x"}, {"more"}, {attr_i("axis", 0)});
  body.node("SequenceInsert", {"s", "more"}, {"t"}).node("Identity", {"go"}, {"again"});
  body.output("again").typed_output("t", kRows).output("i");
  auto model = [&](bool known) {
    GraphMaker g;
    g.input("x", DType::f32, {1, 2}).input("n", DType::i64, {}).weight("three", position(3));
    g.node("SequenceConstruct", {"x"}, {"start"});
    g.node("Loop", {known ? "three" : "n", "", "start"}, {"s", "steps"}, {attr_graph("body", body.bytes())});
    g.typed_output("s", kRows).output("steps");
    return g.model();
  };
  Imported m(model(true));
  auto out = m.run({floats({1, 2}, {1, 2}), position(0)});
  REQUIRE(out.size() == 5);
  check_near(out[3], {1, 2, 1, 2, 1, 2, 1, 2});
  check_near(out[4], {0, 1, 2});
  CHECK_THAT(Imported(model(false)).errors(), Contains("its number of steps must be known"));
}

TEST_CASE("branches give sequences of one length where run time chooses") {
  auto model = [](bool same) {
    GraphMaker one, two, g;
    one.node("SequenceConstruct", {"a", "b"}, {"s"}).typed_output("s", kRows);
    two.node("SequenceConstruct", same ? Names{"b", "a"} : Names{"b"}, {"s"}).typed_output("s", kRows);
    g.input("c", DType::bool_, {}).input("a", DType::f32, {1, 2}).input("b", DType::f32, {1, 2});
    g.node("If", {"c"}, {"s"}, {attr_graph("then_branch", one.bytes()), attr_graph("else_branch", two.bytes())});
    return g.typed_output("s", kRows).model();
  };
  Imported m(model(true));
  Tensor no(DType::bool_, {});
  no.set_i64(0, 0);
  auto out = m.run({no, floats({1, 2}, {1, 2}), floats({1, 2}, {3, 4})});
  check_near(out.at(0), {3, 4}), check_near(out.at(1), {1, 2});
  CHECK_THAT(Imported(model(false)).errors(), Contains("a sequence of 2 f32 tensors in one branch"));
}

TEST_CASE("parts of a tensor") {
  for (auto [split, rows] : {std::pair(position(2), std::vector<int64_t>{2, 2, 1}), std::pair(ints({1, 4}), std::vector<int64_t>{1, 4})}) {
    GraphMaker g;
    g.input("x", DType::f32, {5, 2}).weight("split", split);
    g.node("SplitToSequence", {"x", "split"}, {"s"}).typed_output("s", kRows);
    Imported m(g.model());
    auto out = m.run({floats({5, 2}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9})});
    REQUIRE(out.size() == rows.size());
    for (size_t i = 0; i < rows.size(); ++i)
      CHECK(out[i].dims() == std::vector<int64_t>{rows[i], 2});
    CHECK(values(out.back()).back() == 9);
  }
}

TEST_CASE("sequences where tensors are needed are refused, and the other way round") {
  GraphMaker g;
  g.input("x", DType::f32, {2}).node("SequenceConstruct", {"x"}, {"s"}).node("Relu", {"s"}, {"y"}).output("y");
  CHECK_THAT(Imported(g.model()).errors(), Contains("its input 0 is a sequence of 1 tensor; the operator takes tensors"));
  GraphMaker h;
  h.input("x", DType::f32, {2}).node("SequenceLength", {"x"}, {"y"}).output("y");
  CHECK_THAT(Imported(h.model()).errors(), Contains("its input 0 is f32[2], not a sequence"));
  GraphMaker none;
  none.node("Optional", {}, {"o"}).node("OptionalGetElement", {"o"}, {"y"}).output("y");
  CHECK_THAT(Imported(none.model(15)).errors(), Contains("the optional holds nothing"));
  GraphMaker clash;
  clash.typed_input("x", kRows).input("x.0", DType::f32, {2}).node("SequenceLength", {"x"}, {"y"}).output("y");
  CHECK_THAT(Imported(clash.model(), with_list("x", {std::nullopt})).errors(), Contains("the name of a part of the sequence 'x'"));
}
