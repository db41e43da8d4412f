// What the linker needs of a relocatable ELF64 object.
#pragma once

#include "ir/support/result.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace kiln::cpu {

struct Relocation {
  uint64_t offset = 0;
  uint32_t type = 0;
  size_t symbol = 0;
  int64_t addend = 0;
};

struct ObjectSection {
  std::string name;
  bool loaded = false; // SHF_ALLOC and not empty
  bool executable = false;
  uint64_t alignment = 1;
  std::vector<uint8_t> bytes;
  std::vector<Relocation> relocations;
};

struct ObjectSymbol {
  std::string name;
  bool defined = false;
  bool function = false;
  size_t section = 0; // where defined
  uint64_t value = 0, size = 0;
};

struct ObjectFile {
  std::vector<ObjectSection> sections; // as the object numbers them
  std::vector<ObjectSymbol> symbols;
};

Result<ObjectFile> read_object(std::string_view bytes);

} // namespace kiln::cpu
