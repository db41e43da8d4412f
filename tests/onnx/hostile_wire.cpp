// Bytes that are no model: varints, lengths, wire types, nesting.
#include "tests/onnx/hostile_cases.h"

#include <fmt/format.h>

namespace kiln::test {
namespace {

std::string relu_model() {
  GraphMaker g;
  g.input("x", DType::f32, {"N", 3}).node("Relu", {"x"}, {"y"}).output("y");
  return g.model();
}

std::string bytes(std::initializer_list<int> list) { return std::string(list.begin(), list.end()); }

// The field `tag` of wire type 2 around `inside`, `depth` times.
std::string nested(uint32_t tag, const std::string &inside, int depth) {
  std::string out = inside;
  for (int i = 0; i < depth; ++i) {
    std::string outer;
    pbf_writer(outer).add_message(tag, out);
    out = std::move(outer);
  }
  return out;
}

// A graph in an attribute of a node of a graph in ..., as If has it; only the message sizes are right.
std::string nested_graphs(int depth, const std::string &type) {
  GraphMaker leaf;
  leaf.node("Neg", {"x"}, {"t"}).output("t");
  std::string inner = leaf.bytes();
  for (int i = 0; i < depth; ++i) {
    GraphMaker level;
    level.node(type, {"c"}, {"t"}, {attr_graph(type == "If" ? "then_branch" : "body", inner), attr_graph("else_branch", "")}, kBad).output("t");
    inner = level.bytes();
  }
  return inner;
}

} // namespace

void add_wire_cases(HostileCases &cases) {
  const std::string model = relu_model();
  auto add = [&](const std::string &name, std::string file, const std::string &expect = "model") {
    cases.push_back({"wire_" + name, std::move(file), expect});
  };
  add("empty", "");
  add("text", "this is text, and no ONNX file");
  add("zeros", std::string(4096, '\0'));
  add("ones", std::string(4096, '\xff'));
  add("png", "\x89PNG\r\n\x1a\n" + std::string(100, 'a'));
  add("zip", "PK\x03\x04" + std::string(100, 'a'));
  add("gzip", "\x1f\x8b\x08" + std::string(100, 'a'));
  add("json", "{\"graph\": {}}");
  add("one_byte", "\x3a");
  add("length_4g", bytes({0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f}));
  add("length_beyond_u64", bytes({0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}));
  add("length_negative", bytes({0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01}));
  add("varint_without_end", std::string(1, '\x08') + std::string(1000, '\x80'));
  add("varint_eleven_bytes", bytes({0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01}) + model);
  add("tag_zero", bytes({0x00, 0x01}) + model);
  add("tag_too_large", bytes({0xfa, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x00}) + model);
  cases.back().may_compile = true; // a field that nobody knows is skipped, whatever its number
  add("group_start", bytes({0x0b}) + model);
  add("group_end", bytes({0x0c}) + model);
  add("wire_type_6", bytes({0x0e}) + model);
  add("wire_type_7", bytes({0x0f}) + model);
  add("graph_as_varint", bytes({0x38, 0x01}));
  add("graph_as_fixed32", bytes({0x3d, 1, 2, 3, 4}));
  add("graph_as_fixed64_cut", bytes({0x39, 1, 2, 3}));
  add("fixed32_cut", model + bytes({0x7d, 1, 2}));
  add("two_graphs", model + model);
  add("no_graph", model.substr(0, 2));
  add("byte_after_the_end", model + "\x3a");
  for (int part : {4, 3, 2})
    add(fmt::format("cut_to_1_of_{}", part), model.substr(0, model.size() / size_t(part)));
  for (uint32_t tag : {1u, 5u, 11u, 12u, 13u, 15u}) {
    std::string graph, file;
    pbf_writer g(graph);
    g.add_string(tag, "\xff\xff\xff\xff");
    pbf_writer f(file);
    f.add_int64(1, 8), f.add_message(7, graph);
    add(fmt::format("graph_field_{}_damaged", tag), file);
  }
  for (uint32_t tag : {1u, 2u, 5u}) {
    std::string node = GraphMaker::node_proto("Relu", {"x"}, {"y"});
    node += std::string(1, char(tag << 3 | 2)) + "\xff\xff\xff\xff\x7f";
    std::string graph, file;
    pbf_writer(graph).add_message(1, node);
    pbf_writer(file).add_message(7, graph);
    add(fmt::format("node_field_{}_too_long", tag), file);
  }
  {
    std::string node = GraphMaker::node_proto("Relu", {"x"}, {"y"}, {std::string("\x0a\xff\xff\xff\x7f")});
    std::string graph, file;
    pbf_writer(graph).add_message(1, node);
    pbf_writer(file).add_message(7, graph);
    add("attribute_damaged", file);
  }
  for (int depth : {100, 10000, 30000})
    add(fmt::format("messages_{}_deep", depth), nested(7, "", depth), "");
  for (int depth : {200, 2000}) {
    for (const char *type : {"If", "Loop", "Scan"}) {
      GraphMaker g;
      std::string inner = nested_graphs(depth, type);
      g.input("x", DType::f32, {2}).input("c", DType::bool_, {});
      g.node(type, {"c"}, {"y"}, {attr_graph(std::string(type) == "If" ? "then_branch" : "body", inner), attr_graph("else_branch", inner)}, kBad);
      g.output("y");
      add(fmt::format("{}_{}_deep", type, depth), g.model(), std::string(type) == "If" ? "nested too deeply" : kBad);
    }
  }
  for (int64_t version : {int64_t(0), int64_t(-1), int64_t(999), INT64_MAX, INT64_MIN}) {
    GraphMaker g;
    g.input("x", DType::f32, {2}).node("Relu", {"x"}, {"y"}).output("y");
    add(fmt::format("opset_{}", version), g.model(version), "opset");
  }
  {
    // A type nested in itself: sequence(sequence(...)).
    std::string type;
    pbf_writer(type).add_int32(1, 1);
    for (int i = 0; i < 5000; ++i) {
      std::string element, outer;
      pbf_writer(element).add_message(1, type);
      pbf_writer(outer).add_message(4, element);
      type = std::move(outer);
    }
    std::string info, graph, file;
    pbf_writer i(info);
    i.add_string(1, "x"), i.add_message(2, type);
    pbf_writer g(graph);
    g.add_message(11, info), g.add_message(1, GraphMaker::node_proto("Relu", {"x"}, {"y"}));
    pbf_writer(file).add_message(7, graph);
    add("types_5000_deep", file, "x");
  }
}

} // namespace kiln::test
