// Strings in compiled code, which has numbers only: a tensor of strings of shape [S] is u8[S, L], each row a string's
// bytes (UTF-8) with zeros behind them, as in NumPy's `S` arrays. The width L of the model's inputs is one
// symbol for the whole model (kTextWidth), that of a constant its longest string's; results are as wide as they
// may become. A string ends at its last byte that is not zero.
//
// So comparing, looking up and changing strings are ordinary loops over bytes, on every target. Ops that only move
// elements (Gather, Concat, Where, ...) are imported for the numbers of the strings, and one gather moves the
// strings: none of them knows of text.
#pragma once

#include "frontend/onnx/node.h"
#include "frontend/onnx/ops.h"
#include "frontend/onnx/tensors.h"

#include <span>
#include <string_view>

namespace kiln::onnx {

inline constexpr int kStringType = 8; // TensorProto.STRING
inline constexpr std::string_view kTextWidth = "text_width";
inline constexpr int64_t kDefaultTextWidth = 256; // the most bytes of a string, unless --dim says otherwise

// A constant, as wide as its longest string, or as `least` if that is more.
Result<Tensor> make_text(std::span<const std::string_view> strings, std::vector<int64_t> shape, int64_t least = 1);
Result<Tensor> make_text(const TensorView &view);
Result<Val> text_constant(Emitter &e, std::span<const std::string> strings, std::vector<int64_t> shape = {-1});
// The strings of a constant.
std::vector<std::string> strings_of(const Tensor &text);

Val as_text(Val v);
// The shape without the bytes.
Shape text_shape(const Val &text);
const Dim &text_width(const Val &text);
// Its dims as the model sees them.
inline int model_rank(const Val &v) { return v.rank() - (v.text ? 1 : 0); }

Result<Val> widen(Emitter &e, const Val &text, const Dim &width);
// All as wide as the widest.
Status same_width(Emitter &e, std::vector<Val> &texts);
// Broadcast as numbers are; a bool for each string.
Result<Val> text_equal(Emitter &e, const Val &a, const Val &b);
// Bytes of each string, i64[S].
Result<Val> text_length(Emitter &e, const Val &text);
// Whether each string is each of the keys, bool[S, K].
Result<Val> text_matches(Emitter &e, const Val &text, std::span<const std::string> keys);
// table[which]
Result<Val> text_lookup(Emitter &e, std::span<const std::string> table, const Val &which);

// The strings of x, [C] or [1, C], that are not stop words; one empty string where there is no other (ops_text_split.cpp).
Result<Val> without_stop_words(Emitter &e, const Val &x, std::span<const std::string> stop_words, bool case_matters);

// With upper or lower case letters (text_case.cpp).
Result<Val> change_case(Emitter &e, const Val &text, bool upper);

// Imports a node that moves elements: its text operands go through `handler` as numbers of strings.
Status move_text(OnnxNode &n, Handler handler);

} // namespace kiln::onnx
