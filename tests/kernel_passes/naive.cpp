#include "tests/kernel_passes/naive.h"

#include <limits>

namespace kiln::naive {
namespace {

using namespace kb;

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr DType kF = DType::f32;

Dim s(std::string_view name) {
  return Dim::symbol(name);
}

Kernel start(const char *name, Symbols dims) {
  Kernel k;
  k.name = name;
  k.dims = std::move(dims);
  return k;
}

void buffer(Kernel &k, const char *name, DType dtype, Dim size, Access access,
            bool constant = false) {
  k.buffers.push_back({Symbol(name), dtype, std::move(size), access, constant});
}

Stmt par(std::string_view v, const Dim &end, std::vector<Stmt> body) {
  return loop(Symbol(v), 0, end, LoopKind::parallel, std::move(body));
}
Stmt red(std::string_view v, const Dim &begin, const Dim &end, std::vector<Stmt> body) {
  return loop(Symbol(v), begin, end, LoopKind::reduce, std::move(body));
}
Stmt red(std::string_view v, const Dim &end, std::vector<Stmt> body) {
  return red(v, 0, end, std::move(body));
}

Expr ld(std::string_view b, DType d, const Dim &at) {
  return load(Symbol(b), d, at);
}
Stmt st(std::string_view b, const Dim &at, Expr e) {
  return store(Symbol(b), at, std::move(e));
}
Stmt reg(std::string_view n, DType d = kF) {
  return alloc(Symbol(n), d, 1, 1, MemorySpace::reg);
}
Expr relu(Expr e) {
  DType d = e.dtype;
  return max(std::move(e), constant(d, 0));
}
Stmt accumulate(std::string_view name, Expr term, BinaryOp op = BinaryOp::add) {
  DType d = term.dtype;
  return st(name, 0, binary(op, ld(name, d, 0), std::move(term)));
}

} // namespace

Kernel matmul(Dim m, Dim n, Dim k, bool panels, DType dtype, Symbols dims) {
  Kernel out = start("matmul", std::move(dims));
  DType c = compute_dtype(dtype);
  buffer(out, "a", dtype, m * k, Access::in);
  buffer(out, "b", dtype, panels ? ceildiv(n, 16) * k * Dim(16) : n * k, Access::in, panels);
  buffer(out, "bias", c, n, Access::in, true);
  buffer(out, "c", dtype, m * n, Access::out);
  Dim column = panels ? s("no") * Dim(16) + s("ni") : s("n");
  Dim at_b = panels ? (s("no") * k + s("k")) * Dim(16) + s("ni") : s("k") * n + s("n");
  Expr term =
      mul(convert(c, ld("a", dtype, s("m") * k + s("k"))), convert(c, ld("b", dtype, at_b)));
  std::vector<Stmt> body{reg("acc", c), st("acc", 0, constant(c, 0)),
                         red("k", k, {accumulate("acc", term)}),
                         st("c", s("m") * n + column,
                            convert(dtype, relu(add(ld("acc", c, 0), ld("bias", c, column)))))};
  Stmt columns = panels ? par("no", ceildiv(n, 16),
                              {par("ni", kiln::min(Dim(16), n - s("no") * Dim(16)), body)})
                        : par("n", n, body);
  out.body = {par("m", m, {columns})};
  out.flops = Dim(2) * m * n * k;
  return out;
}

Kernel quantised_matmul(Dim m, Dim n, int64_t k, Symbols dims) {
  Kernel out = start("quantised_matmul", std::move(dims));
  buffer(out, "a", DType::u8, m * Dim(k), Access::in);
  buffer(out, "b", DType::i8, ceildiv(n, 16) * Dim(k * 16), Access::in, true);
  buffer(out, "c", DType::i32, m * n, Access::out);
  Dim depth = s("ko") * Dim(4) + s("ki");
  Dim at_b = (s("no") * Dim(k / 4) + s("ko")) * Dim(64) + s("ni") * Dim(4) + s("ki");
  Expr term = mul(convert(DType::i32, ld("a", DType::u8, s("m") * Dim(k) + depth)),
                  convert(DType::i32, ld("b", DType::i8, at_b)));
  std::vector<Stmt> body{reg("acc", DType::i32), st("acc", 0, constant(DType::i32, 0)),
                         red("ko", k / 4, {red("ki", 4, {accumulate("acc", term)})}),
                         st("c", s("m") * n + s("no") * Dim(16) + s("ni"), ld("acc", DType::i32, 0))};
  Stmt lanes = par("ni", kiln::min(Dim(16), n - s("no") * Dim(16)), body);
  out.body = {par("m", m, {par("no", ceildiv(n, 16), {lanes})})};
  out.flops = Dim(2 * k) * m * n;
  return out;
}

Kernel quantised_conv(const QuantisedConv &c) {
  Kernel out = start("quantised_conv", {});
  int64_t groups = c.block / 4;
  buffer(out, "x", DType::u8, c.channels * c.h * c.w, Access::in);
  buffer(out, "w", DType::i8, c.outputs * c.window * c.window * c.channels, Access::in, true);
  buffer(out, "y", DType::i32, c.outputs * c.out_h() * c.out_w(), Access::out);
  Dim channel = s("ko") * Dim(4) + s("ki");
  Dim row = s("oh") * Dim(c.stride) + s("kh"), column = s("ow") * Dim(c.stride) + s("kw");
  Dim at_x = ((s("kb") * Dim(c.h) + row) * Dim(c.w) + column) * Dim(c.block) + channel;
  Dim window = (s("no") * Dim(c.window) + s("kh")) * Dim(c.window) + s("kw");
  Dim at_w = (window * Dim(c.channels / 4) + s("kb") * Dim(groups) + s("ko")) * Dim(64) +
             s("ni") * Dim(4) + s("ki");
  Expr term = mul(convert(DType::i32, ld("x", DType::u8, at_x)),
                  convert(DType::i32, ld("w", DType::i8, at_w)));
  std::vector<Stmt> sum{red("ko", groups, {red("ki", 4, {accumulate("acc", term)})})};
  sum = {red("kb", c.channels / c.block,
             {red("kh", c.window, {red("kw", c.window, std::move(sum))})})};
  Dim at_y = ((s("no") * Dim(c.out_h()) + s("oh")) * Dim(c.out_w()) + s("ow")) * Dim(16) + s("ni");
  std::vector<Stmt> body{reg("acc", DType::i32), st("acc", 0, constant(DType::i32, 0)), sum[0],
                         st("y", at_y, ld("acc", DType::i32, 0))};
  out.body = {par("no", c.outputs / 16,
                  {par("oh", c.out_h(), {par("ow", c.out_w(), {par("ni", 16, body)})})})};
  out.flops = Dim(2 * c.window * c.window * c.channels * c.outputs * c.out_h() * c.out_w());
  return out;
}

// As quantised_matmul(), with pairs of bf16.
Kernel paired_matmul(Dim m, Dim n, int64_t k, Symbols dims) {
  Kernel out = start("paired_matmul", std::move(dims));
  buffer(out, "a", DType::bf16, m * Dim(k), Access::in);
  buffer(out, "b", DType::bf16, ceildiv(n, 16) * Dim(k * 16), Access::in, true);
  buffer(out, "c", kF, m * n, Access::out);
  Dim depth = s("ko") * Dim(2) + s("ki");
  Dim at_b = (s("no") * Dim(k / 2) + s("ko")) * Dim(32) + s("ni") * Dim(2) + s("ki");
  Expr term = mul(convert(kF, ld("a", DType::bf16, s("m") * Dim(k) + depth)),
                  convert(kF, ld("b", DType::bf16, at_b)));
  std::vector<Stmt> body{reg("acc"), st("acc", 0, number(kF, 0)),
                         red("ko", k / 2, {red("ki", 2, {accumulate("acc", term)})}),
                         st("c", s("m") * n + s("no") * Dim(16) + s("ni"), ld("acc", kF, 0))};
  Stmt lanes = par("ni", kiln::min(Dim(16), n - s("no") * Dim(16)), body);
  out.body = {par("m", m, {par("no", ceildiv(n, 16), {lanes})})};
  out.flops = Dim(2 * k) * m * n;
  return out;
}

// A window of `width` by 3 over u8[C/16][H][W][16], weights i8[C/16][3][16][4].
Kernel quantised_depthwise(int64_t channels, int64_t h, int64_t w, int64_t width) {
  Kernel out = start("quantised_depthwise", {});
  int64_t oh = h - 2, ow = w - width + 1;
  buffer(out, "x", DType::u8, channels * h * w, Access::in);
  buffer(out, "w", DType::i8, channels * 12, Access::in, true);
  buffer(out, "y", DType::i32, channels * oh * ow, Access::out);
  Dim block = s("co"), lane = s("ci");
  Dim at = ((block * Dim(h) + s("oh") + s("kh")) * Dim(w) + s("ow") + s("kw")) * Dim(16) + lane;
  Expr term = mul(convert(DType::i32, ld("x", DType::u8, at)),
                  convert(DType::i32, ld("w", DType::i8, (block * Dim(3) + s("kh")) * Dim(64) +
                                                             lane * Dim(4) + s("kw"))));
  std::vector<Stmt> body{
      reg("acc", DType::i32), st("acc", 0, constant(DType::i32, 0)),
      red("kh", 3, {red("kw", width, {accumulate("acc", term)})}),
      st("y", ((block * Dim(oh) + s("oh")) * Dim(ow) + s("ow")) * Dim(16) + lane,
         ld("acc", DType::i32, 0))};
  out.body = {par("co", channels / 16, {par("oh", oh, {par("ow", ow, {par("ci", 16, body)})})})};
  out.flops = Dim(2 * 3 * width * channels * oh * ow);
  return out;
}

Kernel matmul_transposed(Dim batch, Dim m, Dim n, Dim k, Symbols dims) {
  Kernel out = start("matmul_transposed", std::move(dims));
  buffer(out, "a", kF, batch * m * k, Access::in);
  buffer(out, "t", kF, batch * n * k, Access::in);
  buffer(out, "c", kF, batch * m * n, Access::out);
  Dim row = s("b") * m + s("m"), column = s("b") * n + s("n");
  std::vector<Stmt> body{reg("acc"), st("acc", 0, number(kF, 0)),
                         red("k", k,
                             {accumulate("acc", mul(ld("a", kF, row * k + s("k")),
                                                    ld("t", kF, column * k + s("k"))))}),
                         st("c", row * n + s("n"), ld("acc", kF, 0))};
  out.body = {par("b", batch, {par("m", m, {par("n", n, body)})})};
  out.flops = Dim(2) * batch * m * n * k;
  return out;
}

namespace {

struct Window {
  Dim row, column, kh0, kh1, kw0, kw1;
  int64_t hp, wp;
};

Window window_of(const ConvShape &c) {
  Window w;
  int64_t halo = c.halo ? c.pad : 0;
  w.hp = c.h + 2 * halo;
  w.wp = c.w + 2 * halo;
  Dim off = c.halo ? 0 : c.pad;
  w.row = s("oh") * Dim(c.stride) + s("kh") - off;
  w.column = s("ow") * Dim(c.stride) + s("kw") - off;
  auto bounds = [&](const char *o, int64_t k, int64_t size, Dim &begin, Dim &end) {
    Dim at = s(o) * Dim(c.stride);
    begin = c.halo ? Dim(0) : kiln::max(Dim(0), Dim(c.pad) - at);
    end = c.halo ? Dim(k) : kiln::min(Dim(k), Dim(size + c.pad) - at);
  };
  bounds("oh", c.kh, c.h, w.kh0, w.kh1);
  bounds("ow", c.kw, c.w, w.kw0, w.kw1);
  return w;
}

} // namespace

Kernel conv(const ConvShape &c) {
  Kernel out = start("conv", {});
  Window w = window_of(c);
  int64_t icb = (c.ic + 15) / 16, ocb = (c.oc + 15) / 16, oh = c.out_h(), ow = c.out_w();
  int64_t ohp = oh + 2 * c.out_halo, owp = ow + 2 * c.out_halo;
  buffer(out, "x", kF, c.n * icb * w.hp * w.wp * 16, Access::in);
  buffer(out, "w", kF, ocb * icb * c.kh * c.kw * 256, Access::in, true);
  buffer(out, "bias", kF, c.oc, Access::in, true);
  buffer(out, "y", kF, c.n * ocb * ohp * owp * 16, c.out_halo ? Access::inout : Access::out);
  Dim at_x =
      (((s("n") * Dim(icb) + s("ico")) * Dim(w.hp) + w.row) * Dim(w.wp) + w.column) * Dim(16) +
      s("ici");
  Dim at_w =
      ((((s("oco") * Dim(icb) + s("ico")) * Dim(c.kh) + s("kh")) * Dim(c.kw) + s("kw")) * Dim(16) +
       s("ici")) *
          Dim(16) +
      s("oci");
  Dim at_y = (((s("n") * Dim(ocb) + s("oco")) * Dim(ohp) + s("oh") + Dim(c.out_halo)) * Dim(owp) +
              s("ow") + Dim(c.out_halo)) *
                 Dim(16) +
             s("oci");
  Stmt taps = red(
      "kh", w.kh0, w.kh1,
      {red("kw", w.kw0, w.kw1, {accumulate("acc", mul(ld("x", kF, at_x), ld("w", kF, at_w)))})});
  std::vector<Stmt> body{
      reg("acc"), st("acc", 0, ld("bias", kF, s("oco") * Dim(16) + s("oci"))),
      red("ico", icb, {red("ici", kiln::min(Dim(16), Dim(c.ic) - s("ico") * Dim(16)), {taps})}),
      st("y", at_y, relu(ld("acc", kF, 0)))};
  Stmt channels = par("oci", kiln::min(Dim(16), Dim(c.oc) - s("oco") * Dim(16)), body);
  out.body = {par("n", c.n, {par("oco", ocb, {par("oh", oh, {par("ow", ow, {channels})})})})};
  out.flops = Dim(2 * c.n * c.oc * oh * ow * c.ic * c.kh * c.kw);
  return out;
}

Kernel first_conv(const ConvShape &c) {
  Kernel out = start("first_conv", {});
  Window w = window_of(c);
  int64_t ocb = (c.oc + 15) / 16, oh = c.out_h(), ow = c.out_w();
  buffer(out, "x", kF, c.n * c.ic * w.hp * w.wp, Access::in);
  buffer(out, "w", kF, ocb * c.kh * c.kw * c.ic * 16, Access::in, true);
  buffer(out, "y", kF, c.n * ocb * oh * ow * 16, Access::out);
  Dim at_x = ((s("n") * Dim(c.ic) + s("c")) * Dim(w.hp) + w.row) * Dim(w.wp) + w.column;
  Dim at_w =
      (((s("oco") * Dim(c.kh) + s("kh")) * Dim(c.kw) + s("kw")) * Dim(c.ic) + s("c")) * Dim(16) +
      s("oci");
  Dim at_y = (((s("n") * Dim(ocb) + s("oco")) * Dim(oh) + s("oh")) * Dim(ow) + s("ow")) * Dim(16) +
             s("oci");
  Stmt taps = red(
      "kh", w.kh0, w.kh1,
      {red("kw", w.kw0, w.kw1, {accumulate("acc", mul(ld("x", kF, at_x), ld("w", kF, at_w)))})});
  std::vector<Stmt> body{reg("acc"), st("acc", 0, number(kF, 0)), red("c", c.ic, {taps}),
                         st("y", at_y, ld("acc", kF, 0))};
  out.body = {
      par("n", c.n, {par("oco", ocb, {par("oh", oh, {par("ow", ow, {par("oci", 16, body)})})})})};
  out.flops = Dim(2 * c.n * ocb * 16 * oh * ow * c.ic * c.kh * c.kw);
  return out;
}

Kernel planar_conv(const ConvShape &c) {
  Kernel out = start("planar_conv", {});
  Window w = window_of(c);
  int64_t oh = c.out_h(), ow = c.out_w();
  buffer(out, "x", kF, c.n * c.ic * w.hp * w.wp, Access::in);
  buffer(out, "w", kF, c.oc * c.ic * c.kh * c.kw, Access::in, true);
  buffer(out, "y", kF, c.n * c.oc * oh * ow, Access::out);
  Dim at_x = ((s("n") * Dim(c.ic) + s("c")) * Dim(w.hp) + w.row) * Dim(w.wp) + w.column;
  Dim at_w = ((s("oc") * Dim(c.ic) + s("c")) * Dim(c.kh) + s("kh")) * Dim(c.kw) + s("kw");
  Dim at_y = ((s("n") * Dim(c.oc) + s("oc")) * Dim(oh) + s("oh")) * Dim(ow) + s("ow");
  Stmt taps = red(
      "kh", w.kh0, w.kh1,
      {red("kw", w.kw0, w.kw1, {accumulate("acc", mul(ld("x", kF, at_x), ld("w", kF, at_w)))})});
  std::vector<Stmt> body{reg("acc"), st("acc", 0, number(kF, 0)), red("c", c.ic, {taps}),
                         st("y", at_y, ld("acc", kF, 0))};
  out.body = {par("n", c.n, {par("oc", c.oc, {par("oh", oh, {par("ow", ow, body)})})})};
  out.flops = Dim(2 * c.n * c.oc * oh * ow * c.ic * c.kh * c.kw);
  return out;
}

namespace {

Kernel channelwise(const ConvShape &c, bool pool) {
  Kernel out = start(pool ? "max_pool" : "depthwise", {});
  Window w = window_of(c);
  int64_t cb = (c.ic + 15) / 16, oh = c.out_h(), ow = c.out_w();
  buffer(out, "x", kF, c.n * cb * w.hp * w.wp * 16, Access::in);
  buffer(out, "w", kF, cb * c.kh * c.kw * 16, Access::in, true);
  buffer(out, "y", kF, c.n * cb * oh * ow * 16, Access::out);
  Dim at_x = (((s("n") * Dim(cb) + s("co")) * Dim(w.hp) + w.row) * Dim(w.wp) + w.column) * Dim(16) +
             s("ci");
  Dim at_w = ((s("co") * Dim(c.kh) + s("kh")) * Dim(c.kw) + s("kw")) * Dim(16) + s("ci");
  Dim at_y =
      (((s("n") * Dim(cb) + s("co")) * Dim(oh) + s("oh")) * Dim(ow) + s("ow")) * Dim(16) + s("ci");
  Expr x = ld("x", kF, at_x);
  Stmt tap =
      pool ? accumulate("acc", x, BinaryOp::max) : accumulate("acc", mul(x, ld("w", kF, at_w)));
  std::vector<Stmt> body{reg("acc"), st("acc", 0, number(kF, pool ? -kInf : 0)),
                         red("kh", w.kh0, w.kh1, {red("kw", w.kw0, w.kw1, {tap})}),
                         st("y", at_y, ld("acc", kF, 0))};
  Stmt channels = par("ci", kiln::min(Dim(16), Dim(c.ic) - s("co") * Dim(16)), body);
  out.body = {par("n", c.n, {par("co", cb, {par("oh", oh, {par("ow", ow, {channels})})})})};
  out.flops = Dim(2 * c.n * c.ic * oh * ow * c.kh * c.kw);
  return out;
}

} // namespace

Kernel depthwise(const ConvShape &c) {
  return channelwise(c, false);
}
Kernel max_pool(const ConvShape &c) {
  return channelwise(c, true);
}

Kernel elementwise(std::vector<Dim> shape, UnaryOp op, DType dtype, Symbols dims) {
  Kernel out = start("elementwise", std::move(dims));
  DType c = compute_dtype(dtype);
  Dim size = 1, at = 0;
  for (size_t i = 0; i < shape.size(); ++i) {
    at = at * shape[i] + s("i" + std::to_string(i));
    size *= shape[i];
  }
  buffer(out, "x", dtype, size, Access::in);
  buffer(out, "y", dtype, size, Access::out);
  std::vector<Stmt> body{st("y", at, convert(dtype, unary(op, convert(c, ld("x", dtype, at)))))};
  for (size_t i = shape.size(); i-- > 0;)
    body = {par("i" + std::to_string(i), shape[i], body)};
  out.body = body;
  return out;
}

Kernel gelu(Dim n, Symbols dims) {
  Kernel out = start("gelu", std::move(dims));
  buffer(out, "x", kF, n, Access::in);
  buffer(out, "y", kF, n, Access::out);
  Expr x = ld("x", kF, s("i"));
  Expr cdf = add(number(kF, 1), unary(UnaryOp::erf, mul(x, number(kF, 0.70710678118654752))));
  out.body = {par("i", n, {st("y", s("i"), mul(mul(x, number(kF, 0.5)), cdf))})};
  return out;
}

Kernel softmax(Dim rows, int64_t width, Symbols dims) {
  Kernel out = start("softmax", std::move(dims));
  buffer(out, "x", kF, rows * Dim(width), Access::in);
  buffer(out, "y", kF, rows * Dim(width), Access::out);
  Dim base = s("row") * Dim(width);
  Expr shifted = sub(ld("x", kF, base + s("r1")), ld("m", kF, 0));
  out.body = {par(
      "row", rows,
      {reg("m"), st("m", 0, number(kF, -kInf)),
       red("r", width, {accumulate("m", ld("x", kF, base + s("r")), BinaryOp::max)}),
       alloc(Symbol("e"), kF, width, 1, MemorySpace::stack),
       par("r1", width, {st("e", s("r1"), unary(UnaryOp::exp, shifted))}), reg("t"),
       st("t", 0, number(kF, 0)), red("r2", width, {accumulate("t", ld("e", kF, s("r2")))}),
       par("r3", width, {st("y", base + s("r3"), div(ld("e", kF, s("r3")), ld("t", kF, 0)))})})};
  return out;
}

Kernel layer_norm(Dim rows, int64_t width, Symbols dims) {
  Kernel out = start("layer_norm", std::move(dims));
  buffer(out, "x", kF, rows * Dim(width), Access::in);
  buffer(out, "scale", kF, width, Access::in, true);
  buffer(out, "shift", kF, width, Access::in, true);
  buffer(out, "y", kF, rows * Dim(width), Access::out);
  Dim base = s("row") * Dim(width);
  Expr inverse = number(kF, 1.0 / double(width)), mean = var(Symbol("mean"), kF);
  Expr d = sub(ld("x", kF, base + s("r1")), mean), d3 = sub(ld("x", kF, base + s("r3")), mean);
  Expr deviation = unary(UnaryOp::sqrt, add(mul(ld("v", kF, 0), inverse), number(kF, 1e-5)));
  Expr y =
      add(mul(mul(d3, var(Symbol("inv"), kF)), ld("scale", kF, s("r3"))), ld("shift", kF, s("r3")));
  out.body = {par("row", rows,
                  {reg("m"), st("m", 0, number(kF, 0)),
                   red("r", width, {accumulate("m", ld("x", kF, base + s("r")))}),
                   let(Symbol("mean"), mul(ld("m", kF, 0), inverse)), reg("v"),
                   st("v", 0, number(kF, 0)), red("r1", width, {accumulate("v", mul(d, d))}),
                   let(Symbol("inv"), div(number(kF, 1), deviation)),
                   par("r3", width, {st("y", base + s("r3"), y)})})};
  return out;
}

Kernel instance_norm(int64_t blocks, int64_t channels, int64_t pixels) {
  Kernel out = start("instance_norm", {});
  buffer(out, "x", kF, blocks * pixels * channels, Access::in);
  buffer(out, "y", kF, blocks * pixels * channels, Access::out);
  auto x = [&](const char *p) {
    return ld("x", kF, (s("b") * Dim(pixels) + s(p)) * Dim(channels) + s("c"));
  };
  Expr inverse = number(kF, 1.0 / double(pixels)), mean = mul(ld("m", kF, 0), inverse);
  Expr d = sub(x("p1"), mean),
       deviation = unary(UnaryOp::sqrt, add(mul(ld("v", kF, 0), inverse), number(kF, 1e-5)));
  std::vector<Stmt> body{reg("m"),
                         st("m", 0, number(kF, 0)),
                         red("p", pixels, {accumulate("m", x("p"))}),
                         reg("v"),
                         st("v", 0, number(kF, 0)),
                         red("p1", pixels, {accumulate("v", mul(d, d))}),
                         par("p2", pixels,
                             {st("y", (s("b") * Dim(pixels) + s("p2")) * Dim(channels) + s("c"),
                                 div(sub(x("p2"), mean), deviation))})};
  out.body = {par("b", blocks, {par("c", channels, body)})};
  return out;
}

Kernel blocked_copy(int64_t blocks, int64_t channels, int64_t h, int64_t w) {
  Kernel out = start("blocked_copy", {});
  buffer(out, "x", kF, blocks * channels * h * w, Access::in);
  buffer(out, "y", kF, blocks * channels * h * w, Access::out);
  Dim at = ((s("b") * Dim(h) + s("h")) * Dim(w) + s("w")) * Dim(channels) + s("c");
  std::vector<Stmt> body{st("y", at, relu(ld("x", kF, at)))};
  out.body = {par("b", blocks, {par("c", channels, {par("h", h, {par("w", w, body)})})})};
  return out;
}

Kernel reflect_pad(int64_t channels, int64_t width, int64_t pad) {
  Kernel out = start("reflect_pad", {});
  buffer(out, "x", kF, channels * width, Access::in);
  buffer(out, "y", kF, channels * (width + 2 * pad), Access::out);
  Dim from_start = kiln::max(Dim(pad) - s("i"), s("i") - Dim(pad)); // |i - pad|
  Dim last = width - 1;
  Dim at = last - kiln::max(last - from_start, from_start - last);
  out.body = {par("c", channels,
                  {par("i", width + 2 * pad,
                       {st("y", s("c") * Dim(width + 2 * pad) + s("i"),
                           ld("x", kF, at * Dim(channels) + s("c")))})})};
  return out;
}

Kernel column_sum(Dim outer, Dim rows, Dim columns, Symbols dims) {
  Kernel out = start("column_sum", std::move(dims));
  buffer(out, "x", kF, outer * rows * columns, Access::in);
  buffer(out, "y", kF, outer * columns, Access::out);
  Expr x = ld("x", kF, (s("o") * rows + s("r")) * columns + s("c"));
  std::vector<Stmt> body{reg("acc"), st("acc", 0, number(kF, 0)),
                         red("r", rows, {accumulate("acc", x)}),
                         st("y", s("o") * columns + s("c"), ld("acc", kF, 0))};
  out.body = {par("o", outer, {par("c", columns, body)})};
  return out;
}

Kernel row_sum(Dim rows, Dim width, DType d, BinaryOp op, Symbols dims) {
  Kernel out = start("row_sum", std::move(dims));
  buffer(out, "x", d, rows * width, Access::in);
  buffer(out, "start", d, rows, Access::in);
  buffer(out, "y", d, rows, Access::out);
  std::vector<Stmt> body{
      reg("acc", d), st("acc", 0, ld("start", d, s("o"))),
      red("r", width, {accumulate("acc", ld("x", d, s("o") * width + s("r")), op)}),
      st("y", s("o"), ld("acc", d, 0))};
  out.body = {par("o", rows, body)};
  return out;
}

Kernel transpose(Dim rows, Dim columns, Symbols dims) {
  Kernel out = start("transpose", std::move(dims));
  buffer(out, "x", kF, rows * columns, Access::in);
  buffer(out, "y", kF, rows * columns, Access::out);
  out.body = {par(
      "c", columns,
      {par("r", rows, {st("y", s("c") * rows + s("r"), ld("x", kF, s("r") * columns + s("c")))})})};
  return out;
}

Kernel embedding(Dim ids, int64_t table, int64_t width, Symbols dims) {
  Kernel out = start("embedding", std::move(dims));
  constexpr DType kI = DType::i64;
  buffer(out, "ids", kI, ids, Access::in);
  buffer(out, "w", kF, table * width, Access::in, true);
  buffer(out, "y", kF, ids * Dim(width), Access::out);
  Expr row = var(Symbol("row"), kI);
  Expr valid = logical_and(le(integer(kI, 0), row), lt(row, integer(kI, table)));
  out.body = {par(
      "i", ids,
      {let(Symbol("row"), ld("ids", kI, s("i"))), assert_(valid, 2),
       par("j", width,
           {st("y", s("i") * Dim(width) + s("j"), ld("w", kF, s("row") * Dim(width) + s("j")))})})};
  return out;
}

} // namespace kiln::naive
