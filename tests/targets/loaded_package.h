// A package in memory as the tests of targets run it, on the CPU or on a device.
#pragma once

#include "tests/targets/targets.h"

#include <kiln/kiln.h>

#include <cstdlib>
#include <cstring>

namespace kiln::test {

inline const KilnApi &api() { return *kiln_get_api(KILN_API_VERSION); }

struct Free {
  void operator()(void *p) const { std::free(p); }
};
using Memory = std::unique_ptr<void, Free>;

inline Memory aligned(size_t bytes) {
  return Memory(std::aligned_alloc(4096, (bytes + 4096) / 4096 * 4096));
}

class LoadedPackage : public Target::Loaded {
public:
  LoadedPackage(Memory package, KilnModule *module) : package_(std::move(package)), module_(module) {}
  ~LoadedPackage() override { api().close(module_); }

  Result<std::vector<Tensor>> run(size_t entry, const std::vector<Tensor> &inputs) override {
    uint32_t e = uint32_t(entry);
    KilnEntryInfo info{};
    api().entry_info(module_, e, &info);
    std::vector<int64_t> dims(info.symbol_count, -1);
    KilnValueInfo value{};
    for (uint32_t i = 0; i < inputs.size(); ++i) {
      api().input_info(module_, e, i, &value);
      for (uint32_t d = 0; d < value.rank && d < uint32_t(inputs[i].rank()); ++d)
        if (value.dims[d].symbol >= 0)
          dims[size_t(value.dims[d].symbol)] = inputs[i].dims()[d];
    }
    for (;;) {
      std::vector<Tensor> outputs;
      KilnError error{};
      int32_t code = run_once(e, info, dims, inputs, outputs, error);
      if (code == KILN_OK)
        return outputs;
      if (code != KILN_ERROR_CAPACITY)
        return Error{error.message};
    }
  }

private:
  int32_t run_once(uint32_t e, const KilnEntryInfo &info, std::vector<int64_t> &dims, const std::vector<Tensor> &inputs,
                   std::vector<Tensor> &outputs, KilnError &error) {
    size_t size = 0;
    KilnContextOptions options{dims.empty() ? nullptr : dims.data(), nullptr, nullptr};
    if (int32_t code = api().context_size(module_, e, &options, &size, &error))
      return code;
    Memory memory = aligned(size);
    KilnContext *context = nullptr;
    if (int32_t code = api().context_init(module_, e, &options, memory.get(), size, &context, &error))
      return code;
    for (uint32_t i = 0; i < inputs.size(); ++i) {
      static const int64_t kNoDims[1] = {0};
      KilnTensor t{const_cast<std::byte *>(inputs[i].bytes().data()), inputs[i].bytes().size(),
                   uint32_t(inputs[i].dtype()), uint32_t(inputs[i].rank()),
                   inputs[i].rank() ? inputs[i].dims().data() : kNoDims};
      if (int32_t code = api().bind_input(context, i, &t, &error))
        return code;
    }
    std::vector<Tensor> largest;
    std::vector<int64_t> shape(KILN_MAX_RANK);
    KilnValueInfo value{};
    for (uint32_t i = 0; i < info.output_count; ++i) {
      api().output_info(module_, e, i, &value);
      if (int32_t code = api().output_dims(context, i, shape.data(), &error))
        return code;
      largest.emplace_back(*dtype_from_code(int(value.dtype)), std::vector<int64_t>(shape.begin(), shape.begin() + value.rank));
    }
    for (uint32_t i = 0; i < largest.size(); ++i) {
      KilnTensor t{largest[i].mutable_bytes(), largest[i].bytes().size(), uint32_t(largest[i].dtype()),
                   uint32_t(largest[i].rank()), nullptr};
      if (int32_t code = api().bind_output(context, i, &t, &error))
        return code;
    }
    struct End {
      KilnContext *context;
      ~End() { api().context_end(context); }
    } end{context};
    int32_t code = api().run(context, &error);
    if (code == KILN_ERROR_CAPACITY)
      api().grown_dims(context, dims.data(), nullptr);
    for (uint32_t i = 0; code == KILN_OK && i < largest.size(); ++i) {
      code = api().result_dims(context, i, shape.data(), &error);
      Tensor out(largest[i].dtype(), std::vector<int64_t>(shape.begin(), shape.begin() + largest[i].rank()));
      if (!out.bytes().empty())
        std::memcpy(out.mutable_bytes(), largest[i].bytes().data(), out.bytes().size());
      outputs.push_back(std::move(out));
    }
    return code;
  }

  Memory package_;
  KilnModule *module_;
};

// Opens it on "cpu", "cuda:0".
inline Result<std::unique_ptr<Target::Loaded>> load_package(std::span<const uint8_t> bytes, const char *device) {
  Memory memory = aligned(bytes.size());
  std::memcpy(memory.get(), bytes.data(), bytes.size());
  KilnError error{};
  KilnModule *loaded = nullptr;
  KilnOpenOptions open{KILN_OPEN_DEVICE, 0, nullptr, device};
  if (api().open_memory(memory.get(), bytes.size(), &open, &loaded, &error) != KILN_OK)
    return Error{error.message};
  return std::unique_ptr<Target::Loaded>(new LoadedPackage(std::move(memory), loaded));
}

} // namespace kiln::test
