// Sizes of inputs that are computed from symbolic dims: `P + S`, `2*N`, `(H - 1) / 2`.
//
// An output's dims come from plan(); an input's have to be checked before anything runs. The
// manifest holds their text, in the grammar of ir/dim.h: integers, names, + - * / % ( ) min(a, b)
// max(a, b), where / rounds down and % has the sign of its right side.
#pragma once

#include <cstdint>

namespace kiln::rt {

// Finds the value of a name (of `size` characters); false where there is none.
using DimLookup = bool (*)(const void *self, const char *name, uint64_t size, int64_t *value);

// False where the text is malformed, too deep, names something unknown, overflows, or divides by
// zero.
bool evaluate_dim(const char *text, DimLookup lookup, const void *self, int64_t *value);

} // namespace kiln::rt
