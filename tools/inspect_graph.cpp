// kiln inspect --graph: the exported functions of a model as boxes and edges.
#include "tools/drawing.h"
#include "tools/inspect.h"

#include "frontend/files/file_writer.h"
#include "ir/ops/op.h"

#include <fmt/format.h>

#include <algorithm>
#include <iostream>
#include <unordered_map>

namespace kiln {
namespace {

std::string shorten(std::string text, size_t most) {
  if (text.size() > most) {
    size_t end = most - 3;
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) // not inside a character
      --end;
    text = text.substr(0, end) + "...";
  }
  return text;
}

std::string kind_of(const OpDef &def) {
  if (def.has(kContraction))
    return "contraction";
  if (def.has(kWindow))
    return "window";
  if (def.has(kReduction))
    return "reduction";
  if (def.has(kRegions))
    return "regions";
  return def.has(kElementwise) ? "elementwise" : "other";
}

class Drawer {
public:
  Drawer(const Module &module, const Function &function, Drawing &out) : module_(module), function_(function), out_(out) {}

  void draw() {
    for (ValueId arg : function_.body.args)
      box_of_[key(arg)] = add({function_.value(arg).name, function_.type(arg).text(),
                               fmt::format("input {} of {}\n{}", function_.value(arg).name, function_.name, function_.type(arg).text()),
                               "input"});
    for (NodeId id : function_.body.nodes)
      if (const Node &node = function_.node(id); !node.removed)
        draw_node(id, node);
    for (size_t i = 0; i < function_.body.results.size(); ++i) {
      ValueId value = function_.body.results[i];
      std::string name = i < function_.result_names.size() ? function_.result_names[i] : function_.value(value).name;
      size_t box = add({name, function_.type(value).text(), fmt::format("output {} of {}", name, function_.name), "output"});
      connect(value, box);
    }
  }

private:
  static int64_t key(ValueId id) { return int64_t(size_t(id)); }
  size_t add(Drawing::Box box) {
    box.title = shorten(std::move(box.title), 40);
    box.subtitle = shorten(std::move(box.subtitle), 48);
    out_.boxes.push_back(std::move(box));
    return out_.boxes.size() - 1;
  }
  void connect(ValueId value, size_t to) {
    if (auto it = box_of_.find(key(value)); it != box_of_.end())
      out_.edges.push_back({it->second, to});
  }
  // Uses of outer values inside regions count as uses by the node.
  void connect_block(const Block &block, size_t to) {
    for (NodeId id : block.nodes) {
      for (ValueId operand : function_.node(id).operands)
        connect(operand, to);
      for (const Block &inner : function_.node(id).regions)
        connect_block(inner, to);
    }
  }
  void draw_node(NodeId id, const Node &node) {
    const OpDef &def = op_def(node.op);
    // Constants are part of the boxes that use them: printed there, not drawn.
    if (node.op == Op::constant)
      return;
    std::string detail = shorten(print_node(module_, function_, id), 6000);
    for (ValueId operand : node.operands) {
      const Node *from = function_.def(operand);
      detail += fmt::format("\n\n{}{}: {}{}", from && from->op == Op::constant ? "constant " : "operand ",
                            function_.value(operand).name, function_.type(operand).text(),
                            function_.value(operand).layout.is_row_major() ? "" : " " + function_.value(operand).layout.text());
      if (from && from->op == Op::constant)
        detail += "\n" + shorten(tensor_text(module_.constants[size_t(from->attrs.get_constant("value"))].tensor, 16), 400);
    }
    if (node.location.known())
      detail += "\n\nfrom " + node.location.text();
    size_t box = add({std::string(def.name), node.results.empty() ? "" : function_.type(node.results[0]).text(), detail,
                      kind_of(def)});
    for (ValueId result : node.results)
      box_of_[key(result)] = box;
    std::vector<ValueId> drawn;
    for (ValueId operand : node.operands)
      if (std::find(drawn.begin(), drawn.end(), operand) == drawn.end()) {
        connect(operand, box);
        drawn.push_back(operand);
      }
    size_t before = out_.edges.size();
    for (const Block &block : node.regions)
      connect_block(block, box);
    // Only what comes from outside: the node does not feed itself.
    std::erase_if(out_.edges, [&, i = size_t(0)](const Drawing::Edge &e) mutable { return i++ >= before && e.from == e.to; });
  }

  const Module &module_;
  const Function &function_;
  Drawing &out_;
  std::unordered_map<int64_t, size_t> box_of_;
};

} // namespace

int inspect_graph(const Module &module, const std::string &form, const std::string &output, bool json) {
  std::string text;
  if (form == "text") {
    text = print_module(module);
  } else {
    Drawing drawing;
    drawing.name = module.name;
    for (const Function &function : module.functions)
      if (function.exported)
        Drawer(module, function, drawing).draw();
    if (form != "dot" && !json)
      lay_out(drawing);
    text = form == "dot" ? dot_text(drawing) : form == "svg" ? svg_text(drawing) : html_text(drawing);
    if (json) {
      std::string boxes, edges;
      for (const auto &b : drawing.boxes)
        boxes += fmt::format("{}{{\"op\": {}, \"type\": {}, \"kind\": {}, \"detail\": {}}}", boxes.empty() ? "" : ",\n  ",
                             json_quote(b.title), json_quote(b.subtitle), json_quote(b.kind), json_quote(b.detail));
      for (const auto &e : drawing.edges)
        edges += fmt::format("{}[{}, {}]", edges.empty() ? "" : ", ", e.from, e.to);
      text = fmt::format("{{\"boxes\": [\n  {}],\n \"edges\": [{}]}}\n", boxes, edges);
    }
  }
  if (output.empty() || output == "-") {
    std::cout << text << std::flush;
    return kFine;
  }
  auto status = write_file(output, std::string_view(text));
  return status ? kFine : report(status.error(), json);
}

} // namespace kiln
