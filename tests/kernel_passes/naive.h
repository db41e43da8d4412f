// Naive kernels in the forms that lowering makes, for the tests and benchmarks of the kernel
// passes.
#pragma once

#include "ir/kernel/build.h"

namespace kiln::naive {

using Symbols = std::vector<Symbol>;

// c[m, n] = relu(sum a[m, k] * b[k, n] + bias[n]); b constant in panels of 16, or row-major.
Kernel matmul(Dim m, Dim n, Dim k, bool panels, DType dtype = DType::f32, Symbols dims = {});
// c[m, n] = sum a[m, k] * b[k, n], u8 by i8 in i32; b in panels of 16 columns by 4 rows, k % 4 == 0.
Kernel quantised_matmul(Dim m, Dim n, int64_t k, Symbols dims = {});
// A convolution of u8 by i8 in i32 without padding, x and y in [C/block][H][W][block], w in
// [O/16][KH][KW][C/4][16][4]. One block of all channels: channels last. channels % block == 0, outputs % 16 == 0.
struct QuantisedConv {
  int64_t channels = 16, outputs = 16, h = 8, w = 8, window = 3, stride = 1, block = 16;
  int64_t out_h() const { return (h - window) / stride + 1; }
  int64_t out_w() const { return (w - window) / stride + 1; }
};
Kernel quantised_conv(const QuantisedConv &c);
Kernel paired_matmul(Dim m, Dim n, int64_t k, Symbols dims = {}); // of bf16
Kernel quantised_depthwise(int64_t channels, int64_t h, int64_t w, int64_t width);
// c[b, m, n] = sum a[b, m, k] * t[b, n, k]
Kernel matmul_transposed(Dim batch, Dim m, Dim n, Dim k, Symbols dims = {});

struct ConvShape {
  int64_t n = 1, ic = 16, oc = 16, h = 8, w = 8, kh = 3, kw = 3, stride = 1, pad = 1;
  bool halo = true;     // x has a halo of `pad` zeros; else the reduction's bounds are clamped
  int64_t out_halo = 0; // y has a halo, which nobody writes here
  int64_t out_h() const { return (h + 2 * pad - kh) / stride + 1; }
  int64_t out_w() const { return (w + 2 * pad - kw) / stride + 1; }
};
Kernel conv(const ConvShape &s);       // NCHWc16, any ic and oc
Kernel first_conv(const ConvShape &s); // x planar with halo, w [O/16][KH][KW][IC][16]
// x, w and y planar, with halo; for few output channels.
Kernel planar_conv(const ConvShape &s);
Kernel depthwise(const ConvShape &s); // of ic channels, NCHWc16
Kernel max_pool(const ConvShape &s);  // the same
Kernel elementwise(std::vector<Dim> shape, UnaryOp op, DType dtype = DType::f32, Symbols dims = {});
Kernel gelu(Dim n, Symbols dims = {});
Kernel softmax(Dim rows, int64_t width, Symbols dims = {});
Kernel layer_norm(Dim rows, int64_t width, Symbols dims = {});
// Over the pixels of blocks of 16 channels, the block's loop in front of the pixels'.
Kernel instance_norm(int64_t blocks, int64_t channels, int64_t pixels);
// The same order of loops, elementwise.
Kernel blocked_copy(int64_t blocks, int64_t channels, int64_t h, int64_t w);
// y[c, i] = x[i', c] with i' reflected at both ends.
Kernel reflect_pad(int64_t channels, int64_t width, int64_t pad);
Kernel column_sum(Dim outer, Dim rows, Dim columns, Symbols dims = {});
Kernel row_sum(Dim rows, Dim width, DType dtype, BinaryOp op, Symbols dims = {});
Kernel transpose(Dim rows, Dim columns, Symbols dims = {});
Kernel embedding(Dim ids, int64_t table, int64_t width, Symbols dims = {});

} // namespace kiln::naive
