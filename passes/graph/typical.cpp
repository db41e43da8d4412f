#include "passes/graph/typical.h"

#include <algorithm>

namespace kiln {
namespace {

constexpr int64_t kWords = 64;

} // namespace

TypicalSizes::TypicalSizes(const Module &module, int64_t side) {
  for (const Function &function : module.functions) {
    if (!function.exported)
      continue;
    for (ValueId arg : function.body.args) {
      const Shape &shape = function.type(arg).shape;
      for (size_t d = 0; d < shape.size(); ++d)
        if (auto symbol = shape[d].try_symbol())
          sizes_.emplace(*symbol, d == 0 ? 1 : shape.size() >= 4 && d >= 2 ? side : kWords);
    }
  }
  for (auto &[symbol, size] : sizes_)
    if (auto bounds = module.dim_bounds.find(std::string(symbol.text())); bounds != module.dim_bounds.end())
      size = std::clamp(size, bounds->second.first, bounds->second.second);
}

int64_t TypicalSizes::of(const Dim &size) const {
  auto value = size.evaluate([&](Symbol symbol) -> std::optional<int64_t> {
    auto it = sizes_.find(symbol);
    return it == sizes_.end() ? kWords : it->second;
  });
  return std::max<int64_t>(1, value.value_or(kWords));
}

} // namespace kiln
