// A profile as one HTML page without any reference outside itself: the timeline of a run (kernels, and
// below them what each thread did) and the table. The script draws what is in view, so that runs of
// thousands of kernels stay quick to look at; without scripts the table is all there is.
#include "tools/drawing.h"
#include "tools/profile.h"

#include <fmt/format.h>

namespace kiln {
namespace {

constexpr std::string_view kPageStyle = R"(
:root{color-scheme:light dark;--ground:#fff;--ink:#1b2330;--soft:#5b6676;--line:#d5dbe4;--row:#f3f5f8;
--compute:#3f74c9;--memory:#2f9e6b;--calls:#d08a2c;--neither:#8d7bb5}
@media(prefers-color-scheme:dark){:root{--ground:#14181f;--ink:#e4e8ee;--soft:#98a3b3;--line:#333b47;--row:#1c222b;
--compute:#6f9ee8;--memory:#52bd8b;--calls:#dfa14d;--neither:#ab9bd0}}
*{box-sizing:border-box}
body{margin:0 auto;padding:20px;max-width:1280px;background:var(--ground);color:var(--ink);font:14px/1.45 system-ui,sans-serif}
h1{font-size:19px;margin:0 0 4px;overflow-wrap:anywhere}p{margin:2px 0;color:var(--soft)}
.key{display:flex;flex-wrap:wrap;gap:4px 16px;margin:10px 0 4px}.key i{display:inline-block;width:11px;height:11px;margin-right:5px;border-radius:2px}
.compute{--c:var(--compute)}.memory{--c:var(--memory)}.calls{--c:var(--calls)}.neither{--c:var(--neither)}
.key i,.bar{background:var(--c)}
#line{position:relative;border:1px solid var(--line);border-radius:6px;overflow:hidden;margin:6px 0}
#line svg{display:block;width:100%;cursor:grab;touch-action:pan-y}
#line rect.s{fill:var(--c)}#line rect.s:hover,#line rect.on{stroke:var(--ink);stroke-width:1.5}
#line text{font:11px system-ui,sans-serif;fill:var(--soft)}#line text.in{fill:#fff;pointer-events:none}
@media(prefers-color-scheme:dark){#line text.in{fill:#10141a}}
#line path{stroke:var(--line)}
#told{min-height:3em;font:12px/1.5 ui-monospace,monospace;overflow-wrap:anywhere;white-space:pre-wrap}
button{font:inherit;font-size:12px;color:inherit;background:var(--row);border:1px solid var(--line);border-radius:5px;padding:1px 9px;cursor:pointer}
table{width:100%;border-collapse:collapse;font-size:13px;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:4px 7px;border-bottom:1px solid var(--line);white-space:nowrap}
th{position:sticky;top:0;background:var(--ground);cursor:pointer;font-weight:600}
th:last-child,td:last-child{text-align:left;white-space:normal;overflow-wrap:anywhere;width:40%}
tbody tr:hover,tr.on{background:var(--row)}tfoot td{font-weight:600;border:0}
.bar{height:3px;border-radius:2px;min-width:1px;margin-top:2px}
@media(max-width:900px){.wide{display:none}}@media(max-width:620px){.mid{display:none}body{padding:10px}th,td{padding:4px}}
)";

constexpr std::string_view kPageScript = R"JS(
const svg=document.querySelector('#line svg'),told=document.getElementById('told'),NS='http://www.w3.org/2000/svg';
const lanes=['kernels'];for(const p of PARTS)if(p[1]+1>=lanes.length)for(let t=lanes.length-1;t<=p[1];t++)lanes.push('thread '+t);
const top0=22,lane=34,left=64,H=top0+lanes.length*lane+6;svg.setAttribute('height',H);
let from=0,to=TOTAL,chosen=-1;
const put=(name,attributes,text)=>{const e=document.createElementNS(NS,name);for(const k in attributes)e.setAttribute(k,attributes[k]);
 if(text!==undefined)e.textContent=text;svg.appendChild(e);return e};
function tell(k,s){const d=KERNELS[k];told.textContent=d.name+(d.node&&d.node!==d.name?'  ('+d.node+')':'')+
 (s?'\n'+((s[3]-s[2])*1000).toFixed(1)+' µs from '+s[2].toFixed(3)+' ms':'')+'\n'+d.text}
function draw(){svg.textContent='';const W=svg.clientWidth,k=(W-left-8)/(to-from),x=t=>left+(t-from)*k;
 let step=Math.pow(10,Math.floor(Math.log10((to-from)/4)));while((to-from)/step>9)step*=(''+step).includes('2')?2.5:2;
 const digits=Math.max(0,Math.ceil(-Math.log10(step)));
 for(let t=Math.ceil(from/step)*step;t<=to;t+=step){put('path',{d:`M${x(t)},${top0-4}V${H}`});put('text',{x:x(t)+3,y:13},t.toFixed(digits)+' ms')}
 lanes.forEach((name,i)=>put('text',{x:6,y:top0+i*lane+lane/2+4},name));
 let last={};
 const bar=(s,y)=>{if(s[3]<from||s[2]>to)return;const a=Math.max(left,x(s[2])),b=Math.min(W-8,x(s[3]));
  if(b-a<0.4&&last[y]>b-0.4)return;last[y]=b;const w=Math.max(0.5,b-a-(b-a>3?0.6:0)),d=KERNELS[s[0]];
  const r=put('rect',{x:a,y,width:w,height:lane-8,rx:w>6?2:0,class:'s '+d.bound+(s[0]===chosen?' on':'')});
  r.addEventListener('pointerenter',()=>tell(s[0],s));r.addEventListener('click',()=>{if(!moved)choose(s[0])});
  const room=Math.floor((w-8)/6.4);if(room>3)put('text',{x:a+4,y:y+17,class:'in'},d.name.length>room?d.name.slice(0,room-1)+'…':d.name)};
 for(const s of SPANS)bar(s,top0);for(const s of PARTS)bar(s,top0+(s[1]+1)*lane)}
const rows=[...document.querySelectorAll('tbody tr')];
function choose(k){chosen=k===chosen?-1:k;rows.forEach(r=>r.classList.toggle('on',+r.dataset.k===chosen));tell(k);draw()}
rows.forEach(r=>r.addEventListener('click',()=>choose(+r.dataset.k)));
function look(a,b){const w=Math.min(TOTAL,Math.max(b-a,TOTAL*1e-6));from=Math.min(Math.max(0,a),TOTAL-w);to=from+w;draw()}
const at=e=>{const b=svg.getBoundingClientRect();return from+(e.clientX-b.left-left)/(b.width-left-8)*(to-from)};
svg.addEventListener('wheel',e=>{e.preventDefault();const t=at(e),k=Math.exp(e.deltaY*0.002);look(t-(t-from)*k,t+(to-t)*k)},{passive:false});
let grip=null,moved=false;
svg.addEventListener('pointerdown',e=>{grip=[e.clientX,from,to];moved=false});
addEventListener('pointerup',()=>grip=null);
addEventListener('pointermove',e=>{if(!grip)return;const d=(grip[0]-e.clientX)/(svg.clientWidth-left-8)*(grip[2]-grip[1]);
 if(Math.abs(e.clientX-grip[0])>2)moved=true;if(moved)look(grip[1]+d,grip[2]+d)});
document.getElementById('all').addEventListener('click',()=>look(0,TOTAL));
document.querySelectorAll('th').forEach((h,i)=>{let up=false;h.addEventListener('click',()=>{up=!up;
 const value=r=>r.cells[i].dataset.v??r.cells[i].textContent;
 rows.sort((a,b)=>{const x=value(a),y=value(b),c=isNaN(x)||isNaN(y)?x.localeCompare(y):x-y;return up?-c:c});
 rows.forEach(r=>r.parentNode.appendChild(r))})});
addEventListener('resize',draw);draw();
)JS";

std::string span_list(const std::vector<Span> &spans) {
  std::string out;
  for (const Span &s : spans)
    out += fmt::format("{}[{},{},{:.5f},{:.5f}]", out.empty() ? "" : ",", s.kernel, s.thread, s.begin, s.end);
  return out;
}

std::string describe(const KernelProfile &k) {
  return fmt::format("{:.4f} ms ({:.1f} %) in {} call{}; {}, {} ({} of them weights); {:.1f} GFLOP/s, {:.1f} GB/s; {:.0f} % of the "
                     "machine's limit; bound by {}",
                     k.ms, 100 * k.share, k.calls, k.calls == 1 ? "" : "s", flops_text(k.flops), bytes_text(k.bytes),
                     bytes_text(k.weight_bytes), k.gflops(), k.gbps(), 100 * k.of_limit(), bound_text(k));
}

std::string row(const Profile &p, size_t index, double slowest) {
  const KernelProfile &k = p.kernels[index];
  double width = slowest > 0 ? 100 * k.ms / slowest : 0;
  return fmt::format("<tr data-k=\"{}\" class=\"{}\"><td data-v=\"{}\">{:.4f}</td><td data-v=\"{}\">{:.1f} %<div class=\"bar\" "
                     "style=\"width:{:.1f}%\"></div></td><td class=\"wide\" data-v=\"{}\">{}</td><td class=\"mid\" data-v=\"{}\">{}</td>"
                     "<td class=\"mid\" data-v=\"{}\">{}</td><td class=\"wide\" data-v=\"{}\">{:.1f}</td><td class=\"wide\" data-v=\"{}\">{:.1f}</td>"
                     "<td data-v=\"{}\">{:.0f} %</td><td>{}</td><td>{}</td></tr>\n",
                     index, bound_name(k.bound), k.ms, k.ms, k.share, 100 * k.share, width, k.calls, k.calls, k.flops, flops_text(k.flops),
                     k.bytes, bytes_text(k.bytes), k.gflops(), k.gflops(), k.gbps(), k.gbps(), k.of_limit(), 100 * k.of_limit(),
                     bound_text(k), escape_markup(k.name));
}

} // namespace

std::string profile_html(const Profile &p) {
  double shares[4] = {};
  std::string kernels, rows;
  for (const KernelProfile &k : p.kernels) {
    shares[size_t(k.bound)] += 100 * k.share;
    kernels += fmt::format("{}{{\"name\":{},\"node\":{},\"bound\":\"{}\",\"text\":{}}}", kernels.empty() ? "" : ",\n", script_json(k.name),
                           script_json(k.node), bound_name(k.bound), script_json(describe(k)));
  }
  for (size_t i : p.by_time)
    rows += row(p, i, p.by_time.empty() ? 0 : p.kernels[p.by_time[0]].ms);
  std::string key;
  for (Bound b : {Bound::compute, Bound::memory, Bound::calls, Bound::neither})
    key += fmt::format("<span class=\"{0}\"><i></i>{1} {2:.0f} %</span>", bound_name(b),
                       b == Bound::neither ? "none of these" : b == Bound::calls ? "bound by calls" : fmt::format("bound by {}", bound_name(b)),
                       shares[size_t(b)]);
  const MachineLimits &l = p.limits;
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">"
      "<title>{0}: profile</title>\n<style>{1}</style></head>\n<body><h1>{0}</h1>\n"
      "<p>{2:.4f} ms a run, median of {3}, on {4} thread{5} of {6}; {7:.0f} % of the arithmetic peak over the whole run.</p>\n"
      "<p>Limits measured between the runs: {8}; reading {9:.0f} GB/s from L2, {10:.0f} from L3, {11:.0f} from RAM.</p>\n"
      "<div class=\"key\">{12}<button id=\"all\">whole run</button></div>\n"
      "<div id=\"line\"><svg role=\"img\" aria-label=\"timeline of one run\"></svg></div>\n"
      "<p id=\"told\">One run of {13:.4f} ms{14}. Scroll to zoom, drag to move, point at a block to read it.</p>\n"
      "<table><thead><tr><th>ms</th><th>share</th><th class=\"wide\">calls</th><th class=\"mid\">FLOPs</th><th class=\"mid\">bytes</th>"
      "<th class=\"wide\">GFLOP/s</th><th class=\"wide\">GB/s</th><th>of limit</th><th>bound by</th><th>kernel</th></tr></thead>\n"
      "<tbody>\n{15}</tbody><tfoot><tr><td>{16:.4f}</td><td>100 %</td><td class=\"wide\"></td><td class=\"mid\"></td><td class=\"mid\"></td>"
      "<td class=\"wide\"></td><td class=\"wide\"></td><td></td><td></td><td>{17} kernels</td></tr></tfoot></table>\n"
      "<script>\nconst TOTAL={18:.5f},KERNELS=[\n{19}],\nSPANS=[{20}],\nPARTS=[{21}];\n{22}</script></body></html>\n",
      escape_markup(p.model), kPageStyle, p.run_ms, p.runs, p.threads, p.threads == 1 ? "" : "s", escape_markup(p.target),
      100 * p.peak_efficiency, peaks_text(l), l.l2_gbps, l.l3_gbps, l.memory_gbps, key, p.timeline_ms,
      p.is_cut ? ", its beginning" : "", rows, p.total_ms, p.kernels.size(), std::max(p.timeline_ms, 1e-6), kernels,
      span_list(p.spans), span_list(p.parts), kPageScript);
}

} // namespace kiln
