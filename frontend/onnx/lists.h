// Sequences and optionals. Compiled code has tensors only, so a sequence is a list of values while a model is
// imported: its length is known, and each of its tensors goes its own way. An optional is what it holds, or
// known to hold nothing.
//
// A map is the row of its keys and the row of its values, `x.keys` and `x.values` at the model's border.
//
// At the model's border a sequence `x` is as many arguments `x.0`, `x.1`, ...; how many, and whether an
// optional is there, is what the user says (OnnxOptions::lists). Notes in the module's metadata tell callers
// which arguments belong together (ir/argument_notes.h).
#pragma once

#include "frontend/onnx/import.h"
#include "frontend/onnx/node.h"

#include <deque>

namespace kiln::onnx {

// The model's inputs as arguments: what each is made of.
class InputGroups {
public:
  struct Group {
    const ValueInfoView *input = nullptr;
    bool absent = false;
    std::vector<const ValueInfoView *> parts; // an argument each; a plain tensor is its own only part
  };

  // False where a diagnostic was given.
  bool expand(const std::vector<const ValueInfoView *> &inputs, const OnnxOptions &options, Diagnostics &diagnostics,
              Symbol file);
  const std::vector<Group> &groups() const { return groups_; }
  // The options that the parts have.
  const OnnxOptions &options() const { return options_; }

private:
  const ValueInfoView *part(const ValueInfoView &input, std::string name);
  const ValueInfoView *map_part(const ValueInfoView &input, bool keys);

  std::vector<Group> groups_;
  OnnxOptions options_;
  std::deque<ValueInfoView> parts_;
  std::deque<std::string> names_;
};

// What values are made of, where they pass through an op as tensors.
struct Form {
  int64_t length = -1; // of a sequence
  bool absent = false;
  DType dtype = DType::f32; // of an empty sequence
  bool text = false;
  friend bool operator==(const Form &, const Form &) = default;
};
std::vector<Val> flatten(std::span<const Val> values, std::vector<Form> &forms);
// The values of these forms that the tensors make up.
std::vector<Val> regroup(Emitter &e, const std::vector<Form> &forms, std::span<const Val> tensors);
std::string describe(const Form &form);
// Whether each of the flattened tensors is text.
std::vector<bool> text_flags(const std::vector<Form> &forms);

// The tensors joined along a new axis; they must be of one type.
Result<Val> stack(Emitter &e, std::span<const Val> items, int axis);

// A loop whose carried values are sequences or optionals: its steps one after the other.
Status loop_unrolled(OnnxNode &n, const GraphView &graph, const std::vector<Val> &initial);

} // namespace kiln::onnx
