// Infer and the verifier on random nonsense: whatever types, attributes and ids they are given, they
// answer; a crash or a failed KILN_CHECK ends this program.
#include "tests/ops_b/build.h"

#include <catch2/catch.hpp>

using namespace kiln;
using namespace kiln::test;

namespace {

class Chaos {
public:
  explicit Chaos(uint32_t seed) : random_(seed) {}

  size_t below(size_t n) { return n ? random_() % n : 0; }
  bool chance(int in) { return below(size_t(in)) == 0; }

  Dim dim() {
    constexpr int64_t kNumbers[] = {0, 1, 2, 3, 4, 7, -1, -2, 100, INT64_MAX, INT64_MIN, INT64_MAX / 2, 1 << 20};
    switch (below(6)) {
    case 0:
      return Dim::symbol(chance(2) ? "N" : "M");
    case 1:
      return Dim::symbol("N") * Dim(3) - Dim(2);
    case 2:
      return chance(4) ? Dim::invalid() : floordiv(Dim::symbol("N"), 2);
    default:
      return kNumbers[below(std::size(kNumbers))];
    }
  }

  std::vector<Dim> dims() {
    std::vector<Dim> out(below(6));
    for (Dim &d : out)
      d = dim();
    return out;
  }

  DType dtype() { return *dtype_from_code(int(1 + below(23))); }

  void spoil(TensorType &type) {
    switch (below(4)) {
    case 0:
      type.dtype = dtype();
      break;
    case 1:
      type.shape = dims();
      break;
    case 2:
      if (!type.shape.empty())
        type.shape.pop_back();
      break;
    default:
      if (!type.shape.empty())
        type.shape[below(type.shape.size())] = dim();
    }
  }

  void spoil(Attr &attr) {
    if (auto *flag = std::get_if<bool>(&attr))
      *flag = !*flag;
    else if (auto *d = std::get_if<Dim>(&attr))
      *d = dim();
    else if (auto *number = std::get_if<double>(&attr))
      *number = chance(3) ? std::numeric_limits<double>::quiet_NaN() : chance(2) ? -1e300 : 0;
    else if (auto *text = std::get_if<std::string>(&attr))
      *text = "nonsense";
    else if (auto *t = std::get_if<DType>(&attr))
      *t = dtype();
    else if (auto *list = std::get_if<std::vector<Dim>>(&attr)) {
      if (list->empty() || chance(3))
        *list = dims();
      else
        (*list)[below(list->size())] = dim();
    } else if (auto *reals = std::get_if<std::vector<double>>(&attr))
      reals->resize(below(5), -3.5);
    else
      attr = ConstantId(below(3));
  }

  void spoil(std::vector<ValueId> &ids, size_t values) {
    if (ids.empty() || chance(4))
      ids.push_back(ValueId(below(values + 2)));
    else if (chance(4))
      ids.pop_back();
    else
      ids[below(ids.size())] = chance(5) ? ValueId() : ValueId(below(values + 2));
  }

  void spoil(Module &module) {
    Function &f = module.functions[below(module.functions.size())];
    if (f.nodes.empty() || f.values.empty())
      return;
    Node &node = f.nodes[below(f.nodes.size())];
    Value &value = f.values[below(f.values.size())];
    Block *block = &f.body;
    if (!node.regions.empty() && chance(2))
      block = &node.regions[below(node.regions.size())];
    switch (below(12)) {
    case 0:
      return spoil(node.operands, f.values.size());
    case 1:
      return spoil(node.results, f.values.size());
    case 2:
      node.op = Op(below(all_ops().size() + 2));
      return;
    case 3:
      return spoil(value.type);
    case 4:
      value.def = chance(3) ? NodeId() : NodeId(below(f.nodes.size() + 3));
      return;
    case 5:
      return spoil(block->args, f.values.size());
    case 6:
      return spoil(block->results, f.values.size());
    case 7:
      block->nodes.insert(block->nodes.begin() + std::ptrdiff_t(below(block->nodes.size() + 1)),
                          NodeId(below(f.nodes.size() + 2)));
      return;
    case 8:
      if (!block->nodes.empty())
        block->nodes.erase(block->nodes.begin() + std::ptrdiff_t(below(block->nodes.size())));
      return;
    case 9:
      if (!node.attrs.all().empty()) {
        auto [name, attr] = node.attrs.all()[below(node.attrs.all().size())];
        if (chance(4))
          node.attrs.erase(name);
        else {
          spoil(attr);
          node.attrs.set(name, attr);
        }
      }
      return;
    case 10:
      node.regions.push_back(chance(2) ? f.body : Block{});
      return;
    default:
      value.layout.order = {int(below(4)), int(below(4)) - 1};
      value.layout.blocks = {{int(below(5)) - 1, int64_t(below(3))}};
    }
  }

private:
  std::mt19937 random_;
};

// A bidirectional lstm, decomposed: scans, slices, dots.
Module lstm_module() {
  TensorType x{DType::f32, {3, 2, 4}}, w{DType::f32, {2, 8, 4}}, r{DType::f32, {2, 8, 2}};
  OneNode n = one_node(Op::lstm, {x, w, r}, {{"direction", std::string("bidirectional")}});
  Function &f = n.function();
  Node node = f.node(n.node);
  f.body.nodes.clear();
  f.node(n.node).removed = true;
  GraphBuilder b(n.module, f, f.body);
  f.body.results = op_def(Op::lstm).decompose(b, node);
  return std::move(n.module);
}

} // namespace

TEST_CASE("infer survives random types and attributes") {
  Chaos chaos(11);
  size_t accepted = 0, refused = 0;
  for (const OpDef *def : all_ops())
    for (const OpSample &sample : def->samples)
      for (int round = 0; round < 60; ++round) {
        auto types = sample.operands;
        Attrs attrs = sample.attrs;
        for (size_t n = 1 + chaos.below(3); n-- > 0;) {
          if (!types.empty() && chaos.chance(2))
            chaos.spoil(types[chaos.below(types.size())]);
          else if (!attrs.all().empty()) {
            auto [name, attr] = attrs.all()[chaos.below(attrs.all().size())];
            chaos.spoil(attr);
            attrs.set(name, attr);
          }
        }
        OneNode n = one_node(*find_op(def->name), types, attrs);
        ++(n.node.valid() ? accepted : refused);
        // A message says something.
        CHECK((n.node.valid() || n.error.size() > def->name.size() + 10));
      }
  CHECK(accepted > 1000);
  CHECK(refused > 1000);
}

TEST_CASE("verify survives random damage") {
  Module sound = lstm_module();
  Diagnostics none;
  verify(sound, none);
  INFO(none.render());
  REQUIRE(!none.has_errors());
  Chaos chaos(5);
  size_t refused = 0;
  for (int round = 0; round < 2000; ++round) {
    Module module = sound;
    for (size_t n = 1 + chaos.below(3); n-- > 0;)
      chaos.spoil(module);
    Diagnostics diagnostics;
    verify(module, diagnostics);
    refused += diagnostics.has_errors();
  }
  CHECK(refused > 1200);
}
