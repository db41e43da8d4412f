#include "tools/drawing.h"

#include "ir/support/diagnostic.h"

#include <fmt/format.h>

namespace kiln {
namespace {

std::string path_text(const Drawing::Edge &e) {
  std::string out = fmt::format("M{:.1f},{:.1f}", e.points[0].first, e.points[0].second);
  for (size_t i = 1; i < e.points.size(); ++i) {
    auto [x0, y0] = e.points[i - 1];
    auto [x1, y1] = e.points[i];
    double middle = (y0 + y1) / 2;
    out += fmt::format("C{:.1f},{:.1f} {:.1f},{:.1f} {:.1f},{:.1f}", x0, middle, x1, middle, x1, y1);
  }
  return out;
}

constexpr std::string_view kStyle = R"(
.box rect{fill:#eef1f5;stroke:#8793a5;rx:5px}
.box text{font:12px ui-monospace,monospace;text-anchor:middle;fill:#1b2330}
.box .sub{font-size:10px;fill:#566173}
.input rect{fill:#dff3e4;stroke:#4a9c63}.output rect{fill:#fbe7d3;stroke:#c98431}
.contraction rect,.window rect{fill:#dfe8fb;stroke:#4d72c3}.constant rect{fill:#f6f3d8;stroke:#b1a24a}
.regions rect{fill:#efe0f7;stroke:#8d56b5}.reduction rect{fill:#e0f2f4;stroke:#3d929d}
.edge{fill:none;stroke:#97a1b0;stroke-width:1.2}
.found rect{stroke:#d62839;stroke-width:3}.chosen rect{stroke:#111;stroke-width:3}
)";

constexpr std::string_view kScript = R"JS(
const svg=document.querySelector('svg'),side=document.getElementById('side'),find=document.getElementById('find');
const all=[...document.querySelectorAll('.box')];
let view={x:0,y:0,w:W,h:H};
const show=()=>svg.setAttribute('viewBox',`${view.x} ${view.y} ${view.w} ${view.h}`);
function fit(){const r=svg.clientWidth/Math.max(1,svg.clientHeight);view={x:0,y:0,w:W,h:H};
 if(W/H>r)view.h=W/r;else{view.w=H*r;view.x=(W-view.w)/2}show()}
function near(){const r=svg.clientHeight/Math.max(1,svg.clientWidth);view.w=Math.min(view.w,svg.clientWidth);view.h=view.w*r;
 view.x=W/2-view.w/2;view.y=0;show()}
svg.addEventListener('wheel',e=>{e.preventDefault();const k=Math.exp(e.deltaY*0.0015),b=svg.getBoundingClientRect();
 const px=view.x+(e.clientX-b.left)/b.width*view.w,py=view.y+(e.clientY-b.top)/b.height*view.h;
 view.x=px-(px-view.x)*k;view.y=py-(py-view.y)*k;view.w*=k;view.h*=k;show()},{passive:false});
let grip=null,moved=false;
svg.addEventListener('pointerdown',e=>{grip=[e.clientX,e.clientY];moved=false});
window.addEventListener('pointerup',()=>grip=null);
window.addEventListener('pointermove',e=>{if(!grip)return;const b=svg.getBoundingClientRect();
 const dx=e.clientX-grip[0],dy=e.clientY-grip[1];if(Math.abs(dx)+Math.abs(dy)>2)moved=true;
 view.x-=dx/b.width*view.w;view.y-=dy/b.height*view.h;grip=[e.clientX,e.clientY];show()});
function choose(i,go){all.forEach(b=>b.classList.remove('chosen'));all[i].classList.add('chosen');
 side.textContent=DATA[i].detail;
 if(go){view.x=DATA[i].x-view.w/2;view.y=DATA[i].y-view.h/2;show()}}
all.forEach((b,i)=>b.addEventListener('click',()=>{if(!moved)choose(i,false)}));
let hits=[],at=-1;
find.addEventListener('input',()=>{const q=find.value.toLowerCase();hits=[];at=-1;
 all.forEach((b,i)=>{const hit=q&&DATA[i].text.toLowerCase().includes(q);b.classList.toggle('found',!!hit);if(hit)hits.push(i)});
 document.getElementById('count').textContent=q?hits.length+' found':''});
find.addEventListener('keydown',e=>{if(e.key==='Enter'&&hits.length){at=(at+(e.shiftKey?hits.length-1:1))%hits.length;
 if(view.w>1500){const r=view.h/view.w;view.w=1200;view.h=1200*r}choose(hits[at],true)}});
document.getElementById('fit').addEventListener('click',fit);
document.getElementById('near').addEventListener('click',near);
near();
)JS";

} // namespace

std::string escape_markup(std::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
    case '&': out += "&amp;"; break;
    case '<': out += "&lt;"; break;
    case '>': out += "&gt;"; break;
    case '"': out += "&quot;"; break;
    case '\'': out += "&#39;"; break;
    default:
      if (static_cast<unsigned char>(c) >= 0x20 || c == '\n' || c == '\t')
        out += c;
      else
        out += '?';
    }
  }
  return out;
}

std::string script_json(std::string_view text) {
  std::string out;
  for (char c : json_quote(text))
    out += c == '<' ? std::string("\\u003c") : std::string(1, c);
  return out;
}

std::string svg_text(const Drawing &d) {
  std::string out = fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
                                "viewBox=\"0 0 {0:.0f} {1:.0f}\">\n<title>{2}</title>\n<style>{3}</style>\n",
                                d.width, d.height, escape_markup(d.name), kStyle);
  for (const auto &e : d.edges)
    if (!e.points.empty())
      out += fmt::format("<path class=\"edge\" d=\"{}\"/>\n", path_text(e));
  for (const auto &b : d.boxes)
    out += fmt::format("<g class=\"box {}\"><title>{}</title><rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>"
                       "<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text><text class=\"sub\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text></g>\n",
                       escape_markup(b.kind), escape_markup(b.detail), b.x - b.width / 2, b.y - b.height / 2, b.width, b.height, b.x,
                       b.y - 3, escape_markup(b.title), b.x, b.y + 12, escape_markup(b.subtitle));
  return out + "</svg>\n";
}

std::string html_text(const Drawing &d) {
  std::string data;
  for (const auto &b : d.boxes)
    data += fmt::format("{}{{\"x\":{:.1f},\"y\":{:.1f},\"text\":{},\"detail\":{}}}", data.empty() ? "" : ",\n", b.x, b.y,
                        script_json(b.title + " " + b.subtitle + " " + b.detail), script_json(b.detail));
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title>\n<style>\n"
      "html,body{{margin:0;height:100%;font:14px system-ui,sans-serif}}body{{display:flex;flex-direction:column}}\n"
      "header{{display:flex;gap:12px;align-items:center;padding:8px 12px;border-bottom:1px solid #ccd3dd}}\n"
      "main{{display:flex;flex:1;min-height:0}}svg{{flex:1;width:100%;height:100%;cursor:grab;touch-action:none}}\n"
      "#side{{width:32%;max-width:520px;margin:0;padding:12px;overflow:auto;border-left:1px solid #ccd3dd;"
      "white-space:pre-wrap;overflow-wrap:anywhere;font:12px ui-monospace,monospace}}\n.box{{cursor:pointer}}\n</style></head>\n"
      "<body><header><b>{0}</b><span>{1} boxes, {2} edges</span><input id=\"find\" type=\"search\" "
      "placeholder=\"op, name, shape, attribute\" size=\"32\" aria-label=\"search\"><span id=\"count\"></span>"
      "<button id=\"near\">100 %</button><button id=\"fit\">whole graph</button></header>\n"
      "<main>{3}<pre id=\"side\">Click a box to read it. Scroll to zoom, drag to pan,\nEnter in the search goes to the next hit.</pre></main>\n"
      "<script>\nconst W={4:.0f},H={5:.0f},DATA=[\n{6}];\n{7}</script></body></html>\n",
      escape_markup(d.name), d.boxes.size(), d.edges.size(), svg_text(d), d.width, d.height, data, kScript);
}

std::string dot_text(const Drawing &d) {
  auto quote = [](std::string_view text) {
    std::string out = "\"";
    for (char c : text)
      out += c == '"' || c == '\\' ? std::string("\\") + c : c == '\n' ? std::string("\\n") : std::string(1, c);
    return out + "\"";
  };
  std::string out = fmt::format("digraph {} {{\n  node [shape=box, fontname=monospace];\n", quote(d.name));
  for (size_t i = 0; i < d.boxes.size(); ++i)
    out += fmt::format("  n{} [label={}];\n", i, quote(d.boxes[i].title + "\n" + d.boxes[i].subtitle));
  for (const auto &e : d.edges)
    out += fmt::format("  n{} -> n{};\n", e.from, e.to);
  return out + "}\n";
}

} // namespace kiln
