// Scheduled and compiled kernels give what the interpreter gives for the naive ones, on every level
// of the instruction set that this processor runs.
#include "tests/bench/kernels/compiled.h"
#include "tests/kernel_passes/naive.h"
#include "tests/kernel_passes/run.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

using namespace kiln;

namespace {

struct Case {
  Kernel kernel;
  std::vector<int64_t> dims;
  double tolerance = 2e-5;
};

Dim dim(const char *s) {
  return Dim::symbol(s);
}
Symbol sym(const char *s) {
  return Symbol(s);
}

std::vector<Case> cases() {
  std::vector<Case> out;
  for (bool panels : {false, true}) {
    for (auto [m, n, k] :
         {std::tuple(1, 40, 9), {13, 33, 17}, {14, 64, 8}, {7, 130, 5}, {29, 3, 6}, {64, 96, 70}})
      out.push_back({naive::matmul(m, n, k, panels), {}});
    for (int64_t m : {1, 5, 17})
      out.push_back({naive::matmul(dim("M"), dim("N"), dim("K"), panels, DType::f32,
                                   {sym("M"), sym("N"), sym("K")}),
                     {m, 37, 6}});
    for (DType d :
         {DType::f64, DType::i32, DType::i8, DType::f16, DType::bf16, DType::i64, DType::u8})
      out.push_back({naive::matmul(7, 37, 9, panels, d),
                     {},
                     d == DType::f16 || d == DType::bf16 ? 2e-2 : 1e-5});
  }
  for (int64_t m : {1, 6, 29})
    out.push_back({naive::quantised_matmul(m, 100, 24), {}});
  out.push_back({naive::matmul_transposed(2, 5, 7, 33), {}});
  out.push_back(
      {naive::matmul_transposed(dim("B"), 20, dim("N"), 64, {sym("B"), sym("N")}), {2, 75}});
  out.push_back({naive::conv({1, 16, 32, 7, 7, 3, 3, 1, 1, true, 0}), {}});
  out.push_back({naive::conv({2, 20, 40, 6, 5, 3, 3, 2, 1, true, 1}), {}});
  out.push_back({naive::conv({1, 16, 64, 5, 19, 3, 3, 1, 1, false, 0}), {}});
  out.push_back({naive::conv({1, 32, 48, 9, 9, 1, 1, 1, 0, true, 0}), {}});
  out.push_back({naive::first_conv({1, 3, 32, 11, 11, 7, 7, 2, 3, true, 0}), {}});
  out.push_back({naive::depthwise({1, 32, 32, 9, 17, 3, 3, 1, 1, true, 0}), {}});
  out.push_back({naive::depthwise({1, 24, 24, 9, 9, 5, 5, 2, 2, false, 0}), {}});
  out.push_back({naive::max_pool({1, 32, 32, 9, 17, 3, 3, 2, 1, false, 0}), {}});
  for (DType d : {DType::f32, DType::f64, DType::f16, DType::bf16, DType::i32, DType::i8})
    out.push_back({naive::elementwise({3, 37}, UnaryOp::neg, d), {}});
  for (UnaryOp op :
       {UnaryOp::exp, UnaryOp::expm1, UnaryOp::tanh, UnaryOp::erf, UnaryOp::sigmoid, UnaryOp::sin,
        UnaryOp::cos, UnaryOp::atan, UnaryOp::sinh, UnaryOp::asinh, UnaryOp::floor, UnaryOp::round})
    for (DType d : {DType::f32, DType::f64})
      out.push_back({naive::elementwise({150}, op, d), {}});
  out.push_back({naive::gelu(77), {}});
  out.push_back({naive::transpose(19, 35), {}});
  out.push_back({naive::transpose(dim("N"), 40, {sym("N")}), {21}});
  out.push_back({naive::embedding(5, 3, 20), {}});
  for (int64_t w : {5, 16, 70, 200}) {
    out.push_back({naive::softmax(3, w), {}});
    out.push_back({naive::softmax(dim("N"), w, {sym("N")}), {40}});
    out.push_back({naive::layer_norm(3, w), {}, 1e-4});
  }
  for (auto [m, n, k] : {std::tuple(1, 16, 8), {5, 40, 12}, {14, 64, 36}, {29, 3, 20}}) {
    out.push_back({naive::quantised_matmul(m, n, k), {}});
    out.push_back({naive::paired_matmul(m, n, k), {}, 1e-4});
  }
  for (int64_t width : {2, 3, 4})
    out.push_back({naive::quantised_depthwise(32, 5, 9, width), {}});
  out.push_back({naive::column_sum(2, 5, 37), {}});
  for (DType d : {DType::f32, DType::f64, DType::i32, DType::u8, DType::i8})
    for (BinaryOp op : {BinaryOp::add, BinaryOp::max, BinaryOp::min, BinaryOp::mul})
      out.push_back({naive::row_sum(3, 75, d, op), {}, 1e-4});
  return out;
}

bool check(const Case &c, const MachineDesc &machine) {
  auto fail = [&](const std::string &why) {
    std::printf("%s on %s: %s\n%s\n", c.kernel.name.c_str(), machine.name.c_str(), why.c_str(),
                print_kernel(c.kernel).c_str());
    return false;
  };
  naive::Run expected = naive::interpret(c.kernel, c.dims, false);
  if (!expected.error.empty())
    return fail(expected.error);
  bench::Compiled code(c.kernel, machine, c.dims);
  if (!code.error().empty())
    return fail(code.error());
  std::vector<naive::Bytes> buffers = naive::random_buffers(c.kernel, c.dims);
  std::vector<std::vector<std::byte>> aligned;
  std::vector<void *> pointers;
  for (naive::Bytes &b : buffers) {
    aligned.emplace_back(b.size() + 192);
    std::byte *at = aligned.back().data();
    at += (64 - reinterpret_cast<uintptr_t>(at) % 64) % 64;
    if (!b.empty())
      std::memcpy(at, b.data(), b.size());
    pointers.push_back(at);
  }
  if (code.run(pointers) != expected.trap)
    return fail("another trap than " + std::to_string(expected.trap));
  for (size_t b = 0; b < buffers.size(); ++b) {
    DType d = c.kernel.buffers[b].dtype;
    if (!buffers[b].empty())
      std::memcpy(buffers[b].data(), pointers[b], buffers[b].size());
    for (int64_t i = 0; i < int64_t(buffers[b].size()) / dtype_bytes(d); ++i) {
      double x = naive::number_at(d, expected.buffers[b], i),
             y = naive::number_at(d, buffers[b], i);
      bool same = x == y || (std::isnan(x) && std::isnan(y)) ||
                  std::fabs(x - y) <= c.tolerance * std::max(1.0, std::fabs(x));
      if (!same && expected.trap == 0)
        return fail(std::string(c.kernel.buffers[b].name.text()) + "[" + std::to_string(i) +
                    "] = " + std::to_string(y) + ", expected " + std::to_string(x));
    }
  }
  return true;
}

} // namespace

int main() {
  int failures = 0;
  for (const MachineDesc &machine : cpu_machines()) {
    if (!runs_here(machine))
      continue;
    for (const Case &c : cases())
      failures += !check(c, machine);
  }
  if (failures)
    std::printf("%d kernels differ\n", failures);
  return failures != 0;
}
