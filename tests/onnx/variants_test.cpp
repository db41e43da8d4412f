// What the importer makes of models that are wrong in one place: every variant (variants.h) of every file
// named is imported, and gives a module that verifies, or a diagnostic. Each file is worked through by a
// process of its own; one that dies is continued behind the variant that killed it.
//   onnx_variants [--out FOLDER for the files that show what was found] FILE.onnx...
#include "frontend/files/mapped_file.h"
#include "frontend/onnx/import.h"
#include "tests/onnx/variants.h"

#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <new>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace kiln;
using namespace kiln::test;

namespace {

constexpr int kSeconds = 10; // of processor time for one import
constexpr rlim_t kMemory = rlim_t(4) << 30;
#ifdef __has_feature
constexpr bool kShadow = __has_feature(address_sanitizer); // takes more address space than any limit
#elif defined(__SANITIZE_ADDRESS__)
constexpr bool kShadow = true;
#else
constexpr bool kShadow = false;
#endif

struct Counts { // in memory that the processes share
  int64_t next = 0;
  int64_t modules = 0, refused = 0, findings = 0;
};

// Nothing, or what is wrong with the import.
std::string problem_of(const std::string &bytes, Counts &counts) {
  Module module;
  Diagnostics diagnostics, broken;
  bool ok = import_onnx(std::as_bytes(std::span(bytes)), "variant.onnx", {}, module, diagnostics);
  if (ok == diagnostics.has_errors())
    return "it neither succeeds nor says why";
  ++(ok ? counts.modules : counts.refused);
  if (ok)
    verify(module, broken);
  return broken.has_errors() ? "the module does not verify: " + broken.render() : "";
}

void tell(const std::string &file, int64_t index, const std::string &what, const std::string &problem, const std::string &bytes,
          const std::string &out) {
  std::printf("%s %lld: %s: %s\n", file.c_str(), static_cast<long long>(index), what.c_str(), problem.c_str());
  std::fflush(stdout);
  if (!out.empty())
    std::ofstream(fmt::format("{}/{}.{}.onnx", out, std::filesystem::path(file).stem().string(), index), std::ios::binary) << bytes;
}

void limit(const itimerval &time) { setitimer(ITIMER_PROF, &time, nullptr); }

// The variants from `counts.next` on; does not return where one of them kills the process.
void work(const std::string &file, std::string_view model, const std::string &out, Counts &counts) {
  if (rlimit memory = {kMemory, kMemory}; !kShadow)
    setrlimit(RLIMIT_AS, &memory);
  int64_t index = 0, from = counts.next;
  for_each_variant(model, [&](const std::string &what, const std::string &bytes) {
    if (index++ < from)
      return;
    counts.next = index;
    limit({{0, 0}, {kSeconds, 0}});
    std::string problem;
    try {
      problem = problem_of(bytes, counts);
    } catch (const std::bad_alloc &) {
      problem = "not enough memory";
    } catch (const std::exception &e) {
      problem = e.what();
    }
    limit({});
    if (problem.empty())
      return;
    ++counts.findings;
    tell(file, index - 1, what, problem, bytes, out);
  });
}

// The variant that killed a process, told by another one.
void tell_death(const std::string &file, std::string_view model, int64_t at, int status, const std::string &out) {
  std::string why = WIFSIGNALED(status) && WTERMSIG(status) == SIGPROF ? fmt::format("it takes more than {} s", kSeconds)
                    : WIFSIGNALED(status)                              ? fmt::format("signal {}", WTERMSIG(status))
                                                                       : fmt::format("exit status {}", WEXITSTATUS(status));
  int64_t index = 0;
  for_each_variant(model, [&](const std::string &what, const std::string &bytes) {
    if (index++ == at)
      tell(file, at, what, why, bytes, out);
  });
}

// All variants of a file; false where it cannot be read.
bool run_file(const std::string &file, const std::string &out, Counts &counts) {
  auto mapped = MappedFile::open(file);
  if (!mapped) {
    std::fprintf(stderr, "%s\n", mapped.error().message.c_str());
    return false;
  }
  std::string_view model(reinterpret_cast<const char *>((*mapped)->bytes().data()), (*mapped)->bytes().size());
  counts.next = 0;
  for (;;) {
    std::fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
      work(file, model, out, counts);
      _exit(0);
    }
    int status = 0;
    if (child < 0 || waitpid(child, &status, 0) != child)
      return false;
    if (status == 0)
      return true;
    ++counts.findings;
    tell_death(file, model, counts.next - 1, status, out);
  }
}

} // namespace

int main(int argc, char **argv) {
  std::string out;
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]) == "--out" && i + 1 < argc)
      out = argv[++i];
    else
      files.emplace_back(argv[i]);
  }
  void *shared = mmap(nullptr, sizeof(Counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED || files.empty())
    return 2;
  Counts &counts = *new (shared) Counts;
  for (const std::string &file : files)
    if (!run_file(file, out, counts))
      return 2;
  std::printf("%zu files: %lld variants are modules, %lld are refused, %lld findings\n", files.size(), static_cast<long long>(counts.modules),
              static_cast<long long>(counts.refused), static_cast<long long>(counts.findings));
  return counts.findings || counts.modules == 0 || counts.refused == 0 ? 1 : 0;
}
