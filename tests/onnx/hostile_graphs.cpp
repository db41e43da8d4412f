// Graphs that are wired wrongly: names, order, cycles, functions, subgraphs.
#include "tests/onnx/hostile_cases.h"

#include <fmt/format.h>

namespace kiln::test {
namespace {

using Build = std::function<void(GraphMaker &)>;

std::string branch(const Build &build) {
  GraphMaker g;
  build(g);
  return g.bytes();
}

std::string function(const std::string &name, const Names &inputs, const Names &outputs, const std::vector<std::string> &nodes) {
  std::string out, set, field;
  pbf_writer s(set);
  s.add_string(1, ""), s.add_int64(2, 17);
  pbf_writer w(out);
  w.add_string(1, name);
  for (const std::string &i : inputs)
    w.add_string(4, i);
  for (const std::string &o : outputs)
    w.add_string(5, o);
  for (const std::string &n : nodes)
    w.add_message(7, n);
  w.add_message(9, set), w.add_string(10, "f");
  pbf_writer(field).add_message(25, out);
  return field + NodeModel::opset_import("f");
}

void add_wiring(HostileCases &cases) {
  auto add = [&](const std::string &name, const std::string &expect, const Build &build, const std::string &extra = "") {
    GraphMaker g;
    g.input("x", DType::f32, {2});
    build(g);
    cases.push_back({"graph_" + name, g.model(17, extra), expect});
  };
  add("cycle_of_two", "one, two", [](GraphMaker &g) { g.node("Add", {"x", "b"}, {"a"}, {}, "one").node("Neg", {"a"}, {"b"}, {}, "two").output("b"); });
  add("cycle_of_one", kBad, [](GraphMaker &g) { g.node("Add", {"x", "a"}, {"a"}, {}, kBad).output("a"); });
  add("cycle_of_1000", "n0", [](GraphMaker &g) {
    for (int i = 0; i < 1000; ++i)
      g.node("Neg", {fmt::format("v{}", (i + 999) % 1000)}, {fmt::format("v{}", i)}, {}, fmt::format("n{}", i));
    g.output("v0");
  });
  add("cycle_off_the_way", "one, two", [](GraphMaker &g) {
    g.node("Neg", {"b"}, {"a"}, {}, "one").node("Neg", {"a"}, {"b"}, {}, "two").node("Neg", {"x"}, {"y"}).output("y");
  });
  add("undefined_input", "'nothing'", [](GraphMaker &g) { g.node("Add", {"x", "nothing"}, {"y"}, {}, kBad).output("y"); });
  add("undefined_output", "'nothing'", [](GraphMaker &g) { g.output("nothing"); });
  add("no_output", "no outputs", [](GraphMaker &) {});
  add("no_nodes_output_undefined", "'y'", [](GraphMaker &g) { g.output("y"); });
  add("output_without_name", "output", [](GraphMaker &g) { g.node("Neg", {"x"}, {"y"}).output(""); });
  add("output_twice", "'y'", [](GraphMaker &g) { g.node("Neg", {"x"}, {"y"}).output("y").output("y"); });
  add("value_twice", "'a'", [](GraphMaker &g) { g.node("Neg", {"x"}, {"a"}).node("Abs", {"x"}, {"a"}, {}, kBad).output("a"); });
  add("value_twice_in_a_node", "'a'", [](GraphMaker &g) { g.node("Split", {"x"}, {"a", "a"}, {attr_i("axis", 0)}, kBad).output("a"); });
  add("input_twice", "'x'", [](GraphMaker &g) { g.input("x", DType::f32, {2}).node("Neg", {"x"}, {"y"}).output("y"); });
  add("input_computed", "'x'", [](GraphMaker &g) { g.node("Neg", {"x"}, {"x"}, {}, kBad).output("x"); });
  add("weight_twice", "'w'", [](GraphMaker &g) { g.weight("w", ints({1})).weight("w", ints({2})).output("w"); });
  add("weight_computed", "'w'", [](GraphMaker &g) { g.weight("w", floats({2}, {1, 2})).node("Neg", {"x"}, {"w"}, {}, kBad).output("w"); });
  add("input_and_weight_differ", "'x'", [](GraphMaker &g) { g.weight("x", floats({3}, {1, 2, 3})).node("Neg", {"x"}, {"y"}, {}, kBad).output("y"); });
  add("unknown_operator", kBad, [](GraphMaker &g) { g.node("Frobnicate", {"x"}, {"y"}, {}, kBad).output("y"); });
  add("operator_without_name", kBad, [](GraphMaker &g) { g.node("", {"x"}, {"y"}, {}, kBad).output("y"); });
  add("unknown_domain", kBad, [](GraphMaker &g) { g.node("Relu", {"x"}, {"y"}, {}, kBad, "no.such.domain").output("y"); });
  add("long_operator_name", kBad, [](GraphMaker &g) { g.node(std::string(1 << 20, 'A'), {"x"}, {"y"}, {}, kBad).output("y"); });
  add("names_not_utf8", "Frob", [](GraphMaker &g) { g.node("Frob\xff\xfe", {"x"}, {"\xc0\x80"}, {}, "\xff\xff\xed\xa0\x80").output("\xc0\x80"); });
  add("name_with_escape", "Frob", [](GraphMaker &g) { g.node("Frob\x1b[31m\n\r\t", {"x"}, {"y"}, {}, "a\nb").output("y"); });
  add("name_with_nul", "Frob", [](GraphMaker &g) { g.node(std::string("Frob\0x", 6), {"x"}, {"y"}).output("y"); });
  add("all_outputs_empty", kBad, [](GraphMaker &g) { g.node("Neg", {"x"}, {""}, {}, kBad).node("Neg", {""}, {"y"}, {}, kBad).output("y"); });
  add("negative_input_dim", "'z'", [](GraphMaker &g) { g.input("z", DType::f32, {int64_t(-3)}).node("Neg", {"z"}, {"y"}).output("y"); });
  add("huge_input", "'z'", [](GraphMaker &g) { g.input("z", DType::f32, {INT64_MAX, INT64_MAX}).node("Neg", {"z"}, {"y"}).output("y"); });
  add("input_rank_1000", "'z'", [](GraphMaker &g) { g.input("z", DType::f32, std::vector<TestDim>(1000, int64_t(1))).node("Neg", {"z"}, {"y"}).output("y"); });
  add("input_without_shape", "z", [](GraphMaker &g) { g.input_without_shape("z", DType::f32).node("Neg", {"z"}, {"y"}).output("y"); });
  add("input_without_name", "input", [](GraphMaker &g) { g.input("", DType::f32, {2}).node("Neg", {"x"}, {"y"}).output("y").node("Neg", {"nothing"}, {"q"}); });
  add("input_type_unknown", "z", [](GraphMaker &g) { g.input("z", DType::f16, {2}).node("Neg", {"z"}, {"y"}).output("y"); });
}

void add_functions(HostileCases &cases) {
  auto add = [&](const std::string &name, const std::string &functions, const std::string &expect, const std::string &call = "f0") {
    GraphMaker g;
    g.input("x", DType::f32, {2}).node(call, {"x"}, {"y"}, {}, kBad, "f").output("y");
    cases.push_back({"function_" + name, g.model(17, functions), expect});
  };
  auto call = [](const std::string &to, const std::string &from, const std::string &in, const std::string &out) {
    return GraphMaker::node_proto(to, {in}, {out}, {}, from, "f");
  };
  add("undefined", function("f1", {"a"}, {"a"}, {}), kBad);
  add("recursive", function("f0", {"a"}, {"b"}, {call("f0", "again", "a", "b")}), "calls itself");
  add("circle", function("f0", {"a"}, {"b"}, {call("f1", "", "a", "b")}) + function("f1", {"a"}, {"b"}, {call("f0", "", "a", "b")}), "calls itself");
  add("circle_in_branch",
      function("f0", {"a"}, {"b"},
               {GraphMaker::node_proto("If", {"a"}, {"b"}, {attr_graph("then_branch", branch([](GraphMaker &g) { g.node("f0", {"a"}, {"t"}, {}, "", "f").output("t"); })), attr_graph("else_branch", branch([](GraphMaker &g) { g.node("Neg", {"a"}, {"t"}).output("t"); }))})}),
      kBad);
  std::string doubling;
  for (int i = 0; i < 40; ++i)
    doubling += i < 39 ? function(fmt::format("f{}", i), {"a"}, {"c"}, {call(fmt::format("f{}", i + 1), "", "a", "b"), call(fmt::format("f{}", i + 1), "", "b", "c")})
                       : function("f39", {"a"}, {"c"}, {GraphMaker::node_proto("Neg", {"a"}, {"c"})});
  add("doubling_40_times", doubling, "too many nodes");
  std::string deep;
  for (int i = 0; i < 3000; ++i)
    deep += function(fmt::format("f{}", i), {"a"}, {"b"}, {i < 2999 ? call(fmt::format("f{}", i + 1), "", "a", "b") : GraphMaker::node_proto("Neg", {"a"}, {"b"})});
  add("3000_deep", deep, "too deeply");
  GraphMaker many;
  std::string bodies;
  many.input("x", DType::f32, {2}).output("y");
  for (int i = 0; i < 60'000; ++i) {
    bodies += function(fmt::format("f{}", i), {"a"}, {"a"}, {});
    many.node("g", {"x"}, {"y"}, {}, "", "f");
  }
  cases.push_back({"function_60000_for_60000_nodes", many.model(17, bodies), "f.g"});
  add("output_undefined", function("f0", {"a"}, {"nothing"}, {}), "nothing");
  add("input_undefined", function("f0", {"a"}, {"b"}, {GraphMaker::node_proto("Neg", {"nothing"}, {"b"}, {}, "inner")}), "nothing");
  add("twice", function("f0", {"a"}, {"b"}, {GraphMaker::node_proto("Neg", {"a"}, {"b"})}) + function("f0", {"a"}, {"b"}, {GraphMaker::node_proto("Abs", {"a"}, {"b"})}), "f0");
  add("too_many_arguments", function("f0", {}, {"b"}, {GraphMaker::node_proto("Neg", {"a"}, {"b"})}), kBad);
  add("too_few_outputs", function("f0", {"a"}, {}, {}), kBad);
  add("cycle_inside", function("f0", {"a"}, {"b"}, {GraphMaker::node_proto("Neg", {"c"}, {"b"}, {}, "one"), GraphMaker::node_proto("Neg", {"b"}, {"c"}, {}, "two")}), "one");
  add("argument_twice", function("f0", {"a", "a"}, {"b"}, {GraphMaker::node_proto("Neg", {"a"}, {"b"})}), "f0");
  std::string reference;
  pbf_writer r(reference);
  r.add_string(1, "axis"), r.add_int32(20, 2), r.add_string(21, "no_such_attribute");
  add("attribute_undefined", function("f0", {"a"}, {"b"}, {GraphMaker::node_proto("Softmax", {"a"}, {"b"}, {reference, attr_s("axis", "x")}, "inner")}), "inner");
}

void add_subgraphs(HostileCases &cases) {
  auto add = [&](const std::string &name, const std::string &type, const Names &inputs, const std::vector<std::string> &attributes, const Names &outputs = {"y"}, const std::string &expect = kBad) {
    GraphMaker g;
    g.input("x", DType::f32, {2}).input("c", DType::bool_, {}).input("v", DType::f32, {3}).weight("n", Tensor::scalar_i64(DType::i64, 3));
    g.node(type, inputs, outputs, attributes, kBad).output(outputs[0]);
    cases.push_back({"subgraph_" + name, g.model(), expect});
  };
  std::string neg = branch([](GraphMaker &g) { g.node("Neg", {"x"}, {"t"}).output("t"); });
  std::string other = branch([](GraphMaker &g) { g.node("Neg", {"v"}, {"t"}).output("t"); });
  std::string wrong = branch([](GraphMaker &g) { g.node("Neg", {"nothing"}, {"t"}, {}, "inner").output("t"); });
  std::string boolean = branch([](GraphMaker &g) { g.node("Not", {"c"}, {"t"}).output("t"); });
  std::string two = branch([](GraphMaker &g) { g.node("Neg", {"x"}, {"t"}).node("Abs", {"x"}, {"u"}).output("t").output("u"); });
  add("if_without_branches", "If", {"c"}, {});
  add("if_without_else", "If", {"c"}, {attr_graph("then_branch", neg)});
  add("if_branch_is_integer", "If", {"c"}, {attr_i("then_branch", 1), attr_graph("else_branch", neg)});
  add("if_empty_branch", "If", {"c"}, {attr_graph("then_branch", ""), attr_graph("else_branch", neg)});
  add("if_branch_damaged", "If", {"c"}, {attr_graph("then_branch", "\xff\xff"), attr_graph("else_branch", neg)}, {"y"}, "");
  add("if_condition_is_float", "If", {"x"}, {attr_graph("then_branch", neg), attr_graph("else_branch", neg)});
  add("if_branches_differ_in_count", "If", {"c"}, {attr_graph("then_branch", neg), attr_graph("else_branch", two)});
  add("if_branches_differ_in_type", "If", {"c"}, {attr_graph("then_branch", neg), attr_graph("else_branch", boolean)});
  add("if_branch_undefined", "If", {"c"}, {attr_graph("then_branch", wrong), attr_graph("else_branch", neg)}, {"y"}, "inner");
  add("if_too_many_outputs", "If", {"c"}, {attr_graph("then_branch", neg), attr_graph("else_branch", neg)}, {"y", "z"});
  add("loop_without_body", "Loop", {"n", "c", "x"}, {});
  add("loop_body_without_arguments", "Loop", {"n", "c", "x"}, {attr_graph("body", neg)});
  add("loop_count_is_float", "Loop", {"x", "c", "x"}, {attr_graph("body", neg)});
  auto loop = [&](const Build &build) {
    return branch([&](GraphMaker &g) {
      g.input("i", DType::i64, {}).input("k", DType::bool_, {}).input("s", DType::f32, {2});
      build(g);
    });
  };
  add("loop_changes_type", "Loop", {"n", "c", "x"}, {attr_graph("body", loop([](GraphMaker &g) { g.node("Identity", {"k"}, {"k2"}).node("Not", {"k"}, {"s2"}).output("k2").output("s2"); }))});
  add("loop_too_few_results", "Loop", {"n", "c", "x"}, {attr_graph("body", loop([](GraphMaker &g) { g.node("Identity", {"k"}, {"k2"}).output("k2"); }))});
  add("loop_condition_is_float", "Loop", {"n", "c", "x"}, {attr_graph("body", loop([](GraphMaker &g) { g.node("Neg", {"s"}, {"s2"}).output("s2").output("s"); }))});
  add("loop_body_undefined", "Loop", {"n", "c", "x"}, {attr_graph("body", loop([](GraphMaker &g) { g.node("Neg", {"nothing"}, {"s2"}, {}, "inner").output("k").output("s2"); }))}, {"y"}, "inner");
  add("scan_without_body", "Scan", {"x"}, {attr_i("num_scan_inputs", 1)});
  add("scan_without_count", "Scan", {"x"}, {attr_graph("body", neg)});
  for (int64_t count : {int64_t(0), int64_t(-1), int64_t(5), INT64_MAX})
    add(fmt::format("scan_count_{}", count), "Scan", {"x"}, {attr_graph("body", neg), attr_i("num_scan_inputs", count)});
  std::string slice = branch([](GraphMaker &g) { g.input("s", DType::f32, {}).node("Neg", {"s"}, {"t"}).output("t"); });
  for (int64_t axis : {int64_t(1), int64_t(-2), INT64_MAX, INT64_MIN})
    add(fmt::format("scan_axis_{}", axis), "Scan", {"x"}, {attr_graph("body", slice), attr_i("num_scan_inputs", 1), attr_ints("scan_input_axes", {axis})});
  add("scan_axes_too_many", "Scan", {"x"}, {attr_graph("body", slice), attr_i("num_scan_inputs", 1), attr_ints("scan_input_axes", {0, 0, 0})});
  add("scan_lengths_differ", "Scan", {"x", "v"}, {attr_graph("body", branch([](GraphMaker &g) { g.input("s", DType::f32, {}).input("r", DType::f32, {}).node("Add", {"s", "r"}, {"t"}).output("t"); })), attr_i("num_scan_inputs", 2)});
  add("scan_of_scalar", "Scan", {"c"}, {attr_graph("body", slice), attr_i("num_scan_inputs", 1)});
  (void)other;
}

} // namespace

void add_graph_cases(HostileCases &cases) {
  add_wiring(cases);
  add_functions(cases);
  add_subgraphs(cases);
}

} // namespace kiln::test
