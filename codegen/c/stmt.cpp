#include "codegen/c/stmt.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::c {
namespace {

class Writer {
public:
  Writer(const StmtStyle &style, Helpers &helpers) : style_(style), helpers_(helpers) {}

  std::string body(const std::vector<Stmt> &stmts, int depth) {
    std::string out;
    for (const Stmt &s : stmts)
      out += stmt(s, std::string(size_t(depth) * 2, ' '), depth);
    return out;
  }

private:
  std::string stmt(const Stmt &s, const std::string &pad, int depth) {
    switch (s.kind) {
    case Stmt::Kind::let:
      return fmt::format("{}const {} {} = {};\n", pad, c_type(s.dtype), c_name(s.name), c_expr(s.value, helpers_));
    case Stmt::Kind::alloc:
      if (style_.scratch && style_.scratch->offsets.contains(&s))
        return fmt::format("{0}{1} *const {2} = ({1} *)({3} + {4});\n", pad, c_type(s.dtype), c_name(s.name),
                           style_.scratch_block, style_.scratch->offsets.at(&s));
      return fmt::format("{}{}{} {}[{}];\n", pad, s.space == MemorySpace::shared ? "__shared__ " : "",
                         c_type(s.dtype), c_name(s.name), std::max<int64_t>(s.size, 1));
    case Stmt::Kind::store:
      return fmt::format("{}{}[{}] = {};\n", pad, c_name(s.name), c_dim(s.index, helpers_), c_expr(s.value, helpers_));
    case Stmt::Kind::loop:
      return loop(s, pad, depth);
    case Stmt::Kind::if_: {
      std::string out = fmt::format("{}if ({}) {{\n{}{}}}", pad, c_expr(s.value, helpers_), body(s.body, depth + 1), pad);
      if (!s.other.empty())
        out += fmt::format(" else {{\n{}{}}}", body(s.other, depth + 1), pad);
      return out + "\n";
    }
    case Stmt::Kind::while_:
      return fmt::format("{}while ({}) {{\n{}{}}}\n", pad, c_expr(s.value, helpers_), body(s.body, depth + 1), pad);
    case Stmt::Kind::assert_:
      return fmt::format("{0}if (!{1}) {{\n{0}  {2}\n{0}}}\n", pad, c_expr(s.value, helpers_),
                         fmt::format(fmt::runtime(style_.trap), s.integer));
    case Stmt::Kind::barrier:
      return pad + "__syncthreads();\n";
    case Stmt::Kind::prefetch:
      return "";
    }
    return "";
  }

  std::string loop(const Stmt &s, const std::string &pad, int depth) {
    std::string begin = c_dim(s.begin, helpers_), step = fmt::format("{}", s.step);
    std::string_view type = style_.index_type;
    if (s.loop >= LoopKind::block_x) {
      size_t axis = size_t(s.loop) - size_t(LoopKind::block_x);
      std::string_view index = axis < 3 ? "blockIdx" : "threadIdx", count = axis < 3 ? "gridDim" : "blockDim";
      char letter = "xyz"[axis % 3];
      begin = fmt::format("{} + ({}){}.{}{}", begin, type, index, letter, s.step == 1 ? "" : " * " + step);
      step = fmt::format("({}){}.{}{}", type, count, letter, s.step == 1 ? "" : " * " + step);
    }
    return fmt::format("{0}for ({6} {1} = {2}; {1} < {3}; {1} += {4}) {{\n{5}{0}}}\n", pad, c_name(s.name), begin,
                       c_dim(s.end, helpers_), step, body(s.body, depth + 1), type);
  }

  const StmtStyle &style_;
  Helpers &helpers_;
};

} // namespace

std::string c_body(const std::vector<Stmt> &body, int depth, const StmtStyle &style, Helpers &helpers) {
  return Writer(style, helpers).body(body, depth);
}

} // namespace kiln::c
