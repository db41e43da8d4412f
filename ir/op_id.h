// Op: one enumerator for each line of ir/ops.def.
#pragma once

#include <cstdint>

namespace kiln {

enum class Op : uint16_t {
#define KILN_OP(name) name,
#include "ir/ops.def"
#undef KILN_OP
};

} // namespace kiln
