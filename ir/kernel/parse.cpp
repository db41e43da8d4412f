// The inverse of print_kernel(). Types that the text leaves out follow from those of operands, so the
// parser keeps the types of what is in scope. Nesting is bounded; what it accepts still has to pass
// verify_kernel(), which the callers run.
#include "ir/kernel/build.h"
#include "ir/kernel/dot.h"

#include <fmt/format.h>

#include <cctype>
#include <charconv>
#include <unordered_map>

namespace kiln {
namespace {

constexpr int kMaxDepth = 200;

struct ValueType {
  DType dtype;
  int lanes;
};

class KernelParser {
public:
  explicit KernelParser(std::string_view text) : text_(text) {}

  Result<std::vector<Kernel>> parse() {
    std::vector<Kernel> out;
    for (skip(); at_ < text_.size() && !failed_; skip()) {
      Kernel k = kernel();
      if (!failed_)
        out.push_back(std::move(k));
    }
    if (failed_)
      return Error{message_};
    return out;
  }

private:
  // --- text

  void skip() {
    while (at_ < text_.size()) {
      if (std::isspace(static_cast<unsigned char>(text_[at_])))
        ++at_;
      else if (text_.substr(at_, 2) == "//")
        at_ = std::min(text_.find('\n', at_), text_.size());
      else
        return;
    }
  }
  bool fail(std::string_view wanted) {
    if (failed_)
      return false;
    failed_ = true;
    int line = 1;
    size_t start = 0;
    for (size_t i = 0; i < at_ && i < text_.size(); ++i)
      if (text_[i] == '\n') {
        ++line;
        start = i + 1;
      }
    message_ = fmt::format("{}:{}: expected {} before '{}'", line, at_ - start + 1, wanted,
                           text_.substr(at_, std::min<size_t>(24, text_.find('\n', at_) - at_)));
    return false;
  }
  bool take(std::string_view token) {
    skip();
    if (failed_ || text_.substr(at_, token.size()) != token)
      return false;
    at_ += token.size();
    return true;
  }
  bool expect(std::string_view token) { return take(token) || fail("'" + std::string(token) + "'"); }

  static bool is_name_char(char c) {
    return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '.' || c == '$';
  }
  std::string_view peek_name() {
    skip();
    size_t end = at_;
    while (end < text_.size() && is_name_char(text_[end]) && text_.substr(end, 2) != "..")
      ++end;
    return text_.substr(at_, end - at_);
  }
  std::string_view name(std::string_view what) {
    std::string_view out = peek_name();
    if (out.empty() || std::isdigit(static_cast<unsigned char>(out[0])))
      fail(what);
    else
      at_ += out.size();
    return out;
  }
  int64_t integer() {
    skip();
    int64_t value = 0;
    auto [end, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
    if (error != std::errc())
      fail("an integer");
    else
      at_ = size_t(end - text_.data());
    return value;
  }
  int small(int64_t most) {
    int64_t value = integer();
    if (value < 0 || value > most)
      fail(fmt::format("a number up to {}", most));
    return failed_ ? 0 : int(value);
  }

  // A Dim runs to the first of `ends` outside parentheses.
  Dim dim(std::initializer_list<std::string_view> ends) {
    skip();
    size_t end = at_;
    int depth = 0;
    for (; end < text_.size(); ++end) {
      char c = text_[end];
      if (depth == 0)
        for (std::string_view e : ends)
          if (text_.substr(end, e.size()) == e)
            goto found;
      if (c == '\n')
        break;
      depth += c == '(' ? 1 : c == ')' ? -1 : 0;
    }
  found:
    auto out = parse_dim(text_.substr(at_, end - at_));
    if (!out) {
      fail("a size expression");
      return 0;
    }
    at_ = end;
    return *out;
  }

  std::optional<ValueType> try_type(std::string_view text) {
    size_t x = text.rfind('x');
    if (auto dtype = dtype_from_name(text))
      return ValueType{*dtype, 1};
    if (x == std::string_view::npos)
      return std::nullopt;
    auto dtype = dtype_from_name(text.substr(0, x));
    int lanes = 0;
    auto [end, error] = std::from_chars(text.data() + x + 1, text.data() + text.size(), lanes);
    if (!dtype || error != std::errc() || end != text.data() + text.size() || lanes < 1 || lanes > 4096)
      return std::nullopt;
    return ValueType{*dtype, lanes};
  }
  ValueType type() {
    auto out = try_type(name("a type"));
    if (!out)
      fail("a type such as f32 or f32x16");
    return out.value_or(ValueType{DType::f32, 1});
  }

  // --- kernels and statements

  Kernel kernel() {
    Kernel k;
    buffers_.clear();
    vars_.clear();
    expect("kernel");
    k.name = peek_name();
    at_ += k.name.size();
    expect("(");
    while (!failed_ && !take(")")) {
      if (!k.buffers.empty())
        expect(",");
      KernelBuffer b;
      b.name = Symbol(name("a buffer"));
      expect(":");
      b.dtype = type().dtype;
      expect("[");
      b.size = dim({"]"});
      expect("]");
      std::string_view access = name("in, out or inout");
      b.access = access == "in" ? Access::in : access == "out" ? Access::out : Access::inout;
      b.constant = take("constant");
      buffers_[b.name] = {b.dtype, 1};
      k.buffers.push_back(std::move(b));
    }
    expect("dims");
    expect("(");
    while (!failed_ && !take(")")) {
      if (!k.dims.empty())
        expect(",");
      k.dims.emplace_back(name("a dim"));
    }
    if (take("flops(")) {
      k.flops = dim({")"});
      expect(")");
    }
    if (take("bytes(")) {
      k.bytes = dim({")"});
      expect(")");
    }
    k.body = block();
    return k;
  }

  std::vector<Stmt> block() {
    std::vector<Stmt> out;
    if (!expect("{"))
      return out;
    if (++depth_ > kMaxDepth)
      fail("fewer nested blocks");
    while (!failed_ && !take("}"))
      out.push_back(stmt());
    --depth_;
    return out;
  }

  bool keyword(std::string_view word) {
    if (peek_name() != word)
      return false;
    at_ += word.size();
    return true;
  }

  Stmt stmt() {
    if (keyword("let")) {
      Symbol var(name("a name"));
      expect(":");
      ValueType t = type();
      expect("=");
      Expr value = expr();
      vars_[var] = t;
      return kb::let(var, std::move(value));
    }
    if (keyword("alloc")) {
      Symbol buffer(name("a buffer"));
      expect(":");
      ValueType t = type();
      expect("[");
      int64_t size = integer();
      expect("]");
      std::string_view space = name("reg, stack or shared");
      buffers_[buffer] = t;
      return kb::alloc(buffer, t.dtype, size, t.lanes,
                       space == "reg"     ? MemorySpace::reg
                       : space == "stack" ? MemorySpace::stack
                                          : MemorySpace::shared);
    }
    if (keyword("for"))
      return loop();
    if (keyword("if")) {
      Expr condition = expr();
      std::vector<Stmt> body = block(), other;
      if (keyword("else"))
        other = block();
      return kb::if_(std::move(condition), std::move(body), std::move(other));
    }
    if (keyword("while")) {
      Expr condition = expr();
      return kb::while_(std::move(condition), block());
    }
    if (keyword("barrier"))
      return kb::barrier();
    if (keyword("prefetch")) {
      Expr at = access(Symbol(name("a buffer")));
      expect(",");
      return kb::prefetch(at.name, at.index, small(2));
    }
    if (keyword("assert")) {
      Expr condition = expr();
      expect(",");
      return kb::assert_(std::move(condition), small(1000));
    }
    Expr at = access(Symbol(name("a statement")));
    expect("=");
    Stmt out = kb::store(at.name, at.index, expr());
    out.stride = at.stride;
    out.count = at.count;
    return out;
  }

  Stmt loop() {
    Symbol var(name("a loop variable"));
    expect("in");
    Dim begin = dim({".."});
    expect("..");
    Dim end = dim({" step ", " serial", " parallel", " reduce", " unroll", " threads", " block_", " thread_"});
    int64_t step = keyword("step") ? integer() : 1;
    std::string_view kind = name("a kind of loop");
    LoopKind loop_kind = LoopKind::serial;
    bool known = false;
    for (int i = 0; i <= int(LoopKind::thread_z); ++i)
      if (loop_kind_name(LoopKind(i)) == kind) {
        loop_kind = LoopKind(i);
        known = true;
      }
    if (!known)
      fail("a kind of loop");
    Dim turn = 0;
    int64_t most_threads = 0;
    if (take("turn(")) {
      turn = dim({","});
      expect(",");
      most_threads = small(1 << 30);
      expect(")");
    }
    Stmt out = kb::loop(var, begin, end, loop_kind, block(), step);
    out.index = turn;
    out.integer = most_threads;
    return out;
  }

  // --- expressions

  Expr access(Symbol buffer) {
    auto it = buffers_.find(buffer);
    if (it == buffers_.end()) {
      fail("a buffer that is in scope");
      return {};
    }
    expect("[");
    Expr out = kb::load(buffer, it->second.dtype, dim({";", "]"}), it->second.lanes);
    if (take(";")) {
      expect("x");
      out.lanes = small(4096);
      while (take(",")) {
        if (keyword("stride"))
          out.stride = dim({",", "]"});
        else if (keyword("count"))
          out.count = dim({",", "]"});
        else
          fail("stride or count");
        if (failed_)
          break;
      }
    }
    expect("]");
    return out;
  }

  Expr expr() {
    if (failed_)
      return {};
    if (++depth_ > kMaxDepth) {
      fail("a shallower expression");
      return {};
    }
    Expr out = primary();
    --depth_;
    return out;
  }

  Expr primary() {
    std::string_view word = name("an expression");
    if (failed_)
      return {};
    skip();
    bool call = at_ < text_.size() && text_[at_] == '(';
    if (at_ < text_.size() && text_[at_] == '[')
      return access(Symbol(word));
    if (!call) {
      auto it = vars_.find(Symbol(word));
      if (it == vars_.end()) {
        fail("a value that is in scope, not '" + std::string(word) + "',");
        return {};
      }
      return kb::var(Symbol(word), it->second.dtype, it->second.lanes);
    }
    expect("(");
    if (auto t = try_type(word))
      return literal(*t);
    return call_expr(word);
  }

  Expr literal(ValueType t) {
    skip();
    Expr out;
    if (is_float(t.dtype)) {
      std::string number(text_.substr(at_, text_.find(')', at_) - at_));
      char *end = nullptr;
      double value = std::strtod(number.c_str(), &end);
      if (end == number.c_str() || *end)
        fail("a number");
      else
        at_ += number.size();
      out = kb::number(t.dtype, value, t.lanes);
    } else {
      out = kb::integer(t.dtype, integer(), t.lanes);
    }
    expect(")");
    return out;
  }

  std::vector<Expr> args() {
    std::vector<Expr> out;
    do
      out.push_back(expr());
    while (take(",") && !failed_);
    expect(")");
    return out;
  }
  DType dtype_arg() {
    auto dtype = dtype_from_name(name("a dtype"));
    if (!dtype)
      fail("a dtype");
    expect(",");
    return dtype.value_or(DType::f32);
  }
  Expr one_and_number(int64_t most, int &number) {
    Expr a = expr();
    expect(",");
    number = small(most);
    expect(")");
    return a;
  }
  // The arguments of a constructor that checks types by KILN_CHECK are checked here first.
  bool same(const Expr &a, const Expr &b) {
    return !failed_ && ((a.dtype == b.dtype && a.lanes == b.lanes) || fail("operands of one type"));
  }

  Expr call_expr(std::string_view word) {
    if (word == "index") {
      Expr out = kb::index(dim({")"}));
      expect(")");
      return out;
    }
    if (word == "gather") {
      Symbol buffer(name("a buffer"));
      auto it = buffers_.find(buffer);
      if (it == buffers_.end())
        fail("a buffer that is in scope");
      expect(",");
      Expr offsets = expr();
      expect(")");
      if (failed_ || (offsets.dtype != DType::i64 && !fail("i64 offsets")))
        return {};
      return kb::gather(buffer, it->second.dtype, std::move(offsets));
    }
    if (word == "convert" || word == "bitcast") {
      DType dtype = dtype_arg();
      Expr a = expr();
      expect(")");
      if (failed_ || (word == "bitcast" && dtype_bits(dtype) != dtype_bits(a.dtype) && !fail("a type of the same width")))
        return {};
      return word == "convert" ? kb::convert(dtype, std::move(a)) : kb::bitcast(dtype, std::move(a));
    }
    if (word == "iota") {
      DType dtype = dtype_arg();
      int lanes = small(4096);
      expect(")");
      return kb::iota(dtype, lanes);
    }
    if (word == "broadcast") {
      int lanes = 1;
      Expr a = one_and_number(4096, lanes);
      if (failed_ || (a.lanes != 1 && !fail("a scalar to broadcast")))
        return {};
      return kb::broadcast(std::move(a), lanes);
    }
    if (word == "extract") {
      int lane = 0;
      Expr a = one_and_number(4096, lane);
      if (failed_ || (lane >= a.lanes && !fail("a lane of the vector")))
        return {};
      return kb::extract(std::move(a), lane);
    }
    if (word == "reduce") {
      auto op = binary_op(name("an operation"));
      expect(",");
      Expr a = expr();
      expect(")");
      if (!op)
        fail("an operation");
      return failed_ ? Expr{} : kb::reduce(*op, std::move(a));
    }
    if (word == "shuffle") {
      expect("[");
      std::vector<int> lanes;
      do
        lanes.push_back(small(8192));
      while (take(",") && !failed_);
      expect("]");
      expect(",");
      std::vector<Expr> list = args();
      if (failed_ || list.size() != 2 || !same(list[0], list[1]))
        return {};
      Expr out;
      out.kind = Expr::Kind::shuffle;
      out.dtype = list[0].dtype;
      out.lanes = int(lanes.size());
      out.lanes_map = std::move(lanes);
      out.args = std::move(list);
      return out;
    }
    std::vector<Expr> list = args();
    if (failed_)
      return {};
    if (word == "concat") {
      Expr out;
      out.kind = Expr::Kind::concat;
      out.dtype = list[0].dtype;
      out.lanes = 0;
      for (const Expr &a : list)
        out.lanes += a.lanes;
      out.args = std::move(list);
      return out;
    }
    if (word == "select" && list.size() == 3) {
      bool fits = list[0].dtype == DType::bool_ && list[0].lanes == list[1].lanes;
      if (!same(list[1], list[2]) || (!fits && !fail("a bool for each lane")))
        return {};
      return kb::select(std::move(list[0]), std::move(list[1]), std::move(list[2]));
    }
    if (word == "fma" && list.size() == 3)
      return fits_dot(list[0], list[1], list[2]) ||
                     (same(list[0], list[1]) && same(list[0], list[2]))
                 ? kb::fma(std::move(list[0]), std::move(list[1]), std::move(list[2]))
                 : Expr{};
    if (auto op = binary_op(word); op && list.size() == 2)
      return same(list[0], list[1]) ? kb::binary(*op, std::move(list[0]), std::move(list[1])) : Expr{};
    if (list.size() == 1)
      for (int i = 0; i <= int(UnaryOp::sigmoid); ++i)
        if (unary_name(UnaryOp(i)) == word)
          return kb::unary(UnaryOp(i), std::move(list[0]));
    fail("a known operation with its operands, not '" + std::string(word) + "',");
    return {};
  }

  static std::optional<BinaryOp> binary_op(std::string_view word) {
    for (int i = 0; i <= int(BinaryOp::atan2); ++i)
      if (binary_name(BinaryOp(i)) == word)
        return BinaryOp(i);
    return std::nullopt;
  }

  std::string_view text_;
  size_t at_ = 0;
  int depth_ = 0;
  bool failed_ = false;
  std::string message_;
  std::unordered_map<Symbol, ValueType> buffers_, vars_;
};

} // namespace

Result<std::vector<Kernel>> parse_kernels(std::string_view text) { return KernelParser(text).parse(); }

} // namespace kiln
