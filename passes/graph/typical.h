// Sizes to decide by where they are only known at run time.
//
// A choice between forms that all give the right answer (Winograd or direct, in what blocks) needs a size.
// A symbolic dim is taken to be its bound where it has one, else what such a dim usually is: one image,
// 256 pixels high or wide, 64 words.
#pragma once

#include "ir/graph.h"

namespace kiln {

class TypicalSizes {
public:
  // Images of `side` pixels high and wide.
  explicit TypicalSizes(const Module &module, int64_t side = 256);
  // 1 at least.
  int64_t of(const Dim &size) const;

private:
  std::map<Symbol, int64_t> sizes_;
};

} // namespace kiln
