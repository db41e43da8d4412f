// NVRTC through dlopen: Kiln links no CUDA library.
#include "codegen/cuda/cuda.h"

#include <fmt/format.h>

#include <dlfcn.h>

#include <cstdlib>

namespace kiln::cuda {

// The functions of nvrtc.h that are used, by their C signatures.
struct Nvrtc::Api {
  using Program = void *;
  void *library = nullptr;
  int (*version)(int *, int *) = nullptr;
  const char *(*error_string)(int) = nullptr;
  int (*create)(Program *, const char *, const char *, int, const char *const *, const char *const *) = nullptr;
  int (*destroy)(Program *) = nullptr;
  int (*compile)(Program, int, const char *const *) = nullptr;
  int (*log_size)(Program, size_t *) = nullptr;
  int (*log)(Program, char *) = nullptr;
  int (*cubin_size)(Program, size_t *) = nullptr;
  int (*cubin)(Program, char *) = nullptr;
  int (*ptx_size)(Program, size_t *) = nullptr;
  int (*ptx)(Program, char *) = nullptr;

  ~Api() {
    if (library)
      dlclose(library);
  }
  template <typename F>
  bool find(F &function, const char *name) {
    function = reinterpret_cast<F>(dlsym(library, name));
    return function != nullptr;
  }
  bool find_all() {
    return find(version, "nvrtcVersion") && find(error_string, "nvrtcGetErrorString") &&
           find(create, "nvrtcCreateProgram") && find(destroy, "nvrtcDestroyProgram") &&
           find(compile, "nvrtcCompileProgram") && find(log_size, "nvrtcGetProgramLogSize") &&
           find(log, "nvrtcGetProgramLog") && find(cubin_size, "nvrtcGetCUBINSize") && find(cubin, "nvrtcGetCUBIN") &&
           find(ptx_size, "nvrtcGetPTXSize") && find(ptx, "nvrtcGetPTX");
  }
};

Result<Nvrtc> Nvrtc::open() {
  std::vector<std::string> names;
  if (const char *path = std::getenv("KILN_NVRTC"))
    names.emplace_back(path);
  for (const char *name : {"libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"})
    for (const char *folder : {"", "/usr/local/cuda/lib64/"})
      names.push_back(std::string(folder) + name);
  auto api = std::make_shared<Api>();
  for (const std::string &name : names)
    if ((api->library = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL)))
      break;
  if (!api->library)
    return Error{"NVRTC was not found: install the CUDA toolkit or the wheel nvidia-cuda-nvrtc, or set KILN_NVRTC "
                 "to the path of libnvrtc.so"};
  Nvrtc out;
  if (!api->find_all() || api->version(&out.major_, &out.minor_) != 0)
    return Error{"the NVRTC that was found is too old: CUDA 12 or later is needed"};
  out.api_ = std::move(api);
  return out;
}

Result<Nvrtc::Binary> Nvrtc::compile(std::string_view source, std::string_view name, std::string_view arch, bool denormals_keep) const {
  Api::Program program = nullptr;
  std::string text(source), file = std::string(name) + ".cu", option = "--gpu-architecture=" + std::string(arch);
  if (int code = api_->create(&program, text.c_str(), file.c_str(), 0, nullptr, nullptr); code != 0)
    return Error{fmt::format("NVRTC: {}", api_->error_string(code))};
  // Products and sums are rounded one by one, as on every other target.
  const char *options[] = {option.c_str(), "--std=c++17", "--fmad=false", denormals_keep ? "--ftz=false" : "--ftz=true"};
  int code = api_->compile(program, 4, options);
  Binary out;
  size_t size = 0;
  if (api_->log_size(program, &size) == 0 && size > 1) {
    out.log.resize(size);
    api_->log(program, out.log.data());
    out.log.resize(size - 1);
  }
  bool is_ptx = arch.starts_with("compute_");
  if (code == 0)
    code = is_ptx ? api_->ptx_size(program, &size) : api_->cubin_size(program, &size);
  if (code == 0) {
    out.bytes.resize(size);
    char *bytes = reinterpret_cast<char *>(out.bytes.data());
    code = is_ptx ? api_->ptx(program, bytes) : api_->cubin(program, bytes);
  }
  api_->destroy(&program);
  if (code != 0)
    return Error{fmt::format("NVRTC could not compile {} for {}: {}\n{}", name, arch, api_->error_string(code), out.log)};
  return out;
}

} // namespace kiln::cuda
