// Kernels as text. Every line says what a reader of it cannot see elsewhere: the dtype of a
// constant, the lanes of a load, the type of a `let`; the types of everything else follow from
// their operands.
//
//   kernel  name(buffer: dtype[size] in|out|inout [constant], ...) dims(N, ...) [flops(F)]
//   [bytes(B)] { ... } types   f32, or f32x16 for 16 lanes access  b[index]   b[index; x16]
//   b[index; x16, stride S, count C] exprs   f32x16(0.5)  index(i + 1)  name  gather(b, offsets)
//   add(x, y)  select(c, x, y)
//           convert(f32, x)  bitcast(i32, x)  broadcast(x, 16)  iota(i64, 16)  fma(x, y, z)
//           reduce(max, x)  extract(x, 3)  concat(x, y)  shuffle([0, 2], x, y)
//   stmts   let v: f32x16 = e     alloc t: f32x16[24] reg     access = e     for i in b..e [step s]
//   kind {}
//           if e {} else {}   while e {}   barrier   prefetch access, level   assert e, trap
#include "ir/kernel/kernel.h"

#include <fmt/format.h>

#include <iterator>

namespace kiln {
namespace {

std::string type_text(DType dtype, int lanes) {
  std::string out(dtype_name(dtype));
  if (lanes != 1)
    out += "x" + std::to_string(lanes);
  return out;
}

std::string_view space_name(MemorySpace space) {
  constexpr std::string_view kNames[] = {"reg", "stack", "shared"};
  return kNames[size_t(space)];
}

class Printer {
public:
  std::string take() { return std::move(out_); }

  void kernel(const Kernel &k) {
    out_ += "kernel " + k.name + "(";
    for (size_t i = 0; i < k.buffers.size(); ++i) {
      const KernelBuffer &b = k.buffers[i];
      constexpr std::string_view kAccess[] = {"in", "out", "inout"};
      fmt::format_to(std::back_inserter(out_), "{}{}: {}[{}] {}{}", i ? ", " : "", b.name.text(),
                     dtype_name(b.dtype), b.size.text(), kAccess[size_t(b.access)],
                     b.constant ? " constant" : "");
    }
    out_ += ") dims(";
    for (size_t i = 0; i < k.dims.size(); ++i)
      out_ += (i ? ", " : "") + std::string(k.dims[i].text());
    out_ += ")";
    if (!k.flops.is_const(0))
      out_ += " flops(" + k.flops.text() + ")";
    if (!k.bytes.is_const(0))
      out_ += " bytes(" + k.bytes.text() + ")";
    out_ += " {\n";
    body(k.body);
    out_ += "}\n";
  }

private:
  void body(const std::vector<Stmt> &stmts) {
    depth_ += 2;
    for (const Stmt &s : stmts) {
      out_.append(depth_, ' ');
      stmt(s);
      out_ += '\n';
    }
    depth_ -= 2;
  }

  void block(const std::vector<Stmt> &stmts) {
    out_ += "{\n";
    body(stmts);
    out_.append(depth_, ' ');
    out_ += '}';
  }

  void stmt(const Stmt &s) {
    switch (s.kind) {
    case Stmt::Kind::let:
      fmt::format_to(std::back_inserter(out_), "let {}: {} = ", s.name.text(),
                     type_text(s.dtype, s.lanes));
      expr(s.value);
      break;
    case Stmt::Kind::alloc:
      fmt::format_to(std::back_inserter(out_), "alloc {}: {}[{}] {}", s.name.text(),
                     type_text(s.dtype, s.lanes), s.size, space_name(s.space));
      break;
    case Stmt::Kind::store:
      access(s.name, s.index, s.value.lanes, s.stride, s.count);
      out_ += " = ";
      expr(s.value);
      break;
    case Stmt::Kind::loop:
      fmt::format_to(std::back_inserter(out_), "for {} in {}..{} ", s.name.text(), s.begin.text(),
                     s.end.text());
      if (s.step != 1)
        fmt::format_to(std::back_inserter(out_), "step {} ", s.step);
      out_ += loop_kind_name(s.loop);
      if (!s.index.is_const(0))
        fmt::format_to(std::back_inserter(out_), " turn({}, {})", s.index.text(), s.integer);
      out_ += ' ';
      block(s.body);
      break;
    case Stmt::Kind::if_:
      out_ += "if ";
      expr(s.value);
      out_ += ' ';
      block(s.body);
      if (!s.other.empty()) {
        out_ += " else ";
        block(s.other);
      }
      break;
    case Stmt::Kind::while_:
      out_ += "while ";
      expr(s.value);
      out_ += ' ';
      block(s.body);
      break;
    case Stmt::Kind::barrier:
      out_ += "barrier";
      break;
    case Stmt::Kind::prefetch:
      out_ += "prefetch ";
      access(s.name, s.index, 1, 1, {});
      out_ += ", " + std::to_string(s.integer);
      break;
    case Stmt::Kind::assert_:
      out_ += "assert ";
      expr(s.value);
      out_ += ", " + std::to_string(s.integer);
      break;
    }
  }

  void access(Symbol name, const Dim &index, int lanes, const Dim &stride,
              const std::optional<Dim> &count) {
    out_ += name.text();
    out_ += '[' + index.text();
    if (lanes != 1 || !stride.is_const(1) || count) {
      out_ += "; x" + std::to_string(lanes);
      if (!stride.is_const(1))
        out_ += ", stride " + stride.text();
      if (count)
        out_ += ", count " + count->text();
    }
    out_ += ']';
  }

  void call(std::string_view name, const std::vector<Expr> &args, std::string_view prefix = {},
            std::string_view suffix = {}) {
    out_ += name;
    out_ += '(';
    out_ += prefix;
    for (size_t i = 0; i < args.size(); ++i) {
      if (i || !prefix.empty())
        out_ += ", ";
      expr(args[i]);
    }
    if (!suffix.empty()) {
      out_ += args.empty() && prefix.empty() ? "" : ", ";
      out_ += suffix;
    }
    out_ += ')';
  }

  void expr(const Expr &e) {
    switch (e.kind) {
    case Expr::Kind::none:
      out_ += "none";
      break;
    case Expr::Kind::number:
      if (is_float(e.dtype))
        fmt::format_to(std::back_inserter(out_), "{}({})", type_text(e.dtype, e.lanes), e.number);
      else
        fmt::format_to(std::back_inserter(out_), "{}({})", type_text(e.dtype, e.lanes), e.integer);
      break;
    case Expr::Kind::index:
      out_ += "index(" + e.index.text() + ")";
      break;
    case Expr::Kind::var:
      out_ += e.name.text();
      break;
    case Expr::Kind::load:
      access(e.name, e.index, e.lanes, e.stride, e.count);
      break;
    case Expr::Kind::gather:
      call("gather", e.args, e.name.text());
      break;
    case Expr::Kind::unary:
      call(unary_name(e.unary), e.args);
      break;
    case Expr::Kind::binary:
      call(binary_name(e.binary), e.args);
      break;
    case Expr::Kind::select:
      call("select", e.args);
      break;
    case Expr::Kind::convert:
      call("convert", e.args, dtype_name(e.dtype));
      break;
    case Expr::Kind::bitcast:
      call("bitcast", e.args, dtype_name(e.dtype));
      break;
    case Expr::Kind::broadcast:
      call("broadcast", e.args, {}, std::to_string(e.lanes));
      break;
    case Expr::Kind::iota:
      call("iota", {}, dtype_name(e.dtype), std::to_string(e.lanes));
      break;
    case Expr::Kind::fma:
      call("fma", e.args);
      break;
    case Expr::Kind::reduce:
      call("reduce", e.args, binary_name(e.binary));
      break;
    case Expr::Kind::extract:
      call("extract", e.args, {}, std::to_string(e.integer));
      break;
    case Expr::Kind::concat:
      call("concat", e.args);
      break;
    case Expr::Kind::shuffle: {
      std::string lanes = "[";
      for (size_t i = 0; i < e.lanes_map.size(); ++i)
        lanes += (i ? ", " : "") + std::to_string(e.lanes_map[i]);
      call("shuffle", e.args, lanes + "]");
      break;
    }
    }
  }

  std::string out_;
  size_t depth_ = 0;
};

} // namespace

std::string print_kernel(const Kernel &kernel) {
  Printer p;
  p.kernel(kernel);
  return p.take();
}

} // namespace kiln
