// The op table: one array in the order of ir/ops.def.
#include "ir/ops/op.h"

#include <unordered_map>

namespace kiln {
namespace {

constexpr const OpDef *kOps[] = {
#define KILN_OP(name) &op_##name,
#include "ir/ops.def"
#undef KILN_OP
};

} // namespace

const OpDef &op_def(Op op) { return *kOps[size_t(op)]; }

std::span<const OpDef *const> all_ops() { return kOps; }

std::optional<Op> find_op(std::string_view name) {
  static const auto *index = [] {
    auto *map = new std::unordered_map<std::string_view, Op>;
    for (size_t i = 0; i < std::size(kOps); ++i)
      map->emplace(kOps[i]->name, Op(i));
    return map;
  }();
  auto it = index->find(name);
  return it == index->end() ? std::nullopt : std::optional(it->second);
}

} // namespace kiln
