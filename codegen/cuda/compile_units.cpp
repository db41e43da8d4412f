#include "codegen/cuda/compile_units.h"

#include "runtime/digest.h"
#include "runtime/file.h"

#include <fmt/format.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <thread>

namespace kiln::cuda {
namespace {

// Starting NVRTC costs as much as some functions; more of them in a unit could not be compiled side by side.
constexpr size_t kFunctionsInUnit = 16;

namespace fs = std::filesystem;

// KILN_CACHE, or kiln in the user's cache folder; none where KILN_CACHE is empty or "off".
std::optional<fs::path> cache_folder() {
  if (const char *own = std::getenv("KILN_CACHE"))
    return *own == 0 || std::string_view(own) == "off" ? std::nullopt : std::optional(fs::path(own));
  if (const char *xdg = std::getenv("XDG_CACHE_HOME"); xdg && *xdg)
    return fs::path(xdg) / "kiln";
  if (const char *home = std::getenv("HOME"); home && *home)
    return fs::path(home) / ".cache" / "kiln";
  return std::nullopt;
}

class Cache {
public:
  Cache(const Nvrtc &nvrtc, const GpuMachine &machine, const DeviceOptions &options) {
    if (auto folder = options.use_cache ? cache_folder() : std::nullopt)
      folder_ = *folder / fmt::format("nvrtc-{}.{}-{}{}", nvrtc.major(), nvrtc.minor(), machine.name, options.denormals_keep ? "-denormals" : "");
  }

  std::vector<std::byte> find(const std::string &source) const {
    if (folder_.empty())
      return {};
    std::ifstream file(path(source), std::ios::binary);
    std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    // The image and its digest: what was cut off or changed is compiled again.
    if (bytes.size() <= sizeof(package::Digest))
      return {};
    size_t size = bytes.size() - sizeof(package::Digest);
    package::Digest digest = digest_of(bytes.data(), size);
    if (std::memcmp(&digest, bytes.data() + size, sizeof digest) != 0)
      return {};
    auto *begin = reinterpret_cast<const std::byte *>(bytes.data());
    return {begin, begin + size};
  }

  // A cache that cannot be written is none.
  void keep(const std::string &source, const std::vector<std::byte> &image) const {
    std::error_code ignored;
    if (folder_.empty() || (fs::create_directories(folder_, ignored), ignored))
      return;
    package::Digest digest = digest_of(image.data(), image.size());
    rt::WholeFile file;
    bool fits = file.create(path(source).c_str(), nullptr) == KILN_OK && file.put(0, image.data(), image.size(), nullptr) == KILN_OK &&
                file.put(image.size(), &digest, sizeof digest, nullptr) == KILN_OK;
    if (fits)
      file.commit(nullptr);
  }

private:
  static package::Digest digest_of(const void *data, size_t size) {
    package::Digester digester;
    digester.update(data, size);
    return digester.finish();
  }
  fs::path path(const std::string &source) const {
    package::Digest d = digest_of(source.data(), source.size());
    return folder_ / fmt::format("{:016x}{:016x}{:016x}{:016x}", d.word[0], d.word[1], d.word[2], d.word[3]);
  }

  fs::path folder_;
};

// The function of a unit that does not compile, with the kernel that it was made of.
Error blame(const Nvrtc &nvrtc, std::span<const CudaFunction> functions, std::span<const Kernel *const> origins,
            const GpuMachine &machine, const DeviceOptions &options, const Error &error) {
  for (size_t i = 0; i < functions.size(); ++i) {
    auto alone = nvrtc.compile(cuda_source(functions.subspan(i, 1)), origins[i]->name, machine.name, options.denormals_keep);
    if (!alone)
      return Error{fmt::format("{}\nof the kernel\n{}", alone.error().message, print_kernel(*origins[i]))};
  }
  return error;
}

} // namespace

Result<CompiledUnits> compile_units(const Nvrtc &nvrtc, const std::vector<CudaFunction> &functions,
                                    const std::vector<const Kernel *> &origins, const GpuMachine &machine,
                                    const DeviceOptions &options) {
  CompiledUnits out;
  size_t units = (functions.size() + kFunctionsInUnit - 1) / kFunctionsInUnit;
  out.images.resize(units);
  for (size_t i = 0; i < functions.size(); ++i)
    out.image_of.push_back(int(i / kFunctionsInUnit));
  Cache cache(nvrtc, machine, options);
  std::vector<std::optional<Error>> errors(units);
  std::atomic<size_t> next{0};
  auto work = [&] {
    for (size_t u; (u = next.fetch_add(1)) < units;) {
      size_t first = u * kFunctionsInUnit, count = std::min(kFunctionsInUnit, functions.size() - first);
      std::span<const CudaFunction> part(functions.data() + first, count);
      std::string source = cuda_source(part);
      out.images[u] = cache.find(source);
      if (!out.images[u].empty())
        continue;
      auto binary = nvrtc.compile(source, fmt::format("unit{}", u), machine.name, options.denormals_keep);
      if (!binary) {
        errors[u] = blame(nvrtc, part, {origins.data() + first, count}, machine, options, binary.error());
        continue;
      }
      cache.keep(source, binary->bytes);
      out.images[u] = std::move(binary->bytes);
    }
  };
  std::vector<std::thread> threads;
  for (int j = 1; j < options.jobs && size_t(j) < units; ++j)
    threads.emplace_back(work);
  work();
  for (std::thread &t : threads)
    t.join();
  for (const auto &error : errors)
    if (error)
      return *error;
  return out;
}

} // namespace kiln::cuda
