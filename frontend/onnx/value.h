// A tensor of the model while it is being imported. It may be in the graph, or known without being
// there: a constant, or a small tensor whose elements are sizes. Shape arithmetic (Shape, Gather, Mul,
// Concat, Reshape) works on the known forms, and enters the graph only if something uses it as data.
#pragma once

#include "frontend/onnx/checked.h"
#include "ir/graph.h"

#include <algorithm>
#include <string_view>
#include <vector>

namespace kiln::onnx {

// An element of a small tensor: an exact fraction of sizes. Floats are there for models that compute
// sizes in floating point (H * 0.5, rounded down); integers have the denominator 1.
struct Element {
  Dim numerator;
  int64_t denominator = 1;

  std::optional<int64_t> try_int() const {
    return denominator == 1 ? numerator.try_const() : std::nullopt;
  }
};

// Limits on what is computed at import.
inline constexpr int64_t kMaxFoldElements = 1 << 16; // of an operand or a result
inline constexpr int64_t kMaxSymbolicElements = 1 << 10;
inline constexpr int kMaxDimComplexity = 400; // atoms in one size
inline constexpr size_t kMaxProductTerms = 512; // of a product of sizes, multiplied out
inline constexpr int kMaxRank = 16;
inline constexpr int64_t kMaxElements = int64_t(1) << 48; // of one tensor: bytes and offsets of it never overflow

struct Val {
  TensorType type;
  ValueId id;                                     // valid: it is in the graph
  const Tensor *constant = nullptr;               // owned by the Emitter
  const std::vector<Element> *elements = nullptr; // owned by the Emitter; the shape is static
  // A sequence: its tensors. Only `type.dtype` means anything then.
  const std::vector<Val> *list = nullptr; // owned by the Emitter
  bool map = false;    // the list is a map's keys and its values, two rows
  bool absent = false; // an optional that holds nothing; one that holds a value is that value
  bool text = false; // strings: `type` is u8 with their bytes as the last dim (text.h)
  std::string_view name;                          // the model's, for diagnostics; may be empty
  bool failed = false; // its node could not be imported: whatever uses it is passed over

  bool is_tensor() const { return !list && !absent; }
  bool is_known() const { return constant || elements; }
  int rank() const { return type.rank(); }
  DType dtype() const { return type.dtype; }
  const Dim &dim(int i) const {
    if (i < 0 || i >= rank())
      lacks_dim(i);
    return type.shape[size_t(i)];
  }
  const Dim &last_dim() const { return dim(rank() - 1); }
  // The sizes of the dims [first, end).
  Shape dims(int first, int end) const {
    if (first < 0 || first > end || end > rank())
      lacks_dim(first < 0 ? first : end - 1);
    return Shape(type.shape.begin() + first, type.shape.begin() + end);
  }

private:
  [[noreturn]] void lacks_dim(int i) const;
};

// The sizes of a value, as a list whose index is checked.
class Sizes {
public:
  explicit Sizes(const Val &of) : of_(of) {}
  operator const Shape &() const { return of_.type.shape; }
  const Dim &operator[](size_t i) const { return of_.dim(int(std::min(i, size_t(kMaxRank)))); }
  const Dim &front() const { return of_.dim(0); }
  const Dim &back() const { return of_.last_dim(); }
  size_t size() const { return of_.type.shape.size(); }
  bool empty() const { return size() == 0; }
  Shape::const_iterator begin() const { return of_.type.shape.begin(); }
  Shape::const_iterator end() const { return of_.type.shape.end(); }
  friend bool operator==(const Sizes &a, const Shape &b) { return a.of_.type.shape == b; }
  friend bool operator==(const Sizes &a, const Sizes &b) { return a == static_cast<const Shape &>(b); }

private:
  const Val &of_;
};

// "f32[2, 3]", "a sequence of 3 tensors", "an optional that holds nothing", "text[2]"
std::string describe(const Val &val);

// Atoms and terms of a Dim, counted recursively; stops counting soon after the limit.
int complexity(const Dim &d);

} // namespace kiln::onnx
