// Entries: buffers in every region, control steps, sizes, constraints; and the image as a file.
#include "tests/cpu/harness.h"

#include <catch2/catch.hpp>

#include <algorithm>
#include <elf.h>
#include <limits>

namespace kiln::test {
namespace {

PlanBuffer buffer(PlanBuffer::Kind kind, std::string text, Dim offset, Dim size, int index = -1) {
  PlanBuffer b;
  b.kind = kind;
  b.name = std::move(text);
  b.offset = std::move(offset);
  b.size = std::move(size);
  (kind == PlanBuffer::Kind::argument ? b.argument
   : kind == PlanBuffer::Kind::weight ? b.weight
                                      : b.variable) = index;
  return b;
}

PlanStep launch(Plan &plan, int kernel, std::vector<int> buffers, std::vector<Dim> dims = {}) {
  PlanStep step;
  step.kernel = kernel;
  step.buffers = std::move(buffers);
  step.dims = std::move(dims);
  step.position = plan.launches++;
  return step;
}

// o[i] = a[i] + b[0], over N elements; o may be a.
Kernel add_kernel(std::string text) {
  Dim i = sym("i");
  return make_kernel(
      std::move(text),
      {in("a", DType::i32, sym("N")), in("b", DType::i32, 1), out("o", DType::i32, sym("N"))},
      {"N"},
      {kb::loop(name("i"), 0, sym("N"), LoopKind::serial,
                {kb::store(name("o"), i,
                           kb::add(kb::load(name("a"), DType::i32, i),
                                   kb::load(name("b"), DType::i32, 0)))})});
}

// flag[0] = a[0] < limit
Kernel less_kernel(int64_t limit) {
  return make_kernel(
      "less", {in("a", DType::i32, 1), out("flag", DType::bool_, 1)}, {},
      {kb::store(name("flag"), 0,
                 kb::lt(kb::load(name("a"), DType::i32, 0), kb::integer(DType::i32, limit)))});
}

// Inputs x[N], outputs y[N]; a weight of 10 at byte 64, a variable at byte 64 that counts runs.
//   t = x + weight; variable += weight; while (t[0] < 50) t += weight;
//   if (t[0] < 55) y = t + weight else y = t + t[0]; for r in 0..3: y[r..] += weight (a slice)
Program control_program() {
  using Kind = PlanBuffer::Kind;
  Program program;
  program.name = "control flow";
  program.kernels = {add_kernel("add"), less_kernel(50), less_kernel(55)};
  program.weights = {{ConstantId(), {}, 64, 4}};
  program.weights_size = 128;
  program.variables = {{0, 4}, {64, 4}};
  program.variables_size = 128;
  Plan plan;
  plan.name = "main";
  Dim n = sym("N"), bytes = n * Dim(4), row = Dim(64) * ceildiv(bytes, Dim(64));
  plan.dims = {name("N")};
  plan.inputs = {{"x", {DType::i32, {n}}}};
  plan.outputs = {{"y", {DType::i32, {n}}}, {"z", {DType::i32, {n + Dim(1), Dim(2)}}}};
  plan.buffers = {buffer(Kind::argument, "x", 0, bytes, 0),
                  buffer(Kind::argument, "y", 0, bytes, 1),
                  buffer(Kind::weight, "w", 0, 4, 0),
                  buffer(Kind::variable, "v", 0, 4, 1),
                  buffer(Kind::arena, "t", 64, bytes),
                  buffer(Kind::arena, "flag", 0, 1),
                  buffer(Kind::argument, "slice", sym("r") * Dim(4), 4, 1)};
  enum { kX, kY, kW, kV, kT, kFlag, kSlice };
  plan.arena_size = Dim(64) + row;
  PlanStep loop, repeat, branch;
  plan.steps.push_back(launch(plan, 0, {kX, kW, kT}, {n}));
  plan.steps.push_back(launch(plan, 0, {kV, kW, kV}, {1}));
  repeat.kind = PlanStep::Kind::while_;
  repeat.condition = kFlag;
  repeat.condition_body = {launch(plan, 1, {kT, kFlag})};
  repeat.body = {launch(plan, 0, {kT, kW, kT}, {n})};
  plan.steps.push_back(repeat);
  plan.steps.push_back(launch(plan, 2, {kT, kFlag}));
  branch.kind = PlanStep::Kind::if_;
  branch.condition = kFlag;
  branch.body = {launch(plan, 0, {kT, kW, kY}, {n})};
  branch.other = {launch(plan, 0, {kT, kT, kY}, {n})};
  plan.steps.push_back(branch);
  loop.kind = PlanStep::Kind::loop;
  loop.var = name("r");
  loop.count = n - Dim(1);
  loop.body = {launch(plan, 0, {kSlice, kW, kSlice}, {1})};
  plan.steps.push_back(loop);
  plan.constraints = {{mod(n, Dim(2)), 0, {}, "N is even"}, {n * n, n * Dim(4), {}, "N is 4"}};
  program.entries = {plan};
  return program;
}

Bytes words(std::initializer_list<int32_t> values) {
  return bytes_of(std::vector<int32_t>(values));
}

TEST_CASE("control steps, regions and in-place updates") {
  Program program = control_program();
  for (int32_t start : {3, 7}) { // ends at 53, below 55, or at 57
    Run run;
    run.dims = {4};
    run.args = {words({start, 1, 2, 3}), Bytes(16), Bytes(40)};
    run.weights = Bytes(128);
    run.weights[64] = 10;
    run.variables = Bytes(128);
    run.variables[64] = 5;
    on_every_machine(program, run, [&](const MachineDesc &, const Run &done) {
      REQUIRE(done.code == 0);
      int32_t t = start + 50, added = start == 3 ? 10 : t;
      CHECK(done.args[1] == words({t + added + 10, 51 + added + 10, 52 + added + 10, 53 + added}));
      CHECK(done.variables[64] == 15);
      CHECK(done.planned[0] == 128);
      CHECK(done.planned[1] == 4);
      CHECK(done.planned[2] == 5);
      CHECK(done.planned[3] == 2);
      std::vector<int> log{0, 1, 2, 3, 2, 3, 2, 3, 2, 3, 2, 4, start == 3 ? 5 : 6, 7, 7, 7};
      CHECK(done.kernel_log == log);
    });
  }
}

TEST_CASE("plan refuses dims that break constraints, and sizes that overflow") {
  Program program = control_program();
  for (auto [n, status] : {std::pair<int64_t, int>{4, 0}, {3, 1}, {6, 2}, {INT64_MAX - 1, 2}}) {
    INFO(n);
    Run run;
    run.dims = {n};
    run.args = {Bytes(64), Bytes(64), Bytes(64)};
    run.weights = run.variables = Bytes(128);
    run.weights[64] = 60;
    on_every_machine(program, run, [&, want = status](const MachineDesc &, const Run &done) {
      CHECK(done.plan_status == want);
    });
  }
  program.entries[0].constraints.clear();
  for (int64_t n : {INT64_MAX - 1, INT64_MAX / 4, INT64_MIN / 2, int64_t(-100)}) {
    INFO(n);
    Run run;
    run.dims = {n};
    run.args = {Bytes(64), Bytes(64), Bytes(64)};
    on_every_machine(program, run, [&](const MachineDesc &, const Run &done) {
      CHECK(done.plan_status == 0);
      CHECK(done.planned[0] == std::numeric_limits<int64_t>::max());
    });
  }
}

// Parts of a buffer whose places depend on a symbol: not aligned, and read with whole vectors.
TEST_CASE("views at symbolic offsets") {
  using Kind = PlanBuffer::Kind;
  Dim n = sym("N");
  auto copy = [&](std::string text) {
    return make_kernel(std::move(text), {in("a", DType::f32, 16), out("o", DType::f32, 16)}, {},
                       {kb::store(name("o"), 0, kb::load(name("a"), DType::f32, 0, 16))});
  };
  Program program;
  program.name = "views";
  program.kernels = {copy("in"), copy("out")};
  Plan plan;
  plan.name = "main";
  plan.dims = {name("N")};
  plan.buffers = {buffer(Kind::argument, "x", 0, 64, 0), buffer(Kind::argument, "y", 0, 64, 1),
                  buffer(Kind::arena, "part", Dim(64) + n * Dim(4), 64)};
  plan.inputs = {{"x", {DType::f32, {Dim(16)}}}};
  plan.outputs = {{"y", {DType::f32, {Dim(16)}}}};
  plan.arena_size = Dim(192) + n * Dim(4);
  plan.steps = {launch(plan, 0, {0, 2}), launch(plan, 1, {2, 1})};
  program.entries = {plan};
  std::vector<float> x;
  for (int k = 0; k < 16; ++k)
    x.push_back(float(k));
  for (int64_t size : {0, 1, 3}) {
    Run run;
    run.dims = {size};
    run.args = {bytes_of(x), Bytes(64)};
    on_every_machine(program, run, [&](const MachineDesc &, const Run &done) {
      CHECK(values_of<float>(done.args[1]) == x);
    });
  }
}

std::vector<std::string> function_names(const cpu::CodeImage &image) {
  auto *elf = reinterpret_cast<const char *>(image.elf.data());
  Elf64_Ehdr header;
  std::memcpy(&header, elf, sizeof header);
  std::vector<Elf64_Shdr> sections(header.e_shnum);
  std::memcpy(sections.data(), elf + header.e_shoff, sections.size() * sizeof(Elf64_Shdr));
  std::vector<std::string> out;
  for (const Elf64_Shdr &section : sections) {
    if (section.sh_type != SHT_SYMTAB)
      continue;
    for (uint64_t at = 0; at < section.sh_size; at += sizeof(Elf64_Sym)) {
      Elf64_Sym symbol;
      std::memcpy(&symbol, elf + section.sh_offset + at, sizeof symbol);
      out.push_back(elf + sections[section.sh_link].sh_offset + symbol.st_name);
    }
  }
  return out;
}

bool contains(const std::vector<std::string> &list, std::string_view text) {
  return std::find(list.begin(), list.end(), text) != list.end();
}

TEST_CASE("the image: same bytes for any jobs, equal kernels once, names, no writable segment") {
  std::vector<Kernel> kernels;
  for (int k = 0; k < 12; ++k) {
    Kernel kernel = less_kernel(k % 4);
    kernel.name = "less" + std::to_string(k);
    kernels.push_back(kernel);
  }
  Program program = make_program(kernels);
  for (const MachineDesc &machine : cpu_machines()) {
    INFO(machine.name);
    cpu::CpuOptions one, three;
    three.jobs = 3;
    cpu::CodeImage image = compile(program, machine, one);
    CHECK(image.target == machine.name);
    CHECK(image.elf == compile(program, machine, three).elf);
    CHECK(image.elf == compile(program, machine, one).elf);
    auto names = function_names(image);
    CHECK(contains(names, "less0"));
    CHECK(contains(names, "less11"));
    CHECK(contains(names, "kiln_test_run_main"));
    CHECK(contains(names, "kiln_test_plan_main"));
    Elf64_Ehdr header;
    std::memcpy(&header, image.elf.data(), sizeof header);
    CHECK(header.e_type == ET_DYN);
    for (int i = 0; i < header.e_phnum; ++i) {
      Elf64_Phdr segment;
      std::memcpy(&segment, image.elf.data() + header.e_phoff + size_t(i) * sizeof segment,
                  sizeof segment);
      if (segment.p_type == PT_LOAD) {
        CHECK((segment.p_flags & PF_W) == 0);
        CHECK(segment.p_offset % 4096 == 0);
        CHECK(segment.p_vaddr == segment.p_offset);
      }
    }
  }
  Program once = make_program({kernels[0], kernels[1], kernels[2], kernels[3]});
  MachineDesc machine = cpu_machines()[1];
  size_t growth = compile(program, machine).elf.size() - compile(once, machine).elf.size();
  CHECK(growth < 8 * 200); // eight calls and names, no code of kernels
}

TEST_CASE("objects, assembly and LLVM text") {
  Program program = control_program();
  for (const MachineDesc &machine : cpu_machines()) {
    INFO(machine.name);
    auto object = cpu::emit_object(program, program.kernels, machine);
    auto assembly = cpu::emit_assembly(program, program.kernels, machine);
    auto text = cpu::emit_llvm_text(program, program.kernels, machine);
    REQUIRE(object.ok());
    REQUIRE(assembly.ok());
    REQUIRE(text.ok());
    Elf64_Ehdr header;
    std::memcpy(&header, object->data(), sizeof header);
    CHECK(header.e_type == ET_REL);
    CHECK(assembly->find(".globl\tkiln_control_flow_run_main") != std::string::npos);
    CHECK(text->find(" i32 @kiln_control_flow_plan_main(") != std::string::npos);
  }
}

TEST_CASE("malformed kernels are errors") {
  auto fails = [](Stmt stmt) {
    Program program = make_program({make_kernel("bad", {out("o", DType::f32, 4)}, {}, {stmt})});
    return !cpu::compile_image(program, program.kernels, cpu_machines()[0]).ok();
  };
  Expr one = kb::number(DType::f32, 1);
  CHECK(!fails(kb::store(name("o"), 0, one)));
  CHECK(fails(kb::store(name("missing"), 0, one)));
  CHECK(fails(kb::store(name("o"), sym("unbound"), one)));
  CHECK(fails(kb::store(name("o"), 0, kb::var(name("unbound"), DType::f32))));
  CHECK(fails(kb::store(name("o"), 0, kb::integer(DType::i32, 1))));
  CHECK(fails(kb::store(name("o"), 0, kb::unary(UnaryOp::erf, one))));
  CHECK(fails(kb::store(name("o"), Dim::invalid(), one)));
}

} // namespace
} // namespace kiln::test
