// Models that are wrong on purpose: each gives an error that says what and where, none a crash, a hang or
// an allocation out of proportion to the file.
#include "tests/onnx/harness.h"

#include <sys/resource.h>

using namespace kiln;
using namespace kiln::test;
using Catch::Contains;

namespace {

// Imports and gives the errors; a model that is accepted gives "".
std::string errors_of(const std::string &model, const OnnxOptions &options = {}) {
  Imported m(model, options);
  return m.ok ? "" : m.errors();
}

std::string small_model() {
  GraphMaker g;
  g.input("x", DType::f32, {"N", 3, 8, 8}).weight("w", floats({4, 3, 3, 3}, std::vector<double>(108, 0.1)));
  g.weight("shape", ints({0, -1}));
  g.node("Conv", {"x", "w"}, {"a"}, {attr_ints("pads", {1, 1, 1, 1})}).node("Relu", {"a"}, {"b"});
  g.node("Reshape", {"b", "shape"}, {"y"}).output("y");
  return g.model();
}

} // namespace

TEST_CASE("files that are no models") {
  CHECK_THAT(errors_of(""), Contains("holds no graph"));
  CHECK_THAT(errors_of("this is text, and no ONNX file"), Contains("cannot read the model"));
  CHECK_THAT(errors_of(std::string(1000, '\xff')), Contains("cannot read the model"));
  CHECK_THAT(errors_of(std::string("\x3a\xff\xff\xff\xff\x0f", 6)), Contains("cannot read the model"));
}

TEST_CASE("every truncation and many flipped bytes of a model") {
  std::string model = small_model();
  REQUIRE(errors_of(model) == "");
  for (size_t n = 0; n < model.size(); ++n)
    Imported m(model.substr(0, n)); // may be valid where whole fields are lost
  uint64_t state = 1;
  for (int i = 0; i < 4000; ++i) {
    std::string broken = model;
    for (int k = 0; k <= i % 3; ++k) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      broken[(state >> 33) % broken.size()] = char(state >> 24);
    }
    Imported m(broken);
    CHECK((m.ok || m.diagnostics.error_count() > 0));
  }
}

TEST_CASE("graphs that are wired wrongly") {
  GraphMaker g;
  g.input("x", DType::f32, {2});
  SECTION("a cycle") {
    g.node("Add", {"x", "b"}, {"a"}, {}, "one").node("Neg", {"a"}, {"b"}, {}, "two").output("b");
    CHECK_THAT(errors_of(g.model()), Contains("cycle") && Contains("one, two"));
  }
  SECTION("a node that needs itself") {
    g.node("Add", {"x", "a"}, {"a"}).output("a");
    CHECK_THAT(errors_of(g.model()), Contains("Add#0") && Contains("its own output"));
  }
  SECTION("an input that is not there") {
    g.node("Add", {"x", "nothing"}, {"a"}).output("a");
    CHECK_THAT(errors_of(g.model()), Contains("Add#0") && Contains("'nothing' is not defined"));
  }
  SECTION("an output that is not there") {
    g.output("nothing");
    CHECK_THAT(errors_of(g.model()), Contains("nothing computes the output 'nothing'"));
  }
  SECTION("no output") { CHECK_THAT(errors_of(g.model()), Contains("no outputs")); }
  SECTION("nodes without outputs") {
    g.node("Neg", {"x"}, {"a"}).node("NhwcConv", {"x", "x"}, {}, {}, "", "com.microsoft");
    g.node("BiasDropout", {"x", "x", "x"}, {}, {}, "", "com.microsoft").output("a");
    errors_of(g.model()); // either way, but no crash
  }
  SECTION("a name twice") {
    g.node("Neg", {"x"}, {"a"}).node("Abs", {"x"}, {"a"}, {}, "again").output("a");
    CHECK_THAT(errors_of(g.model()), Contains("again") && Contains("'a' is defined twice"));
  }
  SECTION("a weight twice") {
    g.weight("w", ints({1})).weight("w", ints({2})).output("w");
    CHECK_THAT(errors_of(g.model()), Contains("'w' is defined twice"));
  }
  SECTION("too few and too many inputs") {
    g.node("Add", {"x"}, {"a"}).node("Neg", {"x", "x"}, {"b"}).output("a");
    CHECK_THAT(errors_of(g.model()), Contains("Add#0") && Contains("Neg#1"));
  }
  SECTION("a required input left out") {
    g.node("Add", {"x", ""}, {"a"}).output("a");
    CHECK_THAT(errors_of(g.model()), Contains("its input 1 is missing"));
  }
  SECTION("more outputs than the operator has") {
    g.node("Neg", {"x"}, {"a", "b"}).output("b");
    CHECK_THAT(errors_of(g.model()), Contains("output 1 ('b')"));
  }
}

TEST_CASE("attributes of the wrong type or value") {
  GraphMaker g;
  g.input("x", DType::f32, {1, 4, 8, 8}).weight("w", floats({4, 4, 3, 3}, std::vector<double>(144, 1)));
  auto conv = [&](std::vector<std::string> attributes) {
    g.node("Conv", {"x", "w"}, {"y"}, attributes).output("y");
    return errors_of(g.model());
  };
  SECTION("a string for integers") { CHECK_THAT(conv({attr_s("strides", "2")}), Contains("'strides' is a string")); }
  SECTION("too few") { CHECK_THAT(conv({attr_ints("strides", {2})}), Contains("'strides' has 1 entries")); }
  SECTION("zero") { CHECK_THAT(conv({attr_ints("strides", {0, 1})}), Contains("'strides' holds 0")); }
  SECTION("huge") {
    CHECK(conv({attr_ints("pads", {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX})}) != "");
    CHECK(conv({attr_ints("dilations", {INT64_MAX, 1})}) != "");
  }
  SECTION("groups") {
    for (int64_t groups : {int64_t(0), int64_t(-1), int64_t(3), INT64_MAX, INT64_MIN})
      CHECK(conv({attr_i("group", groups)}) != "");
  }
  SECTION("axes") {
    for (int64_t axis : {int64_t(4), int64_t(-5), INT64_MAX, INT64_MIN}) {
      GraphMaker s;
      s.input("x", DType::f32, {1, 4, 8, 8}).node("Softmax", {"x"}, {"y"}, {attr_i("axis", axis)}).output("y");
      CHECK_THAT(errors_of(s.model()), Contains("outside"));
    }
  }
  SECTION("a tensor that is damaged") {
    GraphMaker s;
    s.node("Constant", {}, {"y"}, {attr_tensor("value", "\xff\xff\xff")}).output("y");
    CHECK_THAT(errors_of(s.model()), Contains("Constant#0"));
  }
}

TEST_CASE("tensors whose size is a lie") {
  auto with = [](int type, std::vector<int64_t> dims, const std::string &raw) {
    GraphMaker g;
    g.raw_weight(tensor_proto("w", type, dims, raw)).output("w");
    return errors_of(g.model());
  };
  CHECK_THAT(with(1, {2}, "1234"), Contains("holds 4 bytes") && Contains("8"));
  CHECK_THAT(with(1, {INT64_MAX, INT64_MAX}, "1234"), Contains("too large"));
  CHECK_THAT(with(1, {-1}, "1234"), Contains("negative"));
  CHECK_THAT(with(1, {int64_t(1) << 40}, ""), Contains("holds 0 bytes"));
  CHECK_THAT(with(8, {1}, ""), Contains("it holds 0 strings, but its shape needs 1"));
  CHECK_THAT(with(99, {1}, ""), Contains("type 99"));
  CHECK_THAT(with(1, std::vector<int64_t>(100, 1), "1234"), Contains("100 dims"));
}

TEST_CASE("inputs with impossible shapes") {
  auto with = [](std::vector<TestDim> dims) {
    GraphMaker g;
    g.input("x", DType::f32, dims).node("Relu", {"x"}, {"y"}).output("y");
    return errors_of(g.model());
  };
  CHECK_THAT(with({int64_t(-3)}), Contains("negative"));
  CHECK_THAT(with({INT64_MAX, INT64_MAX}), Contains("too large"));
  CHECK_THAT(with(std::vector<TestDim>(50, int64_t(1))), Contains("50 dims"));
  GraphMaker g;
  g.input_without_shape("x", DType::f32).node("Relu", {"x"}, {"y"}).output("y");
  CHECK_THAT(errors_of(g.model()), Contains("--shape x="));
}

TEST_CASE("sizes that multiply without end") {
  GraphMaker g;
  g.input("x", DType::f32, {"N", "M"});
  SECTION("of shapes") {
    g.node("Shape", {"x"}, {"s0"});
    for (int i = 0; i < 200; ++i)
      g.node("Mul", {"s" + std::to_string(i), "s" + std::to_string(i)}, {"s" + std::to_string(i + 1)});
    g.node("Expand", {"x", "s200"}, {"y"}).output("y");
    errors_of(g.model()); // left to the run, which finds them too large
  }
  SECTION("of sums") {
    g.node("Shape", {"x"}, {"s0"}).node("ReduceSum", {"s0"}, {"t0"});
    for (int i = 0; i < 100; ++i) {
      std::string a = std::to_string(i), b = std::to_string(i + 1);
      g.node("Mul", {"t" + a, "t" + a}, {"u" + a}).node("Add", {"u" + a, "t" + a}, {"t" + b});
    }
    g.node("Expand", {"x", "t100"}, {"y"}).output("y");
    errors_of(g.model());
  }
  SECTION("of tensors") {
    for (int i = 0; i < 100; ++i) {
      std::string a = i ? "x" + std::to_string(i) : "x";
      g.node("Concat", {a, a}, {"x" + std::to_string(i + 1)}, {attr_i("axis", 0)});
    }
    g.output("x100");
    CHECK_THAT(errors_of(g.model()), Contains("Concat#6"));
  }
  SECTION("of strides") {
    for (int i = 0; i < 2000; ++i) {
      std::string a = i ? "x" + std::to_string(i) : "z";
      g.node("MaxPool", {a}, {"x" + std::to_string(i + 1)},
             {attr_ints("kernel_shape", {3}), attr_ints("strides", {2}), attr_ints("pads", {1, 0})});
    }
    g.input("z", DType::f32, {1, 1, "L"}).output("x2000");
    errors_of(g.model()); // an error or a result, but soon
  }
}

TEST_CASE("constants that would be computed to something huge") {
  GraphMaker g;
  g.weight("s", ints({1 << 20, 1 << 20})).weight("one", floats({1}, {1}));
  g.node("ConstantOfShape", {"s"}, {"big"}).node("Exp", {"big"}, {"e"}).node("Expand", {"one", "s"}, {"o"});
  g.node("Add", {"e", "o"}, {"y"}).output("y");
  Imported m(g.model()); // fine to compile: nothing is computed at import
  CHECK(m.ok);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  CHECK(usage.ru_maxrss < 2'000'000);
}

TEST_CASE("graphs nested without end") {
  std::string inner;
  {
    GraphMaker leaf;
    leaf.node("Neg", {"x"}, {"t"}).output("t");
    inner = leaf.bytes();
  }
  for (int i = 0; i < 500; ++i) {
    GraphMaker level;
    level.node("If", {"c"}, {"t"}, {attr_graph("then_branch", inner), attr_graph("else_branch", "")}).output("t");
    inner = level.bytes();
  }
  GraphMaker g;
  g.input("x", DType::f32, {2}).input("c", DType::bool_, {});
  g.node("If", {"c"}, {"y"}, {attr_graph("then_branch", inner), attr_graph("else_branch", inner)}).output("y");
  CHECK_THAT(errors_of(g.model()), Contains("nested too deeply"));
}

TEST_CASE("functions that call each other") {
  auto function = [](const std::string &name, const std::vector<std::string> &calls) {
    std::string out, set, field;
    pbf_writer s(set);
    s.add_string(1, ""), s.add_int64(2, 17);
    pbf_writer w(out);
    w.add_string(1, name), w.add_string(4, "in"), w.add_string(5, "v" + std::to_string(calls.size()));
    w.add_message(7, GraphMaker::node_proto("Neg", {"in"}, {"v0"}));
    for (size_t i = 0; i < calls.size(); ++i)
      w.add_message(7, GraphMaker::node_proto(calls[i], {"v" + std::to_string(i)}, {"v" + std::to_string(i + 1)}, {},
                                              "", "f"));
    w.add_message(9, set), w.add_string(10, "f");
    pbf_writer(field).add_message(25, out);
    return field;
  };
  GraphMaker g;
  g.input("x", DType::f32, {2}).node("f0", {"x"}, {"y"}, {}, "", "f").output("y");
  SECTION("in a circle") {
    CHECK_THAT(errors_of(g.model(17, function("f0", {"f1"}) + function("f1", {"f0"}))), Contains("calls itself"));
  }
  SECTION("ten times each, ten deep") {
    std::string all;
    for (int i = 0; i < 10; ++i)
      all += function("f" + std::to_string(i),
                      i < 9 ? std::vector<std::string>(10, "f" + std::to_string(i + 1)) : std::vector<std::string>());
    CHECK_THAT(errors_of(g.model(17, all)), Contains("too many nodes"));
  }
}
