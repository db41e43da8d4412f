// Expands composite ops by OpDef::decompose, until only primitives are left and those composites
// that the target computes itself (context.native).
//
//   y = softmax(x, axis=1)   ->   m = reduce_max(x, axes=[1]); e = exp(x - m); y = e /
//   reduce_sum(e, axes=[1])
#include "passes/graph/rewrite.h"

#include "ir/ops/op.h"

#include <algorithm>

namespace kiln {

Changed decompose(Module &module, PassContext &context) {
  auto is_native = [&](Op op) {
    return std::find(context.native.begin(), context.native.end(), op) != context.native.end();
  };
  // A composite may decompose into others; the table has no cycles, so that a few rounds are
  // enough.
  constexpr int kDeepest = 16;
  Changed changed = Changed::no;
  for (Function &function : module.functions) {
    for (int round = 0;; ++round) {
      KILN_CHECK(round < kDeepest, "ops decompose into each other without end");
      Changed once = Sweep(module, function).run([&](Sweep &s, NodeId id) {
        const OpDef &def = op_def(s.node(id).op);
        if (!def.decompose || is_native(s.node(id).op))
          return;
        Node node = s.node(id);
        std::vector<ValueId> results = def.decompose(s.builder(), node);
        s.replace_results(id, results);
      });
      if (once == Changed::no)
        break;
      changed = Changed::yes;
      function.compact();
    }
  }
  return changed;
}

} // namespace kiln
