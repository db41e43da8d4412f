#include "ir/kernel/interpret.h"

#include "ir/kernel/dot.h"
#include "ir/kernel/scalar_value.h"

#include <algorithm>
#include <unordered_map>

namespace kiln {
namespace {

using Lanes = std::vector<ScalarValue>;

struct Memory {
  DType dtype = DType::f32;
  int lanes = 1;
  int64_t size = 0;           // in scalars
  std::byte *bytes = nullptr; // a parameter's memory
  Lanes values;               // a local buffer's
  std::vector<bool> written;
};

struct Bound {
  DType dtype = DType::i64;
  Lanes lanes;
};

class Interpreter {
public:
  Interpreter(const Kernel &kernel, const InterpretOptions &options)
      : kernel_(kernel), options_(options) {}

  Result<int> run(std::span<const std::span<std::byte>> buffers, std::span<const int64_t> dims) {
    if (buffers.size() != kernel_.buffers.size() || dims.size() != kernel_.dims.size())
      return Error{"kernel " + kernel_.name + ": wrong number of buffers or dims"};
    for (size_t i = 0; i < dims.size(); ++i)
      scalars_[kernel_.dims[i]] = dims[i];
    for (size_t i = 0; i < buffers.size(); ++i) {
      const KernelBuffer &b = kernel_.buffers[i];
      Memory m;
      m.dtype = b.dtype;
      m.size = value(b.size);
      m.bytes = buffers[i].data();
      if (m.size < 0 || int64_t(buffers[i].size()) / dtype_bytes(b.dtype) < m.size)
        fail("buffer '" + std::string(b.name.text()) + "' is too small");
      memory_[b.name] = std::move(m);
    }
    body(kernel_.body);
    if (!error_.empty())
      return Error{"kernel " + kernel_.name + ": " + error_};
    return trap_;
  }

private:
  void fail(std::string message) {
    if (error_.empty())
      error_ = std::move(message);
  }
  bool stopped() const { return !error_.empty() || trap_ != 0; }

  int64_t value(const Dim &d) {
    auto v = d.evaluate([&](Symbol s) -> std::optional<int64_t> {
      auto it = scalars_.find(s);
      return it == scalars_.end() ? std::nullopt : std::optional(it->second);
    });
    if (!v)
      fail("'" + d.text() + "' has no value");
    return v.value_or(0);
  }

  Memory *memory(Symbol name) {
    auto it = memory_.find(name);
    if (it == memory_.end()) {
      fail("no buffer '" + std::string(name.text()) + "'");
      return nullptr;
    }
    return &it->second;
  }

  bool in_range(Symbol name, const Memory &m, int64_t at) {
    if (at >= 0 && at < m.size)
      return true;
    fail("index " + std::to_string(at) + " of '" + std::string(name.text()) + "', which has " +
         std::to_string(m.size) + " elements");
    return false;
  }

  ScalarValue read(Symbol name, Memory &m, int64_t at) {
    int64_t behind = m.bytes ? options_.readable_bytes / dtype_bytes(m.dtype) : 0;
    if ((at < 0 || at >= m.size + behind) && !in_range(name, m, at))
      return {};
    if (m.bytes)
      return read_scalar(m.dtype, m.bytes + at * dtype_bytes(m.dtype));
    if (!m.written[size_t(at)])
      fail("'" + std::string(name.text()) + "[" + std::to_string(at) +
           "]' is read before it is written");
    return m.values[size_t(at)];
  }

  void write(Symbol name, Memory &m, int64_t at, ScalarValue v) {
    if (!in_range(name, m, at))
      return;
    if (m.bytes) {
      write_scalar(m.dtype, v, m.bytes + at * dtype_bytes(m.dtype));
    } else {
      m.values[size_t(at)] = v;
      m.written[size_t(at)] = true;
    }
  }

  Lanes load(const Expr &e) {
    Lanes out(size_t(e.lanes));
    Memory *m = memory(e.name);
    if (!m)
      return out;
    int64_t at = value(e.index), stride = value(e.stride);
    int64_t count = e.count ? value(*e.count) : e.lanes;
    for (int lane = 0; lane < e.lanes && lane < count && !stopped(); ++lane)
      out[size_t(lane)] =
          read(e.name, *m, m->lanes == 1 ? at + lane * stride : at * m->lanes + lane);
    return out;
  }

  void store(const Stmt &s) {
    Lanes values = expr(s.value);
    Memory *m = memory(s.name);
    int64_t at = value(s.index), stride = value(s.stride);
    int64_t count = s.count ? value(*s.count) : s.value.lanes;
    if (!m || stopped())
      return;
    for (int lane = 0; lane < s.value.lanes && lane < count && !stopped(); ++lane)
      write(s.name, *m, m->lanes == 1 ? at + lane * stride : at * m->lanes + lane,
            values[size_t(lane)]);
  }

  Lanes expr(const Expr &e) {
    if (stopped())
      return Lanes(size_t(e.lanes));
    std::vector<Lanes> args;
    for (const Expr &a : e.args)
      args.push_back(expr(a));
    Lanes out(size_t(e.lanes));
    if (stopped())
      return out;
    auto each = [&](auto f) {
      for (size_t i = 0; i < out.size(); ++i)
        out[i] = f(i);
    };
    switch (e.kind) {
    case Expr::Kind::none:
      fail("an empty expression");
      break;
    case Expr::Kind::number:
      each([&](size_t) {
        return is_float(e.dtype) ? float_scalar(e.dtype, e.number) : int_scalar(e.dtype, e.integer);
      });
      break;
    case Expr::Kind::index:
      out[0].i = value(e.index);
      break;
    case Expr::Kind::var: {
      auto it = lets_.find(e.name);
      if (it == lets_.end())
        fail("no value '" + std::string(e.name.text()) + "'");
      else
        out = it->second.lanes;
      break;
    }
    case Expr::Kind::load:
      return load(e);
    case Expr::Kind::gather:
      if (Memory *m = memory(e.name))
        each([&](size_t i) { return read(e.name, *m, args[0][i].i); });
      break;
    case Expr::Kind::unary:
      each([&](size_t i) { return unary_scalar(e.unary, e.args[0].dtype, args[0][i]); });
      break;
    case Expr::Kind::binary:
      each([&](size_t i) { return binary(e.binary, e.args[0].dtype, args[0][i], args[1][i]); });
      break;
    case Expr::Kind::select:
      each([&](size_t i) { return args[0][i].i ? args[1][i] : args[2][i]; });
      break;
    case Expr::Kind::convert:
      each([&](size_t i) { return convert_scalar(e.args[0].dtype, e.dtype, args[0][i]); });
      break;
    case Expr::Kind::bitcast:
      each([&](size_t i) { return bitcast_scalar(e.args[0].dtype, e.dtype, args[0][i]); });
      break;
    case Expr::Kind::broadcast:
      each([&](size_t) { return args[0][0]; });
      break;
    case Expr::Kind::iota:
      each([&](size_t i) { return int_scalar(e.dtype, int64_t(i)); });
      break;
    case Expr::Kind::fma:
      if (int width = dot_width(e)) {
        each([&](size_t i) { return width == 4 ? dot4(args, i) : dot2(args, i); });
        break;
      }
      each([&](size_t i) { return fma_scalar(e.dtype, args[0][i], args[1][i], args[2][i]); });
      break;
    case Expr::Kind::reduce:
      out[0] = reduce(e.binary, e.dtype, std::move(args[0]));
      break;
    case Expr::Kind::extract:
      out[0] = args[0][size_t(e.integer)];
      break;
    case Expr::Kind::concat:
      out.clear();
      for (const Lanes &a : args)
        out.insert(out.end(), a.begin(), a.end());
      break;
    case Expr::Kind::shuffle:
      each([&](size_t i) {
        size_t from = size_t(e.lanes_map[i]);
        return from < args[0].size() ? args[0][from] : args[1][from - args[0].size()];
      });
      break;
    }
    return out;
  }

  static ScalarValue dot4(const std::vector<Lanes> &args, size_t lane) {
    uint32_t sum = uint32_t(args[2][lane].i);
    for (size_t k = 0; k < 4; ++k) {
      int64_t a = args[0][args[0].size() == 4 ? k : 4 * lane + k].i;
      int64_t b = args[1][args[1].size() == 4 ? k : 4 * lane + k].i;
      sum += uint32_t(a * b);
    }
    return int_scalar(DType::i32, int64_t(int32_t(sum)));
  }

  static ScalarValue dot2(const std::vector<Lanes> &args, size_t lane) {
    ScalarValue sum = args[2][lane];
    for (size_t k : {1, 0}) {
      const ScalarValue &a = args[0][args[0].size() == 2 ? k : 2 * lane + k];
      const ScalarValue &b = args[1][args[1].size() == 2 ? k : 2 * lane + k];
      sum = fma_scalar(DType::f32, a, b, sum);
    }
    return sum;
  }

  ScalarValue binary(BinaryOp op, DType dtype, ScalarValue a, ScalarValue b) {
    ScalarValue out;
    if (!binary_scalar(op, dtype, a, b, out))
      fail("an integer is divided by zero");
    return out;
  }

  // By halving; an odd lane in the middle joins the lower half as it is.
  ScalarValue reduce(BinaryOp op, DType dtype, Lanes lanes) {
    while (lanes.size() > 1) {
      size_t half = (lanes.size() + 1) / 2;
      for (size_t i = half; i < lanes.size(); ++i)
        lanes[i - half] = binary(op, dtype, lanes[i - half], lanes[i]);
      lanes.resize(half);
    }
    return lanes[0];
  }

  void body(const std::vector<Stmt> &stmts) {
    std::vector<Symbol> declared;
    for (const Stmt &s : stmts) {
      if (stopped())
        break;
      if (++steps_ > options_.max_steps) {
        fail("more than " + std::to_string(options_.max_steps) + " steps");
        break;
      }
      stmt(s);
      if (s.is(Stmt::Kind::let) || s.is(Stmt::Kind::alloc))
        declared.push_back(s.name);
    }
    for (Symbol name : declared) {
      lets_.erase(name);
      scalars_.erase(name);
      memory_.erase(name);
    }
  }

  void loop(const Stmt &s) {
    int64_t begin = value(s.begin), end = value(s.end);
    bool parallel = s.loop == LoopKind::parallel || s.loop == LoopKind::threads;
    bool reverse = parallel && options_.reverse_parallel != (s.integer > 0 && value(s.index) % 2 != 0);
    // Schedules count the rounds of loops that lowering made; below none the counts go wrong.
    if (end < begin && (parallel || s.loop == LoopKind::reduce))
      return fail("the loop over '" + std::string(s.name.text()) + "' ends " + std::to_string(begin - end) +
                  " before it begins");
    if (begin >= end)
      return;
    int64_t trips = (end - begin - 1) / s.step + 1;
    for (int64_t t = 0; t < trips && !stopped(); ++t) {
      scalars_[s.name] = begin + (reverse ? trips - 1 - t : t) * s.step;
      body(s.body);
    }
    scalars_.erase(s.name);
  }

  void stmt(const Stmt &s) {
    switch (s.kind) {
    case Stmt::Kind::let: {
      Bound b{s.dtype, expr(s.value)};
      if (s.dtype == DType::i64 && s.lanes == 1)
        scalars_[s.name] = b.lanes[0].i;
      lets_[s.name] = std::move(b);
      break;
    }
    case Stmt::Kind::alloc: {
      Memory m;
      m.dtype = s.dtype;
      m.lanes = s.lanes;
      m.size = s.size * s.lanes;
      if (m.size > (int64_t(1) << 26))
        return fail("an alloc of " + std::to_string(m.size) + " elements");
      m.values.resize(size_t(m.size));
      m.written.resize(size_t(m.size));
      memory_[s.name] = std::move(m);
      break;
    }
    case Stmt::Kind::store:
      store(s);
      break;
    case Stmt::Kind::loop:
      loop(s);
      break;
    case Stmt::Kind::if_:
      body(expr(s.value)[0].i ? s.body : s.other);
      break;
    case Stmt::Kind::while_:
      while (!stopped() && expr(s.value)[0].i && !stopped()) {
        if (++steps_ > options_.max_steps)
          return fail("more than " + std::to_string(options_.max_steps) + " steps");
        body(s.body);
      }
      break;
    case Stmt::Kind::assert_: {
      Lanes lanes = expr(s.value);
      bool holds = std::all_of(lanes.begin(), lanes.end(), [](ScalarValue v) { return v.i != 0; });
      if (!stopped() && !holds)
        trap_ = int(s.integer);
      break;
    }
    case Stmt::Kind::barrier:
    case Stmt::Kind::prefetch:
      break;
    }
  }

  const Kernel &kernel_;
  const InterpretOptions &options_;
  std::unordered_map<Symbol, int64_t> scalars_;
  std::unordered_map<Symbol, Bound> lets_;
  std::unordered_map<Symbol, Memory> memory_;
  std::string error_;
  int trap_ = 0;
  int64_t steps_ = 0;
};

} // namespace

Result<int> interpret_kernel(const Kernel &kernel, std::span<const std::span<std::byte>> buffers,
                             std::span<const int64_t> dims, const InterpretOptions &options) {
  return Interpreter(kernel, options).run(buffers, dims);
}

} // namespace kiln
