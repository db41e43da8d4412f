// Strong index types: a NodeId cannot be passed where a ValueId is meant.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace kiln {

template <typename Tag>
struct Id {
  int32_t index = -1;

  Id() = default;
  explicit Id(size_t i) : index(int32_t(i)) {}
  bool valid() const { return index >= 0; }
  explicit operator size_t() const { return size_t(index); }
  friend bool operator==(Id, Id) = default;
  friend auto operator<=>(Id, Id) = default;
};

using ValueId = Id<struct ValueTag>;       // within a Function
using NodeId = Id<struct NodeTag>;         // within a Function
using FunctionId = Id<struct FunctionTag>; // within a Module
using VariableId = Id<struct VariableTag>; // within a Module
using ConstantId = Id<struct ConstantTag>; // within a Module

} // namespace kiln

template <typename Tag>
struct std::hash<kiln::Id<Tag>> {
  size_t operator()(kiln::Id<Tag> id) const { return size_t(id.index); }
};
