#include "tests/runtime/test_model.h"

#include "tests/temp_folder.h"

#include <fstream>
#include <iterator>

namespace kiln::test {

std::vector<uint8_t> read_file(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

void write_file(const std::string &path, const std::vector<uint8_t> &bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char *>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
}

std::string image_path(const std::string &variant) {
  return KILN_TEST_IMAGES "/model_code" + variant + ".so";
}

std::string temporary(const std::string &name) {
  static const TempFolder kFolder;
  return kFolder / name;
}

const char *base_target() {
#if defined(__aarch64__)
  return "aarch64";
#else
  return "x86-64";
#endif
}

PackageSpec make_spec(const std::vector<uint8_t> &image) {
  static const float kScales[4] = {1, 2, 3, 4};
  static const float kMoment[4] = {10, 20, 30, 40};
  PackageSpec spec;
  spec.model_name = "tested";
  spec.producer = "kiln tests";
  PackageEntry scale{
      .name = "scale",
      .inputs = {{"x", KILN_F32, {dim_symbol(0), dim_const(4)}}},
      .outputs = {{"y", KILN_F32, {dim_symbol(0), dim_const(4)}}, {"total", KILN_F32, {}}},
      .symbols = {{"N", 0, 64}},
      .constraints = {"N % 7 != 0"},
      .kernels = {{"mul", 0, 0, 0}, {"reduce_sum", 1, 0, 0}}};
  PackageEntry step{.name = "step",
                    .inputs = {{"x", KILN_F32, {dim_const(4)}}},
                    .outputs = {{"loss", KILN_F32, {}}},
                    .kernels = {{"adam"}},
                    .writes_variables = true,
                    .arena_size = 0};
  PackageEntry pick{.name = "pick",
                    .inputs = {{"table", KILN_F32, {dim_const(8)}}, {"at", KILN_I64, {}}},
                    .outputs = {{"value", KILN_F32, {}}},
                    .kernels = {{"gather", 2, 0, 0}},
                    .arena_size = 0};
  PackageEntry denormal{.name = "denormal",
                        .inputs = {{"x", KILN_F32, {dim_symbol(0)}}},
                        .outputs = {{"y", KILN_F32, {dim_symbol(0)}}},
                        .symbols = {{"N"}},
                        .kernels = {{"halve"}}};
  PackageEntry positive{.name = "positive",
                        .inputs = {{"x", KILN_F32, {dim_symbol(0)}}},
                        .outputs = {{"y", KILN_F32, {dim_planned("K")}}},
                        .symbols = {{"N", 0, 64}, {.name = "C", .max = 32, .otherwise = 2}},
                        .sizes = {{"K", 1}},
                        .kernels = {{"select", 1, 0, 0}},
                        .writes_variables = true};
  spec.entries = {scale, step, pick, denormal, positive};
  spec.variables = {{"moment", KILN_F32, {4}, true, 0, 64},
                    {"count", KILN_I64, {}, false, 64, package::kNoOffset}};
  spec.variables_size = 128;
  spec.locations = {
      {"tested.kir", 3, 7, ""}, {"tested.kir", 4, 9, ""}, {"m.onnx", 0, 0, "Gather#2"}};
  spec.metadata = {{"author", "tests"}};
  spec.code = {{base_target(), image}};
  spec.weights = {{0, sizeof kScales, kScales, {}}, {64, sizeof kMoment, kMoment, {}}};
  spec.weights_size = 80;
  return spec;
}

const KilnApi &api() {
  return *kiln_get_api(KILN_API_VERSION);
}

Block::Block(size_t size) : memory_(std::aligned_alloc(64, (size + 64) / 64 * 64)), size_(size) {}

Block::~Block() {
  std::free(memory_);
}

Opened::Opened(const std::string &path, const KilnOpenOptions *options) {
  code = api().open(path.c_str(), options, &module_, &error);
}

Opened::Opened(const void *data, size_t size) {
  code = api().open_memory(data, size, nullptr, &module_, &error);
}

Opened::~Opened() {
  api().close(module_);
}

} // namespace kiln::test
