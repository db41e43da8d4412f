// What holds for every op of the table, by going over the table: parts that must be there, types,
// and that the op's code form computes what its ref says, on every sample.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>

#include "ir/interpret.h"
#include "tests/ops/sample.h"

using namespace kiln;
using namespace kiln::test;

namespace {

// Every op on every sample, as a module and inputs.
template <typename F>
void for_each_sample(const F &f) {
  for (size_t i = 0; i < all_ops().size(); ++i) {
    Op op = Op(i);
    for (const OpSample &sample : op_def(op).samples) {
      auto module = sample_module(op, sample);
      INFO(sample_text(op, sample));
      if (!module)
        FAIL_CHECK(module.error().message);
      else
        f(op, *module, sample_inputs(sample), sample_text(op, sample));
    }
  }
}

Result<std::vector<Tensor>> reference(const Module &module, const std::vector<Tensor> &inputs) {
  VariableValues none;
  return interpret(module, module.functions[0], inputs, none);
}

void check_same(Op op, const std::vector<Tensor> &got, const std::vector<Tensor> &want) {
  REQUIRE(got.size() == want.size());
  for (size_t i = 0; i < got.size(); ++i)
    if (std::string message = compare(op_def(op), got[i], want[i]); !message.empty())
      FAIL_CHECK("result " << i << ": " << message);
}

} // namespace

TEST_CASE("every op has all of its parts") {
  for (const OpDef *def : all_ops()) {
    INFO(std::string(def->name));
    CHECK(!def->doc.empty());
    CHECK(def->infer != nullptr);
    int forms = (def->scalar != nullptr) + (def->element != nullptr) + (def->reduce != nullptr) +
                (def->lower != nullptr) + (def->decompose != nullptr) + int(def->structural);
    CHECK(forms == 1);
    CHECK((def->ref != nullptr) == !def->structural);
    CHECK((!def->samples.empty() || def->structural));
    CHECK(def->has(kElementwise) == (def->scalar != nullptr));
    CHECK((!def->has(kReduction) || def->reduce));
    CHECK((!def->has(kContraction) || def->reduce));
    CHECK((!def->has(kWindow) || def->reduce));
    CHECK((def->max_operands < 0 || def->min_operands <= def->max_operands));
    CHECK(find_op(def->name).has_value());
    for (const AttrSpec &attr : def->attrs)
      CHECK(!attr.name.empty());
  }
}

TEST_CASE("the reference gives the types that infer says, for every sample") {
  for_each_sample(
      [](Op, const Module &module, const std::vector<Tensor> &inputs, const std::string &text) {
        INFO(text);
        auto results = reference(module, inputs);
        if (!results) {
          FAIL_CHECK(results.error().message);
          return;
        }
        const Function &f = module.functions[0];
        for (size_t i = 0; i < results->size(); ++i)
          CHECK((*results)[i].type().text() == f.type(f.body.results[i]).text());
      });
}

TEST_CASE("the naive kernel computes what the reference does, for every sample") {
  for_each_sample(
      [](Op op, const Module &module, const std::vector<Tensor> &inputs, const std::string &text) {
        if (op_def(op).decompose || op_def(op).structural)
          return;
        INFO(text);
        auto want = reference(module, inputs), got = run_kernel(module, inputs);
        if (!want || !got) {
          FAIL_CHECK((want ? got : want).error().message);
          return;
        }
        check_same(op, *got, *want);
      });
}

// Ops whose samples all need known sizes, in operands or attributes, do not take part.
TEST_CASE("with symbolic sizes the kernel computes the same") {
  int run = 0;
  for (size_t i = 0; i < all_ops().size(); ++i) {
    Op op = Op(i);
    const OpDef &def = op_def(op);
    if (def.decompose || def.structural)
      continue;
    for (const OpSample &sample : def.samples) {
      auto fixed = sample_module(op, sample), open = sample_module(op, symbolic(sample));
      if (!fixed || !open)
        continue;
      INFO(sample_text(op, symbolic(sample)));
      auto inputs = sample_inputs(sample);
      auto want = reference(*fixed, inputs), got = run_kernel(*open, inputs);
      if (!want || !got) {
        FAIL_CHECK((want ? got : want).error().message);
        continue;
      }
      check_same(op, *got, *want);
      ++run;
    }
  }
  CHECK(run > 700);
}

TEST_CASE("a decomposition computes what the reference does, for every sample") {
  for_each_sample(
      [](Op op, const Module &module, const std::vector<Tensor> &inputs, const std::string &text) {
        if (!op_def(op).decompose)
          return;
        INFO(text);
        Module parts = module;
        Function &f = parts.functions[0];
        Node node = f.node(f.body.nodes[0]);
        GraphBuilder builder(parts, f, f.body);
        f.body.results = op_def(op).decompose(builder, node);
        auto want = reference(module, inputs), got = reference(parts, inputs);
        if (!want || !got) {
          FAIL_CHECK((want ? got : want).error().message);
          return;
        }
        for (size_t i = 0; i < got->size(); ++i)
          CHECK(f.type(f.body.results[i]).text() == (*want)[i].type().text());
        check_same(op, *got, *want);
      });
}

// f(a, b) = f(b, a), f(f(x)) = x, f(f(x)) = f(x), f(0) = 0.
TEST_CASE("ops have the traits they claim") {
  Module empty;
  auto apply = [&](Op op, std::vector<const Tensor *> operands, const Attrs &attrs) {
    auto results = evaluate(empty, op, operands, attrs);
    REQUIRE(results.ok());
    return (*results)[0];
  };
  for_each_sample(
      [&](Op op, const Module &module, const std::vector<Tensor> &inputs, const std::string &text) {
        INFO(text);
        const OpDef &def = op_def(op);
        const Function &f = module.functions[0];
        const Attrs &attrs = f.node(f.body.nodes[0]).attrs;
        if (def.has(kCommutative))
          check_same(op, {apply(op, {&inputs[1], &inputs[0]}, attrs)},
                     {apply(op, {&inputs[0], &inputs[1]}, attrs)});
        if (def.has(kInvolution) || def.has(kIdempotent)) {
          Tensor once = apply(op, {&inputs[0]}, attrs), twice = apply(op, {&once}, attrs);
          check_same(op, {twice}, {def.has(kInvolution) ? inputs[0] : once});
        }
        if (def.has(kZeroPreserving) && def.has(kElementwise)) {
          Tensor zero(inputs[0].dtype(), {1}), result = apply(op, {&zero}, attrs);
          CHECK(result.at_f64(0) == 0);
        }
      });
}
