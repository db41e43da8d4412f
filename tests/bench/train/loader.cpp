// How much of a training step's speed is left when its batches come from a Loader instead of lying there: stretches of steps on one batch and on
// batches from the loader in turns, which share the luck of the machine.
//
//   bench_loader PACKAGE.kiln [DATA [THREADS [SECONDS]]]
//
// The package has train_step(x: f32[64, 1, 28, 28], y: i64[64]), as mnist_cnn_b64.kir compiled with --keep-params. Without DATA (a source of
// kiln/data.hpp) it takes 20,000 pictures of random bytes.
#include <kiln/data.hpp>
#include <kiln/kiln.hpp>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

using namespace kiln;
using Clock = std::chrono::steady_clock;

class Noise : public data::Dataset {
public:
  int64_t size() const override { return 20'000; }
  const std::vector<data::Field> &fields() const override { return fields_; }
  bool get(int64_t index, uint64_t, std::span<std::byte *const> out, std::string &) const override {
    for (int64_t i = 0; i < 28 * 28; i += 8) {
      uint64_t bits = data::mix_bits(uint64_t(index), uint64_t(i));
      std::memcpy(out[0] + i, &bits, 8);
    }
    out[1][0] = std::byte(index % 10);
    return true;
  }

private:
  std::vector<data::Field> fields_ = {{.name = "x", .dtype = KILN_U8, .dims = {28, 28}}, {.name = "y", .dtype = KILN_U8}};
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int bench(int argc, char **argv) {
  auto source = argc > 2 && argv[2][0] != 0 ? data::open(argv[2]) : std::make_shared<const Noise>();
  unsigned threads = argc > 3 ? unsigned(std::atoi(argv[3])) : 1;
  double seconds = argc > 4 ? std::atof(argv[4]) : 20;
  auto pictures = data::transformed(source, {{.field = "x", .dtype = KILN_F32, .dims = {1, 28, 28}, .reshape = true, .mean = {0.1307}, .std = {0.3081}},
                                             {.field = "y", .dtype = KILN_I64}});
  runtime::Module module = runtime::Module::open(std::string(argv[1]));
  runtime::Variables variables = module.variables();
  runtime::Pool pool(threads);
  runtime::Context init = module.context("init", {.variables = &variables});
  uint64_t seed = 1;
  init.input("seed", std::span(&seed, 1), {});
  init.run();
  runtime::Context step = module.context("train_step", {.variables = &variables, .executor = pool.executor()});
  KilnValueInfo output{};
  runtime::api().output_info(module.handle(), uint32_t(runtime::api().find_entry(module.handle(), "train_step")), 0, &output);
  float loss = 0;
  step.output(output.name, std::span(&loss, 1));

  data::Loader fixed(pictures, {.batch = 64, .workers = 0}), loader(pictures, {.batch = 64, .seed = 1, .workers = 1});
  fixed.start(0);
  const data::Batch *same = fixed.next();
  constexpr int kSteps = 20;
  int64_t epoch = 0;
  loader.start(epoch);
  std::vector<double> ratios, on_fixed, on_loader;
  auto stretch = [&](bool loads) {
    auto begin = Clock::now();
    for (int i = 0; i < kSteps; ++i) {
      const data::Batch *batch = same;
      if (loads && !(batch = loader.next())) {
        loader.start(++epoch);
        batch = loader.next();
      }
      batch->bind(step);
      step.run();
    }
    return std::chrono::duration<double>(Clock::now() - begin).count() / kSteps * 1e3;
  };
  stretch(false);
  stretch(true);
  for (auto begin = Clock::now(); std::chrono::duration<double>(Clock::now() - begin).count() < seconds;) {
    on_fixed.push_back(stretch(false));
    on_loader.push_back(stretch(true));
    ratios.push_back(on_fixed.back() / on_loader.back());
  }
  std::printf("ms a step, median (min): on fixed data %.3f (%.3f), with the loader %.3f (%.3f); %.1f %% of the speed by medians, %.1f %% by minima, %d threads\n",
              median(on_fixed), *std::min_element(on_fixed.begin(), on_fixed.end()), median(on_loader), *std::min_element(on_loader.begin(), on_loader.end()),
              100 * median(on_fixed) / median(on_loader),
              100 * *std::min_element(on_fixed.begin(), on_fixed.end()) / *std::min_element(on_loader.begin(), on_loader.end()), int(threads));
  return 0;
}

} // namespace

int main(int argc, char **argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: bench_loader PACKAGE.kiln [DATA [THREADS [SECONDS]]]\n");
    return 2;
  }
  try {
    return bench(argc, argv);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
