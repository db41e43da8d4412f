// kiln inspect --launches: what an entry is on a GPU, launch by launch, with estimates. It needs no GPU and no NVRTC.
#include "codegen/cuda/device_writer.h"
#include "codegen/cuda/launch_list.h"
#include "passes/lower/lower.h"
#include "tools/inspect.h"

#include <fmt/format.h>

#include <iostream>

namespace kiln {
namespace {

std::string launch_line(const cuda::ListedLaunch &l) {
  const cuda::CudaFunction &f = l.launch.function;
  const cuda::LaunchWork &w = l.launch.work;
  std::string others = l.joined > 1 ? fmt::format(" and {} more", l.joined - 1) : "";
  std::string where = l.location.line > 0 ? fmt::format("  {}", l.location.text()) : "";
  return fmt::format("{:>9.2f} {:>6} {:>6}  {:<5} {:>9} x {:<5} {:>7} {:>10.1f} {:>10.1f} {:>10.1f} {:>10.2f}  {}{}{}\n", l.time.us, l.time.bound, l.times,
                     form_name(w.form), l.launch.blocks.text(), f.threads, f.shared_bytes, w.read / 1024, w.written / 1024, w.moved / 1024, w.products * 1e-6, l.name, others, where);
}

std::string launch_json(const cuda::ListedLaunch &l) {
  const cuda::CudaFunction &f = l.launch.function;
  const cuda::LaunchWork &w = l.launch.work;
  return fmt::format("{{\"name\": {}, \"source\": {}, \"function\": {}, \"form\": {}, \"times\": {}, \"joined\": {}, \"blocks\": {}, \"threads\": {}, \"shared_bytes\": {}, "
                     "\"scratch_bytes\": {}, \"read_bytes\": {:.0f}, \"written_bytes\": {:.0f}, \"cache_bytes\": {:.0f}, \"products\": {:.0f}, \"us\": {:.3f}, \"bound\": {}}}",
                     json_quote(l.name), json_quote(l.location.text()), json_quote(f.name), json_quote(form_name(w.form)), l.times, l.joined, json_quote(l.launch.blocks.text()), f.threads,
                     f.shared_bytes, f.scratch_bytes, w.read, w.written, w.moved, w.products, l.time.us, json_quote(l.time.bound));
}

} // namespace

int inspect_launches(Module &module, const ModelOptions &options, OptLevel level, GpuMachine gpu, bool tf32) {
  gpu.rounds_products = tf32;
  Diagnostics diagnostics;
  CompileOptions compile;
  compile.level = level;
  compile.gpus = {gpu};
  Program program;
  if (!optimise_module(module, compile, diagnostics) || !lower_module(module, program, diagnostics, {true}))
    return report(diagnostics, options);
  std::vector<cuda::CudaKernel> kernels = cuda::emit_kernels(program, gpu);
  std::string text, list;
  for (const cuda::LaunchList &entry : list_launches(program, kernels, gpu)) {
    text += fmt::format("{}: {} launches in about {:.1f} us; {:.2f} MiB and {:.1f} million products take {:.1f} us at least\n", entry.entry, entry.count, entry.us,
                        entry.least_bytes / (1 << 20), entry.products * 1e-6, entry.least_us);
    text += fmt::format("{:>9} {:>6} {:>6}  {:<5} {:>9}   {:<5} {:>7} {:>10} {:>10} {:>10} {:>10}  {}\n", "us", "bound", "times", "form", "blocks", "threads", "shared", "KiB read",
                        "written", "cache", "Mproducts", "launch");
    std::string launches;
    for (const cuda::ListedLaunch &l : entry.launches) {
      text += launch_line(l);
      launches += (launches.empty() ? "" : ",\n  ") + launch_json(l);
    }
    list += fmt::format("{}{{\"name\": {}, \"launches\": {}, \"us\": {:.3f}, \"least_bytes\": {:.0f}, \"products\": {:.0f}, \"least_us\": {:.3f}, \"list\": [\n  {}]}}",
                        list.empty() ? "" : ",\n ", json_quote(entry.entry), entry.count, entry.us, entry.least_bytes, entry.products, entry.least_us, launches);
  }
  std::cout << (options.json ? fmt::format("{{\"gpu\": {}, \"entries\": [{}]}}\n", json_quote(gpu.name), list) : text);
  return kFine;
}

} // namespace kiln
