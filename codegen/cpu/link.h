// The linker: objects to one ELF64 ET_DYN image that a loader only has to map.
//
//   R   ELF header, program headers, KilnImageHeader, KilnImageEntry..., constants
//   RX  code, from the next page on
//       .symtab, .strtab, section headers (not loaded; for objdump, perf and debuggers)
#pragma once

#include "codegen/cpu/object_file.h"

#include <cstddef>

namespace kiln::cpu {

struct LinkUnit {
  const ObjectFile *object = nullptr;
  // For a kernel's object: the names under which its function `kernel` is called, and those that
  // stand in the symbol table, where its `kernel.loop1` appears as the first of these plus
  // `.loop1`.
  std::vector<std::string> link_names;
  std::vector<std::string> labels;
};

struct LinkEntry {
  std::string run, plan; // link names
};

// `machine` is ELF's (EM_X86_64, EM_AARCH64). An error if a symbol stays undefined.
Result<std::vector<std::byte>> link_image(uint16_t machine, const std::vector<LinkUnit> &units,
                                          const std::vector<LinkEntry> &entries);

// Names that the units use and none of them defines.
std::vector<std::string> undefined_symbols(const std::vector<LinkUnit> &units);

inline constexpr const char *kKernelFunction = "kernel";

} // namespace kiln::cpu
