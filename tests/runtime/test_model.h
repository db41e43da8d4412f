// The package of model_code.c, and small helpers around it.
#pragma once

#include <string>
#include <vector>

#include "codegen/package/package_writer.h"
#include "runtime/include/kiln/kiln.h"

namespace kiln::test {

// The ELF image of model_code.c; `variant` "" or "_abi9".
std::vector<uint8_t> read_file(const std::string &path);
void write_file(const std::string &path, const std::vector<uint8_t> &bytes);
std::string image_path(const std::string &variant = "");
// A path in a folder of this process's own.
std::string temporary(const std::string &name);

// A spec of the whole test model. `image` must outlive it.
PackageSpec make_spec(const std::vector<uint8_t> &image);

// The name of a target that this machine always runs.
const char *base_target();

const KilnApi &api();

// A KilnTensor over a vector.
template <typename T>
KilnTensor tensor(std::vector<T> &data, uint32_t dtype, const std::vector<int64_t> &dims) {
  return {data.data(), data.size() * sizeof(T), dtype, static_cast<uint32_t>(dims.size()),
          dims.data()};
}

// 64-byte aligned memory, released with it.
class Block {
public:
  explicit Block(size_t size);
  Block(const Block &) = delete;
  Block &operator=(const Block &) = delete;
  ~Block();
  void *get() const { return memory_; }
  size_t size() const { return size_; }

private:
  void *memory_;
  size_t size_;
};

// An opened module, closed with it. `code` and `error` hold what open said.
class Opened {
public:
  explicit Opened(const std::string &path, const KilnOpenOptions *options = nullptr);
  Opened(const void *data, size_t size);
  Opened(const Opened &) = delete;
  Opened &operator=(const Opened &) = delete;
  ~Opened();
  operator KilnModule *() const { return module_; }
  int32_t code;
  KilnError error{};

private:
  KilnModule *module_ = nullptr;
};

} // namespace kiln::test
