#include "codegen/machine.h"

#include <algorithm>

namespace kiln {

std::vector<MachineDesc> cpu_machines() {
  MachineDesc v2;
  v2.name = "x86-64-v2";
  v2.triple = "x86_64-unknown-linux-gnu";
  v2.cpu = "x86-64-v2";
  v2.vector_bytes = 16;
  v2.vector_registers = 16;

  MachineDesc v3 = v2;
  v3.name = v3.cpu = "x86-64-v3";
  v3.vector_bytes = 32;
  v3.has_fma = true;

  MachineDesc v4 = v3;
  v4.name = v4.cpu = "x86-64-v4";
  // LLVM's x86-64-v4 prefers 256-bit vectors; the kernels ask for 512 explicitly.
  v4.features = "-prefer-256-bit";
  v4.vector_bytes = 64;
  v4.vector_registers = 32;
  v4.has_masks = true;
  v4.has_broadcast_operand = true;

  MachineDesc vnni = v4;
  vnni.name = "x86-64-v4+avx512vnni";
  vnni.features += ",+avx512vnni";

  MachineDesc arm;
  arm.name = "aarch64";
  arm.triple = "aarch64-unknown-linux-gnu";
  arm.cpu = "generic";
  arm.features = "+neon";
  arm.vector_bytes = 16;
  arm.vector_registers = 32;
  arm.has_fma = true;
  arm.l1_bytes = 64 << 10;
  return {v2, v3, v4, vnni, arm};
}

MachineDesc host_machine() {
  auto machines = cpu_machines();
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4"))
    return machines[__builtin_cpu_supports("avx512vnni") ? 3 : 2];
  if (__builtin_cpu_supports("x86-64-v3"))
    return machines[1];
  return machines[0];
#else
  return machines[4];
#endif
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
