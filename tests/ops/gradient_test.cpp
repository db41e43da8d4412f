// The gradient of every op of the table, on its samples, in f64: against central differences along random
// directions, and the gradient of the gradient too.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "ir/grad/grad.h"
#include "ir/grad/rules.h"
#include "ir/interpret.h"
#include "tests/ops/sample.h"

#include <cmath>
#include <fmt/format.h>

using namespace kiln;
using namespace kiln::test;

namespace {

constexpr double kEps = 1e-6, kRtol = 1e-3, kAtol = 1e-5;

Tensor random_like(const Tensor &x, uint64_t seed) {
  OpSample sample{{x.type()}, {}, -1, 1};
  return sample_inputs(sample, seed)[0];
}

double inner(const Tensor &a, const Tensor &b) {
  double sum = 0;
  for (int64_t i = 0; i < a.count(); ++i)
    sum += a.at_f64(i) * b.at_f64(i);
  return sum;
}

// A function of floats (some of its inputs) to one number.
struct Scalar {
  Module module;
  std::vector<ValueId> wrt;
  std::vector<size_t> places; // of wrt among the inputs

  Function &f() { return module.functions[0]; }

  double operator()(const std::vector<Tensor> &inputs) const {
    VariableValues none;
    auto out = interpret(module, module.functions[0], inputs, none);
    REQUIRE(out.ok());
    return (*out)[0].at_f64(0);
  }
};

// sum over results of <result, fixed random numbers>, as further nodes; the function's one result.
void reduce_to_scalar(Scalar &s, std::vector<ValueId> values, uint64_t seed) {
  GraphBuilder b(s.module, s.f(), s.f().body);
  ValueId total = b.scalar(DType::f64, 0);
  for (ValueId v : values) {
    TensorType type = b.type(v);
    if (type.dtype != DType::f64)
      continue;
    std::vector<int64_t> dims;
    std::vector<Dim> axes;
    for (const Dim &d : type.shape)
      axes.push_back(int64_t(dims.size())), dims.push_back(d.as_const());
    ValueId weights = b.constant(random_like(Tensor(DType::f64, dims), ++seed));
    ValueId product = b(Op::mul, {v, weights});
    if (!axes.empty())
      product = b(Op::reduce_sum, {product}, {{"axes", axes}, {"keepdims", false}});
    total = b(Op::add, {total, product});
  }
  s.f().body.results = {total};
  s.f().result_names = {"loss"};
}

OpSample in_f64(const OpSample &sample) {
  OpSample out = sample;
  for (TensorType &type : out.operands)
    if (is_float(type.dtype))
      type.dtype = DType::f64;
  return out;
}

std::vector<Tensor> gradient_at(const Scalar &s, const std::vector<ValueId> &gradients,
                                const std::vector<Tensor> &inputs) {
  Module module = s.module;
  Function &f = module.functions[0];
  f.body.results = gradients;
  f.result_names.assign(gradients.size(), "g");
  Diagnostics diagnostics;
  verify(module, diagnostics);
  if (diagnostics.has_errors())
    FAIL(print_module(module) << "\n" << diagnostics.all()[0].message);
  VariableValues none;
  auto out = interpret(module, f, inputs, none);
  if (!out)
    FAIL(out.error().message << "\n" << print_module(module));
  return *out;
}

// <gradient, v> against (s(x + eps v) - s(x - eps v)) / 2 eps.
void check_gradient(const Scalar &s, const std::vector<ValueId> &gradients, const std::vector<Tensor> &inputs) {
  auto exact = gradient_at(s, gradients, inputs);
  for (uint64_t direction = 1; direction <= 3; ++direction) {
    double slope = 0;
    std::vector<Tensor> up = inputs, down = inputs;
    for (size_t k = 0; k < s.places.size(); ++k) {
      const Tensor &x = inputs[s.places[k]];
      Tensor v = random_like(x, 1000 * direction + k);
      slope += inner(exact[k], v);
      for (auto [moved, sign] : {std::pair{&up, 1.0}, std::pair{&down, -1.0}})
        for (int64_t i = 0; i < x.count(); ++i)
          (*moved)[s.places[k]].set_f64(i, x.at_f64(i) + sign * kEps * v.at_f64(i));
    }
    double measured = (s(up) - s(down)) / (2 * kEps);
    if (!(std::fabs(slope - measured) <= kAtol + kRtol * std::fabs(measured))) {
      FAIL_CHECK("direction " << direction << ": the gradient says " << slope << ", the difference quotient "
                              << measured);
      return;
    }
  }
}

} // namespace

TEST_CASE("every op has a gradient, or is made of others, or says why it has none") {
  for (size_t i = 0; i < all_ops().size(); ++i) {
    const OpDef &def = op_def(Op(i));
    INFO(std::string(def.name));
    const grad::OpGrad *rule = grad::find_rule(Op(i));
    CHECK((rule != nullptr || def.decompose != nullptr));
    if (rule)
      CHECK((rule->rule != nullptr) == rule->none.empty());
  }
}

TEST_CASE("gradients are what difference quotients say, for every sample, and theirs too") {
  int first = 0, second = 0;
  for (size_t i = 0; i < all_ops().size(); ++i) {
    Op op = Op(i);
    const OpDef &def = op_def(op);
    const grad::OpGrad *rule = grad::find_rule(op);
    if (def.structural || (rule && !rule->none.empty()) || op == Op::stop_gradient)
      continue;
    for (const OpSample &original : def.samples) {
      OpSample sample = in_f64(original);
      const Attr *reduction = sample.attrs.find("reduction");
      if (reduction && *reduction != Attr(std::string("none")) && *reduction != Attr(std::string("add")))
        continue; // scatters of products and extrema refuse
      auto module = sample_module(op, sample);
      if (!module)
        continue;
      INFO(sample_text(op, sample));
      std::vector<Tensor> inputs = sample_inputs(sample);
      Scalar s{*module, {}, {}};
      for (size_t k = 0; k < sample.operands.size(); ++k)
        if (is_float(sample.operands[k].dtype))
          s.wrt.push_back(s.f().body.args[k]), s.places.push_back(k);
      if (s.wrt.empty() || s.f().type(s.f().body.results[0]).dtype != DType::f64)
        continue;
      reduce_to_scalar(s, s.f().body.results, 7);
      GraphBuilder b(s.module, s.f(), s.f().body);
      auto gradients = gradient(b, s.f().body.results[0], s.wrt);
      if (!gradients) {
        FAIL_CHECK(gradients.error().message);
        continue;
      }
      check_gradient(s, *gradients, inputs);
      ++first;
      reduce_to_scalar(s, *gradients, 70);
      GraphBuilder again(s.module, s.f(), s.f().body);
      auto curvature = gradient(again, s.f().body.results[0], s.wrt);
      if (!curvature) {
        FAIL_CHECK("second order: " << curvature.error().message);
        continue;
      }
      INFO("second order");
      check_gradient(s, *curvature, inputs);
      ++second;
    }
  }
  CHECK(first > 250);
  CHECK(second > 250);
}
