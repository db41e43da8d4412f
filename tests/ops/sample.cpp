#include "tests/ops/sample.h"

#include "ir/interpret.h"
#include "ir/kernel/interpret.h"
#include "passes/lower/lower.h"
#include "tests/random.h"

#include <cmath>
#include <fmt/format.h>

namespace kiln::test {
namespace {

double epsilon(DType dtype) {
  switch (dtype) {
  case DType::f16:
    return 0x1p-9;
  case DType::bf16:
    return 0x1p-6;
  default:
    return 0;
  }
}

} // namespace

std::string sample_text(Op op, const OpSample &sample) {
  std::string list;
  for (const TensorType &type : sample.operands)
    list += (list.empty() ? "" : ", ") + type.text();
  for (const auto &[name, attr] : sample.attrs.all()) {
    if (const auto *dims = std::get_if<std::vector<Dim>>(&attr))
      list += fmt::format(", {}={}", name, shape_text(*dims));
    else if (const auto *dim = std::get_if<Dim>(&attr))
      list += fmt::format(", {}={}", name, dim->text());
    else if (const auto *text = std::get_if<std::string>(&attr))
      list += fmt::format(", {}=\"{}\"", name, *text);
    else if (const auto *flag = std::get_if<bool>(&attr))
      list += fmt::format(", {}={}", name, *flag);
    else if (const auto *dtype = std::get_if<DType>(&attr))
      list += fmt::format(", {}={}", name, dtype_name(*dtype));
  }
  return fmt::format("{}({})", op_def(op).name, list);
}

Result<Module> sample_module(Op op, const OpSample &sample) {
  Module module;
  module.name = "sample";
  Function &f = module.functions.emplace_back();
  f.name = "f";
  f.exported = true;
  std::vector<ValueId> operands;
  for (size_t i = 0; i < sample.operands.size(); ++i)
    operands.push_back(f.add_argument(f.body, sample.operands[i], fmt::format("x{}", i)));
  GraphBuilder builder(module, f, f.body);
  KILN_TRY(node, builder.emit(op, operands, sample.attrs));
  f.body.results = f.node(node).results;
  for (size_t i = 0; i < f.body.results.size(); ++i)
    f.result_names.push_back(fmt::format("y{}", i));
  return module;
}

std::vector<Tensor> sample_inputs(const OpSample &sample, uint64_t seed) {
  Random random{seed};
  std::vector<Tensor> out;
  for (const TensorType &type : sample.operands) {
    std::vector<int64_t> dims;
    for (const Dim &d : type.shape)
      dims.push_back(d.as_const());
    Tensor tensor(type.dtype, dims);
    int64_t lo = int64_t(std::ceil(sample.lo)), hi = int64_t(std::floor(sample.hi));
    for (int64_t i = 0; i < tensor.count(); ++i) {
      if (holds_floats(type.dtype)) {
        tensor.set_f64(i, sample.lo + (sample.hi - sample.lo) * random.uniform());
      } else if (is_bool(type.dtype)) {
        tensor.set_i64(i, int64_t(random.next() & 1));
      } else {
        int64_t value = 0;
        do
          value = lo + int64_t(random.next() % uint64_t(hi - lo + 1));
        while (sample.nonzero && value == 0);
        tensor.set_i64(i, value);
      }
    }
    out.push_back(std::move(tensor));
  }
  return out;
}

OpSample symbolic(const OpSample &sample) {
  OpSample out = sample;
  for (TensorType &type : out.operands)
    for (Dim &d : type.shape)
      if (d.as_const() > 1)
        d = Dim::symbol("D" + d.text());
  return out;
}

Result<std::vector<Tensor>> run_kernel(const Module &module, const std::vector<Tensor> &inputs) {
  const Function &f = module.functions[0];
  LoweredNode lowered = lower_node(module, f, f.body.nodes[0]);
  if (auto status = verify_kernel(lowered.kernel); !status)
    return Error{status.error().message + "\n" + print_kernel(lowered.kernel)};
  std::vector<TensorType> types;
  for (ValueId arg : f.body.args)
    types.push_back(f.type(arg));
  KILN_TRY(bound, bind_dims(types, std::vector<std::string>(types.size()), inputs));
  auto value_of = [&](Symbol name) -> std::optional<int64_t> {
    for (const auto &[symbol, value] : bound)
      if (symbol == name)
        return value;
    return std::nullopt;
  };
  std::vector<int64_t> dims;
  for (Symbol dim : lowered.kernel.dims)
    dims.push_back(value_of(dim).value());

  std::vector<Tensor> in = inputs, out;
  for (ValueId result : f.body.results) {
    std::vector<int64_t> sizes;
    for (const Dim &d : f.type(result).shape)
      sizes.push_back(d.evaluate(value_of).value());
    out.emplace_back(f.type(result).dtype, sizes);
  }
  std::vector<std::span<std::byte>> buffers;
  for (ValueId value : lowered.values) {
    Tensor *tensor = nullptr;
    for (size_t i = 0; i < f.body.args.size(); ++i)
      if (f.body.args[i] == value)
        tensor = &in[i];
    for (size_t i = 0; i < f.body.results.size(); ++i)
      if (f.body.results[i] == value)
        tensor = &out[i];
    if (!tensor)
      return Error{"a buffer of the kernel holds an unknown value"};
    buffers.emplace_back(tensor->mutable_bytes(), tensor->bytes().size());
  }
  auto trap = interpret_kernel(lowered.kernel, buffers, dims);
  if (!trap)
    return Error{trap.error().message + "\n" + print_kernel(lowered.kernel)};
  if (*trap != 0)
    return Error{fmt::format("the kernel traps with {}", *trap)};
  return out;
}

std::string compare(const OpDef &def, const Tensor &got, const Tensor &want) {
  if (got.type() != want.type())
    return fmt::format("{} instead of {}", got.type().text(), want.type().text());
  if (!holds_floats(got.dtype())) {
    for (int64_t i = 0; i < got.count(); ++i)
      if (got.at_i64(i) != want.at_i64(i))
        return fmt::format("element {} is {}, not {}", i, got.at_i64(i), want.at_i64(i));
    return "";
  }
  double tolerance = got.dtype() == DType::f64 ? std::min(1e-9, def.tolerance)
                                               : std::max(def.tolerance, epsilon(got.dtype()));
  double worst = 0;
  int64_t at = -1;
  for (int64_t i = 0; i < got.count(); ++i) {
    double a = got.at_f64(i), b = want.at_f64(i);
    if (a == b || (std::isnan(a) && std::isnan(b)))
      continue;
    double error = std::fabs(a - b) / std::max(1.0, std::fabs(b));
    if (!(error <= worst))
      worst = error, at = i;
    if (std::isnan(error))
      break;
  }
  if (worst <= tolerance)
    return "";
  return fmt::format("element {} is {:.9g}, not {:.9g}: off by {:.3g}, tolerance {:.3g}", at,
                     got.at_f64(at), want.at_f64(at), worst, tolerance);
}

} // namespace kiln::test
