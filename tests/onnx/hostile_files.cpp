// Gives malformed ONNX files to the `kiln` command, each in a process of its own with limits:
//
//   hostile_files KILN [--only PART] [--keep FOLDER] [--jobs N]
//
// Right is: exit code 1 (or 0 where the file is only large or odd), what is said names the place, nothing is
// left behind, no signal, less than 1 GiB of memory and 10 s of processor time.
#include "tests/onnx/hostile_cases.h"
#include "tests/temp_folder.h"

#include <fmt/format.h>

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iostream>
#include <optional>
#include <set>
#include <sstream>

namespace fs = std::filesystem;
using namespace kiln::test;

namespace {

constexpr long kKilobytes = 1 << 20; // of memory that a run may take
constexpr double kSeconds = 10;      // of processor time

struct Running {
  pid_t pid;
  const HostileCase *c;
  fs::path folder;
};

std::string read_text(const fs::path &path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

Running start(const HostileCase &c, const fs::path &root, const std::string &kiln) {
  Running out{-1, &c, root / c.name};
  fs::create_directories(out.folder);
  std::ofstream(out.folder / "model.onnx", std::ios::binary) << c.model;
  if (c.files)
    c.files(out.folder);
  out.pid = fork();
  if (out.pid != 0)
    return out;
  rlimit memory{rlim_t(4) << 30, rlim_t(4) << 30}, time{rlim_t(kSeconds) + 2, rlim_t(kSeconds) + 4}, core{0, 0};
  setrlimit(RLIMIT_AS, &memory);
  setrlimit(RLIMIT_CPU, &time);
  setrlimit(RLIMIT_CORE, &core);
  alarm(120); // of waiting for something
  int said = open((out.folder / "said").c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
  dup2(said, STDOUT_FILENO);
  dup2(said, STDERR_FILENO);
  if (chdir(out.folder.c_str()) != 0)
    _exit(99);
  execl(kiln.c_str(), kiln.c_str(), "compile", "model.onnx", "-o", "out.kiln", "-O", "1", static_cast<char *>(nullptr));
  _exit(99);
}

// "" where all is right.
std::string judge(const Running &r, int status, const rusage &used) {
  const HostileCase &c = *r.c;
  std::string said = read_text(r.folder / "said");
  std::string first = said.substr(0, 400);
  double seconds = double(used.ru_utime.tv_sec + used.ru_stime.tv_sec) + double(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6;
  if (WIFSIGNALED(status))
    return fmt::format("signal {} ({})\n{}", WTERMSIG(status), strsignal(WTERMSIG(status)), first);
  int code = WEXITSTATUS(status);
  if (code != 1 && !(code == 0 && c.may_compile))
    return fmt::format("exit code {}\n{}", code, first);
  if (code == 1 && said.find(c.expect) == std::string::npos)
    return fmt::format("says nothing of \"{}\"\n{}", c.expect, first);
  if (code == 1 && said.empty())
    return "says nothing";
  if (code == 1 && fs::exists(r.folder / "out.kiln"))
    return "leaves a package";
  if (used.ru_maxrss > kKilobytes)
    return fmt::format("{} MiB of memory", used.ru_maxrss / 1024);
  if (seconds > kSeconds)
    return fmt::format("{:.1f} s", seconds);
  for (unsigned char byte : said)
    if (byte < 32 && byte != '\n' && byte != '\t')
      return "prints a control character of the file";
  return "";
}

} // namespace

int main(int argc, char **argv) {
  std::string kiln = argc > 1 ? fs::absolute(argv[1]).string() : "", only, keep;
  size_t jobs = 2;
  for (int i = 2; i + 1 < argc; i += 2) {
    std::string arg = argv[i];
    if (arg == "--only")
      only = argv[i + 1];
    else if (arg == "--keep")
      keep = argv[i + 1];
    else if (arg == "--jobs")
      jobs = std::stoul(argv[i + 1]);
  }
  if (kiln.empty()) {
    std::cerr << "usage: hostile_files KILN [--only PART] [--keep FOLDER] [--jobs N]\n";
    return 2;
  }
  HostileCases cases;
  add_wire_cases(cases);
  add_tensor_cases(cases);
  add_graph_cases(cases);
  add_node_cases(cases);
  add_size_cases(cases);
  add_operator_cases(cases);
  std::erase_if(cases, [&](const HostileCase &c) { return c.name.find(only) == std::string::npos; });

  std::optional<TempFolder> own;
  fs::path root = keep.empty() ? own.emplace().path : fs::path(keep);
  std::set<std::string> names;
  std::vector<Running> running;
  size_t next = 0, wrong = 0, refused = 0;
  long most = 0;
  while (next < cases.size() || !running.empty()) {
    while (next < cases.size() && running.size() < jobs) {
      if (!names.insert(cases[next].name).second)
        cases[next].name += fmt::format("_{}", next);
      running.push_back(start(cases[next], root, kiln));
      ++next;
    }
    int status = 0;
    rusage used{};
    pid_t ended = wait4(-1, &status, 0, &used);
    auto it = std::find_if(running.begin(), running.end(), [&](const Running &r) { return r.pid == ended; });
    if (it == running.end())
      continue;
    std::string why = judge(*it, status, used);
    most = std::max(most, used.ru_maxrss);
    refused += WIFEXITED(status) && WEXITSTATUS(status) == 1;
    if (!why.empty()) {
      ++wrong;
      std::cout << "FAIL " << it->c->name << ": " << why << "\n" << std::flush;
    }
    if (keep.empty()) {
      std::error_code error;
      fs::remove_all(it->folder, error);
    }
    running.erase(it);
  }
  std::cout << fmt::format("{} files: {} refused, {} compiled, {} wrong; {} MiB at most\n", cases.size(), refused, cases.size() - refused, wrong, most / 1024);
  return wrong || cases.size() < (only.empty() ? 300u : 1u) ? 1 : 0;
}
