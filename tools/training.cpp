#include "tools/training.h"

#include "frontend/files/file_writer.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <thread>

namespace kiln {
namespace {

using Clock = std::chrono::steady_clock;

volatile std::sig_atomic_t g_interrupted = 0;
void interrupt(int signal) {
  g_interrupted = 1;
  std::signal(signal, SIG_DFL); // the second one ends the process
}

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

std::string time_text(double seconds) {
  auto s = int64_t(seconds + 0.5);
  return s < 3600 ? fmt::format("{}:{:02}", s / 60, s % 60) : fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
}

Error error_of(const KilnError &error) { return Error{error.message}; }

} // namespace

void Means::add(const std::vector<double> &numbers, double count) {
  sums.resize(numbers.size());
  for (size_t i = 0; i < numbers.size(); ++i)
    sums[i] += numbers[i] * count;
  weight += count;
}

std::vector<double> Means::values() const {
  std::vector<double> out;
  for (double sum : sums)
    out.push_back(sum / weight);
  return out;
}

std::string Means::text(const std::vector<std::string> &names) const {
  std::string out;
  for (size_t i = 0; i < sums.size(); ++i)
    if (std::isfinite(sums[i]))
      out += fmt::format("{}{} {:.5g}", out.empty() ? "" : "  ", names[i], sums[i] / weight);
  return out;
}

std::map<std::string, std::string> Training::identity() const {
  std::vector<std::string> given = options_.data.normalise;
  given.insert(given.end(), options_.data.augment.begin(), options_.data.augment.end());
  return {{"kiln.seed", std::to_string(options_.seed)},
          {"kiln.batch_size", std::to_string(step_->shape().batch > 0 ? step_->shape().batch : options_.batch)},
          {"kiln.examples", std::to_string(train_->size())},
          {"kiln.inputs", fmt::format("{}", fmt::join(given, " "))},
          {"kiln.order", fmt::format("{}{}", options_.keep_order ? "kept" : "shuffled",
                                     options_.buckets.empty() ? "" : fmt::format(", buckets {}", fmt::join(options_.buckets, ",")))}};
}

Status Training::open_model() {
  auto level = parse_level(options_.level);
  KilnError error{};
  KilnOpenOptions how{KILN_OPEN_DEVICE, 0, nullptr, options_.device.empty() ? nullptr : options_.device.c_str()};
  if (is_package(options_.model.path)) {
    if (auto fits = for_package(options_.model); !fits) {
      bad_usage_ = true;
      return fits;
    }
    module_ = runtime::Module::try_open(options_.model.path, error, &how);
  } else {
    Diagnostics diagnostics;
    CompileOptions compile;
    compile.machines = {host_machine()};
    compile.level = *level;
    set_compile_options(options_.model, compile);
    compile.keep_params = true;
    compile.jobs = int(std::max(1u, std::thread::hardware_concurrency()));
    bool fine = load_model(options_.model, opened_.module, diagnostics);
    place_in_memory(options_.device, opened_.module, compile);
    source_ = opened_.module;
    // The size of the batches gets code of its own.
    const Function *step = fine ? opened_.module.find_function(options_.step) : nullptr;
    for (ValueId argument : step && options_.batch > 0 ? step->body.args : std::vector<ValueId>())
      if (const auto &shape = step->type(argument).shape; compile.forms.empty() && !shape.empty() && shape[0].try_symbol())
        compile.forms = {{{std::string(shape[0].try_symbol()->text()), options_.batch}}};
    fine = fine && compile_in_memory(opened_.module, compile, opened_.compiled, opened_.package, diagnostics);
    if (report(diagnostics, options_.model) != kFine || !fine)
      return Error{""};
    module_ = runtime::Module::try_open(opened_.package.bytes, error, &how);
  }
  if (module_ && options_.device == "auto" && !options_.model.json)
    std::cerr << "kiln: note: computes on " << target_of(module_->handle()) << "\n";
  if (module_)
    variables_ = module_->try_variables(error);
  if (variables_ && options_.threads > 1)
    pool_ = runtime::Pool::try_create(uint32_t(options_.threads), error);
  if (!variables_ || (options_.threads > 1 && !pool_))
    return error_of(error);
  return Unit{};
}

Result<TrainEntry> Training::open_entry(const EntryShape &shape, const data::DatasetPtr &dataset, int64_t batch) {
  std::vector<const data::Dataset *> datasets = {train_.get()};
  if (validation_)
    datasets.push_back(validation_.get());
  KILN_TRY(dims, entry_dims(shape, datasets, batch, options_.buckets));
  KILN_TRY(entry, TrainEntry::open(*module_, shape, *variables_, pool_ ? pool_->executor() : nullptr, dims, dataset->fields()));
  std::vector<std::string> given;
  for (const std::string &text : options_.numbers) {
    auto [name, value] = *parse_setting(text);
    given.push_back(name);
    if (!entry.set_number(given.back(), value) && shape.name == options_.step)
      return Error{fmt::format("--set {}: '{}' has no input '{}' that is one number", text, shape.name, given.back())};
  }
  for (const auto &input : shape.inputs)
    if (input.dims.empty() && std::find(given.begin(), given.end(), input.name) == given.end() && !(options_.find_lr && input.name == "lr"))
      return Error{fmt::format("'{}' takes a number '{}'; give it with --set {}=...", shape.name, input.name, input.name)};
  return std::move(entry);
}

Status Training::open_entries() {
  KILN_TRY(shape, entry_shape(*module_, options_.step));
  KILN_TRY(train, fit_data(data_.train, data_, shape, true));
  train_ = train;
  std::optional<EntryShape> evaluate;
  if (data_.validation) {
    KILN_TRY(found, entry_shape(*module_, options_.evaluate));
    evaluate = found;
    KILN_TRY(validation, fit_data(data_.validation, data_, *evaluate, false));
    validation_ = validation;
  }
  if (shape.batch > 0 && options_.batch > 0 && options_.batch != shape.batch)
    return Error{fmt::format("'{}' takes batches of {}, not of {}", options_.step, shape.batch, options_.batch)};
  int64_t batch = shape.batch > 0 ? shape.batch : options_.batch;
  if (batch <= 0)
    return Error{fmt::format("'{}' takes batches of any size; choose one with --batch", options_.step)};
  KILN_TRY(step, open_entry(shape, train_, batch));
  step_ = std::move(step);
  std::string error;
  loader_ = data::Loader::try_make(train_, {.batch = batch, .shuffle = !options_.keep_order, .drop_last = true, .seed = options_.seed,
                                            .workers = options_.workers, .buckets = options_.buckets}, error);
  if (!loader_)
    return Error{"--buckets: " + error};
  if (loader_->batches() == 0)
    return Error{fmt::format("there are {} examples, fewer than one batch of {}", train_->size(), batch)};
  if (evaluate) {
    KILN_TRY(entry, open_entry(*evaluate, validation_, evaluate->batch > 0 ? evaluate->batch : batch));
    evaluate_ = std::move(entry);
    if (evaluate->batch > validation_->size())
      return Error{fmt::format("there are {} examples to validate on, fewer than one batch of {}; write '{}' for batches of any size (N)",
                               validation_->size(), evaluate->batch, options_.evaluate)};
  }
  return open_monitor();
}

Status Training::open_monitor() {
  if (options_.patience == 0 && options_.monitor.empty())
    return Unit{};
  if (!evaluate_)
    return Error{"--patience and --monitor watch the entry `evaluate`; give --validate or --split"};
  const auto &names = evaluate_->shape().outputs;
  size_t colon = options_.monitor.rfind(':');
  std::string name = options_.monitor.substr(0, colon), sense = colon == std::string::npos ? "" : options_.monitor.substr(colon + 1);
  auto it = name.empty() ? names.begin() : std::find(names.begin(), names.end(), name);
  if (it == names.end() || (!sense.empty() && sense != "min" && sense != "max"))
    return Error{fmt::format("--monitor {}: name one of {}, with :min or :max behind it where that is not clear", options_.monitor, fmt::join(names, ", "))};
  monitored_ = size_t(it - names.begin());
  monitor_most_ = sense == "max";
  for (const char *word : {"acc", "precision", "recall", "f1", "auc", "top"})
    monitor_most_ |= sense.empty() && it->find(word) != std::string::npos;
  return Unit{};
}

Status Training::save(const std::string &name) {
  return write_checkpoint(file_in_checkpoint(name), *module_, *variables_, at_, identity());
}

void Training::progress(const Means &means, int64_t batch, int64_t batches, double seconds, bool last) const {
  bool terminal = isatty(STDERR_FILENO) != 0;
  if (options_.model.json || (!terminal && !last))
    return;
  constexpr int kWidth = 20;
  int done = int(batch * kWidth / std::max<int64_t>(batches, 1));
  std::string line = fmt::format("epoch {}/{} [{}{}] {}/{}  {}  {:.0f} examples/s  {}", at_.epoch + 1, options_.epochs,
                                 std::string(size_t(done), '='), std::string(size_t(kWidth - done), ' '), batch, batches,
                                 means.text(step_->shape().outputs), means.weight / std::max(seconds, 1e-9),
                                 last ? time_text(seconds)
                                      : time_text(seconds / double(std::max<int64_t>(batch, 1)) * double(batches - batch)) + " left");
  std::cerr << (terminal ? "\r\033[K" : "") << line << (last ? "\n" : "") << std::flush;
}

Status Training::epoch() {
  loader_->start(at_.epoch, at_.batch);
  Means means;
  auto begin = Clock::now(), shown = begin;
  int64_t first = at_.batch, batches = loader_->batches();
  std::string error;
  const data::Batch *batch = loader_->try_next(error);
  if (batch)
    KILN_RETURN_IF_ERROR(step_->bind(*batch));
  while (batch) {
    KILN_RETURN_IF_ERROR(step_->start());
    double count = double(batch->count);
    // The next batch is on its way to the device while this one computes.
    batch = loader_->try_next(error);
    if (batch) {
      KILN_RETURN_IF_ERROR(step_->bind(*batch));
      KILN_RETURN_IF_ERROR(step_->send());
    }
    KILN_RETURN_IF_ERROR(step_->finish());
    std::vector<double> numbers = step_->numbers();
    means.add(numbers, count);
    ++at_.batch, ++at_.step;
    log_.step(at_.epoch, at_.step, step_->shape().outputs, numbers);
    if (!numbers.empty() && !std::isfinite(numbers[0]))
      return Error{fmt::format("{} is {} after step {}: a smaller learning rate, or optim.clip_grad_norm, may help",
                               step_->shape().outputs[0], numbers[0], at_.step)};
    if (Clock::now() - shown > std::chrono::milliseconds(100)) {
      progress(means, at_.batch - first, batches - first, seconds_since(begin), false);
      shown = Clock::now();
    }
    bool due = options_.checkpoint_every > 0 && at_.step % options_.checkpoint_every == 0;
    if (!options_.checkpoint.empty() && (due || g_interrupted))
      KILN_RETURN_IF_ERROR(save("last"));
    if (g_interrupted)
      return Unit{};
  }
  if (!error.empty())
    return Error{error};
  progress(means, batches - first, batches - first, seconds_since(begin), true);
  bool better = false;
  if (evaluate_)
    KILN_RETURN_IF_ERROR(validate(better));
  ++at_.epoch;
  at_.batch = 0;
  // The best first: a run that is killed between the two validates again, and finds the same.
  if (better && !options_.checkpoint.empty()) {
    KILN_RETURN_IF_ERROR(save("best"));
  } else if (better) {
    KILN_TRY(values, read_variables(*module_, *variables_));
    best_ = values;
  }
  return options_.checkpoint.empty() ? Status(Unit{}) : save("last");
}

// All examples; the last batch is smaller, where the entry takes batches of any size.
Status Training::validate(bool &better) {
  const EntryShape &shape = evaluate_->shape();
  std::string error;
  int64_t batch = shape.batch > 0 ? shape.batch : step_->shape().batch > 0 ? step_->shape().batch : options_.batch;
  auto loader = data::Loader::try_make(validation_, {.batch = batch, .shuffle = false, .drop_last = shape.batch > 0, .workers = options_.workers}, error);
  if (!loader)
    return Error{error};
  loader->start(0);
  Means means;
  while (const data::Batch *examples = loader->try_next(error)) {
    KILN_RETURN_IF_ERROR(evaluate_->run(*examples));
    means.add(evaluate_->numbers(), double(examples->count));
  }
  if (!error.empty())
    return Error{error};
  auto values = means.values();
  if (options_.patience > 0 || !options_.monitor.empty()) {
    double value = values.at(monitored_);
    better = std::isfinite(value) && (!at_.best || (monitor_most_ ? value > *at_.best : value < *at_.best));
    if (better) {
      at_.best = value;
      at_.best_epoch = at_.epoch;
    }
  }
  auto left = validation_->size() - int64_t(means.weight);
  if (!options_.model.json)
    std::cerr << fmt::format("  validation on {} examples: {}{}{}\n", int64_t(means.weight), means.text(shape.outputs), better ? "  (best)" : "",
                             left > 0 && at_.epoch == 0 ? fmt::format("; {} that fill no batch of {} are left out", left, batch) : "");
  log_.validation(at_.epoch, at_.step, shape.outputs, values);
  if (options_.model.json) {
    std::string line = fmt::format("{{\"epoch\": {}, \"validation\": true", at_.epoch);
    for (size_t i = 0; i < values.size(); ++i)
      if (std::isfinite(values[i]))
        line += fmt::format(", {}: {:.9g}", json_quote(shape.outputs[i]), values[i]);
    std::cout << line << "}\n";
  }
  return Unit{};
}

bool Training::stops_early() const {
  return options_.patience > 0 && at_.epoch - (at_.best ? at_.best_epoch + 1 : 0) >= options_.patience;
}

// First values. A package that was trained before keeps its own: what init would write is zero in one that was not.
Status Training::initialise() {
  KILN_TRY(before, read_variables(*module_, *variables_));
  const auto *block = static_cast<const std::byte *>(variables_->data());
  std::vector<std::byte> bytes(block, block + module_->info().variables_size);
  KILN_RETURN_IF_ERROR(run_init(*module_, *variables_, options_.seed));
  KILN_TRY(after, read_variables(*module_, *variables_));
  for (size_t i = 0; i < before.size(); ++i) {
    auto a = before[i].second.bytes(), b = after[i].second.bytes();
    bool written = !std::equal(a.begin(), a.end(), b.begin());
    if (!written || std::all_of(a.begin(), a.end(), [](std::byte x) { return x == std::byte(0); }))
      continue;
    std::memcpy(variables_->data(), bytes.data(), bytes.size());
    if (!options_.model.json)
      std::cerr << "going on from the values in the package\n";
    return Unit{};
  }
  return Unit{};
}

// What runs left behind that were killed while they wrote a checkpoint.
void Training::remove_temporaries() const {
  std::error_code failed;
  std::vector<std::filesystem::path> found;
  for (const auto &entry : std::filesystem::directory_iterator(options_.checkpoint, failed))
    for (const char *name : {"last.safetensors", "best.safetensors"})
      if (is_temporary_of(entry.path().filename().string(), name))
        found.push_back(entry.path());
  for (const auto &path : found)
    std::filesystem::remove(path, failed);
}

Status Training::begin() {
  KILN_RETURN_IF_ERROR(initialise());
  std::error_code failed;
  if (!options_.checkpoint.empty())
    std::filesystem::create_directories(options_.checkpoint, failed);
  if (failed)
    return Error{fmt::format("cannot make the folder '{}': {}", options_.checkpoint, failed.message())};
  if (!options_.checkpoint.empty()) {
    // Held until the process ends: two runs would take turns with each other's files.
    int folder = ::open(options_.checkpoint.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0 && ::flock(folder, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
      return Error{fmt::format("another run writes its checkpoints to '{}'; choose another folder, or wait for it", options_.checkpoint)};
    remove_temporaries();
  }
  bool was_there = !options_.checkpoint.empty() && std::filesystem::exists(file_in_checkpoint("last"));
  if (was_there && !options_.resume && !options_.model.json)
    std::cerr << fmt::format("kiln: note: the first checkpoint replaces that of an earlier run in '{}'; --resume goes on from it\n",
                             options_.checkpoint);
  bool goes_on = options_.resume && was_there;
  if (goes_on) {
    KILN_TRY(position, read_checkpoint(file_in_checkpoint("last"), *module_, *variables_, identity()));
    at_ = position;
    if (!options_.model.json)
      std::cerr << fmt::format("going on after step {}, epoch {}\n", at_.step, at_.epoch + 1);
  }
  return log_.open(options_.log, goes_on, at_.epoch, at_.step);
}

Status Training::train() {
  KILN_RETURN_IF_ERROR(begin());
  std::signal(SIGINT, interrupt);
  std::signal(SIGTERM, interrupt);
  if (bool ignored = false; options_.epochs == 0 && evaluate_)
    KILN_RETURN_IF_ERROR(validate(ignored));
  while (at_.epoch < options_.epochs && !g_interrupted && !stops_early())
    KILN_RETURN_IF_ERROR(epoch());
  if (g_interrupted)
    return Unit{};
  if (stops_early() && !options_.model.json)
    std::cerr << fmt::format("{} has not become better for {} epochs; the best, {:.5g}, came with epoch {}\n",
                             evaluate_->shape().outputs[monitored_], options_.patience, at_.best.value_or(NAN), at_.best_epoch + 1);
  return finish();
}

// The values of the best epoch, where one is told from the others.
Status Training::finish() {
  if (options_.output.empty())
    return write_report();
  if (at_.best && !options_.checkpoint.empty() && at_.best_epoch + 1 != at_.epoch) {
    KILN_TRY(ignored, read_checkpoint(file_in_checkpoint("best"), *module_, *variables_, identity()));
    (void)ignored;
  } else if (at_.best && !best_.empty()) {
    for (const auto &[name, tensor] : best_) {
      KilnError error{};
      KilnVariableInfo info{};
      for (uint32_t i = 0; runtime::api().variable_info(module_->handle(), i, &info) == KILN_OK; ++i)
        if (name == info.name && runtime::api().variable_write(module_->handle(), variables_->data(), i, tensor.bytes().data(), tensor.bytes().size(), &error) != KILN_OK)
          return error_of(error);
    }
  }
  KILN_RETURN_IF_ERROR(write_package());
  return write_report();
}

Status Training::write_package() {
  KilnError error{};
  KILN_TRY(values, read_variables(*module_, *variables_));
  std::optional<Module> module;
  if (!options_.keep_training && !is_package(options_.model.path))
    module = inference_module(source_, values, {options_.step, options_.evaluate, "init"});
  if (!module)
    return variables_->try_save(options_.output, error) ? Status(Unit{}) : error_of(error);
  // Whoever runs it has to treat inputs as they were treated here, and wants to know what the classes are.
  for (const auto &[name, input] : data_.inputs)
    if (!input.mean.empty())
      module->metadata["data." + name + ".normalise"] = nlohmann::json{{"mean", input.mean}, {"std", input.std}}.dump();
  for (const data::Field &field : data_.train->fields())
    if (!field.names.empty())
      module->metadata["data." + field.name + ".names"] = nlohmann::json(field.names).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  Diagnostics diagnostics;
  Compiled compiled;
  CompileOptions compile;
  compile.machines = {host_machine()};
  compile.level = *parse_level(options_.level);
  set_compile_options(options_.model, compile);
  compile.jobs = int(std::max(1u, std::thread::hardware_concurrency()));
  if (!compile_module(*module, compile, compiled, diagnostics) || diagnostics.has_errors()) {
    report(diagnostics, options_.model);
    return Error{""};
  }
  std::string problem = kiln::write_package(package_spec(*module, compiled), options_.output);
  return problem.empty() ? Status(Unit{}) : Error{problem};
}

Status Training::write_report() const {
  if (options_.report.empty())
    return Unit{};
  std::vector<std::pair<std::string, std::string>> facts = {
      {"model", options_.model.path}, {"data", fmt::format("{}", fmt::join(options_.data.data, " "))},
      {"examples", fmt::format("{}{}", train_->size(), validation_ ? fmt::format(", {} for validation", validation_->size()) : "")},
      {"epochs", fmt::format("{}, {} steps", at_.epoch, at_.step)}, {"seed", std::to_string(options_.seed)}};
  if (at_.best)
    facts.emplace_back("best", fmt::format("{} {:.5g} in epoch {}", evaluate_->shape().outputs[monitored_], *at_.best, at_.best_epoch + 1));
  return write_file(options_.report, curves_page("Training of " + std::filesystem::path(options_.model.path).stem().string(), facts, log_.curves()));
}

Status Training::write_names() const {
  nlohmann::ordered_json out;
  for (const data::Field &field : data_.train->fields())
    if (!field.names.empty())
      out[field.name] = field.names;
  return write_file(options_.names_file, out.dump(1, ' ', true, nlohmann::json::error_handler_t::replace) + "\n");
}

// What would be found at the end, when hours have passed.
Status Training::check_outputs() {
  std::error_code ignored;
  for (const std::string &file : {options_.output, options_.report, options_.names_file, options_.log}) {
    if (file.empty())
      continue;
    if (!is_package(options_.model.path) || file != options_.output)
      if (auto spared = spares_model(options_.model, file); !spared) {
        bad_usage_ = true;
        return spared;
      }
    std::string folder = std::filesystem::path(file).parent_path().string();
    if (std::filesystem::is_directory(file, ignored))
      errno = EISDIR;
    else if (::access(folder.empty() ? "." : folder.c_str(), W_OK) == 0)
      continue;
    return Error{fmt::format("cannot write '{}': {}", file, std::strerror(errno))};
  }
  return Unit{};
}

int Training::run() {
  const bool json = options_.model.json;
  auto fail = [&](const Status &status) {
    int code = status.error().message.empty() ? int(kBadInput) : report(status.error(), json);
    return bad_usage_ ? int(kBadUsage) : code;
  };
  if (options_.resume && options_.checkpoint.empty())
    return report(Error{"--resume needs the folder of --checkpoint"}, json), kBadUsage;
  if (auto status = check_outputs(); !status)
    return fail(status);
  if (auto status = open_model(); !status)
    return fail(status);
  auto data = open_data(options_.data);
  if (!data)
    return report(data.error(), json);
  data_ = std::move(*data);
  if (auto status = open_entries(); !status)
    return fail(status);
  if (!options_.names_file.empty())
    if (auto status = write_names(); !status)
      return fail(status);
  if (auto status = options_.find_lr ? find_lr() : train(); !status)
    return fail(status);
  if (g_interrupted) {
    std::cerr << (options_.checkpoint.empty()
                      ? fmt::format("\nstopped after step {}; with --checkpoint it could go on from here\n", at_.step)
                      : fmt::format("\nstopped after step {}; --resume goes on from here\n", at_.step));
    return 130;
  }
  return kFine;
}

} // namespace kiln
