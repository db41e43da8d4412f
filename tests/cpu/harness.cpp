#include "tests/cpu/harness.h"

#include "tests/temp_folder.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>

namespace kiln::test {

Program make_program(std::vector<Kernel> kernels) {
  Program program;
  program.name = "test";
  Plan plan;
  plan.name = "main";
  plan.arena_size = 0;
  for (size_t k = 0; k < kernels.size(); ++k) {
    PlanStep step;
    step.kernel = int(k);
    step.position = plan.launches++;
    step.name = kernels[k].name;
    for (const KernelBuffer &buffer : kernels[k].buffers) {
      std::string text(buffer.name.text());
      auto it = std::find_if(plan.buffers.begin(), plan.buffers.end(),
                             [&](const PlanBuffer &b) { return b.name == text; });
      step.buffers.push_back(int(it - plan.buffers.begin()));
      if (it != plan.buffers.end())
        continue;
      PlanBuffer b;
      b.kind = PlanBuffer::Kind::argument;
      b.name = text;
      b.argument = int(plan.buffers.size());
      b.size = buffer.size * Dim(dtype_bytes(buffer.dtype));
      plan.buffers.push_back(b);
      plan.inputs.push_back({text, {buffer.dtype, {}}});
    }
    for (Symbol dim : kernels[k].dims) {
      if (std::find(plan.dims.begin(), plan.dims.end(), dim) == plan.dims.end())
        plan.dims.push_back(dim);
      step.dims.push_back(Dim::symbol(dim));
    }
    plan.steps.push_back(step);
  }
  program.entries.push_back(plan);
  program.kernels = std::move(kernels);
  return program;
}

Kernel make_kernel(std::string kernel_name, std::vector<KernelBuffer> buffers,
                   std::vector<std::string> dims, std::vector<Stmt> body) {
  Kernel kernel;
  kernel.name = std::move(kernel_name);
  kernel.buffers = std::move(buffers);
  for (const std::string &dim : dims)
    kernel.dims.push_back(Symbol(dim));
  kernel.body = std::move(body);
  return kernel;
}

KernelBuffer in(std::string_view buffer, DType dtype, Dim size) {
  return {Symbol(buffer), dtype, std::move(size), Access::in, false};
}

KernelBuffer out(std::string_view buffer, DType dtype, Dim size) {
  return {Symbol(buffer), dtype, std::move(size), Access::out, false};
}

namespace {

[[maybe_unused]] bool has_emulator() {
  static const bool found = std::string_view(KILN_AARCH64_RUNNER) != "" &&
                            std::system("qemu-aarch64 --version > /dev/null 2>&1") == 0;
  return found;
}

struct Aligned {
  explicit Aligned(size_t size) : data(std::aligned_alloc(64, (size + 128) / 64 * 64)) {}
  explicit Aligned(const Bytes &bytes) : Aligned(bytes.size()) {
    std::copy(bytes.begin(), bytes.end(), get());
  }
  Aligned(const Aligned &) = delete;
  ~Aligned() { std::free(data); }
  uint8_t *get() { return static_cast<uint8_t *>(data); }
  void *data;
};

Run execute_here(const cpu::CodeImage &image, Run run) {
  const KilnImageHeader *header = image_map(image.elf.data(), image.elf.size());
  REQUIRE(header);
  Aligned weights(run.weights), variables(run.variables);
  std::vector<void *> args;
  for (Bytes &arg : run.args)
    args.push_back(arg.data());
  ImageLog log{};
  KilnServices services = image_services(&log);
  run.planned.assign(64, 0);
  run.plan_status = image_plan_fn(header, uint32_t(run.entry))(run.dims.data(), run.planned.data());
  if (run.plan_status != 0 || run.planned[0] >= (1 << 28))
    return run;
  Aligned arena{size_t(run.planned[0])};
  Aligned scratch{size_t(services.threads * IMAGE_SCRATCH)};
  KilnFrame frame{&services,       args.data(), run.dims.data(), arena.get(),   weights.get(),
                  variables.get(), -1,          0,               scratch.get(), IMAGE_SCRATCH, nullptr, 0, 0, run.hand_over};
  run.code = image_run_fn(header, uint32_t(run.entry))(&frame);
  run.trap_kernel = frame.trap_kernel;
  run.kernel_log.assign(log.kernels, log.kernels + log.count);
  run.variables.assign(variables.get(), variables.get() + run.variables.size());
  return run;
}

void put(std::ofstream &file, int64_t value) {
  file.write(reinterpret_cast<const char *>(&value), sizeof value);
}

void put(std::ofstream &file, const Bytes &bytes) {
  put(file, int64_t(bytes.size()));
  file.write(reinterpret_cast<const char *>(bytes.data()), std::streamsize(bytes.size()));
}

// Through files in a folder of its own; they are gone afterwards.
Bytes exchange(const cpu::CodeImage &image, const Run &run) {
  TempFolder folder;
  const std::string base = folder.path.string();
  {
    std::ofstream file(base + "/image", std::ios::binary);
    file.write(reinterpret_cast<const char *>(image.elf.data()), std::streamsize(image.elf.size()));
    std::ofstream request(base + "/request", std::ios::binary);
    put(request, run.entry);
    put(request, run.hand_over);
    put(request, int64_t(run.dims.size()));
    for (int64_t dim : run.dims)
      put(request, dim);
    put(request, int64_t(run.args.size()));
    for (const Bytes &arg : run.args)
      put(request, arg);
    put(request, run.weights);
    put(request, run.variables);
  }
  std::string command = "qemu-aarch64 " KILN_AARCH64_RUNNER " " + base + "/image " + base +
                        "/request " + base + "/reply";
  int status = std::system(command.c_str());
  std::ifstream reply(base + "/reply", std::ios::binary);
  Bytes bytes{std::istreambuf_iterator<char>(reply), std::istreambuf_iterator<char>()};
  REQUIRE(status == 0);
  return bytes;
}

[[maybe_unused]] Run execute_emulated(const cpu::CodeImage &image, Run run) {
  Bytes bytes = exchange(image, run);
  const uint8_t *at = bytes.data();
  auto take = [&](void *to, size_t size) {
    REQUIRE(size <= size_t(bytes.data() + bytes.size() - at));
    if (size > 0)
      std::memcpy(to, at, size);
    at += size;
  };
  int64_t head[3];
  take(head, sizeof head);
  run.planned.resize(64);
  take(run.planned.data(), 64 * sizeof(int64_t));
  ImageLog log;
  take(&log, sizeof log);
  run.kernel_log.assign(log.kernels, log.kernels + log.count);
  for (Bytes &arg : run.args)
    take(arg.data(), arg.size());
  take(run.variables.data(), run.variables.size());
  run.plan_status = int(head[0]);
  run.code = int(head[1]);
  run.trap_kernel = int(head[2]);
  return run;
}

} // namespace

std::vector<MachineDesc> runnable_machines() {
#if defined(__x86_64__)
  std::vector<MachineDesc> out;
  for (const MachineDesc &machine : cpu_machines()) {
    bool runs = is_x86(machine) ? runs_here(machine) : has_emulator();
    if (runs)
      out.push_back(machine);
  }
  return out;
#else
  return {host_machine()};
#endif
}

cpu::CodeImage compile(const Program &program, const MachineDesc &machine,
                       const cpu::CpuOptions &options) {
  auto image = cpu::compile_image(program, program.kernels, machine, options);
  INFO((image.ok() ? std::string() : image.error().message));
  REQUIRE(image.ok());
  return *image;
}

Run execute(const cpu::CodeImage &image, Run run) {
#if defined(__x86_64__)
  if (image.target.starts_with("aarch64"))
    return execute_emulated(image, std::move(run));
#endif
  return execute_here(image, std::move(run));
}

void on_every_machine_made(const std::function<Program(const MachineDesc &)> &make, const Run &run,
                           const Check &check) {
  bool first = true;
  for (const MachineDesc &machine : runnable_machines()) {
    for (int opt_level : first ? std::vector<int>{2, 0} : std::vector<int>{2}) {
      INFO(machine.name << " -O" << opt_level);
      cpu::CpuOptions options;
      options.opt_level = opt_level;
      check(machine, execute(compile(make(machine), machine, options), run));
    }
    first = false;
  }
}

void on_every_machine(const Program &program, const Run &run, const Check &check) {
  on_every_machine_made([&](const MachineDesc &) { return program; }, run, check);
}

} // namespace kiln::test
