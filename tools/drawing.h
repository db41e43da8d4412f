// Graphs as pictures: boxes in layers, by a layout of our own, as SVG or as a page to explore.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kiln {

struct Drawing {
  struct Box {
    std::string title;    // "conv"
    std::string subtitle; // "f32[1, 64, 55, 55]"
    std::string detail;   // what a click shows
    std::string kind;     // CSS class: input, output, constant, contraction, window, ...
    double x = 0, y = 0, width = 0, height = 0; // x and y are of the centre; filled in by lay_out()
  };
  struct Edge {
    size_t from, to;
    std::string label = {};
    std::vector<std::pair<double, double>> points = {}; // filled in by lay_out()
  };
  std::string name;
  std::vector<Box> boxes;
  std::vector<Edge> edges;
  double width = 0, height = 0;
};

// Layers by longest path, order within a layer by barycentres, long edges routed through the layers.
// Edges must form no cycle.
void lay_out(Drawing &drawing);

std::string dot_text(const Drawing &drawing);
std::string svg_text(const Drawing &drawing);  // laid out
std::string html_text(const Drawing &drawing); // laid out; one page, needs no network

// Text of XML and HTML, attributes included; control characters have no form in either.
std::string escape_markup(std::string_view text);
// A JSON string inside <script>: no "</script" and no "<!--" can appear.
std::string script_json(std::string_view text);

} // namespace kiln
