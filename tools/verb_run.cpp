// kiln run: a package, or a model file compiled in memory first, on given inputs.
#include "tools/cli.h"
#include "tools/usage.h"
#include "tools/session.h"
#include "tools/tensor_files.h"
#include "tools/text_tensor.h"

#include "frontend/data/npy.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <numeric>

namespace kiln {
namespace {

struct RunOptions {
  ModelOptions model;
  std::vector<std::string> inputs, outputs;
  SessionOptions session;
  FeedOptions feed;
  std::string level = "2", labels;
  int top = 0;
};

// The largest values of each output, with names where a file gives them.
Status print_top(const std::string &name, const Tensor &tensor, const RunOptions &options) {
  std::vector<std::string> labels;
  if (!options.labels.empty()) {
    std::ifstream file(options.labels);
    if (!file)
      return Error{fmt::format("cannot read the labels in '{}'", options.labels)};
    for (std::string line; std::getline(file, line);)
      labels.push_back(line);
  }
  std::vector<int64_t> order(size_t(tensor.count()));
  std::iota(order.begin(), order.end(), int64_t(0));
  size_t shown = std::min(order.size(), size_t(options.top));
  std::partial_sort(order.begin(), order.begin() + std::ptrdiff_t(shown), order.end(), [&](int64_t a, int64_t b) {
    double x = tensor.at_f64(a), y = tensor.at_f64(b);
    return x != y ? x > y : a < b;
  });
  std::cout << name << ":\n";
  for (size_t i = 0; i < shown; ++i)
    std::cout << fmt::format("  {:8.4f}  {}\n", tensor.at_f64(order[i]),
                             size_t(order[i]) < labels.size() ? labels[size_t(order[i])]
                                                              : fmt::format("#{}", order[i]));
  return Unit{};
}

Status write_output(const std::string &file, const std::string &name, const Tensor &tensor, bool text) {
  if (file != "-")
    return write_tensor(file, name, tensor, text);
  std::vector<std::byte> bytes = npy_bytes(tensor, text);
  std::cout.write(reinterpret_cast<const char *>(bytes.data()), std::streamsize(bytes.size())).flush();
  return Unit{};
}

int run(const RunOptions &options) {
  std::vector<std::string> texts;
  std::vector<std::pair<std::string, std::string>> pictures;
  for (const std::string &text : options.inputs) {
    size_t at = text.find("=@");
    if (at != std::string::npos && at > 0 && is_data_file(text))
      pictures.emplace_back(text.substr(0, at), text.substr(at + 2));
    else
      texts.push_back(text);
  }
  auto inputs = parse_inputs(texts);
  if (!inputs)
    return report(inputs.error(), options.model.json);
  std::vector<std::pair<std::string, std::string>> sinks;
  for (const std::string &text : options.outputs) {
    size_t at = text.find("=@");
    sinks.emplace_back(text.substr(0, at), text.substr(at + 2));
  }
  auto level = parse_level(options.level);
  Opened opened;
  if (int code = open_session(options.model, options.session, *level, opened); code != kFine)
    return code;
  Session *session = &*opened.session;
  auto names = session->output_names();
  for (const auto &[name, file] : sinks)
    if (std::find(names.begin(), names.end(), name) == names.end())
      return report(Error{fmt::format("the model has no output '{}'; it has: {}", name, fmt::join(names, ", "))},
                    options.model.json);
  for (const auto &[name, file] : pictures) {
    auto picture = read_data_for(*session, name, file);
    if (!picture)
      return report(picture.error(), options.model.json);
    inputs->emplace_back(name, std::move(*picture));
  }
  if (auto status = session->bind(std::move(*inputs)); !status)
    return report(status.error(), options.model.json);
  if (!options.feed.feeds.empty() || options.feed.repeat > 1 || !options.feed.prompt.empty()) {
    auto status = run_fed(*session, options.feed);
    return status ? kFine : report(status.error(), options.model.json);
  }
  if (auto status = session->run(); !status)
    return report(status.error(), options.model.json);
  std::string json;
  for (size_t i = 0; i < names.size(); ++i) {
    const Tensor &tensor = session->outputs()[i];
    bool text = session->is_text(true, names[i]);
    for (const auto &[name, file] : sinks)
      if (name == names[i])
        if (auto status = write_output(file, name, tensor, text); !status)
          return report(status.error(), options.model.json);
    if (options.model.json)
      json += fmt::format("{}{}: {{\"dtype\": \"{}\", \"shape\": [{}]}}", json.empty() ? "" : ", ",
                          json_quote(names[i]), text ? "text" : dtype_name(tensor.dtype()),
                          fmt::join(tensor.dims().begin(), tensor.dims().end() - (text ? 1 : 0), ", "));
    else if (options.top > 0 && !text) {
      if (auto status = print_top(names[i], tensor, options); !status)
        return report(status.error(), false);
    } else if (sinks.empty())
      std::cout << names[i] << ": " << (text ? text_tensor_text(tensor) : tensor_text(tensor)) << "\n";
  }
  if (options.model.json)
    std::cout << "{" << json << "}\n";
  return kFine;
}

} // namespace

void add_run(CLI::App &app, int &exit_code) {
  auto options = std::make_shared<RunOptions>();
  CLI::App *verb = app.add_subcommand("run", "Run a package, or compile a model in memory and run it");
  options->model.add_to(*verb);
  verb->add_option("-i,--input", options->inputs, "NAME=@FILE.npy, a picture for f32[1, 3, H, W], or NAME=2x2xf32=1,2,3,4")
      ->allow_extra_args(false)
      ->check(named("NAME=@FILE.npy, NAME=2x2xf32=1,2,3,4 or NAME=2xstr=abc,def"));
  verb->add_option("-o,--output", options->outputs, "NAME=@FILE.npy, or .png, .csv, .svg (a chart); without any, outputs are printed")
      ->allow_extra_args(false)
      ->check([](const std::string &text) -> std::string {
        size_t at = text.find("=@");
        return at == std::string::npos || at == 0 || at + 2 == text.size() ? "'" + text + "': write NAME=@FILE.npy" : "";
      });
  verb->add_option("--repeat", options->feed.repeat, "runs that often, states go on from run to run; prints each run's first output")
      ->check(CLI::Range(int64_t(1), int64_t(1) << 40));
  verb->add_option("--feed", options->feed.feeds, "OUTPUT=INPUT: what a run gives, the next one gets")
      ->allow_extra_args(false)
      ->check(named("OUTPUT=INPUT"));
  verb->add_option("--prompt", options->feed.prompt, "what the first fed input gets before, token by token, as text");
  verb->add_option("--entry", options->session.entry, "which exported function (default: the first)");
  verb->add_option("--threads", options->session.threads, "threads to run on")->check(CLI::Range(1, 1024));
  verb->add_option("--seed", options->session.seed, "of the first values of params that have no others (default: 0)");
  verb->add_option("--device", options->session.device, "cpu (default), cuda:0 or auto: where it computes")->check(check_device);
  verb->add_option("--target", options->session.target, "code section of the package to use");
  verb->add_option("--top", options->top, "print only the N largest values of each output")->check(CLI::Range(0, 1000000));
  verb->add_option("--labels", options->labels, "a file with a name a line for --top");
  verb->add_option("-O", options->level, "0, 1 or 2, where a model is compiled")->check(well_formed(parse_level));
  verb->callback([options, &exit_code] { exit_code = run(*options); });
}

} // namespace kiln
