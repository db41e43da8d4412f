// Small functions for tests of ops: one node over arguments, and its ref.
#pragma once

#include "ir/ops/op.h"

#include <random>

namespace kiln::test {

// A module with one exported function whose body is one node.
struct OneNode {
  Module module;
  NodeId node;
  std::string error; // of the builder, where there is no node

  Function &function() { return module.functions[0]; }
};

inline OneNode one_node(Op op, const std::vector<TensorType> &operands, const Attrs &attrs) {
  OneNode out;
  out.module.functions.emplace_back();
  Function &f = out.function();
  f.name = "f";
  f.exported = true;
  std::vector<ValueId> args;
  for (size_t i = 0; i < operands.size(); ++i)
    args.push_back(f.add_argument(f.body, operands[i], "x" + std::to_string(i)));
  GraphBuilder b(out.module, f, f.body);
  auto node = b.emit(op, args, attrs);
  if (!node) {
    out.error = node.error().message;
    return out;
  }
  out.node = *node;
  f.body.results = f.node(*node).results;
  for (size_t i = 0; i < f.body.results.size(); ++i)
    f.result_names.push_back("y" + std::to_string(i));
  return out;
}

inline std::string error_of(Op op, const std::vector<TensorType> &operands, const Attrs &attrs = {}) {
  return one_node(op, operands, attrs).error;
}

inline Tensor tensor(DType dtype, std::vector<int64_t> dims, const std::vector<double> &values) {
  Tensor out(dtype, std::move(dims));
  KILN_CHECK(size_t(out.count()) == values.size(), "as many values as elements");
  for (size_t i = 0; i < values.size(); ++i)
    out.set_f64(int64_t(i), values[i]);
  return out;
}

inline std::vector<double> values_of(const Tensor &t) {
  std::vector<double> out;
  for (int64_t i = 0; i < t.count(); ++i)
    out.push_back(t.at_f64(i));
  return out;
}

inline Tensor random_tensor(const TensorType &type, double lo, double hi, std::mt19937 &random) {
  std::vector<int64_t> dims;
  for (const Dim &d : type.shape)
    dims.push_back(d.as_const());
  Tensor out(type.dtype, std::move(dims));
  std::uniform_real_distribution<double> real(lo, hi);
  std::uniform_int_distribution<int64_t> integer{int64_t(lo), int64_t(hi)};
  for (int64_t i = 0; i < out.count(); ++i) {
    if (holds_floats(type.dtype))
      out.set_f64(i, real(random));
    else
      out.set_i64(i, is_signed_int(type.dtype) ? integer(random) : std::abs(integer(random)));
  }
  return out;
}

// The op's ref on concrete operands.
inline Result<std::vector<Tensor>> run_ref(Op op, const std::vector<Tensor> &operands, const Attrs &attrs) {
  std::vector<TensorType> types;
  std::vector<const Tensor *> pointers;
  for (const Tensor &t : operands) {
    types.push_back(t.type());
    pointers.push_back(&t);
  }
  OneNode n = one_node(op, types, attrs);
  if (!n.node.valid())
    return Error{n.error};
  const Node &node = n.function().node(n.node);
  std::vector<TensorType> results;
  for (ValueId v : node.results)
    results.push_back(n.function().type(v));
  return op_def(op).ref({pointers, node.attrs, results});
}

} // namespace kiln::test
