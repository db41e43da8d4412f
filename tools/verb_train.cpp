// kiln train: runs a model's `train_step` over data, in epochs, with validation, checkpoints and a package at the end.
//
// A run is a function of the model, the data and the seed: stopped anywhere and resumed, it ends with the same bits.
#include "tools/cli.h"
#include "tools/training_data.h"

#include "frontend/files/file_writer.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iostream>

namespace kiln {
namespace {

using Clock = std::chrono::steady_clock;

struct TrainOptions {
  ModelOptions model;
  std::vector<std::string> data, validation, normalise;
  std::string step = "train_step", evaluate = "evaluate", checkpoint, log, output, level = "2";
  int64_t epochs = 1, batch = 0, checkpoint_every = 0;
  uint64_t seed = 0;
  int threads = 1, workers = 1;
  bool resume = false, keep_order = false;
};

volatile std::sig_atomic_t g_interrupted = 0;
void interrupt(int) { g_interrupted = 1; }

std::string time_text(double seconds) {
  auto s = int64_t(seconds + 0.5);
  return s < 3600 ? fmt::format("{}:{:02}", s / 60, s % 60) : fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

// Means of an entry's numbers over batches.
struct Means {
  std::vector<double> sums;
  double weight = 0;
  void add(const std::vector<double> &numbers, double count) {
    sums.resize(numbers.size());
    for (size_t i = 0; i < numbers.size(); ++i)
      sums[i] += numbers[i] * count;
    weight += count;
  }
  std::string text(const std::vector<std::string> &names) const {
    std::string out;
    for (size_t i = 0; i < sums.size(); ++i)
      if (std::isfinite(sums[i]))
        out += fmt::format("{}{} {:.5g}", out.empty() ? "" : "  ", names[i], sums[i] / weight);
    return out;
  }
  std::string json(const std::vector<std::string> &names) const {
    std::string out;
    for (size_t i = 0; i < sums.size(); ++i)
      if (std::isfinite(sums[i]))
        out += fmt::format(", {}: {:.9g}", json_quote(names[i]), sums[i] / weight);
    return out;
  }
};

class Training {
public:
  explicit Training(const TrainOptions &options) : options_(options) {}
  int run();

private:
  int open();
  Result<TensorDataset> dataset(const std::vector<std::string> &texts, const TrainEntry &entry) const;
  Status initialise();
  Status epoch(const TrainEntry &);
  Status validate(int64_t epoch);
  Status save();
  void progress(const Means &means, int64_t batch, int64_t batches, double seconds, bool last);
  void log(const std::string &line);
  std::map<std::string, std::string> identity() const;
  std::string checkpoint_path() const { return options_.checkpoint + "/last.safetensors"; }

  const TrainOptions &options_;
  Opened opened_;
  std::optional<runtime::Module> module_;
  std::optional<runtime::Variables> variables_;
  std::optional<runtime::Pool> pool_;
  std::optional<TrainEntry> step_, evaluate_;
  std::optional<TensorDataset> data_, validation_;
  std::unique_ptr<Loader> loader_;
  Position at_;
  std::ofstream log_;
};

std::map<std::string, std::string> Training::identity() const {
  return {{"kiln.seed", std::to_string(options_.seed)},
          {"kiln.batch_size", std::to_string(step_->inputs().empty() ? 0 : step_->inputs()[0].dims.at(0))},
          {"kiln.examples", std::to_string(data_->size())}};
}

void Training::log(const std::string &line) {
  if (log_.is_open())
    log_ << line << "\n" << std::flush;
}

int Training::open() {
  auto level = parse_level(options_.level);
  if (!level)
    return report(level.error(), options_.model.json), kBadUsage;
  std::span<const std::byte> bytes;
  KilnError error{};
  if (is_package(options_.model.path)) {
    module_ = runtime::Module::try_open(options_.model.path, error);
  } else {
    Diagnostics diagnostics;
    CompileOptions compile;
    compile.machines = {host_machine()};
    compile.level = *level;
    set_compile_options(options_.model, compile);
    compile.keep_params = true;
    compile.jobs = int(std::max(1u, std::thread::hardware_concurrency()));
    bool fine = load_model(options_.model, opened_.module, diagnostics) &&
                compile_in_memory(opened_.module, compile, opened_.compiled, opened_.package, diagnostics);
    if (int code = report(diagnostics, options_.model.json); code != kFine || !fine)
      return kBadInput;
    module_ = runtime::Module::try_open(opened_.package.bytes, error);
  }
  if (!module_)
    return report(Error{error.message}, options_.model.json);
  variables_ = module_->try_variables(error);
  if (variables_ && options_.threads > 1)
    pool_ = runtime::Pool::try_create(uint32_t(options_.threads), error);
  if (!variables_ || (options_.threads > 1 && !pool_))
    return report(Error{error.message}, options_.model.json);
  const KilnExecutor *executor = pool_ ? pool_->executor() : nullptr;
  auto step = TrainEntry::open(*module_, options_.step, *variables_, executor, options_.batch);
  if (!step)
    return report(step.error(), options_.model.json);
  step_ = std::move(*step);
  if (!options_.validation.empty()) {
    auto evaluate = TrainEntry::open(*module_, options_.evaluate, *variables_, executor, options_.batch);
    if (!evaluate)
      return report(evaluate.error(), options_.model.json);
    evaluate_ = std::move(*evaluate);
  }
  return kFine;
}

Result<TensorDataset> Training::dataset(const std::vector<std::string> &texts, const TrainEntry &entry) const {
  std::vector<std::pair<std::string, Tensor>> arrays;
  for (const std::string &text : texts) {
    KILN_TRY(array, read_data(text));
    arrays.push_back(std::move(array));
  }
  std::vector<Normalise> rules;
  for (const std::string &text : options_.normalise) {
    KILN_TRY(rule, parse_normalise(text));
    rules.push_back(rule);
  }
  KILN_TRY(fitted, fit_data(std::move(arrays), entry.inputs(), rules));
  TensorDataset out(std::move(fitted));
  KILN_RETURN_IF_ERROR(out.check());
  int64_t batch = entry.inputs().empty() ? 1 : entry.inputs()[0].dims.at(0);
  for (const auto &input : entry.inputs())
    if (input.dims.at(0) != batch)
      return Error{fmt::format("the inputs of '{}' have batches of {} and {}", options_.step, batch, input.dims[0])};
  if (out.size() < batch)
    return Error{fmt::format("there are {} examples, fewer than one batch of {}", out.size(), batch)};
  return out;
}

// First values: what the model stores, and what its `init(seed)` draws.
Status Training::initialise() {
  if (runtime::api().find_entry(module_->handle(), "init") < 0)
    return Unit{};
  KILN_TRY(init, TrainEntry::open(*module_, "init", *variables_, nullptr, 0));
  Tensor seed = Tensor::scalar_i64(DType::u64, int64_t(options_.seed));
  return init.run({&seed});
}

Status Training::save() {
  return write_checkpoint(checkpoint_path(), *module_, *variables_, at_, identity());
}

void Training::progress(const Means &means, int64_t batch, int64_t batches, double seconds, bool last) {
  bool terminal = isatty(STDERR_FILENO) != 0;
  if (options_.model.json || (!terminal && !last))
    return;
  constexpr int kWidth = 20;
  int done = int(batch * kWidth / std::max<int64_t>(batches, 1));
  int64_t examples = batch * step_->inputs()[0].dims[0];
  std::string line = fmt::format("epoch {}/{} [{}{}] {}/{}  {}  {:.0f} examples/s  {}", at_.epoch + 1, options_.epochs,
                                 std::string(size_t(done), '='), std::string(size_t(kWidth - done), ' '), batch, batches,
                                 means.text(step_->output_names()), double(examples) / std::max(seconds, 1e-9),
                                 last ? time_text(seconds)
                                      : time_text(seconds / double(std::max<int64_t>(batch, 1)) * double(batches - batch)) + " left");
  std::cerr << (terminal ? "\r\033[K" : "") << line << (last ? "\n" : "") << std::flush;
}

Status Training::epoch(const TrainEntry &) {
  loader_->start(at_.epoch, at_.batch);
  Means means;
  auto begin = Clock::now(), shown = begin;
  int64_t first = at_.batch, batches = loader_->batches();
  auto seconds = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  while (const Batch *batch = loader_->next()) {
    std::vector<const Tensor *> inputs;
    for (const Tensor &t : batch->fields)
      inputs.push_back(&t);
    KILN_RETURN_IF_ERROR(step_->run(inputs));
    std::vector<double> numbers = step_->numbers();
    means.add(numbers, double(batch->count));
    ++at_.batch, ++at_.step;
    Means one;
    one.add(numbers, 1);
    log(fmt::format("{{\"epoch\": {}, \"step\": {}{}}}", at_.epoch, at_.step, one.json(step_->output_names())));
    if (!numbers.empty() && !std::isfinite(numbers[0]))
      return Error{fmt::format("{} is {} after step {}: a smaller learning rate, or optim.clip_grad_norm, may help",
                               step_->output_names()[0], numbers[0], at_.step)};
    if (Clock::now() - shown > std::chrono::milliseconds(100)) {
      progress(means, at_.batch - first, batches - first, seconds(), false);
      shown = Clock::now();
    }
    bool due = options_.checkpoint_every > 0 && at_.step % options_.checkpoint_every == 0;
    if (!options_.checkpoint.empty() && (due || g_interrupted))
      KILN_RETURN_IF_ERROR(save());
    if (g_interrupted)
      return Unit{};
  }
  if (!loader_->error().empty())
    return Error{loader_->error()};
  progress(means, batches - first, batches - first, seconds(), true);
  if (evaluate_)
    KILN_RETURN_IF_ERROR(validate(at_.epoch));
  ++at_.epoch;
  at_.batch = 0;
  return options_.checkpoint.empty() ? Status(Unit{}) : save();
}

// The examples that fill batches; an entry with a fixed batch cannot take the rest.
Status Training::validate(int64_t epoch) {
  Loader loader(*validation_, {.batch = evaluate_->inputs()[0].dims[0], .shuffle = false, .drop_last = true,
                               .workers = options_.workers});
  loader.start(0);
  Means means;
  while (const Batch *batch = loader.next()) {
    std::vector<const Tensor *> inputs;
    for (const Tensor &t : batch->fields)
      inputs.push_back(&t);
    KILN_RETURN_IF_ERROR(evaluate_->run(inputs));
    means.add(evaluate_->numbers(), double(batch->count));
  }
  if (!options_.model.json)
    std::cerr << fmt::format("  validation on {} examples: {}\n", int64_t(means.weight), means.text(evaluate_->output_names()));
  log(fmt::format("{{\"epoch\": {}, \"validation\": true{}}}", epoch, means.json(evaluate_->output_names())));
  if (options_.model.json)
    std::cout << fmt::format("{{\"epoch\": {}, \"validation\": true{}}}\n", epoch, means.json(evaluate_->output_names()));
  return Unit{};
}

int Training::run() {
  const bool json = options_.model.json;
  if (options_.resume && options_.checkpoint.empty())
    return report(Error{"--resume needs the folder of --checkpoint"}, json), kBadUsage;
  if (int code = open(); code != kFine)
    return code;
  auto fail = [&](const Status &status) { return report(status.error(), json); };
  auto data = dataset(options_.data, *step_);
  if (!data)
    return report(data.error(), json);
  data_ = std::move(*data);
  if (evaluate_) {
    auto validation = dataset(options_.validation, *evaluate_);
    if (!validation)
      return report(validation.error(), json);
    validation_ = std::move(*validation);
  }
  if (auto status = initialise(); !status)
    return fail(status);
  std::error_code failed;
  if (!options_.checkpoint.empty())
    std::filesystem::create_directories(options_.checkpoint, failed);
  if (failed)
    return report(Error{fmt::format("cannot make the folder '{}': {}", options_.checkpoint, failed.message())}, json);
  if (options_.resume && std::filesystem::exists(checkpoint_path())) {
    auto position = read_checkpoint(checkpoint_path(), *module_, *variables_, identity());
    if (!position)
      return report(position.error(), json);
    at_ = *position;
    if (!json)
      std::cerr << fmt::format("going on after step {}, epoch {}\n", at_.step, at_.epoch + 1);
  }
  if (!options_.log.empty()) {
    log_.open(options_.log, options_.resume ? std::ios::app : std::ios::trunc);
    if (!log_)
      return report(Error{fmt::format("cannot write the log '{}'", options_.log)}, json);
  }
  loader_ = std::make_unique<Loader>(*data_, LoaderOptions{.batch = step_->inputs()[0].dims[0], .shuffle = !options_.keep_order,
                                                           .drop_last = true, .seed = options_.seed, .workers = options_.workers});
  std::signal(SIGINT, interrupt);
  std::signal(SIGTERM, interrupt);
  while (at_.epoch < options_.epochs && !g_interrupted)
    if (auto status = epoch(*step_); !status)
      return fail(status);
  if (g_interrupted) {
    std::cerr << (options_.checkpoint.empty()
                      ? fmt::format("\nstopped after step {}; with --checkpoint it could go on from here\n", at_.step)
                      : fmt::format("\nstopped after step {}; --resume goes on from here\n", at_.step));
    return 130;
  }
  if (!options_.output.empty()) {
    KilnError error{};
    if (!variables_->try_save(options_.output, error))
      return report(Error{error.message}, json);
  }
  return kFine;
}

} // namespace

void add_train(CLI::App &app, int &exit_code) {
  auto options = std::make_shared<TrainOptions>();
  CLI::App *verb = app.add_subcommand("train", "Train a model: run its train_step over data");
  options->model.add_to(*verb);
  verb->add_option("-d,--data", options->data, "INPUT=@FILE: .npy, .npz or IDX (.gz too); axis 0 counts examples")
      ->required()->allow_extra_args(false);
  verb->add_option("--validate", options->validation, "INPUT=@FILE for the entry `evaluate`, after each epoch")->allow_extra_args(false);
  verb->add_option("--normalise", options->normalise, "INPUT=MEAN,STD: (x - mean) / std")->allow_extra_args(false);
  verb->add_option("--epochs", options->epochs, "how often to go through the data")->check(CLI::Range(int64_t(0), int64_t(1) << 40));
  verb->add_option("--batch", options->batch, "examples in a step, where the model leaves it open")->check(CLI::Range(int64_t(1), int64_t(1) << 30));
  verb->add_option("--seed", options->seed, "of first values, dropout and the order of examples");
  verb->add_option("--threads", options->threads, "threads to run on")->check(CLI::Range(1, 1024));
  verb->add_option("--workers", options->workers, "threads that make batches")->check(CLI::Range(0, 256));
  verb->add_flag("--keep-order", options->keep_order, "do not shuffle");
  verb->add_option("--checkpoint", options->checkpoint, "a folder: last.safetensors is written there after each epoch, and when interrupted");
  verb->add_option("--checkpoint-every", options->checkpoint_every, "and every N steps")->check(CLI::Range(int64_t(1), int64_t(1) << 40));
  verb->add_flag("--resume", options->resume, "go on from the checkpoint, if there is one");
  verb->add_option("--log", options->log, "a line of JSON for each step");
  verb->add_option("-o", options->output, "the package with the trained values");
  verb->add_option("--step", options->step, "the entry that trains (default: train_step)");
  verb->add_option("--evaluate", options->evaluate, "the entry that validates (default: evaluate)");
  verb->add_option("-O", options->level, "0, 1 or 2, where a model is compiled");
  verb->callback([options, &exit_code] { exit_code = Training(*options).run(); });
}

} // namespace kiln
