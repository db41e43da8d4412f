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

Result<std::vector<int64_t>> sizes(const KilnValueInfo &info, int64_t batch) {
  std::vector<int64_t> out;
  for (uint32_t d = 0; d < info.rank; ++d) {
    if (info.dims[d].value < 0 && (info.dims[d].symbol < 0 || batch <= 0))
      return Error{fmt::format("'{}' has the size {}; give it with --batch or --dim {}=...", info.name, info.dims[d].text,
                               info.dims[d].text)};
    out.push_back(info.dims[d].value >= 0 ? info.dims[d].value : batch);
  }
  return out;
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

Result<TrainEntry> TrainEntry::open(const runtime::Module &module, const std::string &name, runtime::Variables &variables,
                                    const KilnExecutor *executor, int64_t batch) {
  KilnError error{};
  int32_t index = api().find_entry(module.handle(), name.c_str());
  if (index < 0)
    return Error{fmt::format("the model has no entry '{}'; write `export func {}(...)`", name, name)};
  KilnEntryInfo info{};
  api().entry_info(module.handle(), uint32_t(index), &info);
  if (info.symbol_count > 1)
    return Error{fmt::format("'{}' has {} symbolic dims; training takes one, the batch: fix the others with --dim", name,
                             info.symbol_count)};
  runtime::ContextOptions options;
  if (info.symbol_count == 1) {
    if (batch <= 0)
      return Error{fmt::format("'{}' takes batches of any size; choose one with --batch", name)};
    options.dims = {batch};
  }
  options.variables = &variables;
  options.executor = executor;
  auto context = module.try_context(name, options, error);
  if (!context)
    return error_of(error);
  TrainEntry out(std::move(*context));
  KilnValueInfo value{};
  for (uint32_t i = 0; i < info.input_count; ++i) {
    api().input_info(module.handle(), uint32_t(index), i, &value);
    KILN_TRY(dims, sizes(value, batch));
    out.inputs_.push_back({value.name, *dtype_from_code(int(value.dtype)), std::move(dims)});
  }
  for (uint32_t i = 0; i < info.output_count; ++i) {
    api().output_info(module.handle(), uint32_t(index), i, &value);
    KILN_TRY(dims, sizes(value, batch));
    out.output_names_.push_back(value.name);
    out.outputs_.emplace_back(*dtype_from_code(int(value.dtype)), dims);
  }
  return out;
}

Status TrainEntry::run(const std::vector<const Tensor *> &inputs) {
  KilnError error{};
  for (uint32_t i = 0; i < inputs.size(); ++i) {
    KilnTensor tensor = bound(*inputs[i]);
    if (api().bind_input(context_.handle(), i, &tensor, &error) != KILN_OK)
      return error_of(error);
  }
  for (uint32_t i = 0; i < outputs_.size(); ++i) {
    KilnTensor tensor = bound(outputs_[i]);
    if (api().bind_output(context_.handle(), i, &tensor, &error) != KILN_OK)
      return error_of(error);
  }
  if (api().run(context_.handle(), &error) != KILN_OK)
    return error_of(error);
  return Unit{};
}

std::vector<double> TrainEntry::numbers() const {
  std::vector<double> out;
  for (const Tensor &t : outputs_)
    out.push_back(t.count() == 1 ? t.at_f64(0) : std::numeric_limits<double>::quiet_NaN());
  return out;
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
  Position position{number("kiln.epoch"), number("kiln.batch"), number("kiln.step")};
  if (position.epoch < 0 || position.batch < 0 || position.step < 0)
    return Error{fmt::format("'{}' does not say where its run stands: it is no checkpoint of `kiln train`", path)};
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
