// The C header of --emit=object and --emit=header: what a program needs to call a linked model, either
// through the runtime (kiln_<model>_model) or directly, one typed function for each entry.
#include "codegen/entry_abi_text.h"
#include "codegen/object_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace kiln {
namespace {

std::string identifier(std::string_view name) {
  std::string out;
  for (char c : name)
    out += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  if (out.empty() || std::isdigit(static_cast<unsigned char>(out[0])))
    out = "v" + out;
  return out;
}

std::string upper(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return char(std::toupper(c)); });
  return text;
}

std::string c_type(DType dtype) {
  switch (dtype) {
  case DType::f64: return "double";
  case DType::f32: return "float";
  case DType::i64: return "int64_t";
  case DType::i32: return "int32_t";
  case DType::i16: return "int16_t";
  case DType::i4:
  case DType::i2:
  case DType::i8: return "int8_t";
  case DType::u64: return "uint64_t";
  case DType::u32: return "uint32_t";
  case DType::f16:
  case DType::bf16:
  case DType::u16: return "uint16_t";
  default: return "uint8_t";
  }
}

constexpr std::string_view kSerialFor = R"(#ifndef KILN_SERIAL_FOR
#define KILN_SERIAL_FOR
static inline void kiln_serial_for(void *self, int64_t n, void (*body)(void *, int64_t, int64_t), void *closure) {
  (void)self;
  if (n > 0) body(closure, 0, n);
}
#endif
)";

// Names that differ, and that no parameter of ours has.
class Names {
public:
  std::string unique(std::string_view name) {
    std::string stem = identifier(name), out = stem;
    for (int i = 2; !used_.insert(out).second; ++i)
      out = fmt::format("{}_{}", stem, i);
    return out;
  }

private:
  std::set<std::string> used_ = {"arena", "variables", "sizes", "frame", "args", "dims", "services", "float", "double", "int", "char",
                                 "long", "short", "void", "if", "else", "for", "while", "do", "switch", "case", "default",
                                 "return", "static", "const", "struct", "union", "enum", "signed", "unsigned", "auto", "break",
                                 "continue", "extern", "goto", "register", "sizeof", "typedef", "volatile", "inline",
                                 "restrict", "class", "new", "delete", "this", "template", "operator", "private", "public",
                                 "bool", "true", "false", "int64_t", "int32_t", "int16_t", "int8_t", "uint64_t", "uint32_t",
                                 "uint16_t", "uint8_t", "catch", "try", "throw", "namespace", "using", "virtual", "friend"};
};

std::string entry_text(const Program &program, const Plan &plan, bool has_variables) {
  std::string model = identifier(program.name), function = fmt::format("{}_{}", model, identifier(plan.name));
  std::string macro = upper(function), out;
  Names names;
  std::string params = "void *arena", sizes, args;
  if (has_variables)
    params += ", void *variables";
  for (Symbol s : plan.dims) {
    std::string name = names.unique(s.text());
    params += ", int64_t " + name;
    sizes += (sizes.empty() ? "" : ", ") + name;
  }
  auto argument = [&](const PlanArgument &a, bool input) {
    std::string name = names.unique(a.name);
    params += fmt::format(", {}{} *{}", input ? "const " : "", c_type(a.type.dtype), name);
    args += fmt::format("{}(void *){}", args.empty() ? "" : ", ", name);
    Dim count = element_count(input ? a.type.shape : a.planned());
    if (count.is_const())
      out += fmt::format("#define {}_{}_COUNT {} /* elements: {} */\n", macro, upper(name), count.as_const(), a.type.text());
    else
      out += fmt::format("/* {}: {} */\n", name, a.type.text());
  };
  for (const PlanArgument &input : plan.inputs)
    argument(input, true);
  for (const PlanArgument &output : plan.outputs)
    argument(output, false);
  if (!plan.sizes.empty()) {
    std::string list;
    for (const PlanSize &size : plan.sizes)
      list += fmt::format("{}{} <= {}", list.empty() ? "" : ", ", size.name.text(), size.bound.text());
    params += ", int64_t *sizes";
    out += fmt::format("/* sizes: null, or room for {} that the run finds: {}. Outputs are at most as large as the bounds make\n"
                       " * them, and dense. */\n", plan.sizes.size(), list);
  }
  if (plan.arena_size.is_const() && plan.forms.empty())
    out += fmt::format("#define {}_ARENA_SIZE {}\n", macro,
                       plan.scratch_size + std::max<int64_t>(plan.arena_size.as_const(), 64) + 64);
  else
    out += fmt::format("/* The arena's size is out[0] of the plan function, plus {}. */\n", plan.scratch_size + 64);
  std::string run = cpu::run_symbol(program, plan), planner = cpu::plan_symbol(program, plan);
  out += fmt::format("int32_t {}(struct KilnFrame *frame);\nint32_t {}(const int64_t *dims, int64_t *out);\n", run, planner);
  out += fmt::format("/* On the calling thread. `arena` is aligned to 64. 0, or the trap that stopped it. */\n"
                     "static inline int32_t {}({}) {{\n  static const KilnServices services = {{3, 1, 0, kiln_serial_for, 0}};\n",
                     function, params);
  out += fmt::format("  void *const args[] = {{{}}};\n", args.empty() ? "0" : args);
  out += fmt::format("  const int64_t dims[] = {{{}}};\n", sizes.empty() ? "0" : sizes);
  out += fmt::format("  KilnFrame frame = {{&services, args, dims, (uint8_t *)arena + {4}, {0}, {1}, 0, 0, (uint8_t *)arena, {4}, {5}, 0, 0, 0}};\n"
                     "  return {2}(&frame);\n}}\n\n",
                     weights_symbol(program), has_variables ? "(uint8_t *)variables" : "0", run, 0, plan.scratch_size, plan.sizes.empty() ? "0" : "sizes");
  return out;
}

} // namespace

std::string object_header(const Module &module, const Compiled &compiled) {
  const Program &program = compiled.program;
  std::string guard = "KILN_MODEL_" + upper(identifier(program.name)) + "_H";
  std::string out = fmt::format("/* Made by kiln: the interface of a model linked into a program. Either hand {0} to the\n"
                                " * runtime's open_static(), or call the functions below directly. */\n"
                                "#ifndef {1}\n#define {1}\n#include <stdint.h>\n\n#ifdef __cplusplus\nextern \"C\" {{\n#endif\n\n"
                                "#ifndef KILN_RUNTIME_ENTRY_ABI_H\n#define KILN_RUNTIME_ENTRY_ABI_H\n{2}#endif\n{4}\n"
                                "struct KilnStaticModel;\nextern const struct KilnStaticModel {0};\nextern const uint8_t {3}[];\n",
                                model_symbol(program), guard, kEntryAbiStructs, weights_symbol(program), kSerialFor);
  if (!module.variables.empty())
    out += fmt::format("#define {}_VARIABLES_SIZE {}\n", upper(identifier(program.name)), program.variables_size);
  out += "\n";
  for (const Plan &plan : program.entries)
    out += entry_text(program, plan, !module.variables.empty());
  return out + "#ifdef __cplusplus\n}\n#endif\n#endif\n";
}

} // namespace kiln
