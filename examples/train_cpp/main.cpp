// Trains from C++, with the data library: a package with the entries train_step(x, y, steps) and init(seed), as `kiln compile
// digits.kir --keep-params` makes it, on data that are named as on the command line.
//
//   train_cpp MODEL.kiln 'x=@images-idx3-ubyte.gz y=@labels-idx1-ubyte.gz' EPOCHS TRAINED.kiln
#include <kiln/data.hpp>
#include <kiln/kiln.hpp>

#include <cstdio>
#include <cstdlib>

namespace {

using namespace kiln;

void train(const char *model, const char *source, int64_t epochs, const char *trained) {
  runtime::Module module = runtime::Module::open(std::string(model));
  runtime::Variables variables = module.variables();
  runtime::Context init = module.context("init", {.variables = &variables});
  runtime::Context step = module.context("train_step", {.dims = {64}, .variables = &variables});
  data::Loader loader(data::transformed(data::open(source), {{.field = "x", .dtype = KILN_F32, .dims = {1, 28, 28}, .reshape = true, .mean = {0.1307}, .std = {0.3081}},
                                                             {.field = "y", .dtype = KILN_I64}}), {.batch = 64, .seed = 1});
  uint64_t seed = 1;
  float loss = 0, steps = float(loader.batches() * epochs);
  init.input("seed", std::span(&seed, 1), {});
  init.run();
  step.input("steps", std::span(&steps, 1), {});
  step.output("loss", std::span(&loss, 1));
  for (int64_t epoch = 0; epoch < epochs; ++epoch) {
    for (loader.start(epoch); const data::Batch *batch = loader.next(); step.run())
      batch->bind(step);
    std::printf("epoch %lld: loss %g\n", static_cast<long long>(epoch + 1), double(loss));
  }
  variables.save(trained);
}

} // namespace

int main(int argc, char **argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: train_cpp MODEL.kiln DATA EPOCHS TRAINED.kiln\n");
    return 2;
  }
  try {
    train(argv[1], argv[2], std::atoll(argv[3]), argv[4]);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
