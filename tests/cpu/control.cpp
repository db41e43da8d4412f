// Loops, branches, index arithmetic, asserts and threads on every target.
#include "ir/kernel/scratch.h"
#include "tests/cpu/harness.h"

#include <catch2/catch.hpp>

namespace kiln::test {
namespace {

TEST_CASE("index arithmetic rounds towards minus infinity") {
  Dim i = sym("i"), n = sym("N");
  std::vector<Dim> dims{
      floordiv(i - Dim(7), Dim(4)), mod(i - Dim(7), Dim(4)), floordiv(i - Dim(7), Dim(3)),
      mod(i - Dim(7), Dim(3)),      floordiv(i * Dim(5), n), mod(i * Dim(5), n),
      floordiv(i - Dim(9), n),      mod(i - Dim(9), n),      kiln::min(i, n),
      kiln::max(i - Dim(3), n),     i * i * n - i * Dim(2)};
  std::vector<Stmt> body;
  for (size_t k = 0; k < dims.size(); ++k)
    body.push_back(
        kb::store(name("o"), i * Dim(int64_t(dims.size())) + Dim(int64_t(k)), kb::index(dims[k])));
  Dim size = Dim(20 * int64_t(dims.size()));
  for (LoopKind kind : {LoopKind::serial, LoopKind::unroll}) {
    Program program = make_program({make_kernel("dims", {out("o", DType::i64, size)}, {"N"},
                                                {kb::loop(name("i"), 0, 20, kind, body)})});
    Run run;
    run.dims = {6};
    run.args = {Bytes(20 * dims.size() * 8)};
    on_every_machine(program, run, [&](const MachineDesc &, const Run &done) {
      std::vector<int64_t> got = values_of<int64_t>(done.args[0]);
      for (size_t at = 0; at < got.size(); ++at) {
        int64_t row = int64_t(at / dims.size());
        auto want = dims[at % dims.size()].evaluate(
            [&](Symbol s) { return std::optional<int64_t>(s == name("i") ? row : 6); });
        INFO(dims[at % dims.size()].text() << " at " << row);
        CHECK(got[at] == *want);
      }
    });
  }
}

// count[0] = the number of steps of Collatz's sequence from a[0]; a let of data as an index.
TEST_CASE("while, if and let") {
  auto state = [&](int64_t at) { return kb::load(name("s"), DType::i64, at); };
  Expr two = kb::integer(DType::i64, 2);
  Expr odd = kb::eq(kb::binary(BinaryOp::rem, state(0), two), kb::integer(DType::i64, 1));
  std::vector<Stmt> body{
      kb::alloc(name("s"), DType::i64, 2, 1, MemorySpace::stack),
      kb::store(name("s"), 0, kb::load(name("a"), DType::i64, 0)),
      kb::store(name("s"), 1, kb::integer(DType::i64, 0)),
      kb::while_(kb::binary(BinaryOp::gt, state(0), kb::integer(DType::i64, 1)),
                 {kb::if_(odd,
                          {kb::store(name("s"), 0,
                                     kb::add(kb::mul(state(0), kb::integer(DType::i64, 3)),
                                             kb::integer(DType::i64, 1)))},
                          {kb::store(name("s"), 0, kb::div(state(0), two))}),
                  kb::store(name("s"), 1, kb::add(state(1), kb::integer(DType::i64, 1)))}),
      kb::let(name("steps"), state(1)),
      kb::store(name("o"), sym("steps") - Dim(100), kb::var(name("steps"), DType::i64))};
  Program program = make_program(
      {make_kernel("collatz", {in("a", DType::i64, 1), out("o", DType::i64, 20)}, {}, body)});
  Run run;
  run.args = {bytes_of<int64_t>({27}), Bytes(160)};
  on_every_machine(program, run, [&](const MachineDesc &, const Run &done) {
    CHECK(values_of<int64_t>(done.args[1])[11] == 111);
  });
}

TEST_CASE("loops that are empty, have steps, or end early") {
  Dim i = sym("i"), n = sym("N");
  for (int64_t size : {-2, 0, 1, 5, 12}) {
    Program program =
        make_program({make_kernel("steps", {out("o", DType::i32, 16)}, {"N"},
                                  {kb::loop(name("i"), 0, n, LoopKind::serial,
                                            {kb::store(name("o"), i,
                                                       kb::add(kb::load(name("o"), DType::i32, i),
                                                               kb::integer(DType::i32, 1)))},
                                            5)})});
    Run run;
    run.dims = {size};
    run.args = {Bytes(64)};
    on_every_machine(program, run, [&](const MachineDesc &, const Run &done) {
      std::vector<int32_t> want(16, 0);
      for (int64_t k = 0; k < size; k += 5)
        want[size_t(k)] = 1;
      CHECK(values_of<int32_t>(done.args[0]) == want);
    });
  }
}

// out[i] = x * a[i], x a vector's lane bound outside, with a row of the stack in each iteration.
Kernel threads_kernel(int64_t step, bool asserts) {
  Dim i = sym("i"), j = sym("j");
  std::vector<Stmt> body{kb::alloc(name("row"), DType::f32, 4, 1, MemorySpace::stack),
                         kb::loop(name("j"), 0, 4, LoopKind::serial,
                                  {kb::store(name("row"), j, kb::load(name("a"), DType::f32, i))})};
  if (asserts)
    body.push_back(
        kb::assert_(kb::lt(kb::load(name("a"), DType::f32, i), kb::number(DType::f32, 100)), 2));
  body.push_back(kb::store(
      name("o"), i, kb::mul(kb::var(name("x"), DType::f32), kb::load(name("row"), DType::f32, 3))));
  return make_kernel("scale", {in("a", DType::f32, sym("N")), out("o", DType::f32, sym("N"))},
                     {"N"},
                     {kb::let(name("x"), kb::load(name("a"), DType::f32, 1)),
                      kb::loop(name("i"), 1, sym("N"), LoopKind::threads, body, step)});
}

// A table that all iterations read, and a row of each worker's own, both too large for a stack:
//   o[i] = sum over k of (table[k] = k) * (row[k] = i + k), in integers
TEST_CASE("large local memory is each worker's own") {
  constexpr int64_t kSize = 6000;
  auto i64 = [&](std::string_view buffer, Dim at) { return kb::load(name(buffer), DType::i64, at); };
  auto fill = [&](std::string_view buffer, Dim value) {
    return kb::loop(name("k"), 0, kSize, LoopKind::serial,
                    {kb::store(name(buffer), sym("k"), kb::index(value))});
  };
  Stmt sum = kb::loop(name("k"), 0, kSize, LoopKind::serial,
                      {kb::store(name("o"), sym("i"),
                                 kb::add(i64("o", sym("i")),
                                         kb::mul(i64("table", sym("k")), i64("row", sym("k")))))});
  std::vector<Stmt> body{kb::alloc(name("row"), DType::i64, kSize, 1, MemorySpace::stack),
                         fill("row", sym("i") + sym("k")),
                         kb::store(name("o"), sym("i"), kb::integer(DType::i64, 0)), sum};
  Kernel kernel = make_kernel("scratch", {out("o", DType::i64, sym("N"))}, {"N"},
                              {kb::alloc(name("table"), DType::i64, kSize, 1, MemorySpace::stack),
                               fill("table", sym("k")),
                               kb::loop(name("i"), 0, sym("N"), LoopKind::threads, body)});
  CHECK(scratch_layout(kernel).size == 2 * 48000);
  for (int64_t n : {0, 1, 2, 5}) {
    Run run;
    run.dims = {n};
    run.args = {Bytes(size_t(n) * 8 + 8)};
    on_every_machine(make_program({kernel}), run, [&](const MachineDesc &, const Run &done) {
      auto got = values_of<int64_t>(done.args[0]);
      for (int64_t i = 0; i < n; ++i) {
        int64_t want = 0;
        for (int64_t k = 0; k < kSize; ++k)
          want += k * (i + k);
        CHECK(got[size_t(i)] == want);
      }
    });
  }
}

TEST_CASE("threads") {
  for (int64_t size : {1, 2, 3, 10, 23})
    for (int64_t step : {1, 4}) {
      Run run;
      std::vector<float> a, want(size_t(size), -1);
      for (int64_t k = 0; k < size + 2; ++k)
        a.push_back(float(k + 1));
      for (int64_t k = 1; k < size; k += step)
        want[size_t(k)] = 2 * a[size_t(k)];
      run.dims = {size};
      run.args = {bytes_of(a), bytes_of(std::vector<float>(size_t(size), -1))};
      on_every_machine(make_program({threads_kernel(step, false)}), run,
                       [&](const MachineDesc &, const Run &done) {
                         CHECK(values_of<float>(done.args[1]) == want);
                       });
    }
}

// o[i] = how many iterations were before i, counted in memory.
TEST_CASE("independent iterations come from the last on in odd turns of at most so many threads") {
  Dim i = sym("i");
  std::vector<Stmt> body{kb::store(name("o"), i, kb::load(name("count"), DType::i32, 0)),
                         kb::store(name("count"), 0, kb::add(kb::load(name("count"), DType::i32, 0), kb::integer(DType::i32, 1)))};
  for (LoopKind kind : {LoopKind::parallel, LoopKind::threads})
    for (int64_t step : {1, 3})
      for (int64_t turn : {0, 1, 6, 7})
        for (int64_t most_threads : {1, 2}) { // there are two
          Stmt loop = kb::loop(name("i"), 1, 11, kind, body, step);
          loop.index = sym("t");
          loop.integer = most_threads;
          Program program = make_program({make_kernel(
              "order", {out("count", DType::i32, 1), out("o", DType::i32, 11)}, {"t"},
              {kb::store(name("count"), 0, kb::integer(DType::i32, 0)), loop})});
          Run run;
          run.dims = {turn};
          run.args = {Bytes(4), bytes_of(std::vector<int32_t>(11, -1))};
          bool back = turn % 2 == 1 && most_threads == 2;
          std::vector<int32_t> want(11, -1);
          int64_t rounds = 9 / step + 1, count = 0;
          std::vector<std::pair<int64_t, int64_t>> ranges{{0, rounds}};
          if (kind == LoopKind::threads) // in the order of the harness's parts
            ranges = {{rounds / 2, rounds}, {rounds / 3, rounds / 2}, {0, rounds / 3}};
          for (auto [first, last] : ranges)
            for (int64_t round = first; round < last; ++round)
              want[size_t(1 + step * (back ? first + last - 1 - round : round))] = int32_t(count++);
          INFO("turn " << turn << ", step " << step << ", kind " << int(kind));
          on_every_machine(program, run, [&](const MachineDesc &, const Run &done) {
            CHECK(values_of<int32_t>(done.args[1]) == want);
          });
        }
}

// Iterations of 1000 rounds each: of some 100,000 cycles, where the sizes are those of the run as well.
TEST_CASE("a loop stays on the caller where handing it to threads takes long") {
  for (bool is_known : {true, false})
    for (int32_t hand_over : {0, 100, 15000}) {
      Dim rounds = is_known ? Dim(1000) : sym("N");
      Expr next = kb::add(kb::load(name("count"), DType::i32, 0), kb::integer(DType::i32, 1));
      std::vector<Stmt> body{kb::store(name("o"), sym("i"), kb::load(name("count"), DType::i32, 0)),
                             kb::loop(name("k"), 0, rounds, LoopKind::serial, {kb::store(name("count"), 0, next)})};
      Program program = make_program({make_kernel(
          "order", {out("count", DType::i32, 1), out("o", DType::i32, 24)}, {"N"},
          {kb::store(name("count"), 0, kb::integer(DType::i32, 0)), kb::loop(name("i"), 0, 24, LoopKind::threads, body)})});
      Run run;
      run.dims = {1000};
      run.args = {Bytes(4), Bytes(24 * 4)};
      run.hand_over = hand_over;
      // Threads begin with the last part (image_loader.h).
      std::vector<int32_t> want;
      for (int i = 0; i < 24; ++i)
        want.push_back(1000 * (hand_over > 10000 ? i : i < 8 ? i + 16 : i < 12 ? i + 4 : i - 12));
      INFO("known: " << is_known << ", " << hand_over << " ns");
      on_every_machine(program, run, [&](const MachineDesc &, const Run &done) {
        CHECK(values_of<int32_t>(done.args[1]) == want);
      });
    }
}

TEST_CASE("an assert that fails names the kernel and stops the run") {
  Kernel after = make_kernel("after", {out("done", DType::i32, 1)}, {},
                             {kb::store(name("done"), 0, kb::integer(DType::i32, 1))});
  Kernel before = make_kernel("before", {out("begun", DType::i32, 1)}, {},
                              {kb::store(name("begun"), 0, kb::integer(DType::i32, 1))});
  Program program = make_program({before, threads_kernel(1, true), after});
  for (bool fails : {false, true}) {
    Run run;
    run.dims = {9};
    std::vector<float> a(9, 1.0f);
    if (fails)
      a[6] = 200;
    run.args = {Bytes(4), bytes_of(a), Bytes(36), Bytes(4)};
    on_every_machine(program, run, [&](const MachineDesc &, const Run &done) {
      CHECK(done.code == (fails ? 2 : 0));
      CHECK(done.trap_kernel == (fails ? 1 : -1));
      CHECK(values_of<int32_t>(done.args[0])[0] == 1);
      CHECK(values_of<int32_t>(done.args[3])[0] == (fails ? 0 : 1));
      CHECK(done.kernel_log == (fails ? std::vector<int>{0} : std::vector<int>{0, 1, 2}));
    });
  }
}

TEST_CASE("lanes: concat, shuffle, extract, iota, select, bools in memory") {
  Expr a = kb::load(name("a"), DType::i32, 0, 4), b = kb::load(name("a"), DType::i32, 4, 4);
  Expr shuffled = a, joined = a;
  shuffled.kind = Expr::Kind::shuffle;
  shuffled.lanes_map = {7, 0, 5, 2};
  shuffled.args = {a, b};
  joined.kind = Expr::Kind::concat;
  joined.lanes = 8;
  joined.args = {b, a};
  Expr mask = kb::load(name("m"), DType::bool_, 0, 8);
  Program program =
      make_program({make_kernel("lanes",
                                {in("a", DType::i32, 8), in("m", DType::bool_, 8),
                                 out("o", DType::i32, 21), out("p", DType::bool_, 8)},
                                {},
                                {kb::store(name("o"), 0, shuffled), kb::store(name("o"), 4, joined),
                                 kb::store(name("o"), 12,
                                           kb::select(mask, kb::iota(DType::i32, 8),
                                                      kb::broadcast(kb::extract(joined, 1), 8))),
                                 kb::store(name("o"), 20, kb::reduce(BinaryOp::max, joined)),
                                 kb::store(name("p"), 0, kb::logical_not(mask))})});
  Run run;
  run.args = {bytes_of<int32_t>({10, 11, 12, 13, 14, 15, 16, 17}),
              {1, 0, 0, 1, 1, 0, 2, 0},
              Bytes(84),
              Bytes(8)};
  on_every_machine(program, run, [&](const MachineDesc &, const Run &done) {
    CHECK(values_of<int32_t>(done.args[2]) == std::vector<int32_t>{17, 10, 15, 12, 14, 15, 16,
                                                                   17, 10, 11, 12, 13, 0,  15,
                                                                   15, 3,  4,  15, 6,  15, 17});
    CHECK(done.args[3] == Bytes{0, 1, 1, 0, 0, 1, 0, 1});
  });
}

} // namespace
} // namespace kiln::test
