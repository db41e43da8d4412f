// Models linked into the program: the same code and manifest, as --emit=object lays them out.
#include <catch2/catch.hpp>
#include <cstring>

#include "runtime/entry_abi.h"
#include "tests/runtime/test_model.h"

using namespace kiln;
using namespace kiln::test;

extern "C" {
int32_t scale_run(KilnFrame *frame);
int32_t scale_plan(const int64_t *dims, int64_t *out);
int32_t step_run(KilnFrame *frame);
int32_t step_plan(const int64_t *dims, int64_t *out);
}

namespace {

// A spec of the first two entries, and what the object file would hold.
struct Linked {
  Linked() : weights(128 + 64) {
    PackageSpec spec = make_spec({});
    spec.entries.resize(2);
    std::string error;
    manifest = build_manifest(spec, error);
    REQUIRE(error.empty());
    locations = build_locations(spec, error);
    for (const PackageWeights &span : spec.weights)
      std::memcpy(static_cast<uint8_t *>(weights.get()) + span.offset, span.data, span.size);
    model = {KILN_STATIC_MODEL_VERSION,
             2,
             entries,
             manifest.data(),
             manifest.size(),
             locations.data(),
             locations.size(),
             weights.get(),
             spec.weights_size,
             base_target()};
  }
  const KilnStaticEntry entries[2] = {{scale_run, scale_plan}, {step_run, step_plan}};
  std::vector<uint8_t> manifest, locations;
  Block weights;
  KilnStaticModel model{};
};

} // namespace

TEST_CASE("a linked model runs, and its variables are saved as state") {
  Linked linked;
  KilnModule *module = nullptr;
  KilnError error{};
  int32_t code = api().open_static(&linked.model, &module, &error);
  INFO(error.message);
  REQUIRE(code == KILN_OK);
  size_t size = 0;
  REQUIRE(api().context_size(module, 1, nullptr, &size, &error) == KILN_OK);
  Block memory(size);
  KilnContext *context = nullptr;
  REQUIRE(api().context_init(module, 1, nullptr, memory.get(), size, &context, &error) == KILN_OK);
  std::vector<float> x(4, 1.0f), loss(1);
  KilnTensor input = tensor(x, KILN_F32, {4}), output = tensor(loss, KILN_F32, {});
  input.dims = output.dims = nullptr;
  REQUIRE(api().bind_input(context, 0, &input, &error) == KILN_OK);
  REQUIRE(api().bind_output(context, 0, &output, &error) == KILN_OK);
  REQUIRE(api().run(context, &error) == KILN_OK);
  CHECK(loss[0] == 104);
  void *variables = api().context_variables(context);
  std::string path = temporary("linked.state");
  CHECK(api().save(module, variables, path.c_str(), 0, &error) == KILN_ERROR_USAGE);
  REQUIRE(api().save(module, variables, path.c_str(), KILN_SAVE_STATE_ONLY, &error) == KILN_OK);
  REQUIRE(api().variables_init(module, variables, &error) == KILN_OK);
  REQUIRE(api().load(module, variables, path.c_str(), &error) == KILN_OK);
  REQUIRE(api().run(context, &error) == KILN_OK);
  CHECK(loss[0] == 108);
  api().close(module);
}

TEST_CASE("a linked model that does not fit is refused by name") {
  Linked linked;
  KilnModule *module = nullptr;
  KilnError error{};
  linked.model.version = 2;
  CHECK(api().open_static(&linked.model, &module, &error) == KILN_ERROR_VERSION);
  linked.model.version = 1;
  linked.model.entry_count = 1;
  CHECK(api().open_static(&linked.model, &module, &error) == KILN_ERROR_FORMAT);
  linked.model.entry_count = 2;
  linked.model.target = "aarch64+nothing";
  CHECK(api().open_static(&linked.model, &module, &error) == KILN_ERROR_MACHINE);
  CHECK(module == nullptr);
}
