#include "codegen/c/c.h"

#include "codegen/c/stmt.h"
#include "codegen/entry_abi_text.h"
#include "passes/kernel/schedule.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

namespace kiln::c {
namespace {

std::string identifier(std::string_view name) {
  std::string out;
  for (char c : name)
    out += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return out;
}

// Runs on one thread; the scratch memory of its kernels is the first part of the arena.
class Emitter {
public:
  Emitter(const Program &program, const COptions &options)
      : program_(program), options_(options), kernels_(program.kernels) {
    for (Kernel &kernel : kernels_)
      expand_narrow(kernel);
    for (const Kernel &kernel : kernels_)
      scratch_size_ = std::max(scratch_size_, scratch_layout(kernel).size);
  }

  Result<std::string> run() {
    std::string body;
    for (const Kernel &kernel : kernels_)
      body += emit_kernel(kernel) + "\n";
    std::string model = identifier(program_.name);
    if (!options_.weights.empty())
      body += weights(model);
    for (const Plan &plan : program_.entries)
      body += emit_entry(plan, model) + "\n";
    std::string out = fmt::format("/* {}: compiled by Kiln. C99; needs <math.h>. */\n#include <math.h>\n#include <stdint.h>\n"
                                  "#include <string.h>\n\n#ifndef KILN_ENTRY_ABI\n#define KILN_ENTRY_ABI 3u\n{}#endif\n\n",
                                  program_.name, kEntryAbiStructs);
    for (const std::string &helper : helpers_)
      out += helper_text(helper) + "\n";
    return out + "\n" + body;
  }

private:
  std::string weights(const std::string &model) {
    std::string out = fmt::format("static const union {{\n  uint8_t bytes[{}];\n  double aligned;\n}} kiln_{}_weights = {{{{",
                                  options_.weights.size() + 64, model);
    for (size_t i = 0; i < options_.weights.size(); ++i)
      out += fmt::format("{}{},", i % 32 == 0 ? "\n  " : "", unsigned(options_.weights[i]));
    return out + "\n}};\n\n";
  }

  std::string emit_kernel(const Kernel &kernel) {
    std::string params;
    for (const KernelBuffer &b : kernel.buffers)
      params += fmt::format(", {}{} *{}", b.access == Access::in ? "const " : "", c_type(b.dtype), c_name(b.name));
    for (Symbol d : kernel.dims)
      params += fmt::format(", int64_t {}", c_name(d));
    std::string out = fmt::format("static void {}(KilnFrame *frame{}) {{\n", identifier(kernel.name), params);
    out += "  (void)frame;\n";
    for (Symbol d : kernel.dims)
      out += fmt::format("  (void){};\n", c_name(d));
    ScratchLayout scratch = scratch_layout(kernel);
    StmtStyle style{"frame->trap = {}; return;", &scratch, "frame->arena"};
    return out + c_body(kernel.body, 1, style, helpers_) + "}\n";
  }

  std::string emit_entry(const Plan &plan, const std::string &model) {
    std::string out = fmt::format("int32_t kiln_{}_plan_{}(const int64_t *dims, int64_t *out) {{\n", model, identifier(plan.name));
    out += declare_dims(plan, "dims");
    for (size_t i = 0; i < plan.constraints.size(); ++i)
      out += fmt::format("  if ({} != {}) return {};\n", c_dim(plan.constraints[i].a, helpers_),
                         c_dim(plan.constraints[i].b, helpers_), i + 1);
    size_t at = 0;
    out += fmt::format("  out[{}] = {};\n", at++, c_dim(arena_of(plan) + Dim(scratch_size_), helpers_));
    for (const PlanArgument &output : plan.outputs)
      for (const Dim &d : output.planned())
        out += fmt::format("  out[{}] = {};\n", at++, c_dim(d, helpers_));
    out += fmt::format("  return 0;\n}}\n\nint32_t kiln_{}_run_{}(KilnFrame *frame) {{\n", model, identifier(plan.name));
    out += declare_dims(plan, "frame->dims");
    out += "  frame->trap = 0;\n" + emit_steps(plan, plan.steps, model, 1);
    return out + "  return 0;\n}\n";
  }

  std::string declare_dims(const Plan &plan, std::string_view from) {
    std::string out = fmt::format("  (void){};\n", from);
    for (size_t i = 0; i < plan.dims.size(); ++i)
      out += fmt::format("  const int64_t {0} = {1}[{2}];\n  (void){0};\n", c_name(plan.dims[i]), from, i);
    return out;
  }

  std::string buffer_text(const PlanBuffer &b, DType dtype, bool written, const std::string &model) {
    Dim before(b.kind == PlanBuffer::Kind::arena ? scratch_size_ : 0);
    std::string base, offset = c_dim(b.offset + before, helpers_);
    switch (b.kind) {
    case PlanBuffer::Kind::argument:
      base = fmt::format("(uint8_t *)frame->args[{}]", b.argument);
      break;
    case PlanBuffer::Kind::weight:
      base = fmt::format("{} + {}",
                         options_.weights.empty() ? "frame->weights" : fmt::format("kiln_{}_weights.bytes", model),
                         program_.weights[size_t(b.weight)].offset);
      break;
    case PlanBuffer::Kind::variable:
      base = fmt::format("frame->variables + {}", program_.variables[size_t(b.variable)].offset);
      break;
    case PlanBuffer::Kind::arena:
      base = "frame->arena";
      break;
    }
    return fmt::format("({}{} *)({} + {})", written ? "" : "const ", c_type(dtype), base, offset);
  }

  static Dim arena_of(const Plan &plan) {
    Dim most = plan.arena_size;
    for (const PlanForm &form : plan.forms)
      most = max(most, form.arena_size);
    return most;
  }

  std::string emit_steps(const Plan &plan, const std::vector<PlanStep> &steps, const std::string &model, int depth) {
    std::string out, pad(size_t(depth) * 2, ' ');
    auto condition = [&](const PlanStep &step) {
      return fmt::format("*{}", buffer_text(plan.buffers[size_t(step.condition)], DType::bool_, false, model));
    };
    for (const PlanStep &step : steps) {
      switch (step.kind) {
      case PlanStep::Kind::launch: {
        const Kernel &kernel = kernels_[size_t(step.kernel)];
        std::string args;
        for (size_t i = 0; i < step.buffers.size(); ++i)
          args += ", " + buffer_text(plan.buffers[size_t(step.buffers[i])], kernel.buffers[i].dtype,
                                     kernel.buffers[i].access != Access::in, model);
        for (const Dim &d : step.dims)
          args += ", " + c_dim(d, helpers_);
        out += fmt::format("{0}{1}(frame{2}); /* {3} */\n{0}if (frame->trap) return frame->trap_kernel = {4}, frame->trap;\n"
                           "{0}if (frame->services->after_kernel) frame->services->after_kernel(frame->services->self, {4});\n",
                           pad, identifier(kernel.name), args, comment(step.name), step.position);
        break;
      }
      case PlanStep::Kind::bind: {
        const PlanSize &size = plan.sizes[size_t(step.index)];
        out += fmt::format("{0}const int64_t {1} = *{2};\n{0}(void){1};\n{0}if ({1} < 0 || {1} > {3})\n"
                           "{0}  return frame->trap_kernel = {4}, frame->trap_index = {5}, frame->trap_value = {1}, frame->trap = 3;\n"
                           "{0}if (frame->sizes) frame->sizes[{5}] = {1};\n",
                           pad, c_name(size.name), buffer_text(plan.buffers[size_t(step.buffers[0])], DType::i64, false, model),
                           c_dim(size.bound, helpers_), step.position, step.index);
        break;
      }
      case PlanStep::Kind::require:
        out += fmt::format("{0}if ({1} != {2})\n{0}  return frame->trap_kernel = {3}, frame->trap_index = {4}, frame->trap = 4;\n",
                           pad, c_dim(step.dims[0], helpers_), c_dim(step.dims[1], helpers_), step.position, step.index);
        break;
      case PlanStep::Kind::if_:
        out += fmt::format("{0}if ({1}) {{\n{2}{0}}} else {{\n{3}{0}}}\n", pad, condition(step),
                           emit_steps(plan, step.body, model, depth + 1), emit_steps(plan, step.other, model, depth + 1));
        break;
      case PlanStep::Kind::while_: {
        std::string test = emit_steps(plan, step.condition_body, model, depth + 1);
        std::string head = step.var.empty() ? ";;" : fmt::format("int64_t {0} = 0;; ++{0}", c_name(step.var));
        out += fmt::format("{0}for ({4}) {{\n{1}{0}  if (!{2}) break;\n{3}{0}}}\n", pad, test, condition(step),
                           emit_steps(plan, step.body, model, depth + 1), head);
        break;
      }
      case PlanStep::Kind::form: {
        std::string same;
        for (const auto &[symbol, value] : plan.forms[size_t(step.form)].dims)
          same += fmt::format("{}{} == {}", same.empty() ? "" : " && ", c_dim(Dim::symbol(symbol), helpers_), value);
        out += fmt::format("{0}if ({1}) {{\n{2}{0}}} else {{\n{3}{0}}}\n", pad, same,
                           emit_steps(plan, step.body, model, depth + 1), emit_steps(plan, step.other, model, depth + 1));
        break;
      }
      case PlanStep::Kind::loop:
        out += fmt::format("{0}for (int64_t {1} = 0; {1} < {2}; ++{1}) {{\n{3}{0}}}\n", pad, c_name(step.var),
                           c_dim(step.count, helpers_), emit_steps(plan, step.body, model, depth + 1));
        break;
      }
    }
    return out;
  }

  // Names come from the model: nothing in one may end the comment it stands in.
  static std::string comment(std::string text) {
    for (char &c : text)
      if (!std::isprint(static_cast<unsigned char>(c)) || c == '*' || c == '/' || c == '\\' || c == '?')
        c = '_';
    return text;
  }

  const Program &program_;
  const COptions &options_;
  std::vector<Kernel> kernels_;
  int64_t scratch_size_ = 0;
  Helpers helpers_;
};

} // namespace

Result<std::string> emit_c(const Program &program, const COptions &options) {
  return Emitter(program, options).run();
}

} // namespace kiln::c
