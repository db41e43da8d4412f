// Writes `.kiln` packages: from a plain description of a compiled model to one file on disk.
//
// The code generators fill a PackageSpec (they know nothing of offsets, tables or digests) and call
// write_package(). Weights are streamed from wherever they lie, usually the mapped model file, so
// that they are never held twice. The same spec gives the same bytes, and the file appears whole or
// not at all (runtime/file.h); a package that goes into a pipe is made in memory.
//
//   PackageSpec spec;
//   spec.model_name = "digits";
//   spec.entries.push_back({.name = "predict", .inputs = {{"x", code, {dim_symbol(0, "N"),
//   ...}}}}); spec.code.push_back({"x86-64-v3", elf_bytes}); if (std::string error =
//   write_package(spec, "digits.kiln"); !error.empty()) ...
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "runtime/package_format.h"

namespace kiln {

struct PackageDim {
  package::DimKind kind = package::DimKind::Const;
  uint32_t symbol = 0;   // of the entry's `symbols`, for Symbol
  int64_t value = 0;     // for Const
  std::string text = {}; // what people read; filled in for Const and Symbol when empty
};

inline PackageDim dim_const(int64_t value) {
  return {package::DimKind::Const, 0, value, {}};
}
inline PackageDim dim_symbol(uint32_t symbol) {
  return {package::DimKind::Symbol, symbol, 0, {}};
}
// Of an output: what plan() says. Of an input: the value of `text`, in the grammar of ir/dim.h over
// the entry's symbols.
inline PackageDim dim_planned(std::string text) {
  return {package::DimKind::Planned, 0, 0, std::move(text)};
}

struct PackageValue {
  std::string name = {};
  uint32_t dtype = 0; // code in runtime/dtypes.def
  std::vector<PackageDim> dims = {};
};

struct PackageSymbol {
  std::string name = {};
  int64_t min = 0;
  int64_t max = std::numeric_limits<int64_t>::max(); // no bound
  int64_t otherwise = -1; // of a capacity: its value where the caller of a run gives none
  uint32_t variable = package::kNoIndex; // index in PackageSpec::variables of the one that holds it
};

// A size that run() finds: KilnFrame::sizes.
struct PackageSize {
  std::string name = {};
  int64_t capacity = -1; // the symbol that bounds it, where that is a capacity
};

struct PackageKernel {
  std::string name = {};
  uint32_t location = package::kNoIndex; // index in PackageSpec::locations
  double flops = 0;                      // one run; 0 where it depends on symbolic dims
  double bytes = 0;
  double weight_bytes = 0;     // the part of `bytes` that is the same in every run
  uint32_t units = 0;          // what multiplies: package::kByteDots and its like
  std::string flops_text = {}; // both over the entry's symbols
  std::string bytes_text = {};
};

// What an entry in parts runs one after the other: other entries, and what their inputs and outputs are to it.
struct PackagePartArgument {
  package::PartArgumentKind kind = package::PartArgumentKind::Input;
  uint32_t index = 0;
};
struct PackagePart {
  uint32_t entry = 0; // in PackageSpec::entries
  bool is_on_device = false;
  bool uses_variables = false;
  std::vector<PackagePartArgument> arguments = {};
};

struct PackageEntry {
  std::string name = {};
  std::vector<PackageValue> inputs = {};
  std::vector<PackageValue> outputs = {};
  std::vector<PackageSymbol> symbols = {};   // KilnFrame::dims, in this order
  std::vector<PackageSize> sizes = {};       // KilnFrame::sizes, in this order
  std::vector<std::string> constraints = {}; // text for plan() returning 1 + index, and run() trapping
  std::vector<PackageKernel> kernels = {};   // by plan position
  std::vector<PackagePart> parts = {};       // where it computes on both sides
  bool writes_variables = false, uses_variables = false;
  std::string device = {};  // "cpu", "cuda", or empty: where a run wants it
  bool is_twin = false;     // what the entry of this name is on a device; those come last
  bool is_part = false;     // of an entry in parts: it has no callers, and stands behind those that do
  int64_t arena_size = -1;  // -1 where it depends on symbolic dims
  int64_t scratch_size = 0; // bytes, for each thread
};

struct PackageVariable {
  std::string name = {};
  uint32_t dtype = 0;
  std::vector<int64_t> dims = {};
  bool is_param = true;
  uint64_t offset = 0; // in the variables block, a multiple of KILN_ALIGNMENT
  uint64_t initial =
      package::kNoOffset; // where the weights hold its initial value; kNoOffset: zeros
};

struct PackageLocation {
  std::string file = {};
  uint32_t line = 0;
  uint32_t column = 0;
  std::string node = {};
};

struct PackageCode {
  std::string target = {}; // e.g. "x86-64-v3", "x86-64-v4+amx", "aarch64"
  std::span<const uint8_t> image = {};
};

// Bytes of the weights section: `size` bytes at `offset`, either at `data` or, where data is null,
// what `fill` writes to the buffer it is given (for weights packed on their way out). Gaps are
// zeros.
struct PackageWeights {
  uint64_t offset = 0;
  uint64_t size = 0;
  const void *data = nullptr;
  std::function<void(uint8_t *)> fill = {};
};

struct PackageSpec {
  std::string model_name = {};
  std::string producer = {};
  bool keep_denormals = false;
  std::vector<PackageEntry> entries = {}; // in the order of the image's KilnImageEntry records
  std::vector<PackageVariable> variables = {};
  uint64_t variables_size = 0;
  std::vector<PackageLocation> locations = {};
  std::vector<std::pair<std::string, std::string>> metadata = {};
  std::vector<PackageCode> code = {};
  std::vector<PackageCode> devices = {}; // device sections, by the GPU's name: "sm_90"
  std::vector<PackageWeights> weights = {};
  uint64_t weights_size = 0;
};

// The manifest and locations sections alone, for --emit=object. `error` stays empty on success.
std::vector<uint8_t> build_manifest(const PackageSpec &spec, std::string &error);
std::vector<uint8_t> build_locations(const PackageSpec &spec, std::string &error);

// Where the bytes of a package go: returns an empty string, or what went wrong. Offsets ascend,
// except for the header's page, which comes last at offset 0.
using PackageSink = std::function<std::string(uint64_t offset, const void *data, size_t size)>;
std::string write_package_to(const PackageSpec &spec, const PackageSink &sink);

// Returns an empty string, or what went wrong (with the file's name); then nothing is left behind.
[[nodiscard]] std::string write_package(const PackageSpec &spec, const std::string &path);
[[nodiscard]] std::string build_package(const PackageSpec &spec, std::vector<uint8_t> &out);

} // namespace kiln
