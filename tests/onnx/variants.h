// A sound model, changed in one place at a time: the type that it declares for an input, a weight, an operand
// of a node, an attribute. What comes out is what exporters with a bug and people with an editor write.
#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace kiln::test {

// Told what was changed ("input 'x': rank 0") and the bytes of the changed file.
using TakeVariant = std::function<void(const std::string &what, const std::string &bytes)>;

// Every change of a ModelProto, always in the same order. Bytes that are no message have none.
void for_each_variant(std::string_view model, const TakeVariant &take);

} // namespace kiln::test
