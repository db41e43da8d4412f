#include "codegen/machine.h"

#include <algorithm>

#if defined(__aarch64__)
#include <sys/auxv.h>
#elif defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace kiln {
namespace {

// `names`: LLVM's for the feature, where they are others.
MachineDesc extended(const MachineDesc &base, std::string_view feature, std::string_view names = {}) {
  MachineDesc out = base;
  out.name += "+" + std::string(feature);
  out.features += (out.features.empty() ? "+" : ",+") + std::string(names.empty() ? feature : names);
  return out;
}

// Every processor with AMX has the dots of bf16, and all of them multiply both bytes and bf16: a feature stands for
// what comes with it, as names of targets are short.
MachineDesc with_tiles(const MachineDesc &base, bool bf16) {
  const std::string_view names = "avx512bf16,+amx-tile,+amx-int8,+amx-bf16";
  MachineDesc out = extended(base, bf16 ? "amxbf16" : "amxint8", bf16 ? names : names.substr(0, names.rfind(',')));
  out.has_bf16_tiles = bf16;
  out.has_bf16_dots = out.has_byte_tiles = true;
  out.tile_rows = 16;
  out.tile_row_bytes = 64;
  out.tile_count = 8;
  return out;
}

#if defined(__x86_64__)
// Linux gives a process its tile registers on request (ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA).
bool grants_tiles() { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }
#endif

bool has_feature([[maybe_unused]] std::string_view name) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return name == "x86-64-v2"    ? __builtin_cpu_supports("x86-64-v2")
         : name == "x86-64-v3"  ? __builtin_cpu_supports("x86-64-v3")
         : name == "x86-64-v4"  ? __builtin_cpu_supports("x86-64-v4")
         : name == "avxvnni"    ? __builtin_cpu_supports("avxvnni")
         : name == "avx512vnni" ? __builtin_cpu_supports("avx512vnni")
         : name == "avx512bf16" ? __builtin_cpu_supports("avx512bf16")
         : name == "amxbf16"    ? __builtin_cpu_supports("amx-bf16") && has_feature("amxint8")
         : name == "amxint8"
             ? __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("amx-tile") &&
                   __builtin_cpu_supports("amx-int8") && grants_tiles()
                                : false;
#elif defined(__aarch64__)
  return name == "aarch64"   ? true
         : name == "dotprod" ? (getauxval(AT_HWCAP) >> 20 & 1) != 0
         : name == "i8mm"    ? (getauxval(AT_HWCAP2) >> 13 & 1) != 0
                             : false;
#else
  return false;
#endif
}

} // namespace

std::vector<MachineDesc> cpu_machines() {
  MachineDesc v2;
  v2.name = "x86-64-v2";
  v2.triple = "x86_64-unknown-linux-gnu";
  v2.cpu = "x86-64-v2";
  v2.vector_bytes = 16;
  v2.vector_registers = 16;
  v2.byte_dots = ByteDots::pairs;

  MachineDesc v3 = v2;
  v3.name = v3.cpu = "x86-64-v3";
  v3.vector_bytes = 32;
  v3.has_fma = true;
  v3.has_float_masks = true;

  MachineDesc avxvnni = extended(v3, "avxvnni");
  avxvnni.byte_dots = ByteDots::vnni;

  MachineDesc v4 = v3;
  v4.name = v4.cpu = "x86-64-v4";
  // LLVM's x86-64-v4 prefers 256-bit vectors; the kernels ask for 512 explicitly.
  v4.features = "-prefer-256-bit";
  v4.vector_bytes = 64;
  v4.vector_registers = 32;
  v4.has_masks = true;
  v4.has_broadcast_operand = true;

  MachineDesc vnni = extended(v4, "avx512vnni");
  vnni.byte_dots = ByteDots::vnni;
  MachineDesc bf16 = extended(vnni, "avx512bf16");
  bf16.has_bf16_dots = true;

  MachineDesc arm;
  arm.name = "aarch64";
  arm.triple = "aarch64-unknown-linux-gnu";
  arm.cpu = "generic";
  arm.features = "+neon";
  arm.vector_bytes = 16;
  arm.vector_registers = 32;
  arm.has_fma = true;
  arm.byte_dots = ByteDots::pairs;
  arm.l1_bytes = 64 << 10;
  MachineDesc dotprod = extended(arm, "dotprod");
  dotprod.byte_dots = ByteDots::signed_;
  MachineDesc i8mm = extended(dotprod, "i8mm");
  i8mm.byte_dots = ByteDots::mixed;
  return {v2, v3, avxvnni, v4, vnni, bf16, with_tiles(vnni, false), with_tiles(vnni, true), arm, dotprod, i8mm};
}

bool is_x86(const MachineDesc &machine) { return machine.triple.starts_with("x86_64"); }

bool runs_here(const MachineDesc &machine) {
  for (std::string_view rest = machine.name; !rest.empty();) {
    size_t end = std::min(rest.find('+'), rest.size());
    if (!has_feature(rest.substr(0, end)))
      return false;
    rest.remove_prefix(std::min(end + 1, rest.size()));
  }
  return true;
}

MachineDesc host_machine() {
  auto machines = cpu_machines();
  auto best = std::find_if(machines.rbegin(), machines.rend(), runs_here);
  return best == machines.rend() ? machines[0] : *best;
}

std::optional<MachineDesc> find_machine(std::string_view name) {
  if (name == "host")
    return host_machine();
  if (name == "aarch64-linux-gnu")
    name = "aarch64";
  auto machines = cpu_machines();
  auto it = std::find_if(machines.begin(), machines.end(),
                         [&](const MachineDesc &m) { return m.name == name; });
  return it == machines.end() ? std::nullopt : std::optional(*it);
}

} // namespace kiln
