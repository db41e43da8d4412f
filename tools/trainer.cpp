#include "tools/trainer.h"

#include "frontend/data/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace kiln {
namespace {

using runtime::api;

Error error_of(const KilnError &error) {
  std::string place = error.location[0] ? fmt::format(" ({})", error.location) : "";
  return Error{error.message + place};
}

KilnTensor bound(const Tensor &t) {
  static const int64_t kNoDims[1] = {0};
  return {const_cast<std::byte *>(t.bytes().data()), t.bytes().size(), uint32_t(t.dtype()), uint32_t(t.rank()),
          t.rank() == 0 ? kNoDims : t.dims().data()};
}

std::vector<KilnVariableInfo> variable_list(const runtime::Module &module) {
  std::vector<KilnVariableInfo> out;
  KilnVariableInfo info{};
  for (uint32_t i = 0; api().variable_info(module.handle(), i, &info) == KILN_OK; ++i)
    out.push_back(info);
  return out;
}

} // namespace

std::string EntryShape::Input::text() const { return fmt::format("{}: {}[{}]", name, dtype_name(dtype), fmt::join(texts, ", ")); }

Result<EntryShape> entry_shape(const runtime::Module &module, const std::string &name) {
  int32_t index = api().find_entry(module.handle(), name.c_str());
  if (index < 0)
    return Error{fmt::format("the model has no entry '{}'; write `export func {}(...)`", name, name)};
  KilnEntryInfo info{};
  api().entry_info(module.handle(), uint32_t(index), &info);
  EntryShape out;
  out.name = name;
  KilnSymbolInfo symbol{};
  for (uint32_t i = 0; i < info.symbol_count && api().symbol_info(module.handle(), uint32_t(index), i, &symbol) == KILN_OK; ++i)
    out.symbols.push_back(symbol.name);
  KilnValueInfo value{};
  for (uint32_t i = 0; i < info.input_count; ++i) {
    api().input_info(module.handle(), uint32_t(index), i, &value);
    EntryShape::Input input{value.name, *dtype_from_code(int(value.dtype)), {}, {}, {}};
    for (uint32_t d = 0; d < value.rank; ++d) {
      input.dims.push_back(value.dims[d].value);
      input.symbols.push_back(value.dims[d].symbol);
      input.texts.push_back(value.dims[d].text);
    }
    if (value.rank > 0 && value.dims[0].symbol >= 0 && out.batch == 0 && out.batch_symbol < 0)
      out.batch_symbol = value.dims[0].symbol;
    else if (value.rank > 0 && value.dims[0].value >= 0 && out.batch == 0 && out.batch_symbol < 0)
      out.batch = value.dims[0].value;
    out.inputs.push_back(std::move(input));
  }
  for (uint32_t i = 0; i < info.output_count; ++i) {
    api().output_info(module.handle(), uint32_t(index), i, &value);
    out.outputs.push_back(value.name);
  }
  return out;
}

Result<TrainEntry> TrainEntry::open(const runtime::Module &module, EntryShape shape, runtime::Variables &variables,
                                    const KilnExecutor *executor, const std::vector<int64_t> &dims, const std::vector<data::Field> &fields) {
  KilnError error{};
  runtime::ContextOptions options;
  options.dims = dims;
  options.variables = &variables;
  options.executor = executor;
  auto context = module.try_context(shape.name, options, error);
  if (!context)
    return error_of(error);
  TrainEntry out(std::move(*context));
  out.dims_ = dims;
  out.dim_from_.assign(shape.symbols.size(), {-1, 0});
  for (const auto &input : shape.inputs) {
    auto it = std::find_if(fields.begin(), fields.end(), [&](const data::Field &f) { return f.name == input.name; });
    bool is_number = input.dims.empty();
    if (!is_number && it == fields.end())
      return Error{fmt::format("no data for the input '{}' of '{}', {}", input.name, shape.name, input.text())};
    out.field_of_.push_back(is_number ? -1 : int(it - fields.begin()));
    out.numbers_.push_back(is_number ? Tensor(input.dtype, {}) : Tensor());
    for (size_t d = 0; d < input.dims.size(); ++d)
      if (input.symbols[d] >= 0 && d <= it->dims.size() && out.dim_from_[size_t(input.symbols[d])].first < 0)
        out.dim_from_[size_t(input.symbols[d])] = {out.field_of_.back(), int(d)};
  }
  if (!dims.empty() && api().set_dims(out.context_.handle(), dims.data(), uint32_t(dims.size()), &error) != KILN_OK)
    return error_of(error);
  KilnValueInfo value{};
  int32_t index = api().find_entry(module.handle(), shape.name.c_str());
  for (uint32_t i = 0; i < shape.outputs.size(); ++i) {
    api().output_info(module.handle(), uint32_t(index), i, &value);
    int64_t sizes[KILN_MAX_RANK];
    if (api().output_dims(out.context_.handle(), i, sizes, &error) != KILN_OK)
      return error_of(error);
    out.outputs_.emplace_back(*dtype_from_code(int(value.dtype)), std::vector<int64_t>(sizes, sizes + value.rank));
  }
  out.shape_ = std::move(shape);
  return out;
}

bool TrainEntry::set_number(const std::string &input, double value) {
  for (size_t i = 0; i < shape_.inputs.size(); ++i)
    if (shape_.inputs[i].name == input && field_of_[i] < 0) {
      numbers_[i].set_f64(0, value);
      return true;
    }
  return false;
}

Status TrainEntry::run(const data::Batch &batch) {
  KILN_RETURN_IF_ERROR(bind(batch));
  KILN_RETURN_IF_ERROR(start());
  return finish();
}

Status TrainEntry::start() {
  KilnError error{};
  return api().start(context_.handle(), &error) == KILN_OK ? Status(Unit{}) : error_of(error);
}

Status TrainEntry::send() {
  KilnError error{};
  return api().send(context_.handle(), &error) == KILN_OK ? Status(Unit{}) : error_of(error);
}

Status TrainEntry::finish() {
  KilnError error{};
  return api().finish(context_.handle(), &error) == KILN_OK ? Status(Unit{}) : error_of(error);
}

Status TrainEntry::bind(const data::Batch &batch) {
  KilnError error{};
  for (size_t s = 0; s < dims_.size(); ++s)
    if (auto [field, axis] = dim_from_[s]; field >= 0)
      dims_[s] = batch.fields[size_t(field)].dims[size_t(axis)];
  if (!dims_.empty() && api().set_dims(context_.handle(), dims_.data(), uint32_t(dims_.size()), &error) != KILN_OK)
    return error_of(error);
  for (uint32_t i = 0; i < field_of_.size(); ++i) {
    KilnTensor tensor = field_of_[i] < 0 ? bound(numbers_[i]) : batch.fields[size_t(field_of_[i])].tensor();
    tensor.rank = field_of_[i] < 0 ? tensor.rank : 0; // its shape is what the symbols make it; the size is checked
    tensor.dims = field_of_[i] < 0 ? tensor.dims : nullptr;
    if (api().bind_input(context_.handle(), i, &tensor, &error) != KILN_OK)
      return error_of(error);
  }
  for (uint32_t i = 0; !bound_ && i < outputs_.size(); ++i) {
    KilnTensor tensor = bound(outputs_[i]);
    tensor.dims = nullptr;
    if (api().bind_output(context_.handle(), i, &tensor, &error) != KILN_OK)
      return error_of(error);
  }
  bound_ = true;
  return Unit{};
}

std::vector<double> TrainEntry::numbers() const {
  std::vector<double> out;
  for (const Tensor &t : outputs_)
    out.push_back(t.count() == 1 ? t.at_f64(0) : std::numeric_limits<double>::quiet_NaN());
  return out;
}

Status run_init(const runtime::Module &module, runtime::Variables &variables, uint64_t seed) {
  if (api().find_entry(module.handle(), "init") < 0)
    return Unit{};
  KilnError error{};
  runtime::ContextOptions options;
  options.variables = &variables;
  auto context = module.try_context("init", options, error);
  if (!context || !context->try_input("seed", std::span(&seed, 1), {}, error) || !context->try_run(error))
    return error_of(error);
  return Unit{};
}

Result<std::vector<std::pair<std::string, Tensor>>> read_variables(const runtime::Module &module, const runtime::Variables &variables) {
  std::vector<std::pair<std::string, Tensor>> out;
  auto list = variable_list(module);
  for (uint32_t i = 0; i < list.size(); ++i) {
    Tensor t(*dtype_from_code(int(list[i].dtype)), {list[i].dims, list[i].dims + list[i].rank});
    KilnError error{};
    if (api().variable_read(module.handle(), variables.data(), i, t.mutable_bytes(), t.bytes().size(), &error) != KILN_OK)
      return error_of(error);
    out.emplace_back(list[i].name, std::move(t));
  }
  return out;
}

Status write_checkpoint(const std::string &path, const runtime::Module &module, const runtime::Variables &variables,
                        const Position &position, const std::map<std::string, std::string> &metadata) {
  KILN_TRY(tensors, read_variables(module, variables));
  std::map<std::string, std::string> all = metadata;
  all["kiln.epoch"] = std::to_string(position.epoch);
  all["kiln.batch"] = std::to_string(position.batch);
  all["kiln.step"] = std::to_string(position.step);
  if (position.best) {
    all["kiln.best"] = fmt::format("{:a}", *position.best);
    all["kiln.best_epoch"] = std::to_string(position.best_epoch);
  }
  return write_safetensors(path, tensors, all);
}

Result<Position> read_checkpoint(const std::string &path, const runtime::Module &module, runtime::Variables &variables,
                                 const std::map<std::string, std::string> &metadata) {
  KILN_TRY(file, read_safetensors(path));
  for (const auto &[key, value] : metadata)
    if (auto it = file.metadata.find(key); it == file.metadata.end() || it->second != value)
      return Error{fmt::format("'{}' is of a run with another {} ({} instead of {}); go on with the same, or without --resume", path, key,
                               it == file.metadata.end() ? "none" : it->second, value)};
  auto number = [&](const char *key) {
    auto it = file.metadata.find(key);
    char *end = nullptr;
    int64_t value = it == file.metadata.end() ? -1 : std::strtoll(it->second.c_str(), &end, 10);
    return end && *end == '\0' ? value : -1;
  };
  Position position{number("kiln.epoch"), number("kiln.batch"), number("kiln.step"), {}, 0};
  if (position.epoch < 0 || position.batch < 0 || position.step < 0)
    return Error{fmt::format("'{}' does not say where its run stands: it is no checkpoint of `kiln train`", path)};
  if (auto best = file.metadata.find("kiln.best"); best != file.metadata.end()) {
    char *end = nullptr;
    position.best = std::strtod(best->second.c_str(), &end);
    position.best_epoch = number("kiln.best_epoch");
    if (*end != '\0' || !std::isfinite(*position.best) || position.best_epoch < 0)
      return Error{fmt::format("'{}': the best validation so far is '{}', which is no number", path, best->second)};
  }
  auto list = variable_list(module);
  std::vector<const Tensor *> values;
  for (const KilnVariableInfo &info : list) {
    auto it = std::find_if(file.tensors.begin(), file.tensors.end(), [&](const auto &t) { return t.first == info.name; });
    if (it == file.tensors.end())
      return Error{fmt::format("'{}' has no '{}'", path, info.name)};
    const Tensor &t = it->second;
    if (uint32_t(t.dtype()) != info.dtype || t.dims() != std::vector<int64_t>(info.dims, info.dims + info.rank))
      return Error{fmt::format("'{}': '{}' is {}, which is not what the model has", path, info.name, t.type().text())};
    values.push_back(&t);
  }
  for (uint32_t i = 0; i < values.size(); ++i) {
    KilnError error{};
    if (api().variable_write(module.handle(), variables.data(), i, values[i]->bytes().data(), values[i]->bytes().size(), &error) != KILN_OK)
      return error_of(error);
  }
  return position;
}

} // namespace kiln
