// Types of structural, movement, index and composite ops: symbolic sizes, what is required of them, and
// errors that say sizes, axis and what to do.
#include "tests/ops_b/build.h"

#include <catch2/catch.hpp>

using namespace kiln;
using namespace kiln::test;

namespace {

using Dims = std::vector<Dim>;
using Catch::Matchers::Contains;

TensorType f32(Shape shape) { return {DType::f32, std::move(shape)}; }
TensorType i64(Shape shape) { return {DType::i64, std::move(shape)}; }
Dim sym(const char *name) { return Dim::symbol(name); }

std::string type_of(Op op, const std::vector<TensorType> &operands, const Attrs &attrs = {}, size_t result = 0) {
  OneNode n = one_node(op, operands, attrs);
  return n.node.valid() ? n.function().type(n.function().node(n.node).results.at(result)).text() : n.error;
}

std::vector<std::string> required(Op op, const std::vector<TensorType> &operands, const Attrs &attrs = {}) {
  std::vector<std::string> out;
  for (const auto &c : one_node(op, operands, attrs).module.constraints)
    out.push_back(c.a.text() + " == " + c.b.text());
  return out;
}

} // namespace

TEST_CASE("movement: types over symbolic sizes") {
  Dim n = sym("N"), t = sym("T");
  CHECK(type_of(Op::broadcast_to, {f32({1, 3})}, {{"shape", Dims{n, 4, 3}}}) == "f32[N, 4, 3]");
  CHECK(type_of(Op::permute, {f32({n, 3, t})}, {{"dims", Dims{2, 0, 1}}}) == "f32[T, N, 3]");
  CHECK(type_of(Op::reshape, {f32({n, t, 12, 64})}, {{"shape", Dims{n, t, 768}}}) == "f32[N, T, 768]");
  CHECK(type_of(Op::concat, {f32({n, 3}), f32({n, t})}, {{"axis", Dim(-1)}}) == "f32[N, T + 3]");
  CHECK(type_of(Op::pad, {f32({n, 5})}, {{"lo", Dims{1, -1}}, {"hi", Dims{t, -2}}}) == "f32[N + T + 1, 2]");
  CHECK(type_of(Op::slice, {f32({n, 10})},
                {{"axes", Dims{1}}, {"starts", Dims{9}}, {"ends", Dims{-1}}, {"steps", Dims{-3}}}) == "f32[N, 4]");
}

TEST_CASE("movement: what must hold at run time") {
  Dim n = sym("N"), m = sym("M");
  CHECK(required(Op::reshape, {f32({n, 4})}, {{"shape", Dims{m, 2}}}) == std::vector<std::string>{"4*N == 2*M"});
  // A slice of five elements needs that many.
  CHECK(required(Op::slice, {f32({n})},
                 {{"axes", Dims{0}}, {"starts", Dims{0}}, {"ends", Dims{5}}, {"steps", Dims{1}}})
            .size() == 1);
  CHECK(required(Op::broadcast_to, {f32({n})}, {{"shape", Dims{n}}}).empty());
}

TEST_CASE("movement: errors") {
  CHECK_THAT(error_of(Op::reshape, {f32({2, 3})}, {{"shape", Dims{4, 2}}}), Contains("[2, 3] has 6 elements and [4, 2] has 8"));
  CHECK_THAT(error_of(Op::reshape, {f32({6})}, {{"shape", Dims{-2, -3}}}), Contains("negative"));
  CHECK_THAT(error_of(Op::permute, {f32({2, 3})}, {{"dims", Dims{0, 0}}}), Contains("axis 0 is listed twice"));
  CHECK_THAT(error_of(Op::permute, {f32({2, 3})}, {{"dims", Dims{0}}}), Contains("each of the 2 once"));
  CHECK_THAT(error_of(Op::concat, {f32({2, 3}), f32({4, 3})}, {{"axis", Dim(1)}}), Contains("dim 0 does (4 against 2)"));
  CHECK_THAT(error_of(Op::concat, {f32({2}), i64({2})}, {{"axis", Dim(0)}}), Contains("convert one of them"));
  CHECK_THAT(error_of(Op::flip, {f32({2})}, {{"axes", Dims{3}}}), Contains("axis 3 is out of range for rank 1"));
  CHECK_THAT(error_of(Op::pad, {f32({3})}, {{"lo", Dims{3}}, {"hi", Dims{0}}, {"mode", std::string("reflect")}}),
             Contains("cannot pad dim 0 of size 3 by 3"));
  CHECK_THAT(error_of(Op::pad, {f32({3})}, {{"lo", Dims{-2}}, {"hi", Dims{-2}}}), Contains("cropped"));
  CHECK_THAT(error_of(Op::pad, {f32({3})}, {{"lo", Dims{0}}, {"hi", Dims{0}}, {"mode", std::string("mirror")}}),
             Contains("\"reflect\""));
  CHECK_THAT(error_of(Op::slice, {f32({4})},
                      {{"axes", Dims{0}}, {"starts", Dims{1}}, {"ends", Dims{9}}, {"steps", Dims{1}}}),
             Contains("size 4") && Contains("clamp"));
  CHECK_THAT(error_of(Op::slice, {f32({4})},
                      {{"axes", Dims{0}}, {"starts", Dims{0}}, {"ends", Dims{4}}, {"steps", Dims{0}}}),
             Contains("step of axis 0 is 0"));
}

TEST_CASE("index ops: types and errors") {
  Dim n = sym("N");
  CHECK(type_of(Op::gather, {f32({100, 8}), i64({n, 3})}, {{"axis", Dim(0)}}) == "f32[N, 3, 8]");
  CHECK(type_of(Op::gather_nd, {f32({2, n, 4}), i64({2, 5, 1})}, {{"batch_dims", Dim(1)}}) == "f32[2, 5, 4]");
  CHECK(type_of(Op::one_hot, {i64({n}), f32({2})}, {{"depth", Dim(10)}}) == "f32[N, 10]");
  CHECK(type_of(Op::topk, {f32({n, 9})}, {{"k", Dim(4)}}, 1) == "i64[N, 4]");
  CHECK(type_of(Op::iota, {}, {{"shape", Dims{3, 4}}, {"axis", Dim(1)}, {"dtype", DType::i32}}) == "i32[3, 4]");
  CHECK_THAT(error_of(Op::gather, {f32({4}), f32({2})}, {{"axis", Dim(0)}}), Contains("integer dtype"));
  CHECK_THAT(error_of(Op::gather_nd, {f32({4}), i64({2, 2})}), Contains("from 1 to 1"));
  CHECK_THAT(error_of(Op::topk, {f32({3})}, {{"k", Dim(4)}}), Contains("has only 3 elements"));
  CHECK_THAT(error_of(Op::trilu, {f32({3})}), Contains("rank 2 or more"));
  CHECK_THAT(error_of(Op::scatter_nd, {f32({4, 3}), i64({2, 1}), f32({2, 4})}), Contains("[2, 4] and [2, 3]"));
  CHECK_THAT(error_of(Op::scatter_elements, {f32({4}), i64({9}), f32({9})},
                      {{"axis", Dim(0)}, {"reduction", std::string("sum")}}),
             Contains("\"add\""));
  CHECK_THAT(error_of(Op::one_hot, {i64({2}), f32({3})}, {{"depth", Dim(4)}}), Contains("off and on"));
  CHECK_THAT(error_of(Op::resize, {f32({1, 4})}, {{"sizes", Dims{1, 8}}, {"scales", std::vector<double>{1.0}}}),
             Contains("takes 2 of each"));
}

TEST_CASE("composites: types and errors") {
  Dim n = sym("N"), s = sym("S");
  CHECK(type_of(Op::softmax, {f32({n, s})}, {{"axis", Dim(-1)}}) == "f32[N, S]");
  CHECK(type_of(Op::attention, {f32({n, 8, s, 64}), f32({n, 8, s, 64}), f32({n, 8, s, 32})}, {{"scale", 0.125}}) ==
        "f32[N, 8, S, 32]");
  CHECK(type_of(Op::lstm, {f32({s, n, 3}), f32({2, 16, 3}), f32({2, 16, 4})},
                {{"direction", std::string("bidirectional")}}) == "f32[S, 2, N, 4]");
  CHECK(type_of(Op::depth_to_space, {f32({n, 12, 4, 5})}, {{"block", Dim(2)}}) == "f32[N, 3, 8, 10]");
  CHECK_THAT(error_of(Op::softmax, {i64({2})}, {{"axis", Dim(0)}}), Contains("float dtype"));
  CHECK_THAT(error_of(Op::layer_norm, {f32({2, 3}), f32({4})}, {{"axis", Dim(1)}}), Contains("does not broadcast to [2, 3]"));
  CHECK_THAT(error_of(Op::batch_norm, {f32({2, 3, 4}), f32({3}), f32({3}), f32({3}), f32({5})}), Contains("operand 4"));
  CHECK_THAT(error_of(Op::group_norm, {f32({2, 6, 4}), f32({6}), f32({6})}, {{"groups", Dim(4)}}),
             Contains("6 channels cannot be split into 4 groups"));
  CHECK_THAT(error_of(Op::attention, {f32({2, 4}), f32({2, 5}), f32({2, 4})}, {{"scale", 1.0}}), Contains("4 and 5 differ"));
  CHECK_THAT(error_of(Op::depth_to_space, {f32({1, 6, 2, 2})}, {{"block", Dim(2)}}), Contains("6 channels"));
  CHECK_THAT(error_of(Op::quantize, {f32({2}), f32({}), i64({})}, {{"dtype", DType::i64}}), Contains("32 bits or less"));
  CHECK_THAT(error_of(Op::lstm, {f32({5, 2, 3}), f32({1, 16, 3}), f32({1, 12, 4})}), Contains("shape of r"));
}

TEST_CASE("schema: attributes that must be numbers, and missing ones") {
  CHECK_THAT(error_of(Op::softmax, {f32({2})}, {{"axis", sym("N")}}), Contains("known at compile time"));
  CHECK_THAT(error_of(Op::softmax, {f32({2})}), Contains("'axis' is missing"));
  CHECK_THAT(error_of(Op::concat, {f32({2})}, {{"axis", Dim(int64_t(1) << 40)}}), Contains("out of range"));
}

TEST_CASE("call binds the symbols of what is called") {
  Module module;
  module.functions.resize(2);
  Function &callee = module.functions[0], &f = module.functions[1];
  callee.name = "g";
  f.name = "f";
  Dim n = sym("N");
  ValueId x = callee.add_argument(callee.body, f32({n, 3}), "x");
  ValueId y = callee.add_argument(callee.body, f32({n + Dim(1)}), "y");
  (void)y;
  GraphBuilder inner(module, callee, callee.body);
  callee.body.results = {inner(Op::reshape, {x}, {{"shape", Dims{n * Dim(3)}}})};
  ValueId a = f.add_argument(f.body, f32({5, 3}), "a"), c = f.add_argument(f.body, f32({sym("K")}), "c");
  GraphBuilder b(module, f, f.body);
  auto call = b.emit(Op::call, {a, c}, {{"function", FunctionId(0)}});
  REQUIRE(call.ok());
  CHECK(f.type(f.node(*call).results[0]).text() == "f32[15]");
  REQUIRE(module.constraints.size() == 1);
  CHECK(module.constraints[0].a.text() == "K");
  CHECK(module.constraints[0].b.text() == "6");
  auto wrong = b.emit(Op::call, {a, a}, {{"function", FunctionId(0)}});
  REQUIRE(!wrong.ok());
  CHECK_THAT(wrong.error().message, Contains("argument 1 of 'g'"));
}
