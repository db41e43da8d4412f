// Operators that draw random numbers: moments, seeds, and the state of nodes without one.
#include "tests/onnx/harness.h"

#include <algorithm>
#include <cmath>

using namespace kiln;
using namespace kiln::test;
using Catch::Contains;

namespace {

struct Drawn {
  GraphMaker g;
  explicit Drawn(const std::string &type, std::vector<std::string> attributes, const Names &inputs = {}) {
    g.node(type, inputs, {"y"}, attributes).output("y");
  }
};

std::vector<double> run_with(const Imported &m, VariableValues &variables, const std::vector<Tensor> &inputs = {}) {
  INFO(m.errors());
  REQUIRE(m.ok);
  auto results = interpret(m.module, m.main(), inputs, variables);
  REQUIRE(results.ok());
  return values(results->at(0));
}

std::vector<double> draw(const Imported &m, const std::vector<Tensor> &inputs = {}) {
  auto variables = initial_variables(m.module);
  REQUIRE(variables.ok());
  return run_with(m, *variables, inputs);
}

double mean(const std::vector<double> &x) {
  double sum = 0;
  for (double v : x)
    sum += v;
  return sum / double(x.size());
}

double deviation(const std::vector<double> &x) {
  double m = mean(x), sum = 0;
  for (double v : x)
    sum += (v - m) * (v - m);
  return std::sqrt(sum / double(x.size()));
}

} // namespace

TEST_CASE("uniform and normal numbers") {
  std::vector<std::string> shape = {attr_ints("shape", {100, 100})};
  for (int dtype : {1, 11}) {
    Imported u(Drawn("RandomUniform", {shape[0], attr_f("low", 2), attr_f("high", 4), attr_i("dtype", dtype)}).g.model());
    auto x = draw(u);
    CHECK(mean(x) == Approx(3).margin(0.03));
    CHECK(deviation(x) == Approx(2 / std::sqrt(12)).margin(0.02));
    CHECK(*std::min_element(x.begin(), x.end()) >= 2);
    CHECK(*std::max_element(x.begin(), x.end()) < 4);
    Imported n(Drawn("RandomNormal", {shape[0], attr_f("mean", -1), attr_f("scale", 2), attr_i("dtype", dtype)}).g.model());
    auto y = draw(n);
    CHECK(mean(y) == Approx(-1).margin(0.1));
    CHECK(deviation(y) == Approx(2).margin(0.1));
  }
  Imported wrong(Drawn("RandomUniform", {attr_ints("shape", {-1})}).g.model());
  CHECK_THAT(wrong.errors(), Contains("'shape' has the size -1"));
}

TEST_CASE("a seed makes a function; without one every run draws on") {
  std::vector<std::string> shape = {attr_ints("shape", {8})};
  Imported free(Drawn("RandomUniform", shape).g.model());
  REQUIRE(free.module.variables.size() == 1);
  CHECK(free.module.variables[0].name == "random.draws");
  auto variables = initial_variables(free.module);
  REQUIRE(variables.ok());
  auto first = run_with(free, *variables), second = run_with(free, *variables);
  CHECK(first != second);
  CHECK(draw(free) == first); // from the start again
  auto seeded = [&](float seed) {
    Imported m(Drawn("RandomUniform", {shape[0], attr_f("seed", seed)}).g.model());
    CHECK(m.module.variables.empty());
    return draw(m);
  };
  CHECK(seeded(1) == seeded(1));
  CHECK(seeded(1) != seeded(2));
  CHECK(seeded(0) != first);
}

TEST_CASE("choices") {
  Drawn coin("Bernoulli", {}, {"x"});
  coin.g.input("x", DType::f32, {3, 4000});
  Tensor p(DType::f32, {3, 4000});
  for (int64_t i = 0; i < p.count(); ++i)
    p.set_f64(i, i < 4000 ? 0 : i < 8000 ? 0.25 : 1);
  auto heads = draw(Imported(coin.g.model()), {p});
  CHECK(mean({heads.begin(), heads.begin() + 4000}) == 0);
  CHECK(mean({heads.begin() + 4000, heads.begin() + 8000}) == Approx(0.25).margin(0.02));
  CHECK(mean({heads.begin() + 8000, heads.end()}) == 1);

  Drawn die("Multinomial", {attr_i("sample_size", 4000), attr_i("dtype", 7)}, {"x"});
  die.g.input("x", DType::f32, {1, 3});
  auto faces = draw(Imported(die.g.model()), {floats({1, 3}, {std::log(0.25), std::log(0.75), -1000})});
  CHECK(mean(faces) == Approx(0.75).margin(0.02));
  CHECK(*std::max_element(faces.begin(), faces.end()) == 1);
}

TEST_CASE("dropout in training") {
  GraphMaker g;
  g.input("x", DType::f32, {4000}).input("r", DType::f32, {}).input("t", DType::bool_, {});
  g.node("Dropout", {"x", "r", "t"}, {"y", "m"}, {attr_i("seed", 3)}).output("y").output("m");
  Imported m(g.model());
  Tensor x(DType::f32, {4000}), yes = Tensor::scalar_f64(DType::bool_, 1), no = Tensor::scalar_f64(DType::bool_, 0);
  for (int64_t i = 0; i < x.count(); ++i)
    x.set_f64(i, double(i + 1));
  auto out = m.run({x, floats({}, {0.75}), yes});
  double kept = 0;
  for (int64_t i = 0; i < x.count(); ++i) {
    CHECK(out[0].at_f64(i) == (out[1].at_i64(i) ? 4.0 * double(i + 1) : 0));
    kept += double(out[1].at_i64(i)) / 4000;
  }
  CHECK(kept == Approx(0.25).margin(0.03));
  CHECK(values(m.run({x, floats({}, {0}), yes})[0]) == values(x));
  CHECK(values(m.run({x, floats({}, {0.75}), no})[0]) == values(x));
}
