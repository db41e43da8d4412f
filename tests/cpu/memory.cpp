// Counted, strided and gathered accesses: the right elements, and nothing outside.
#include "tests/cpu/harness.h"

#include <catch2/catch.hpp>

#include <sys/mman.h>
#include <unistd.h>

namespace kiln::test {
namespace {

// out[i * so] = a[i * sa] + 1 for the first N of `lanes` lanes of each step, N symbolic.
Program strided_program(DType dtype, int lanes, int64_t from_stride, int64_t to_stride,
                        bool counted) {
  Dim i = sym("i");
  Expr a = kb::load(name("a"), dtype, i * Dim(from_stride), lanes);
  a.stride = from_stride;
  Expr sum = kb::add(a, kb::constant(dtype, 1, lanes));
  Stmt store = kb::store(name("o"), i * Dim(to_stride), sum);
  store.stride = to_stride;
  if (counted)
    store.count = store.value.args[0].count = sym("N") - i;
  return make_program({make_kernel(
      "strided",
      {in("a", dtype, sym("N") * Dim(from_stride)), out("o", dtype, sym("N") * Dim(to_stride))},
      {"N"}, {kb::loop(name("i"), 0, sym("N"), LoopKind::serial, {store}, lanes)})});
}

template <typename T>
void check_strided(DType dtype, int lanes, int64_t from, int64_t to, int64_t size) {
  bool counted = size % lanes != 0;
  INFO(dtype_name(dtype) << " strides " << from << " " << to << " size " << size);
  std::vector<T> a(size_t((size - 1) * from + 1)), o(size_t((size - 1) * to + 1), T(99));
  for (size_t k = 0; k < a.size(); ++k)
    a[k] = T(k % 50);
  Run run;
  run.dims = {size};
  run.args = {bytes_of(a), bytes_of(o)};
  on_every_machine(strided_program(dtype, lanes, from, to, counted), run,
                   [&](const MachineDesc &, const Run &done) {
                     std::vector<T> want = o, got = values_of<T>(done.args[1]);
                     for (int64_t k = 0; k < size; ++k)
                       want[size_t(k * to)] = T(a[size_t(k * from)] + 1);
                     CHECK(got == want);
                   });
}

TEST_CASE("strides and counts") {
  for (int64_t size : {16, 35}) {
    check_strided<float>(DType::f32, 8, 1, 1, size);
    check_strided<float>(DType::f32, 8, 2, 1, size);
    check_strided<float>(DType::f32, 4, 3, 2, size);
    check_strided<float>(DType::f32, 16, 4, 1, size);
    check_strided<float>(DType::f32, 8, 7, 5, size);
    check_strided<uint8_t>(DType::u8, 16, 1, 1, size);
    check_strided<uint8_t>(DType::u8, 16, 3, 4, size);
    check_strided<int16_t>(DType::i16, 8, 2, 1, size);
    check_strided<int64_t>(DType::i64, 4, 2, 3, size);
    check_strided<double>(DType::f64, 8, 1, 2, size);
  }
  check_strided<float>(DType::f32, 1, 3, 2, 7);
}

TEST_CASE("lanes at and past the count read as 0") {
  for (int64_t count : {-3, 0, 1, 5, 8, 20}) {
    Expr a = kb::load(name("a"), DType::f32, 0, 8);
    a.count = sym("N");
    Expr b = a;
    b.stride = -1;
    b.index = Dim(7);
    Program program =
        make_program({make_kernel("tail", {in("a", DType::f32, 8), out("o", DType::f32, 16)}, {"N"},
                                  {kb::store(name("o"), 0, a), kb::store(name("o"), 8, b)})});
    Run run;
    run.dims = {count};
    run.args = {bytes_of<float>({1, 2, 3, 4, 5, 6, 7, 8}), Bytes(64)};
    on_every_machine(program, run, [&](const MachineDesc &, const Run &done) {
      std::vector<float> got = values_of<float>(done.args[1]);
      for (int64_t k = 0; k < 8; ++k) {
        CHECK(got[size_t(k)] == (k < count ? float(k + 1) : 0.0f));
        CHECK(got[size_t(8 + k)] == (k < count ? float(8 - k) : 0.0f));
      }
    });
  }
}

// Row k of o is what the last k + 1 lanes of a, `stride` apart, hold, and zeros behind them.
Program known_counts(int lanes, int64_t stride) {
  int64_t size = (lanes - 1) * stride + 1;
  std::vector<Stmt> stores;
  for (int64_t count = 1; count <= lanes; ++count) {
    Expr a = kb::load(name("a"), DType::f32, size - ((count - 1) * stride + 1), lanes);
    a.stride = stride;
    a.count = Dim(count);
    stores.push_back(kb::store(name("o"), (count - 1) * lanes, a));
    stores.push_back(kb::store(name("last"), lanes - count, a));
    stores.back().count = Dim(count);
  }
  return make_program({make_kernel(
      "known", {in("a", DType::f32, size), out("o", DType::f32, lanes * lanes), out("last", DType::f32, lanes)}, {},
      std::move(stores))});
}

TEST_CASE("counts that are known when code is made") {
  for (int lanes : {4, 8, 16})
    for (int64_t stride : {1, 2, 3, 4, 5}) {
      INFO(lanes << " lanes, stride " << stride);
      std::vector<float> a(size_t((lanes - 1) * stride + 1));
      for (size_t i = 0; i < a.size(); ++i)
        a[i] = float(i + 1);
      Run run;
      run.args = {bytes_of(a), Bytes(size_t(lanes * lanes) * 4), Bytes(size_t(lanes) * 4)};
      on_every_machine(known_counts(lanes, stride), run, [&](const MachineDesc &, const Run &done) {
        std::vector<float> o = values_of<float>(done.args[1]), last = values_of<float>(done.args[2]);
        for (int64_t count = 1; count <= lanes; ++count)
          for (int64_t i = 0; i < lanes; ++i)
            CHECK(o[size_t((count - 1) * lanes + i)] ==
                  (i < count ? float(int64_t(a.size()) - (count - 1 - i) * stride) : 0.0f));
        for (int64_t i = 0; i < lanes; ++i)
          CHECK(last[size_t(i)] == float(1 + i * stride));
      });
    }
}

TEST_CASE("gathers") {
  for (DType dtype : {DType::f32, DType::u8}) {
    Expr at = kb::load(name("at"), DType::i64, 0, 8);
    Program program = make_program({make_kernel(
        "gather", {in("a", dtype, 20), in("at", DType::i64, 8), out("o", dtype, 9)}, {},
        {kb::store(name("o"), 0, kb::gather(name("a"), dtype, at)),
         kb::store(name("o"), 8, kb::gather(name("a"), dtype, kb::extract(at, 3)))})});
    std::vector<int64_t> indices{19, 0, 7, 7, 3, 11, 18, 1};
    Run run;
    std::vector<uint8_t> small;
    std::vector<float> large;
    for (int k = 0; k < 20; ++k) {
      small.push_back(uint8_t(k * 3));
      large.push_back(float(k * 3));
    }
    bool bytes = dtype == DType::u8;
    run.args = {bytes ? bytes_of(small) : bytes_of(large), bytes_of(indices),
                Bytes(bytes ? 9 : 36)};
    on_every_machine(program, run, [&](const MachineDesc &, const Run &done) {
      for (size_t k = 0; k < 9; ++k) {
        int64_t want = indices[k < 8 ? k : 3] * 3;
        CHECK((bytes ? double(done.args[2][k]) : double(values_of<float>(done.args[2])[k])) ==
              double(want));
      }
    });
  }
}

// Buffers that end at a page nobody may touch.
TEST_CASE("no access outside of what counts") {
  long page = sysconf(_SC_PAGESIZE);
  auto *map = static_cast<uint8_t *>(
      mmap(nullptr, size_t(4 * page), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  REQUIRE(map != MAP_FAILED);
  REQUIRE(mprotect(map + page, size_t(page), PROT_NONE) == 0);
  REQUIRE(mprotect(map + 3 * page, size_t(page), PROT_NONE) == 0);
  KilnServices services = image_services(nullptr);
  for (const MachineDesc &machine : runnable_machines()) {
    if (!is_x86(machine))
      continue; // emulated in a process of its own
    for (int64_t stride : {1, 2, 3, 5}) {
      INFO(machine.name << " stride " << stride);
      cpu::CodeImage known = compile(known_counts(16, stride), machine);
      std::vector<float> rows(256);
      {
        auto run = image_run_fn(image_map(known.elf.data(), known.elf.size()), 0);
        auto *a = reinterpret_cast<float *>(map + page) - (15 * stride + 1);
        auto *last = reinterpret_cast<float *>(map + 3 * page) - 16;
        std::fill(a, a + 15 * stride + 1, 4.0f);
        void *args[] = {a, rows.data(), last};
        KilnFrame frame{&services, args, nullptr, nullptr, nullptr, nullptr, -1, 0, nullptr, 0, nullptr, 0, 0, 0};
        CHECK(run(&frame) == 0);
        CHECK(last[15] == 4);
      }
      cpu::CodeImage image = compile(strided_program(DType::f32, 16, stride, 1, true), machine);
      auto run = image_run_fn(image_map(image.elf.data(), image.elf.size()), 0);
      for (int64_t size : {1, 15, 16, 17, 31}) {
        auto *a = reinterpret_cast<float *>(map + page) - ((size - 1) * stride + 1);
        auto *o = reinterpret_cast<float *>(map + 3 * page) - size;
        std::fill(a, a + (size - 1) * stride + 1, 4.0f);
        void *args[] = {a, o};
        KilnFrame frame{&services, args, &size, nullptr, nullptr, nullptr, -1, 0, nullptr, 0, nullptr, 0, 0, 0};
        CHECK(run(&frame) == 0);
        CHECK(o[size - 1] == 5);
      }
    }
  }
  munmap(map, size_t(4 * page));
}

} // namespace
} // namespace kiln::test
