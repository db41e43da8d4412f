// The domain ai.onnx.ml: trees, linear models, support vector machines, features.
#include "tests/onnx/harness.h"

#include <cmath>
#include <limits>

using namespace kiln;
using namespace kiln::test;
using Catch::Contains;

namespace {

GraphMaker &ml(GraphMaker &g, const std::string &type, const Names &outputs, std::vector<std::string> attributes) {
  return g.node(type, {"x"}, outputs, attributes, "", "ai.onnx.ml");
}

// Tree 0: x[0] <= 1 ? (x[1] > 2 ? leaf 3 : leaf 4) : leaf 2; tree 1: a leaf alone. NaN in x[0] goes left.
std::vector<std::string> two_trees(std::vector<int64_t> yes = {1, 3, 0, 0, 0, 0}) {
  return {attr_ints("nodes_treeids", {0, 0, 0, 0, 0, 1}),
          attr_ints("nodes_nodeids", {0, 1, 2, 3, 4, 0}),
          attr_ints("nodes_featureids", {0, 1, 0, 0, 0, 0}),
          attr_strings("nodes_modes", {"BRANCH_LEQ", "BRANCH_GT", "LEAF", "LEAF", "LEAF", "LEAF"}),
          attr_floats("nodes_values", {1, 2, 0, 0, 0, 0}),
          attr_ints("nodes_missing_value_tracks_true", {1, 0, 0, 0, 0, 0}),
          attr_ints("nodes_truenodeids", yes),
          attr_ints("nodes_falsenodeids", {2, 4, 0, 0, 0, 0})};
}

std::vector<std::string> leaves(const std::string &what) {
  return {attr_ints(what + "_treeids", {0, 0, 0, 1}), attr_ints(what + "_nodeids", {2, 3, 4, 0}),
          attr_ints(what + "_ids", {0, 0, 1, 1}), attr_floats(what + "_weights", {10, 20, 30, 5})};
}

std::vector<std::string> joined(std::vector<std::string> a, const std::vector<std::string> &b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
const std::vector<double> kRows = {0, 3, 0, 1, 4, 0, kNan, 9}; // leaves 3, 4, 2, 3

} // namespace

TEST_CASE("an ensemble of trees") {
  for (auto [function, want] :
       {std::pair("SUM", std::vector<double>{20, 5, 0, 35, 10, 5, 20, 5}),
        std::pair("AVERAGE", std::vector<double>{10, 2.5, 0, 17.5, 5, 2.5, 10, 2.5})}) {
    GraphMaker g;
    g.input("x", DType::f32, {"N", 2});
    ml(g, "TreeEnsembleRegressor", {"y"},
       joined(joined(two_trees(), leaves("target")), {attr_i("n_targets", 2), attr_s("aggregate_function", function)}));
    g.output("y");
    Imported m(g.model());
    check_near(m.run({floats({4, 2}, kRows)})[0], want);
  }
  GraphMaker g;
  g.input("x", DType::f32, {"N", 2});
  ml(g, "TreeEnsembleClassifier", {"label", "scores"},
     joined(joined(two_trees(), leaves("class")), {attr_ints("classlabels_int64s", {7, 9})}));
  g.output("label").output("scores");
  Imported m(g.model());
  auto out = m.run({floats({4, 2}, kRows)});
  check_near(out[0], {7, 9, 7, 7});
  check_near(out[1], {20, 5, 0, 35, 10, 5, 20, 5});
}

TEST_CASE("trees that are none are refused with the place") {
  auto errors = [&](std::vector<std::string> nodes, std::vector<std::string> weights) {
    GraphMaker g;
    g.input("x", DType::f32, {3, 2});
    ml(g, "TreeEnsembleRegressor", {"y"}, joined(std::move(nodes), weights));
    g.output("y");
    Imported m(g.model());
    CHECK_FALSE(m.ok);
    return m.errors();
  };
  auto weights = joined(leaves("target"), {attr_i("n_targets", 2)});
  CHECK_THAT(errors(two_trees({1, 0, 0, 0, 0, 0}), weights), Contains("that is no tree"));
  CHECK_THAT(errors(two_trees({1, 44, 0, 0, 0, 0}), weights), Contains("node 1 of tree 0 leads to node 44, which is not there"));
  CHECK_THAT(errors(two_trees({1, 3}), weights), Contains("are not of the same length"));
  CHECK_THAT(errors(two_trees(), leaves("target")), Contains("a leaf has a weight for target 1 of 1"));
  CHECK_THAT(errors({}, weights), Contains("it has 0 nodes"));
}

TEST_CASE("linear models") {
  GraphMaker g;
  g.input("x", DType::f32, {2, 2});
  ml(g, "LinearClassifier", {"label", "scores"},
     {attr_floats("coefficients", {1, 0, 0, 1, -1, -1}), attr_floats("intercepts", {0, 0.5, 0}),
      attr_ints("classlabels_ints", {4, 5, 6}), attr_s("post_transform", "LOGISTIC")});
  ml(g, "LinearRegressor", {"y"}, {attr_floats("coefficients", {2, 3}), attr_floats("intercepts", {1})});
  g.output("label").output("scores").output("y");
  Imported m(g.model());
  auto out = m.run({floats({2, 2}, {2, 1, -1, -2})});
  check_near(out[0], {4, 6});
  auto logistic = [](double v) { return 1 / (1 + std::exp(-v)); };
  check_near(out[1], {logistic(2), logistic(1.5), logistic(-3), logistic(-1), logistic(-1.5), logistic(3)});
  check_near(out[2], {8, -7});
}

TEST_CASE("a support vector machine with probabilities") {
  // Two vectors, (1, 0) of class 0 and (0, 1) of class 1; the score is exp(-|x-a|^2) - exp(-|x-b|^2).
  auto classifier = [&](bool probabilities) {
    GraphMaker g;
    g.input("x", DType::f32, {2, 2});
    std::vector<std::string> attributes = {
        attr_s("kernel_type", "RBF"), attr_floats("kernel_params", {1, 0, 3}), attr_ints("classlabels_ints", {0, 1}),
        attr_ints("vectors_per_class", {1, 1}), attr_floats("support_vectors", {1, 0, 0, 1}),
        attr_floats("coefficients", {1, -1}), attr_floats("rho", {0})};
    if (probabilities)
      attributes = joined(attributes, {attr_floats("prob_a", {-2}), attr_floats("prob_b", {0})});
    ml(g, "SVMClassifier", {"label", "scores"}, attributes);
    g.output("label").output("scores");
    Imported m(g.model());
    return m.run({floats({2, 2}, {1, 0, 0.25, 0.75})});
  };
  double first = 1 - std::exp(-2.0), second = std::exp(-1.125) - std::exp(-0.125);
  auto plain = classifier(false);
  check_near(plain[0], {0, 1});
  check_near(plain[1], {-first, first, -second, second}, 1e-5);
  auto shares = classifier(true);
  check_near(shares[0], {0, 1});
  std::vector<double> p = values(shares[1]);
  // The descent of pairwise coupling stops within 0.005 / 2 of the pair's own probability.
  CHECK(p[0] == Approx(1 / (1 + std::exp(-2 * first))).margin(0.01));
  CHECK(p[2] == Approx(1 / (1 + std::exp(-2 * second))).margin(0.01));
  CHECK(p[0] + p[1] == Approx(1));
}

TEST_CASE("features before a model") {
  GraphMaker g;
  g.input("x", DType::f32, {2, 2});
  ml(g, "Scaler", {"scaled"}, {attr_floats("offset", {1, 2}), attr_floats("scale", {2, 10})});
  ml(g, "Normalizer", {"l1"}, {attr_s("norm", "L1")});
  ml(g, "Imputer", {"imputed"}, {attr_floats("imputed_value_floats", {7, 8}), attr_f("replaced_value_float", 0)});
  ml(g, "Binarizer", {"binary"}, {attr_f("threshold", 2)});
  for (const char *name : {"scaled", "l1", "imputed", "binary"})
    g.output(name);
  Imported m(g.model());
  auto out = m.run({floats({2, 2}, {3, -1, 0, 0})});
  check_near(out[0], {4, -30, -2, -20});
  check_near(out[1], {0.75, -0.25, 0, 0});
  check_near(out[2], {3, -1, 7, 8});
  check_near(out[3], {1, 0, 0, 0});
}

TEST_CASE("encoders of labels") {
  GraphMaker g;
  g.input("x", DType::i64, {3});
  ml(g, "LabelEncoder", {"y"},
     {attr_ints("keys_int64s", {1, 5, 1}), attr_floats("values_floats", {0.5, 2.5, 9}), attr_f("default_float", -1)});
  ml(g, "OneHotEncoder", {"hot"}, {attr_ints("cats_int64s", {5, 1})});
  g.output("y").output("hot");
  Imported m(g.model());
  auto out = m.run({ints({1, 5, 6})});
  check_near(out[0], {0.5, 2.5, -1});
  check_near(out[1], {0, 1, 1, 0, 0, 0});
  GraphMaker strings;
  strings.input("x", DType::i64, {3});
  ml(strings, "LabelEncoder", {"y"}, {attr_ints("keys_int64s", {1}), attr_strings("values_strings", {"a"})});
  strings.output("y");
  CHECK(Imported(strings.model()).result_type().text() == "u8[3, 7]"); // as wide as "_Unused"
}
