// A loop that reads the same large operand in every turn, the recurrent weights of an LSTM, finds nothing of it in the
// cache if it is a little too large and read from the front each time: what comes next was dropped a moment ago. Read
// from the back in every other turn, what came last is there.
//
//   for t in 0..T: launch k(h, w, ..)   =>   for t in 0..T: launch k(h, w, .., turn = t)
//
// where k's outermost loops over w are marked by `turn(turn)`. The order within a sum stays, so results do too. What
// the mark is worth depends on the machine's cache: choose_turns() in passes/kernel.
#include "ir/kernel/visit.h"
#include "passes/lower/plan_builder.h"

#include <algorithm>

namespace kiln {
namespace {

// Smaller operands fit in every second cache.
constexpr int64_t kLeastBytes = 256 << 10;

bool reads(const Stmt &s, Symbol buffer) {
  std::vector<Stmt> body = s.body;
  bool found = false;
  visit_exprs(body, [&](const Expr &e) { found |= e.is(Expr::Kind::load) && e.name == buffer; });
  return found;
}

} // namespace

void PlanBuilder::take_turns(Kernel &kernel, PlanStep &step) {
  if (turns_.variable.empty() || program_.options().gpu)
    return;
  Symbol turn("turn");
  for (int i = 1; std::find(kernel.dims.begin(), kernel.dims.end(), turn) != kernel.dims.end(); ++i)
    turn = Symbol("turn." + std::to_string(i)); // a dim of the model has that name
  bool marked = false;
  for (size_t i = 0; i < kernel.buffers.size(); ++i) {
    int buffer = step.buffers[i];
    bool stays = plan_->buffers[size_t(buffer)].kind == PlanBuffer::Kind::weight ||
                 (buffer < turns_.buffers &&
                  std::find(turns_.carried.begin(), turns_.carried.end(), buffer) == turns_.carried.end());
    auto size = kernel.buffers[i].size.try_const();
    if (!stays || kernel.buffers[i].access != Access::in || !size ||
        *size < kLeastBytes / int64_t(dtype_bytes(kernel.buffers[i].dtype)))
      continue;
    for (Stmt &s : kernel.body)
      if (s.is(Stmt::Kind::loop) && s.loop == LoopKind::parallel && reads(s, kernel.buffers[i].name)) {
        s.index = Dim::symbol(turn);
        marked = true;
      }
  }
  if (!marked)
    return;
  kernel.dims.push_back(turn);
  step.dims.push_back(Dim::symbol(turns_.variable));
}

} // namespace kiln
