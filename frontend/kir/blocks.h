// How the elaborator traces into a block that becomes a region of a node.
#pragma once

#include "frontend/kir/elaborator.h"

namespace kiln::kir {

// Runs with nodes going to `block`, one region deeper.
template <typename F>
void Elaborator::in_block(Block &block, const F &run) {
  GraphBuilder saved = fn_->builder;
  ++fn_->region_depth;
  fn_->builder.set_position(block, SIZE_MAX);
  run();
  --fn_->region_depth;
  // Builders hold references; only the position is put back.
  fn_->builder.set_position(saved.block(), saved.position());
}

template <typename F>
std::vector<Elaborator::Carry> Elaborator::trial(const F &run) {
  Snapshot before = snapshot();
  size_t nodes = fn_->function.nodes.size(), values = fn_->function.values.size();
  size_t constants = module_.constants.size(), constraints = module_.constraints.size();
  size_t units = fn_->units.size();
  auto sizes = size_names_;
  auto dims = frame_->dims;
  Block scratch;
  in_block(scratch, run);
  size_names_ = std::move(sizes);
  frame_->dims = std::move(dims);
  std::vector<Carry> out = changes_since(before);
  fn_->units.resize(units);
  fn_->function.nodes.resize(nodes);
  fn_->function.values.resize(values);
  module_.constants.resize(constants);
  module_.constraints.resize(constraints);
  restore(before);
  return out;
}

} // namespace kiln::kir
