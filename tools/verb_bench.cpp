// kiln bench: latency of one entry, percentiles or slices, and where the time goes.
#include "frontend/files/file_writer.h"
#include "tools/cli.h"
#include "tools/usage.h"
#include "tools/profile.h"
#include "tools/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <iostream>

namespace kiln {
namespace {

using Clock = std::chrono::steady_clock;

struct BenchVerb {
  ModelOptions model;
  std::vector<std::string> inputs;
  SessionOptions session;
  double seconds = 2;
  std::string level = "2";
  std::string profile; // "text" or "html"
  std::string trace, output;
  bool slices = false;
};

double milliseconds(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

double percentile(const std::vector<double> &sorted, double p) {
  return sorted[size_t(std::min(double(sorted.size() - 1), std::floor(p * double(sorted.size()))))];
}

// Runs for `seconds`, once at least.
Result<std::vector<double>> time_slice(Session &session, double seconds) {
  std::vector<double> times;
  auto end = Clock::now() + std::chrono::duration<double>(seconds);
  while (true) {
    auto start = Clock::now();
    if (auto status = session.run(); !status)
      return status.error();
    auto stop = Clock::now();
    times.push_back(milliseconds(start, stop));
    if (stop > end)
      return times;
  }
}

Status write_report(const std::string &path, const std::string &text) {
  if (path.empty() || path == "-") {
    std::cout << text << std::flush;
    return Unit{};
  }
  return write_file(path, std::string_view(text));
}

// Every report that was asked for, of one measurement.
Status report_profile(Session &session, std::vector<std::pair<std::string, Tensor>> inputs, const BenchVerb &verb) {
  ProfileOptions options{verb.seconds, verb.session.threads, std::filesystem::path(verb.model.path).filename().string()};
  KILN_TRY(profile, profile_session(session, std::move(inputs), options));
  if (!verb.trace.empty())
    KILN_RETURN_IF_ERROR(write_report(verb.trace, profile_trace(profile)));
  if (verb.profile == "html")
    return write_report(verb.output, profile_html(profile));
  if (verb.profile.empty() && !verb.model.json)
    return Unit{};
  return write_report(verb.output, verb.model.json ? profile_json(profile) : profile_table(profile));
}

int bench(const BenchVerb &verb) {
  auto fail = [&](const Error &error) { return report(error, verb.model.json); };
  auto inputs = parse_inputs(verb.inputs);
  if (!inputs)
    return fail(inputs.error());
  auto dims = fixed_dims(verb.model);
  auto level = parse_level(verb.level);
  for (const std::string &file : {verb.output, verb.trace})
    if (auto spared = spares_model(verb.model, file); !spared)
      return fail(spared.error()), kBadUsage;
  Opened opened;
  auto start = Clock::now();
  if (int code = open_session(verb.model, verb.session, *level, opened); code != kFine)
    return code;
  Session *session = &*opened.session;
  std::string made;
  if (auto status = session->fill_inputs(*inputs, *dims, made); !status)
    return fail(status.error());
  if (!made.empty())
    std::cerr << "kiln: note: random values for " << made << "\n";
  if (!verb.profile.empty() || !verb.trace.empty()) {
    auto status = report_profile(*session, std::move(*inputs), verb);
    return status ? kFine : fail(status.error());
  }
  if (auto status = session->bind(std::move(*inputs)); !status)
    return fail(status.error());
  auto loaded = Clock::now();
  if (auto status = session->run(); !status)
    return fail(status.error());
  double load_ms = milliseconds(start, loaded), first_ms = milliseconds(loaded, Clock::now());
  if (verb.slices) {
    std::cout << fmt::format("{{\"load_ms\": {:.6f}, \"first_ms\": {:.6f}}}\n", load_ms, first_ms) << std::flush;
    std::string line;
    while (std::getline(std::cin, line)) {
      char *end = nullptr;
      double seconds = std::strtod(line.c_str(), &end);
      if (end == line.c_str() || !(seconds >= 0))
        return fail(Error{fmt::format("'{}' is no number of seconds", line)});
      auto times = time_slice(*session, seconds);
      if (!times)
        return fail(times.error());
      std::string list;
      for (double t : *times)
        list += fmt::format("{}{:.6f}", list.empty() ? "" : ", ", t);
      std::cout << "{\"times_ms\": [" << list << "]}\n" << std::flush;
    }
    return kFine;
  }
  auto times = time_slice(*session, verb.seconds);
  if (!times)
    return fail(times.error());
  std::sort(times->begin(), times->end());
  auto at = [&](double p) { return percentile(*times, p); };
  if (verb.model.json)
    std::cout << fmt::format("{{\"load_ms\": {:.6f}, \"first_ms\": {:.6f}, \"runs\": {}, \"min_ms\": {:.6f}, \"median_ms\": {:.6f}, "
                             "\"p90_ms\": {:.6f}, \"p99_ms\": {:.6f}, \"max_ms\": {:.6f}, \"threads\": {}, \"target\": \"{}\"}}\n",
                             load_ms, first_ms, times->size(), at(0), at(0.5), at(0.9), at(0.99), times->back(),
                             verb.session.threads, session->target());
  else
    std::cout << fmt::format("{} runs on {} thread(s), {}: median {:.3f} ms, min {:.3f}, p90 {:.3f}, p99 {:.3f}, max {:.3f}\n"
                             "open {:.3f} ms, first run {:.3f} ms\n",
                             times->size(), verb.session.threads, session->target(), at(0.5), at(0), at(0.9), at(0.99),
                             times->back(), load_ms, first_ms);
  return kFine;
}

} // namespace

void add_bench(CLI::App &app, int &exit_code) {
  auto verb = std::make_shared<BenchVerb>();
  CLI::App *sub = app.add_subcommand("bench", "Time a package or a model");
  verb->model.add_to(*sub);
  sub->add_option("-i,--input", verb->inputs, "NAME=@FILE.npy or NAME=2x2xf32=1,2,3,4")
      ->allow_extra_args(false)
      ->check(named("NAME=@FILE.npy, NAME=2x2xf32=1,2,3,4 or NAME=2xstr=abc,def"));
  sub->add_option("--entry", verb->session.entry, "which exported function (default: the first)");
  sub->add_option("--threads", verb->session.threads, "threads to run on")->check(CLI::Range(1, 1024));
  sub->add_option("--seed", verb->session.seed, "of the first values of params that have no others (default: 0)");
  sub->add_option("-O", verb->level, "0, 1 or 2, where a model is compiled")->check(well_formed(parse_level));
  sub->add_option("--device", verb->session.device, "cpu (default), cuda:0 or auto: where it computes")->check(check_device);
  sub->add_option("--target", verb->session.target, "code section of the package to use");
  sub->add_option("--seconds", verb->seconds, "how long to measure")->check(CLI::Range(0.0, 3600.0));
  sub->add_flag("--slices", verb->slices, "run one slice for each line of standard input (seconds), one line of JSON each");
  sub->add_flag("--profile{text}", verb->profile, "per kernel: time, share, FLOPs, bytes, and what the machine would allow; --profile=html draws it")
      ->check(CLI::IsMember({"text", "html"}));
  sub->add_option("--trace", verb->trace, "write a run's kernels and threads for chrome://tracing or ui.perfetto.dev");
  sub->add_option("-o,--output", verb->output, "where the profile goes; - for standard output");
  sub->callback([verb, &exit_code] { exit_code = bench(*verb); });
}

} // namespace kiln
