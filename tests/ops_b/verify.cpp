// The verifier accepts what the builder makes and names what is wrong with everything else, without
// following an id that leads nowhere.
#include "tests/ops_b/build.h"

#include <catch2/catch.hpp>

using namespace kiln;
using namespace kiln::test;

namespace {

std::string problems(const Module &module) {
  Diagnostics diagnostics;
  verify(module, diagnostics);
  return diagnostics.render();
}

// f(x: f32[N, 4], y: f32[4]) { h = x + y; return relu(h) }
struct Sound {
  Module module;
  ValueId x, y, h, out;

  Sound() {
    module.functions.emplace_back();
    Function &f = function();
    f.name = "f";
    f.exported = true;
    x = f.add_argument(f.body, {DType::f32, {Dim::symbol("N"), 4}}, "x");
    y = f.add_argument(f.body, {DType::f32, {4}}, "y");
    GraphBuilder b(module, f, f.body);
    h = b(Op::add, {x, y});
    out = b(Op::relu, {h});
    f.body.results = {out};
    f.result_names = {"out"};
  }
  Function &function() { return module.functions[0]; }
  Node &add() { return function().nodes[0]; }
  Node &relu() { return function().nodes[1]; }
};

// while (c) { v = v + 1 } over an i64 scalar.
Module loop_module() {
  Module module;
  module.functions.emplace_back();
  Function &f = module.functions[0];
  f.name = "count";
  TensorType scalar{DType::i64, {}};
  ValueId start = f.add_argument(f.body, scalar, "start");
  GraphBuilder b(module, f, f.body);
  ValueId end = b.constant(Tensor::scalar_i64(DType::i64, 10));
  Block condition, body;
  ValueId c = f.add_argument(condition, scalar, "c");
  condition.results = {GraphBuilder(module, f, condition)(Op::lt, {c, end})};
  ValueId v = f.add_argument(body, scalar, "v");
  GraphBuilder in_body(module, f, body);
  body.results = {in_body(Op::add, {v, in_body.constant(Tensor::scalar_i64(DType::i64, 1))})};
  std::vector<Block> regions = {condition, body};
  NodeId loop = b.emit(Op::while_, {start}, {}, std::move(regions)).value();
  f.body.results = f.node(loop).results;
  f.result_names = {"end"};
  return module;
}

} // namespace

TEST_CASE("verify accepts what the builder made") {
  CHECK(problems(Sound().module) == "");
  CHECK(problems(loop_module()) == "");
}

TEST_CASE("verify refuses broken structure") {
  Sound s;
  std::string want;
  SECTION("an operand that does not exist") {
    s.add().operands[1] = ValueId(999);
    want = "does not exist";
  }
  SECTION("an operand that is not valid") {
    s.add().operands[0] = ValueId();
    want = "does not exist";
  }
  SECTION("a use before its definition") {
    std::swap(s.function().body.nodes[0], s.function().body.nodes[1]);
    want = "not defined before";
  }
  SECTION("a node in two places") {
    s.function().body.nodes.push_back(NodeId(0));
    want = "more than one place";
  }
  SECTION("a node that does not exist") {
    s.function().body.nodes.push_back(NodeId(77));
    want = "node 77, which does not exist";
  }
  SECTION("a removed node") {
    s.relu().removed = true;
    want = "removed";
  }
  SECTION("a node that holds itself") {
    Block region;
    region.nodes = {NodeId(1)};
    s.relu().regions.push_back(region);
    want = "more than one place";
  }
  SECTION("a value defined twice") {
    s.relu().results = {s.h};
    want = "a second time";
  }
  SECTION("an op that does not exist") {
    s.relu().op = Op(5000);
    want = "an op that does not exist";
  }
  SECTION("too many operands") {
    s.relu().operands.push_back(s.h);
    want = "it has 2 operands";
  }
  SECTION("an attribute nobody knows") {
    s.relu().attrs.set("speed", 3.0);
    want = "'speed'";
  }
  SECTION("a missing and a mistyped attribute") {
    s.relu().op = Op::permute;
    want = "'dims' is missing";
  }
  SECTION("a type that is not what the op gives") {
    s.function().value(s.h).type.shape[1] = 5;
    want = "it should be f32[N, 4]";
  }
  SECTION("a negative size") {
    s.function().value(s.x).type.shape[1] = -4;
    want = "negative or overflows";
  }
  SECTION("a size that nothing gives a value") {
    s.function().value(s.h).type.shape[0] = Dim::symbol("M");
    want = "how large M is";
  }
  SECTION("a broken layout") {
    s.function().value(s.h).layout.order = {0, 0};
    want = "layout";
  }
  SECTION("a result without a name") {
    s.function().result_names.clear();
    want = "names for them";
  }
  SECTION("two functions of one name") {
    s.module.functions.push_back(s.module.functions[0]);
    want = "two functions are called 'f'";
  }
  SECTION("two variables of one name, one without a static type") {
    s.module.variables.resize(2);
    for (Variable &v : s.module.variables)
      v.name = "w";
    s.module.variables[1].type = {DType::f32, {Dim::symbol("N")}};
    want = "another variable has this name";
  }
  std::string got = problems(s.module);
  INFO(got);
  CHECK(got.find(want) != std::string::npos);
  CHECK(want != "");
}

TEST_CASE("verify refuses an equality that nobody checks") {
  Module module;
  module.functions.emplace_back();
  Function &f = module.functions[0];
  f.name = "f";
  ValueId x = f.add_argument(f.body, {DType::f32, {Dim::symbol("N")}}, "x");
  ValueId y = f.add_argument(f.body, {DType::f32, {Dim::symbol("M")}}, "y");
  GraphBuilder b(module, f, f.body);
  f.body.results = {b(Op::add, {x, y})};
  f.result_names = {"out"};
  CHECK(problems(module) == "");
  module.constraints.clear();
  CHECK(problems(module).find("not among the module's constraints") != std::string::npos);
}

TEST_CASE("verify checks regions") {
  Module module = loop_module();
  Function &f = module.functions[0];
  Node &loop = f.node(f.value(f.body.results[0]).def);
  std::string want;
  SECTION("values of a region are not seen outside") {
    f.body.results = {loop.regions[1].results[0]};
    want = "not defined before";
  }
  SECTION("a result of another type") {
    loop.regions[0].results = {loop.regions[0].args[0]};
    want = "results of the condition";
  }
  SECTION("too few regions") {
    loop.regions.pop_back();
    want = "it has 1 regions; it takes 2";
  }
  SECTION("an argument that does not exist") {
    loop.regions[1].args[0] = ValueId(4000);
    want = "does not exist";
  }
  std::string got = problems(module);
  INFO(got);
  CHECK(got.find(want) != std::string::npos);
}

TEST_CASE("verify refuses a fusion that uses what is outside") {
  Sound s;
  Function &f = s.function();
  Block region;
  ValueId arg = f.add_argument(region, f.type(s.x), "a");
  GraphBuilder inner(s.module, f, region);
  region.results = {inner(Op::add, {arg, s.y})};
  GraphBuilder b(s.module, f, f.body);
  auto fusion = b.emit(Op::fusion, {s.x}, {}, {region});
  REQUIRE(fusion.ok());
  CHECK(problems(s.module).find("from outside the fusion") != std::string::npos);
}

TEST_CASE("verify refuses recursion, and deep nesting without overflowing the stack") {
  Module module;
  for (size_t i = 0; i < 2; ++i) {
    module.functions.emplace_back();
    Function &f = module.functions[i];
    f.name = i ? "g" : "f";
    ValueId x = f.add_argument(f.body, {DType::f32, {}}, "x");
    f.body.results = {x};
    f.result_names = {"y"};
  }
  for (size_t i = 0; i < 2; ++i) {
    Function &f = module.functions[i];
    GraphBuilder b(module, f, f.body);
    f.body.results = {b(Op::call, {f.body.args[0]}, {{"function", FunctionId(1 - i)}})};
  }
  CHECK(problems(module).find("calls cannot recurse") != std::string::npos);

  Sound s;
  Function &f = s.function();
  ValueId condition = f.add_argument(f.body, {DType::bool_, {}}, "c");
  size_t first = f.nodes.size();
  for (size_t i = 0; i < 5000; ++i) {
    Node node;
    node.op = Op::if_;
    node.operands = {condition};
    node.regions.resize(2);
    if (i + 1 < 5000)
      node.regions[0].nodes = {NodeId(first + i + 1)};
    f.nodes.push_back(node);
  }
  f.body.nodes.push_back(NodeId(first));
  CHECK(problems(s.module).find("nested deeper") != std::string::npos);
}
