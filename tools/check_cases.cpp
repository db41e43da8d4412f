#include "tools/check_cases.h"

#include "tools/case_values.h"
#include "tools/case_report.h"
#include "tools/cli.h"
#include "tools/compare.h"
#include "tools/text_tensor.h"

#include "frontend/files/file_writer.h"
#include "frontend/files/mapped_file.h"
#include "frontend/onnx/import.h"

#include <fmt/format.h>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <iostream>
#include <thread>

namespace kiln {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using Arrays = std::vector<std::pair<std::string, Tensor>>;

// The first character of a child's answer; the rest says why.
// kRandom: the model draws random numbers; types and shapes are right, the numbers are another generator's.
enum Outcome : char { kPassed = 'p', kFailed = 'f', kRandom = 'r', kUnsupported = 'u', kCrashed = 'c', kTimeout = 't' };

// A number of a file such as {"rtol": 0.001, "atol": 1e-07}.
double tolerance(const fs::path &folder, const std::string &key, double otherwise) {
  auto file = MappedFile::open((folder / "tolerance.json").string());
  if (!file)
    return otherwise;
  std::string text(reinterpret_cast<const char *>((*file)->bytes().data()), (*file)->size());
  size_t at = text.find("\"" + key + "\":");
  return at == std::string::npos ? otherwise : std::strtod(text.c_str() + at + key.size() + 3, nullptr);
}

// Sequences, optionals and inputs without a shape are compiled for the case's own. Some cases pass shapes,
// axes and the like as inputs: those are tried again as constants. So are cases of which several sizes are only
// found at run time and bounded by nothing but capacities, whose products memory would be planned for.
bool import_case(const fs::path &folder, Module &module, Diagnostics &diagnostics) {
  std::string path = (folder / "model.onnx").string();
  OnnxOptions options;
  auto data = read_case(folder, 0);
  if (data)
    specialise(data->inputs, options);
  bool imported = import_onnx(path, options, module, diagnostics);
  if (imported && module.capacities.size() < 2)
    return true;
  if (data)
    for (const CaseValue &input : data->inputs)
      for (size_t i = 0; i < input.tensors.size(); ++i)
        if (input.shape(i).size() <= 1)
          options.constants.emplace(input.part_name(i), input.tensors[i]);
  Module again;
  Diagnostics said;
  if (options.constants.empty())
    return imported;
  bool fine = import_onnx(path, options, again, said);
  if (imported && !fine)
    return true;
  diagnostics = std::move(said); // what is wrong even so, or nothing
  module = std::move(again);
  return fine;
}

bool draws_numbers(const Module &module) {
  for (const Function &f : module.functions)
    for (const Node &node : f.nodes)
      if (node.op == Op::random_bits)
        return true;
  return false;
}

// Where an output is not what the case stores; empty where all are. `numbers_only` is set where types and shapes
// are right.
std::string compare_outputs(const std::vector<CaseValue> &wanted, Session &session, const Tolerance &limits,
                            bool &numbers_only) {
  size_t count = 0, at = 0;
  numbers_only = false;
  for (const CaseValue &value : wanted)
    count += value.tensors.size();
  if (count != session.outputs().size())
    return fmt::format("has {} outputs, not {}", session.outputs().size(), count);
  std::vector<std::string> names = session.output_names();
  std::string said;
  numbers_only = true;
  for (const CaseValue &value : wanted)
    for (size_t i = 0; i < value.tensors.size(); ++i, ++at) {
      if (value.is_sequence && names[at] != value.part_name(i))
        return fmt::format("has the output {} where {} is wanted", names[at], value.part_name(i));
      Tensor got = session.outputs()[at], want = value.tensors[i];
      if (value.is_text && session.is_text(true, names[at])) {
        int64_t width = std::max(got.dims().back(), want.dims().back());
        got = *with_text_width(got, width);
        want = *with_text_width(want, width);
      }
      numbers_only &= got.dtype() == want.dtype() && got.dims() == want.dims();
      if (std::string why; !within(got, want, limits, why) && said.empty())
        said = fmt::format("output {}: {}", names[at], why);
    }
  return said;
}

std::string run_set(const fs::path &folder, int set, const PackageBytes &package, bool &numbers_only) {
  numbers_only = false;
  auto session = Session::open(package.bytes, {});
  if (!session)
    return session.error().message;
  auto data = read_case(folder, set);
  if (!data)
    return data.error().message;
  Arrays inputs;
  std::vector<std::string> names = session->input_names();
  for (CaseValue &value : data->inputs)
    for (size_t i = 0; i < value.tensors.size(); ++i)
      if (std::string name = value.part_name(i); std::find(names.begin(), names.end(), name) != names.end())
        inputs.emplace_back(std::move(name), std::move(value.tensors[i]));
  if (auto status = session->bind(std::move(inputs)); !status)
    return status.error().message;
  if (auto status = session->run(); !status)
    return status.error().message;
  Tolerance limits{tolerance(folder, "rtol", 1e-3), tolerance(folder, "atol", 1e-7), true};
  return compare_outputs(data->outputs, *session, limits, numbers_only);
}

std::string run_case(const fs::path &folder) {
  Module module;
  Diagnostics diagnostics;
  // Every reason, one a line.
  auto said = [&] {
    std::string out;
    for (const Diagnostic &d : diagnostics.all())
      out += (out.empty() ? "" : "\n") + (d.location.node.empty() ? "" : std::string(d.location.node.text()) + ": ") + d.message;
    return out.empty() ? std::string("failed") : out;
  };
  if (!import_case(folder, module, diagnostics)) {
    bool lacks = said().find("not supported") != std::string::npos;
    return std::string(1, lacks ? kUnsupported : kFailed) + said();
  }
  bool draws = draws_numbers(module);
  CompileOptions options;
  options.machines = {host_machine()};
  Compiled compiled;
  PackageBytes package;
  if (!compile_in_memory(module, options, compiled, package, diagnostics))
    return std::string(1, kFailed) + said();
  int sets = 0;
  bool numbers_only = false;
  for (; fs::exists(folder / fmt::format("test_data_set_{}", sets)); ++sets)
    if (std::string why = run_set(folder, sets, package, numbers_only); !why.empty())
      return draws && numbers_only ? std::string(1, kRandom) + "random numbers of another generator: " + why
                                   : std::string(1, kFailed) + why;
  return sets > 0 ? std::string(1, kPassed) : std::string(1, kFailed) + "has no test_data_set_0";
}

struct Child {
  pid_t pid = -1;
  int pipe = -1;
  size_t number = 0;
  Clock::time_point start;
};

struct Case {
  fs::path folder;
  std::string kind, answer;
};

Child start_case(const Case &c, size_t number, const CaseOptions &options) {
  int ends[2];
  if (pipe(ends) != 0)
    return {};
  std::cout.flush();
  pid_t pid = fork();
  if (pid == 0) {
    close(ends[0]);
    dup2(ends[1], STDERR_FILENO); // what a failed check prints is part of the answer
    rlimit memory{rlim_t(options.bytes), rlim_t(options.bytes)}, core{0, 0};
    setrlimit(RLIMIT_AS, &memory);
    setrlimit(RLIMIT_CORE, &core);
    std::string answer;
    try {
      answer = run_case(c.folder);
    } catch (const std::exception &error) {
      answer = std::string(1, kFailed) + error.what();
    }
    answer.resize(std::min(answer.size(), size_t(2000)));
    bool sent = write(ends[1], answer.data(), answer.size()) == ssize_t(answer.size());
    _exit(sent ? 0 : 1);
  }
  close(ends[1]);
  return {pid, ends[0], number, Clock::now()};
}

// The answer of a child that has ended, or that has run too long and is ended here; empty while it runs.
std::string finish_case(const Child &child, const CaseOptions &options) {
  int status = 0;
  pid_t ended = waitpid(child.pid, &status, WNOHANG);
  bool late = std::chrono::duration<double>(Clock::now() - child.start).count() > options.seconds;
  if (ended == 0 && !late)
    return "";
  std::string answer;
  if (ended == 0) {
    kill(child.pid, SIGKILL);
    waitpid(child.pid, &status, 0);
    answer = fmt::format("{}still running after {:.0f} s", char(kTimeout), options.seconds);
  } else {
    char buffer[2048];
    ssize_t size = read(child.pipe, buffer, sizeof buffer);
    answer.assign(buffer, size_t(std::max<ssize_t>(size, 0)));
    if (WIFSIGNALED(status))
      answer = fmt::format("{}{} {}", char(kCrashed), strsignal(WTERMSIG(status)), answer);
    else if (WEXITSTATUS(status) != 0 || answer.empty())
      answer = fmt::format("{}exit {}: {}", char(kCrashed), WEXITSTATUS(status), answer);
  }
  close(child.pipe);
  return answer;
}

std::vector<Case> find_cases(const std::string &folder) {
  std::vector<Case> out;
  std::error_code error;
  for (fs::recursive_directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (it->path().filename() == "model.onnx") {
      fs::path inside = it->path().parent_path();
      std::string kind = fs::relative(inside.parent_path(), folder, error).string();
      out.push_back({inside, kind == "." ? fs::path(folder).filename().string() : kind, ""});
    }
  std::sort(out.begin(), out.end(), [](const Case &a, const Case &b) { return a.folder < b.folder; });
  return out;
}

void run_all(std::vector<Case> &cases, const CaseOptions &options) {
  std::vector<Child> running;
  bool terminal = isatty(STDERR_FILENO);
  for (size_t next = 0, done = 0; done < cases.size();) {
    while (next < cases.size() && running.size() < size_t(options.jobs)) {
      Child child = start_case(cases[next], next, options);
      if (child.pid < 0) {
        cases[next++].answer = std::string(1, kFailed) + "no process for it";
        ++done;
        continue;
      }
      running.push_back(child);
      ++next;
    }
    for (size_t i = 0; i < running.size();) {
      std::string answer = finish_case(running[i], options);
      if (answer.empty()) {
        ++i;
        continue;
      }
      cases[running[i].number].answer = answer;
      running.erase(running.begin() + std::ptrdiff_t(i));
      ++done;
      if (terminal)
        std::cerr << fmt::format("\r\033[K{} of {} cases", done, cases.size()) << std::flush;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  if (terminal)
    std::cerr << "\r\033[K";
}

std::string_view word_of(char outcome) {
  switch (outcome) {
  case kPassed:
    return "passed";
  case kRandom:
    return "random";
  case kUnsupported:
    return "unsupported";
  case kFailed:
    return "failed";
  case kCrashed:
    return "crashed";
  default:
    return "timeout";
  }
}

Status write_report(const std::vector<Case> &cases, const CaseOptions &options) {
  std::vector<CaseOutcome> outcomes;
  for (const Case &c : cases)
    outcomes.push_back({c.kind, c.folder.filename().string(), std::string(word_of(c.answer[0])), c.answer.substr(1)});
  std::string page = case_report(outcomes, options.suite);
  return write_file(options.report, std::as_bytes(std::span(page)));
}

std::string first_line(std::string_view text) { return std::string(text.substr(0, text.find('\n'))); }

} // namespace

int check_cases(const CaseOptions &options) {
  std::error_code error;
  if (!fs::is_directory(options.folder, error))
    return report(Error{fmt::format("--cases {}: no such folder", options.folder)}, options.json);
  std::vector<Case> cases = find_cases(options.folder);
  if (cases.empty())
    return report(Error{fmt::format("--cases {}: no model.onnx in it, nor in a folder below", options.folder)}, options.json);
  run_all(cases, options);
  if (!options.report.empty())
    if (auto status = write_report(cases, options); !status)
      return report(status.error(), options.json);

  std::map<std::string, std::map<char, int>> table;
  std::string list;
  bool fine = true;
  for (const Case &c : cases) {
    char outcome = c.answer[0];
    ++table[c.kind][outcome];
    ++table["all"][outcome];
    if (outcome == kPassed)
      continue;
    fine &= outcome == kRandom || (outcome == kUnsupported && options.skip_unsupported);
    const char *word = outcome == kFailed ? "FAIL" : outcome == kRandom ? "rand" : outcome == kUnsupported ? "lack" : outcome == kCrashed ? "CRASH" : "TIME";
    std::string name = c.folder.filename().string(), why = first_line(std::string_view(c.answer).substr(1));
    if (options.json)
      list += fmt::format("{}{{\"kind\": {}, \"case\": {}, \"outcome\": \"{}\", \"why\": {}}}", list.empty() ? "" : ",\n  ",
                          json_quote(c.kind), json_quote(name), word, json_quote(why));
    else
      std::cout << fmt::format("{:5} {}/{}: {}\n", word, c.kind, name, why);
  }
  if (options.json) {
    std::string rows;
    for (auto &[kind, counts] : table)
      rows += fmt::format("{}{}: {{\"passed\": {}, \"failed\": {}, \"random\": {}, \"unsupported\": {}, \"crashed\": {}, \"timeout\": {}}}",
                          rows.empty() ? "" : ", ", json_quote(kind), counts[kPassed], counts[kFailed], counts[kRandom],
                          counts[kUnsupported], counts[kCrashed], counts[kTimeout]);
    std::cout << fmt::format("{{\"table\": {{{}}}, \"not_passed\": [\n  {}]}}\n", rows, list);
    return fine ? kFine : kMismatch;
  }
  std::cout << fmt::format("{:<24} {:>7} {:>7} {:>7} {:>12} {:>8} {:>8}\n", "kind", "passed", "failed", "random", "unsupported", "crashed", "timeout");
  for (auto &[kind, counts] : table)
    if (kind != "all" || table.size() > 2)
      std::cout << fmt::format("{:<24} {:>7} {:>7} {:>7} {:>12} {:>8} {:>8}\n", kind, counts[kPassed], counts[kFailed], counts[kRandom],
                               counts[kUnsupported], counts[kCrashed], counts[kTimeout]);
  return fine ? kFine : kMismatch;
}

} // namespace kiln
