#include "tests/kernel_passes/run.h"

#include "ir/kernel/interpret.h"
#include "ir/kernel/scalar_value.h"

#include <cmath>
#include <random>

namespace kiln::naive {

double number_at(DType d, const Bytes &bytes, int64_t i) {
  ScalarValue v = read_scalar(d, bytes.data() + i * dtype_bytes(d));
  return is_float(d) ? v.f : double(v.i);
}

void set_number(DType d, Bytes &bytes, int64_t i, double value) {
  write_scalar(d, convert_scalar(DType::f64, d, {value, 0}), bytes.data() + i * dtype_bytes(d));
}

int64_t size_of(const Kernel &kernel, const Dim &d, const std::vector<int64_t> &dims) {
  return *d.evaluate([&](Symbol s) -> std::optional<int64_t> {
    for (size_t i = 0; i < dims.size(); ++i)
      if (kernel.dims[i] == s)
        return dims[i];
    return std::nullopt;
  });
}

std::vector<Bytes> random_buffers(const Kernel &kernel, const std::vector<int64_t> &dims) {
  std::mt19937 random(7);
  std::uniform_real_distribution<double> uniform(-2, 2);
  std::vector<Bytes> out;
  for (const KernelBuffer &b : kernel.buffers) {
    int64_t n = size_of(kernel, b.size, dims);
    Bytes bytes(size_t(n * dtype_bytes(b.dtype)));
    for (int64_t i = 0; i < n; ++i) {
      double x = uniform(random);
      if (b.dtype == DType::i64)
        x = std::fabs(x);
      else if (!is_float(b.dtype))
        x *= 4;
      set_number(b.dtype, bytes, i, x);
    }
    out.push_back(std::move(bytes));
  }
  return out;
}

Run interpret(const Kernel &kernel, const std::vector<int64_t> &dims, bool reverse) {
  Run out;
  out.buffers = random_buffers(kernel, dims);
  std::vector<std::span<std::byte>> views(out.buffers.begin(), out.buffers.end());
  InterpretOptions options;
  options.reverse_parallel = reverse;
  auto result = interpret_kernel(kernel, views, dims, options);
  if (result.ok())
    out.trap = *result;
  else
    out.error = result.error().message;
  return out;
}

} // namespace kiln::naive
