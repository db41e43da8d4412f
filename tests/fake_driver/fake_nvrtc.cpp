// A library with the functions of NVRTC that Kiln calls, for tests on machines without a GPU: what it gives
// for a cubin or for PTX is a shared object, the source compiled for this CPU with tests/cuda_shim. Kiln finds
// it by KILN_NVRTC, the fake driver loads what it made.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

extern char **environ;

namespace {

struct Program {
  std::string source, log, object;
};

std::string read_file(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Names of the kernels: `extern "C" __global__ void __launch_bounds__(256) name(`.
std::vector<std::string> kernel_names(const std::string &source) {
  constexpr std::string_view kMark = "__global__ void __launch_bounds__(";
  std::vector<std::string> out;
  for (size_t at = source.find(kMark); at != std::string::npos; at = source.find(kMark, at)) {
    at = source.find(')', at) + 2;
    size_t end = source.find('(', at);
    out.push_back(source.substr(at, end - at));
  }
  return out;
}

int run(const std::vector<std::string> &words, const std::string &log) {
  std::vector<char *> argv;
  for (const std::string &word : words)
    argv.push_back(const_cast<char *>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 2, log.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  pid_t pid = 0;
  int failed = posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  int status = 1;
  return failed != 0 || waitpid(pid, &status, 0) != pid ? 1 : status;
}

std::vector<std::string> compile_command() {
  const char *compiler = std::getenv("KILN_SHIM_CXX"), *level = std::getenv("KILN_SHIM_LEVEL");
  std::vector<std::string> out = {compiler ? compiler : "c++", "-std=c++17", "-nostdinc++", level ? level : "-O1", "-march=native", "-fvisibility=hidden", "-w", "-ffp-contract=off",
                                  "-fno-strict-aliasing", "-fno-exceptions", "-fPIC", "-I", KILN_SHIM_ROOT};
  // Calls before each memory access, which the shim answers itself.
  if (std::getenv("KILN_SHIM_TRACE"))
    out.insert(out.begin() + 1, {"-fsanitize=thread", "-fno-threadsafe-statics", "-DKILN_SHIM_TRACED"});
  return out;
}

} // namespace

extern "C" {

__attribute__((visibility("default"))) int nvrtcVersion(int *major, int *minor) {
  *major = 12;
  *minor = 98; // no cubin of a real one is taken for one of these
  return 0;
}
__attribute__((visibility("default"))) const char *nvrtcGetErrorString(int code) {
  return code == 0 ? "no error" : "the C++ compiler refuses";
}
__attribute__((visibility("default"))) int nvrtcCreateProgram(Program **program, const char *source, const char *, int,
                                                              const char *const *, const char *const *) {
  *program = new Program{source, "", ""};
  return 0;
}
__attribute__((visibility("default"))) int nvrtcDestroyProgram(Program **program) {
  delete *program;
  *program = nullptr;
  return 0;
}
__attribute__((visibility("default"))) int nvrtcCompileProgram(Program *program, int, const char *const *) {
  char folder[] = "/tmp/kiln-shim-XXXXXX";
  if (!mkdtemp(folder))
    return 1;
  std::string base = std::string(folder) + "/k", names;
  for (const std::string &name : kernel_names(program->source))
    names += "KILN_SHIM_KERNEL(" + name + ")\n";
  std::ofstream(base + ".cpp") << "#include \"tests/cuda_shim/shim.h\"\n" << program->source << names;
  std::vector<std::string> compile = compile_command();
  compile.insert(compile.end(), {"-c", "-o", base + ".o", base + ".cpp"});
  int status = run(compile, base + ".log");
  if (status == 0)
    status = run({compile[0], "-shared", "-o", base + ".so", base + ".o", "-lm"}, base + ".log");
  program->log = read_file(base + ".log");
  program->object = status == 0 ? read_file(base + ".so") : "";
  if (status != 0 && std::getenv("KILN_SHIM_KEEP"))
    return 1;
  for (const char *end : {".cpp", ".o", ".so", ".log"})
    unlink((base + end).c_str());
  rmdir(folder);
  return status == 0 ? 0 : 6;
}
__attribute__((visibility("default"))) int nvrtcGetProgramLogSize(Program *program, size_t *size) {
  *size = program->log.size() + 1;
  return 0;
}
__attribute__((visibility("default"))) int nvrtcGetProgramLog(Program *program, char *log) {
  std::memcpy(log, program->log.c_str(), program->log.size() + 1);
  return 0;
}
__attribute__((visibility("default"))) int nvrtcGetCUBINSize(Program *program, size_t *size) {
  *size = program->object.size();
  return 0;
}
__attribute__((visibility("default"))) int nvrtcGetCUBIN(Program *program, char *bytes) {
  std::memcpy(bytes, program->object.data(), program->object.size());
  return 0;
}
__attribute__((visibility("default"))) int nvrtcGetPTXSize(Program *program, size_t *size) {
  *size = program->object.size() + 1; // with the zero behind the text
  return 0;
}
__attribute__((visibility("default"))) int nvrtcGetPTX(Program *program, char *bytes) {
  bytes[program->object.size()] = 0;
  return nvrtcGetCUBIN(program, bytes);
}

} // extern "C"
