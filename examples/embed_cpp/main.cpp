// Trains from C++: runs a package's training step on data of its own, watches the loss, and saves.
//
//   embed_cpp MODEL.kiln STEP-ENTRY TRAINED.kiln
//
// The step's float inputs get noise and its integer inputs zeros, so that any model will do; a real
// program fills them with its data. The package it writes is the same model with the trained
// values.
#include <kiln/kiln.hpp>

#include <cstdio>
#include <exception>
#include <random>

namespace {

using namespace kiln::runtime;

// Data of any dtype for one input or output of known shape.
struct Buffer {
  std::vector<float> floats;
  std::vector<int64_t> integers;
};

size_t count_of(const KilnValueInfo &value) {
  size_t count = 1;
  for (uint32_t i = 0; i < value.rank; ++i)
    count *= static_cast<size_t>(value.dims[i].value);
  return count;
}

void train(const char *path, const char *step_name, const char *trained) {
  Module module = Module::open(std::string(path));
  Variables variables = module.variables();
  Pool pool(2);
  Context step = module.context(step_name, {.variables = &variables, .executor = pool.executor()});

  auto entry = static_cast<uint32_t>(api().find_entry(module.handle(), step_name));
  KilnEntryInfo info{};
  api().entry_info(module.handle(), entry, &info);
  std::vector<Buffer> inputs(info.input_count);
  std::mt19937 random(1);
  std::normal_distribution<float> noise;
  for (uint32_t i = 0; i < info.input_count; ++i) {
    KilnValueInfo value{};
    api().input_info(module.handle(), entry, i, &value);
    if (value.dtype == KILN_F32) {
      inputs[i].floats.resize(count_of(value));
      for (float &element : inputs[i].floats)
        element = noise(random);
      step.input(value.name, inputs[i].floats);
    } else {
      inputs[i].integers.resize(count_of(value));
      step.input(value.name, inputs[i].integers);
    }
  }
  KilnValueInfo loss_info{};
  api().output_info(module.handle(), entry, 0, &loss_info);
  std::vector<float> loss(1);
  step.output(loss_info.name, loss);
  for (int i = 0; i < 10; ++i) {
    step.run();
    std::printf("step %d: %s = %g\n", i, loss_info.name, static_cast<double>(loss[0]));
  }
  variables.save(trained);
}

} // namespace

int main(int argc, char **argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: embed_cpp MODEL.kiln STEP-ENTRY TRAINED.kiln\n");
    return 2;
  }
  try {
    train(argv[1], argv[2], argv[3]);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
