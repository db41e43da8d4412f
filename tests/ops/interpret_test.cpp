// The graph interpreter: symbolic dims, control flow, variables, calls, limits.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "ir/interpret.h"
#include "ir/ops/op.h"

using namespace kiln;

namespace {

Tensor floats(std::vector<int64_t> dims, std::vector<double> values) {
  Tensor out(DType::f32, std::move(dims));
  for (size_t i = 0; i < values.size(); ++i)
    out.set_f64(int64_t(i), values[i]);
  return out;
}

std::vector<double> values(const Tensor &tensor) {
  std::vector<double> out;
  for (int64_t i = 0; i < tensor.count(); ++i)
    out.push_back(tensor.at_f64(i));
  return out;
}

using Values = std::vector<double>;
const Dim kN = Dim::symbol("N");

struct Graph {
  Module module;
  Function &f;
  GraphBuilder b;
  Graph() : f(module.functions.emplace_back()), b(module, f, f.body) {}
  ValueId arg(TensorType type) { return f.add_argument(f.body, std::move(type), "x"); }
  Result<std::vector<Tensor>> run(std::vector<Tensor> inputs, VariableValues *variables = nullptr,
                                  const EvaluateOptions &options = {}) {
    VariableValues own;
    return interpret(module, f, inputs, variables ? *variables : own, options);
  }
};

Block block_with(
    Graph &g, std::vector<TensorType> args,
    const std::function<std::vector<ValueId>(GraphBuilder &, std::vector<ValueId>)> &f) {
  Block block;
  for (TensorType &type : args)
    g.f.add_argument(block, std::move(type), "a");
  GraphBuilder b(g.module, g.f, block);
  block.results = f(b, block.args);
  return block;
}

} // namespace

TEST_CASE("symbolic dims are bound by the inputs and checked") {
  Graph g;
  ValueId x = g.arg({DType::f32, {kN, 2}}), y = g.arg({DType::f32, {kN * Dim(2) + Dim(1)}});
  ValueId flat = g.b(Op::reshape, {x}, {{"shape", std::vector<Dim>{kN * Dim(2)}}});
  g.f.body.results = {
      flat, g.b(Op::reduce_sum, {y}, {{"axes", std::vector<Dim>{0}}, {"keepdims", false}})};
  auto out = g.run({floats({3, 2}, {1, 2, 3, 4, 5, 6}), floats({7}, {1, 1, 1, 1, 1, 1, 1})});
  REQUIRE(out.ok());
  CHECK((*out)[0].dims() == std::vector<int64_t>{6});
  CHECK(values((*out)[1]) == Values{7});
  auto bad = g.run({floats({3, 2}, {}), floats({6}, {})});
  REQUIRE(!bad.ok());
  CHECK(bad.error().message.find("f32[6]") != std::string::npos);
  CHECK(!g.run({floats({3, 2}, {})}).ok());
}

TEST_CASE("a symbol that only stands in an expression is solved for") {
  Graph g;
  ValueId x = g.arg({DType::f32, {kN * Dim(2) + Dim(1)}});
  g.f.body.results = {g.b(Op::neg, {x})};
  CHECK(g.run({floats({7}, {})}).ok());
  CHECK(!g.run({floats({8}, {})}).ok());
}

TEST_CASE("shapes that differ only at run time are an error") {
  Graph g;
  ValueId x = g.arg({DType::f32, {kN}}), y = g.arg({DType::f32, {Dim::symbol("M")}});
  g.f.body.results = {g.b(Op::add, {x, y})};
  CHECK(g.run({floats({2}, {}), floats({2}, {})}).ok());
  CHECK(!g.run({floats({2}, {}), floats({3}, {})}).ok());
}

TEST_CASE("if runs one region, with the values around it") {
  Graph g;
  ValueId c = g.arg({DType::bool_, {}}), x = g.arg({DType::f32, {2}});
  auto region = [&](Op op) {
    return block_with(g, {}, [&](GraphBuilder &b, auto) { return std::vector{b(op, {x})}; });
  };
  auto node = g.b.emit(Op::if_, {c}, {}, {region(Op::neg), region(Op::square)});
  REQUIRE(node.ok());
  g.f.body.results = {g.f.node(*node).results[0], x};
  Tensor input = floats({2}, {2, 3});
  CHECK(values((*g.run({Tensor::scalar_i64(DType::bool_, 1), input}))[0]) == Values{-2, -3});
  auto other = g.run({Tensor::scalar_i64(DType::bool_, 0), input});
  CHECK(values((*other)[0]) == Values{4, 9});
  CHECK(values((*other)[1]) == Values{2, 3});
}

TEST_CASE("while carries values, and gives up at its limit") {
  Graph g;
  TensorType scalar{DType::f32, {}};
  ValueId n = g.arg(scalar), x = g.arg(scalar);
  Block condition = block_with(g, {scalar, scalar}, [](GraphBuilder &b, std::vector<ValueId> a) {
    return std::vector{b(Op::gt, {a[0], b.scalar(DType::f32, 0)})};
  });
  Block body = block_with(g, {scalar, scalar}, [](GraphBuilder &b, std::vector<ValueId> a) {
    return std::vector{b(Op::sub, {a[0], b.scalar(DType::f32, 1)}), b(Op::add, {a[1], a[1]})};
  });
  auto node = g.b.emit(Op::while_, {n, x}, {}, {condition, body});
  REQUIRE(node.ok());
  g.f.body.results = g.f.node(*node).results;
  auto out = g.run({floats({}, {5}), floats({}, {3})});
  REQUIRE(out.ok());
  CHECK(values((*out)[0]) == Values{0});
  CHECK(values((*out)[1]) == Values{96});
  CHECK(values((*g.run({floats({}, {0}), floats({}, {3})}))[1]) == Values{3});
  EvaluateOptions options;
  options.max_steps = 1000;
  auto endless = g.run({floats({}, {1e9}), floats({}, {3})}, nullptr, options);
  REQUIRE(!endless.ok());
  CHECK(endless.error().message.find("gave up") != std::string::npos);
}

TEST_CASE("scan goes along axis 0, either way") {
  for (bool reverse : {false, true}) {
    Graph g;
    TensorType scalar{DType::f32, {}};
    ValueId start = g.arg(scalar), xs = g.arg({DType::f32, {kN}});
    Block body = block_with(g, {scalar, scalar}, [](GraphBuilder &b, std::vector<ValueId> a) {
      ValueId sum = b(Op::add, {a[0], a[1]});
      return std::vector{sum, sum};
    });
    auto node =
        g.b.emit(Op::scan, {start, xs}, {{"carried", Dim(1)}, {"reverse", reverse}}, {body});
    REQUIRE(node.ok());
    g.f.body.results = g.f.node(*node).results;
    auto out = g.run({floats({}, {10}), floats({3}, {1, 2, 3})});
    REQUIRE(out.ok());
    CHECK(values((*out)[0]) == Values{16});
    CHECK(values((*out)[1]) == (reverse ? Values{16, 15, 13} : Values{11, 13, 16}));
    auto none = g.run({floats({}, {10}), floats({0}, {})});
    REQUIRE(none.ok());
    CHECK(values((*none)[0]) == Values{10});
    CHECK((*none)[1].count() == 0);
  }
}

TEST_CASE("variables are read and assigned in order") {
  Graph g;
  TensorType type{DType::f32, {2}};
  g.module.variables.push_back(
      {"v", VariableKind::state, type, g.module.add_constant(floats({2}, {1, 2})), {}});
  Attrs v{{"variable", VariableId(0)}};
  ValueId before = g.b.multi(Op::read_variable, {}, v)[0];
  g.b.multi(Op::assign, {g.b(Op::add, {before, before})}, v);
  ValueId after = g.b.multi(Op::read_variable, {}, v)[0];
  g.f.body.results = {before, after};
  auto variables = initial_variables(g.module);
  REQUIRE(variables.ok());
  auto out = g.run({}, &*variables);
  REQUIRE(out.ok());
  CHECK(values((*out)[0]) == Values{1, 2});
  CHECK(values((*out)[1]) == Values{2, 4});
  CHECK(values((*variables)[0]) == Values{2, 4});
}

TEST_CASE("calls bind the callee's own dims; recursion ends in an error") {
  Module module;
  module.functions.resize(2);
  Function &callee = module.functions[0], &caller = module.functions[1];
  ValueId a = callee.add_argument(callee.body, {DType::f32, {kN, 3}}, "a");
  GraphBuilder inner(module, callee, callee.body);
  callee.body.results = {
      inner(Op::reduce_sum, {a}, {{"axes", std::vector<Dim>{1}}, {"keepdims", false}}), a};
  ValueId x = caller.add_argument(caller.body, {DType::f32, {Dim::symbol("K"), 3}}, "x");
  GraphBuilder outer(module, caller, caller.body);
  caller.body.results = outer.multi(Op::call, {x}, {{"function", FunctionId(0)}});
  CHECK(caller.type(caller.body.results[0]).text() == "f32[K]");
  VariableValues none;
  std::vector<Tensor> inputs{floats({2, 3}, {1, 2, 3, 4, 5, 6})};
  auto out = interpret(module, caller, inputs, none);
  REQUIRE(out.ok());
  CHECK(values((*out)[0]) == Values{6, 15});
  CHECK(values((*out)[1]) == Values{1, 2, 3, 4, 5, 6});

  GraphBuilder(module, callee, callee.body).multi(Op::call, {a}, {{"function", FunctionId(0)}});
  auto endless = interpret(module, caller, inputs, none);
  REQUIRE(!endless.ok());
  CHECK(endless.error().message.find("too deeply") != std::string::npos);
}

TEST_CASE("every node is reported once, with its results") {
  Graph g;
  ValueId x = g.arg({DType::f32, {2}});
  ValueId y = g.b(Op::exp, {g.b(Op::neg, {x})});
  g.f.body.results = {y};
  std::vector<std::string> seen;
  EvaluateOptions options;
  options.after_node = [&](NodeId id, std::span<const Tensor> results) {
    seen.push_back(std::string(op_def(g.f.node(id).op).name) + " " + results[0].type().text());
  };
  REQUIRE(g.run({floats({2}, {0, 0})}, nullptr, options).ok());
  CHECK(seen == std::vector<std::string>{"neg f32[2]", "exp f32[2]"});
}

TEST_CASE("results beyond the limit are refused before they are made") {
  Graph g;
  ValueId x = g.arg({DType::f32, {kN}});
  g.f.body.results = {g.b(Op::broadcast_to, {x}, {{"shape", std::vector<Dim>{1 << 30, kN}}})};
  EvaluateOptions options;
  options.max_bytes = 1 << 20;
  auto out = g.run({floats({64}, {})}, nullptr, options);
  REQUIRE(!out.ok());
  CHECK(out.error().message.find("limit") != std::string::npos);
}
