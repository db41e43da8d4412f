// What handlers expect of the ranks of operands and the lengths of lists, and what happens where one does
// not say so: an error of the node that names what is read, never a read of what is not there.
#include "tests/onnx/harness.h"

#include "frontend/onnx/node.h"

using namespace kiln;
using namespace kiln::test;
using Catch::Contains;

namespace {

std::string unmet(const std::function<void()> &access) {
  try {
    access();
  } catch (const onnx::Unmet &u) {
    return u.message;
  }
  return "";
}

struct Operand {
  std::string name;
  DType dtype;
  std::vector<TestDim> dims;
};

std::string error_of(const std::string &type, const std::vector<Operand> &operands, const std::vector<std::string> &attributes = {},
                     const std::string &domain = "com.microsoft") {
  GraphMaker g;
  Names names;
  for (const Operand &o : operands) {
    names.push_back(o.name);
    if (!o.name.empty())
      g.input(o.name, o.dtype, o.dims);
  }
  return Imported(g.node(type, names, {"y"}, attributes, "", domain).output("y").model(24)).errors();
}

} // namespace

TEST_CASE("a dim that a value does not have") {
  onnx::Val x;
  x.type = {DType::f32, {2, 3}};
  CHECK(x.dim(1) == Dim(3));
  CHECK(x.last_dim() == Dim(3));
  CHECK(x.dims(1, 2) == Shape{3});
  CHECK(unmet([&] { x.dim(2); }) == "a value made of its operands is f32[2, 3], but must have 3 dims or more");
  x.name = "mask";
  CHECK(unmet([&] { x.dims(1, 4); }) == "'mask' is f32[2, 3], but must have 4 dims or more");
  CHECK_THAT(unmet([&] { x.dim(-1); }), Contains("'mask'") && Contains("too few dims"));
  CHECK_THAT(unmet([&] { x.dims(2, 1); }), Contains("'mask'"));
  onnx::Sizes sizes(x);
  CHECK(sizes.back() == Dim(3));
  CHECK_THAT(unmet([&] { sizes[2]; }), Contains("too few dims") || Contains("3 dims or more"));
  CHECK_THAT(unmet([&] { sizes[size_t(1) << 32]; }), Contains("'mask'"));
  x.type.shape.clear();
  CHECK_THAT(unmet([&] { sizes.front(); }), Contains("1 dims or more"));
  CHECK_THAT(unmet([&] { x.last_dim(); }), Contains("too few dims"));
}

TEST_CASE("an entry that a list does not have") {
  onnx::List<int64_t> pads({1, 2}, "pads");
  CHECK(pads[1] == 2);
  CHECK(pads.back() == 2);
  CHECK(unmet([&] { pads[2]; }) == "its 'pads' has 2 entries, which are too few");
  pads.clear();
  CHECK_THAT(unmet([&] { pads.front(); }), Contains("0 entries"));
  CHECK_THAT(unmet([&] { pads.back(); }), Contains("0 entries"));
}

TEST_CASE("operands of another rank are named") {
  DType f = DType::f32, i = DType::i64;
  std::vector<Operand> attention = {{"q", f, {1, 2, 4}}, {"k", f, {1, 2, 4}}, {"v", f, {1, 2, 4}}, {"bias", f, {}}};
  CHECK_THAT(error_of("MultiHeadAttention", attention, {attr_i("num_heads", 2)}), Contains("its bias is f32[]"));
  attention[3] = {"", f, {}};
  attention.insert(attention.end(), {{"", f, {}}, {"", f, {}}, {"pk", f, {2}}, {"pv", f, {1, 2, 3, 2}}});
  CHECK_THAT(error_of("MultiHeadAttention", attention, {attr_i("num_heads", 2)}),
             Contains("past_key and past_value are f32[2] and f32[1, 2, 3, 2], not [B, H, P, E]"));
  CHECK_THAT(error_of("EmbedLayerNormalization",
                      {{"ids", i, {1, 2}}, {"", i, {}}, {"words", f, {8, 4}}, {"places", f, {}}, {"", f, {}}, {"scale", f, {4}}, {"shift", f, {4}}}),
             Contains("its table of positions must be [P, E], not f32[]"));
  std::vector<Operand> padded = {{"q", f, {1, 2, 4, 4}}, {"k", f, {1, 2, 4, 4}}, {"v", f, {1, 2, 4, 4}}, {"", f, {}}, {"", f, {}}, {"", f, {}}, {"valid", i, {}}};
  CHECK_THAT(error_of("Attention", padded, {}, ""), Contains("nonpad_kv_seqlen is i64[], not [B]"));
  CHECK_THAT(error_of("QLinearAveragePool", {{"x", DType::u8, {1, 1, 4, 4}}, {"scale", f, {}}}, {attr_ints("kernel_shape", {2, 2})}),
             Contains("its input 3 is missing"));
}

TEST_CASE("sizes at the end of the integers") {
  std::vector<std::string> tree = {attr_ints("leaf_targetids", {INT64_MAX}), attr_tensor("leaf_weights", tensor_proto("", floats({1}, {1})))};
  CHECK_THAT(error_of("TreeEnsemble", {{"x", DType::f32, {1, 2}}}, tree, "ai.onnx.ml"), Contains("another target than"));
  CHECK_THAT(error_of("TfIdfVectorizer", {{"x", DType::i64, {1, 2}}},
                      {attr_ints("ngram_counts", {0}), attr_ints("ngram_indexes", {INT64_MAX}), attr_ints("pool_int64s", {1}), attr_s("mode", "TF"),
                       attr_i("min_gram_length", 1), attr_i("max_gram_length", 1), attr_i("max_skip_count", 0)},
                      ""),
             Contains("'ngram_indexes' holds the column 9223372036854775807"));
  GraphMaker resized;
  resized.input("x", DType::f32, {4, 6}).weight("sizes", ints({INT64_MAX, INT64_MAX})).node("Resize", {"x", "", "", "sizes"}, {"y"}, {attr_s("keep_aspect_ratio_policy", "not_larger")});
  CHECK_THAT(Imported(resized.output("y").model(18)).errors(), Contains("its 'sizes' make axis 0 as large as"));
  GraphMaker empty; // which is not computed while it is imported, however small the result
  empty.weight("none", floats({0, 1, 3, 3}, {})).node("LpPool", {"none"}, {"y"}, {attr_ints("kernel_shape", {3, 3}), attr_ints("pads", {2, 2, 2, int64_t(1) << 31})});
  CHECK(Imported(empty.output("y").model()).errors() == "");
  GraphMaker least;
  least.weight("least", ints({INT64_MIN})).input("x", DType::f32, {"N"}).node("Shape", {"x"}, {"n"}).node("Add", {"n", "least"}, {"sum"});
  least.node("Mul", {"sum", "sum"}, {"y"}).output("y");
  CHECK(Imported(least.model()).errors() == "");
  GraphMaker g;
  Tensor part(DType::i64, {});
  part.set_i64(0, INT64_MAX);
  g.input("x", DType::f32, {3, 2}).weight("part", part).node("SplitToSequence", {"x", "part"}, {"s"});
  g.node("SequenceLength", {"s"}, {"y"}).output("y");
  CHECK(Imported(g.model()).errors() == "");
}
