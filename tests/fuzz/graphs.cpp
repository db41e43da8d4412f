// Random graphs, compiled and compared with the interpreter:
//
//   graphs --seeds 0..20000 --jobs 2           each batch of seeds in a process of its own
//   graphs --seed 4711                         one of them, compiled as in its batch
//   graphs --replay FILE.kir...                findings that are stored, as they say and on every other engine
//
// A seed that fails is reduced and printed as a .kir with the command that replays it. Of each batch the
// engine, machine and level follow from its number, unless --engine, --machine or -O name them.
#include "tests/fuzz/graph_reduce.h"
#include "tests/fuzz/random_graph.h"

#include "frontend/kir/kir.h"
#include "ir/ops/op.h"

#include <fmt/format.h>

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>

using namespace kiln;
using namespace kiln::fuzz;

namespace {

constexpr uint64_t kBatch = 12; // graphs that are compiled together

struct Options {
  uint64_t first = 0, last = 300;
  int jobs = 1;
  double seconds = 1e9;
  bool print = false, reduce = true;
  std::string out; // folder for findings
  std::vector<std::string> replay;
  std::vector<std::string> words; // that fix a configuration
  GraphStyle style;
};

// The machines whose code runs here.
std::vector<MachineDesc> native_machines() {
  std::vector<MachineDesc> out;
  for (MachineDesc &m : cpu_machines())
    if (m.triple == host_machine().triple) {
      out.push_back(m);
      if (m.name == host_machine().name)
        break;
    }
  return out;
}

void apply_words(const std::vector<std::string> &words, RunConfig &config) {
  for (size_t i = 0; i < words.size(); ++i) {
    std::string next = i + 1 < words.size() ? words[i + 1] : "";
    if (words[i] == "--engine")
      config.engine = next == "c" ? Engine::c : next == "kernels" ? Engine::kernels : Engine::native;
    if (words[i] == "--machine")
      if (auto machine = find_machine(next))
        config.machine = *machine;
    if (words[i] == "-O")
      config.level = next == "0" ? OptLevel::o0 : next == "1" ? OptLevel::o1 : OptLevel::o2;
    if (words[i] == "--keep-params")
      config.keep_params = true;
    if (words[i] == "--no-winograd")
      config.winograd = Winograd::off;
  }
}

std::vector<std::string> split(const std::string &text) {
  std::istringstream in(text);
  std::vector<std::string> out;
  for (std::string word; in >> word;)
    out.push_back(word);
  return out;
}

RunConfig batch_config(uint64_t batch, const Options &options) {
  Random random{batch * 31 + 17};
  RunConfig config;
  double engine = random.uniform();
  config.engine = engine < 0.75 ? Engine::native : engine < 0.95 ? Engine::kernels : Engine::c;
  std::vector<MachineDesc> machines = config.engine == Engine::kernels ? cpu_machines() : native_machines();
  config.machine = config.engine == Engine::kernels || random.chance(0.4) ? random.pick(machines) : host_machine();
  double level = random.uniform();
  config.level = level < 0.76 ? OptLevel::o2 : level < 0.88 ? OptLevel::o1 : OptLevel::o0;
  config.keep_params = random.chance(0.1);
  config.verify_each = random.chance(0.15);
  apply_words(options.words, config);
  return config;
}

Workers other_workers(uint64_t seed) { return seed % 3 == 0 ? Workers::two : Workers::backwards; }

struct Made {
  Module module;
  std::vector<RandomGraph> graphs; // one for each seed
};

Made make_graphs(uint64_t first, uint64_t last, const Options &options) {
  Made out;
  out.module.name = "graphs";
  for (uint64_t seed = first; seed < last; ++seed)
    out.graphs.push_back(make_random_graph(out.module, seed, fmt::format("g{}", seed), options.style));
  return out;
}

// -- one batch, in a child

struct Tally {
  int64_t graphs = 0, nodes = 0, elements = 0, conditioned = 0, refused = 0;
  int64_t control = 0, symbolic = 0, variables = 0; // graphs that have them
  std::map<std::string, int64_t> ops;
};

std::string round_trip(const Module &module) {
  Module again;
  Diagnostics diagnostics;
  KirOptions options;
  options.strict_weights = false;
  if (!load_kir("again.kir", print_module(module, INT64_MAX), options, again, diagnostics))
    return "its text does not load: " + diagnostics.render();
  return first_difference(module, again);
}

// Returns what is wrong with a graph, "" for nothing.
std::string check_one(const Module &module, const Function &function, const RandomGraph &graph, CompiledGraphs &compiled,
                      Workers other, Tally &tally) {
  int runs = module.variables.empty() ? 1 : 2;
  for (const auto *inputs : {&graph.inputs, &graph.resized}) {
    if (inputs == &graph.resized && graph.resized.empty())
      break;
    CheckResult result = check_graph({&module, &function, *inputs, runs}, compiled, other);
    if (result.finding != Finding::none)
      return fmt::format("{}{}", inputs == &graph.resized ? "with other sizes: " : "", result.why);
    tally.elements += result.elements;
    tally.conditioned += result.conditioned;
    tally.refused += !result.ran;
  }
  return "";
}

struct Failure {
  uint64_t seed = 0;
  std::string why;
};

// Returns the failures; prints `tally` lines to `to`.
std::vector<Failure> run_batch(uint64_t first, uint64_t last, const Options &options, Tally &tally) {
  RunConfig config = batch_config(first / kBatch, options);
  Made made = make_graphs(first, last, options);
  std::vector<Failure> out;
  Diagnostics diagnostics;
  verify(made.module, diagnostics);
  if (diagnostics.has_errors())
    return {{first, "does not verify: " + diagnostics.render()}};
  if ((first / kBatch) % 8 == 0)
    if (std::string why = round_trip(made.module); !why.empty())
      out.push_back({first, "round trip: " + why});
  auto compiled = compile_graphs(made.module, config);
  if (!compiled)
    return {{first, "does not compile: " + compiled.error().message}};
  for (uint64_t seed = first; seed < last; ++seed) {
    const Function &function = *made.module.find_function(fmt::format("g{}", seed));
    const RandomGraph &graph = made.graphs[seed - first];
    ++tally.graphs;
    tally.nodes += int64_t(function.nodes.size());
    bool control = false, variables = false;
    for (const Node &node : function.nodes) {
      ++tally.ops[std::string(op_def(node.op).name)];
      control |= !node.regions.empty() || node.op == Op::call;
      variables |= node.op == Op::read_variable || node.op == Op::assign;
    }
    tally.control += control, tally.variables += variables;
    tally.symbolic += !graph.resized.empty();
    if (!graph.error.empty())
      out.push_back({seed, graph.error});
    std::string why = check_one(made.module, function, graph, **compiled, other_workers(seed), tally);
    if (!why.empty())
      out.push_back({seed, why});
  }
  return out;
}

// -- children

struct Child {
  pid_t pid = -1;
  int pipe = -1;
  uint64_t first = 0, last = 0;
  std::string said;
};

// Runs `work` in a child, which writes its answer to the file descriptor.
template <typename F>
Child start(const F &work) {
  int ends[2];
  KILN_CHECK(pipe(ends) == 0, "no pipe");
  std::cout.flush();
  pid_t pid = fork();
  if (pid == 0) {
    close(ends[0]);
    rlimit core{0, 0};
    setrlimit(RLIMIT_CORE, &core);
    alarm(240);
    std::string answer = work();
    size_t done = 0;
    while (done < answer.size()) {
      ssize_t n = write(ends[1], answer.data() + done, answer.size() - done);
      if (n <= 0)
        break;
      done += size_t(n);
    }
    _exit(0);
  }
  close(ends[1]);
  return {pid, ends[0], 0, 0, ""};
}

// Waits; the answer, or how the child died.
std::string finish(Child &child, bool &died) {
  char buffer[4096];
  for (ssize_t n; (n = read(child.pipe, buffer, sizeof buffer)) > 0;)
    child.said.append(buffer, size_t(n));
  close(child.pipe);
  int status = 0;
  waitpid(child.pid, &status, 0);
  died = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
  if (!died)
    return child.said;
  return WIFSIGNALED(status) ? fmt::format("crash: {}", strsignal(WTERMSIG(status))) : fmt::format("crash: exit {}", WEXITSTATUS(status));
}

std::string first_line(const std::string &text) { return text.substr(0, text.find('\n')); }

// What kind of failure it is: a candidate of a reduction must fail in the same way.
std::string kind_of(const std::string &why) {
  std::string line = first_line(why);
  if (line.starts_with("with other sizes: "))
    line = line.substr(18);
  if (line.starts_with("crash"))
    return line;
  if (line.starts_with("does not") || line.starts_with("round trip"))
    return line.substr(0, 14);
  return line.starts_with("result") ? "value" : "error";
}

// Whether the stored graph fails, in a child of its own.
std::string try_stored(const StoredGraph &graph, const RunConfig &config, bool quiet) {
  Child child = start([&]() -> std::string {
    if (quiet && !freopen("/dev/null", "w", stderr))
      return "no null device";
    auto compiled = compile_graphs(graph.module, config);
    if (!compiled)
      return "does not compile: " + compiled.error().message;
    for (Workers other : {Workers::two, Workers::backwards}) {
      CheckResult result = check_graph(graph.graph_case(), **compiled, other);
      if (result.finding != Finding::none)
        return result.why;
      if (!result.ran)
        return "refused by the interpreter";
    }
    return round_trip(graph.module).empty() ? "" : "round trip: " + round_trip(graph.module);
  });
  bool died = false;
  return finish(child, died);
}

std::string reduced(uint64_t seed, const std::string &why, const RunConfig &config, const Options &options) {
  alarm(900);
  Made made = make_graphs(seed, seed + 1, options);
  StoredGraph graph;
  graph.module = std::move(made.module);
  graph.runs = graph.module.variables.empty() ? 1 : 2;
  graph.config = split(config.text());
  bool resized = why.starts_with("with other sizes: ");
  graph.inputs = resized ? made.graphs[0].resized : made.graphs[0].inputs;
  std::string kind = kind_of(why), last = why;
  auto fails = [&](const StoredGraph &candidate) {
    std::string said = try_stored(candidate, config, true);
    bool same = !said.empty() && kind_of(said) == kind;
    if (same)
      last = said;
    return same;
  };
  graph = reduce_graph(std::move(graph), fails);
  return graph_text(graph, first_line(last));
}

void report_failure(uint64_t seed, const std::string &why, const Options &options) {
  RunConfig config = batch_config(seed / kBatch, options);
  std::cout << fmt::format("FAIL seed {}: {}\n     graphs --seed {} {}\n", seed, first_line(why), seed, config.text()) << std::flush;
  if (!options.reduce)
    return;
  // Candidates may be more than the generator or the reducer can take, too.
  Child child = start([&] { return reduced(seed, why, config, options); });
  bool died = false;
  std::string text = finish(child, died);
  std::cout << text << "\n" << std::flush;
  if (!options.out.empty() && !died)
    std::ofstream(fmt::format("{}/g{}.kir", options.out, seed)) << text;
}

// -- the run

int run_seeds(const Options &options) {
  using Clock = std::chrono::steady_clock;
  auto begin = Clock::now();
  Tally total;
  std::vector<Failure> failures;
  std::vector<Child> running;
  uint64_t next = options.first;
  auto elapsed = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  auto collect = [&](Child &child) {
    bool died = false;
    std::string said = finish(child, died);
    if (died) {
      if (child.last - child.first == 1) {
        failures.push_back({child.first, said});
        return;
      }
      // Which of them?
      for (uint64_t seed = child.first; seed < child.last; ++seed) {
        Child one = start([&] {
          Tally tally;
          std::string out;
          for (const Failure &f : run_batch(seed, seed + 1, options, tally))
            out += f.why;
          return out;
        });
        std::string why = finish(one, died);
        if (!why.empty())
          failures.push_back({seed, why});
      }
      return;
    }
    std::istringstream lines(said);
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::string key;
      words >> key;
      if (key == "tally") {
        int64_t graphs, nodes, elements, conditioned, refused, control, symbolic, variables;
        words >> graphs >> nodes >> elements >> conditioned >> refused >> control >> symbolic >> variables;
        total.control += control, total.symbolic += symbolic, total.variables += variables;
        total.graphs += graphs, total.nodes += nodes, total.elements += elements, total.conditioned += conditioned, total.refused += refused;
      } else if (key == "op") {
        std::string name;
        int64_t count;
        words >> name >> count;
        total.ops[name] += count;
      } else if (key == "fail") {
        Failure f;
        words >> f.seed;
        std::getline(words, f.why);
        f.why = f.why.substr(f.why.find_first_not_of(' '));
        failures.push_back(f);
      }
    }
  };
  while (next < options.last || !running.empty()) {
    while (next < options.last && running.size() < size_t(options.jobs) && elapsed() < options.seconds) {
      uint64_t end = std::min((next / kBatch + 1) * kBatch, options.last);
      Child child = start([&] {
        Tally tally;
        std::string out;
        for (const Failure &f : run_batch(next, end, options, tally)) {
          std::string why = f.why;
          // A batch that does not compile is taken apart.
          if (kind_of(why).starts_with("does not") && end - next > 1) {
            for (uint64_t seed = next; seed < end; ++seed)
              for (const Failure &one : run_batch(seed, seed + 1, options, tally))
                out += fmt::format("fail {} {}\n", one.seed, first_line(one.why));
          } else {
            out += fmt::format("fail {} {}\n", f.seed, first_line(why));
          }
        }
        out += fmt::format("tally {} {} {} {} {} {} {} {}\n", tally.graphs, tally.nodes, tally.elements, tally.conditioned,
                           tally.refused, tally.control, tally.symbolic, tally.variables);
        for (const auto &[op, count] : tally.ops)
          out += fmt::format("op {} {}\n", op, count);
        return out;
      });
      child.first = next, child.last = end;
      running.push_back(child);
      next = end;
    }
    if (running.empty())
      break;
    size_t known = failures.size();
    collect(running.front());
    running.erase(running.begin());
    for (size_t i = known; i < failures.size(); ++i)
      report_failure(failures[i].seed, failures[i].why, options);
  }
  std::cout << fmt::format("{} graphs of {:.1f} nodes in {:.0f} s: {} failures; {} elements, {:.2f} % of them bounded by what rounding does "
                           "to them; {} inputs that the interpreter refuses\n",
                           total.graphs, double(total.nodes) / double(std::max<int64_t>(total.graphs, 1)), elapsed(), failures.size(),
                           total.elements, 100.0 * double(total.conditioned) / double(std::max<int64_t>(total.elements, 1)), total.refused);
  std::string never;
  size_t all = 0, hit = 0;
  for (const OpDef *def : all_ops()) {
    if (def->name == "fusion") // made by a pass
      continue;
    ++all;
    if (total.ops.contains(std::string(def->name)))
      ++hit;
    else
      never += fmt::format(" {}", def->name);
  }
  std::cout << fmt::format("{} of {} ops; {} graphs with control flow or calls, {} with symbolic sizes, {} with variables\n", hit, all,
                           total.control, total.symbolic, total.variables);
  if (!never.empty() && total.graphs >= 300)
    std::cout << "ops that no graph has:" << never << "\n";
  return failures.empty() ? 0 : 1;
}

int replay(const Options &options) {
  int failed = 0;
  for (const std::string &path : options.replay) {
    auto graph = read_graph(path);
    if (!graph) {
      std::cout << graph.error().message << "\n";
      return 1;
    }
    std::vector<RunConfig> configs;
    if (!graph->config.empty()) {
      configs.emplace_back().machine = host_machine();
      apply_words(graph->config, configs[0]);
    }
    for (Engine engine : {Engine::native, Engine::kernels, Engine::c})
      for (OptLevel level : {OptLevel::o2, OptLevel::o0}) {
        RunConfig config;
        config.machine = host_machine();
        config.engine = engine, config.level = level;
        if (engine != Engine::c || level == OptLevel::o2)
          configs.push_back(config);
      }
    for (RunConfig &config : configs) {
      apply_words(options.words, config);
      std::string why = try_stored(*graph, config, false);
      std::cout << fmt::format("{} {} {}{}\n", why.empty() ? "ok  " : "FAIL", path, config.text(), why.empty() ? "" : ": " + why);
      failed += !why.empty();
    }
  }
  return failed ? 1 : 0;
}

int usage() {
  std::cerr << "usage: graphs [--seeds A..B | --seed N | --replay FILE...] [--jobs N] [--seconds S] [--engine native|c|kernels]\n"
               "              [--machine NAME] [-O 0|1|2] [--op NAME]... [--nodes N] [--no-reduce] [--out FOLDER] [--print]\n";
  return 2;
}

} // namespace

int main(int argc, char **argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    std::string arg = argv[i], next = i + 1 < argc ? argv[i + 1] : "";
    if (arg == "--print") {
      options.print = true;
    } else if (arg == "--no-reduce") {
      options.reduce = false;
    } else if (arg == "--keep-params" || arg == "--no-winograd") {
      options.words.push_back(arg);
    } else if (arg == "--replay") {
      while (++i < argc && argv[i][0] != '-')
        options.replay.push_back(argv[i]);
      --i;
    } else if (next.empty()) {
      return usage();
    } else {
      ++i;
      if (arg == "--seeds") {
        size_t dots = next.find("..");
        if (dots == std::string::npos)
          return usage();
        options.first = std::stoull(next.substr(0, dots)), options.last = std::stoull(next.substr(dots + 2));
      } else if (arg == "--seed") {
        options.first = std::stoull(next), options.last = options.first + 1;
      } else if (arg == "--jobs") {
        options.jobs = std::stoi(next);
      } else if (arg == "--seconds") {
        options.seconds = std::stod(next);
      } else if (arg == "--nodes") {
        options.style.nodes = std::stoi(next);
      } else if (arg == "--out") {
        options.out = next;
      } else if (arg == "--op") {
        auto op = find_op(next);
        if (!op)
          return usage();
        options.style.ops.push_back(*op);
      } else if (arg == "--engine" || arg == "--machine" || arg == "-O") {
        options.words.push_back(arg), options.words.push_back(next);
      } else {
        return usage();
      }
    }
  }
  if (!options.replay.empty())
    return replay(options);
  if (std::error_code error; !options.out.empty() && !std::filesystem::create_directories(options.out, error) && error) {
    std::cerr << fmt::format("{}: {}\n", options.out, error.message());
    return 2;
  }
  if (options.print) {
    for (uint64_t seed = options.first; seed < options.last; ++seed)
      std::cout << print_module(make_graphs(seed, seed + 1, options).module, INT64_MAX);
    return 0;
  }
  return run_seeds(options);
}
