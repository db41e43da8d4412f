#include "tools/training_data.h"

#include "frontend/data/idx.h"
#include "tools/cli.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

namespace kiln {
namespace {

int64_t product_of(std::span<const int64_t> dims) {
  int64_t out = 1;
  for (int64_t d : dims)
    out *= d;
  return out;
}

Tensor converted(const Tensor &from, DType dtype, const Normalise *normalise) {
  bool image = from.dtype() == DType::u8 && is_float(dtype);
  Tensor out(dtype, from.dims());
  for (int64_t i = 0; i < from.count(); ++i) {
    if (!is_float(dtype)) {
      out.set_i64(i, from.at_i64(i));
      continue;
    }
    double value = from.at_f64(i);
    if (image)
      value /= 255;
    if (normalise)
      value = (value - normalise->mean) / normalise->std;
    out.set_f64(i, value);
  }
  return out;
}

} // namespace

Result<std::pair<std::string, Tensor>> read_data(const std::string &text) {
  size_t at = text.find("=@");
  if (at == std::string::npos || at == 0)
    return Error{fmt::format("--data {}: write INPUT=@FILE, for .npy, .npz and IDX files", text)};
  std::string name = text.substr(0, at), path = text.substr(at + 2);
  if (path.find("idx") != std::string::npos && !path.ends_with(".npy") && !path.ends_with(".npz")) {
    KILN_TRY(tensor, read_idx(path));
    return std::pair(name, std::move(tensor));
  }
  return parse_input(text);
}

Result<Normalise> parse_normalise(const std::string &text) {
  Normalise out;
  size_t equals = text.find('='), comma = text.find(',', equals == std::string::npos ? 0 : equals);
  Error error{fmt::format("--normalise {}: write INPUT=MEAN,STD", text)};
  if (equals == std::string::npos || equals == 0 || comma == std::string::npos)
    return error;
  char *end = nullptr;
  out.name = text.substr(0, equals);
  out.mean = std::strtod(text.c_str() + equals + 1, &end);
  if (end != text.c_str() + comma)
    return error;
  out.std = std::strtod(text.c_str() + comma + 1, &end);
  if (*end != '\0' || !std::isfinite(out.mean) || !std::isfinite(out.std) || out.std == 0)
    return error;
  return out;
}

Result<std::vector<std::pair<std::string, Tensor>>> fit_data(std::vector<std::pair<std::string, Tensor>> arrays,
                                                             const std::vector<TrainEntry::Input> &inputs,
                                                             const std::vector<Normalise> &normalise) {
  std::vector<std::pair<std::string, Tensor>> out;
  std::string wanted;
  for (const auto &input : inputs)
    wanted += fmt::format("{}{}: {}[{}]", wanted.empty() ? "" : ", ", input.name, dtype_name(input.dtype), fmt::join(input.dims, ", "));
  for (const auto &[name, tensor] : arrays)
    if (std::none_of(inputs.begin(), inputs.end(), [&, key = &name](const auto &i) { return i.name == *key; }))
      return Error{fmt::format("the model has no input '{}'; it has {}", name, wanted)};
  for (const auto &input : inputs) {
    auto it = std::find_if(arrays.begin(), arrays.end(), [&](const auto &a) { return a.first == input.name; });
    if (it == arrays.end())
      return Error{fmt::format("no data for the input '{}'; the model wants {}", input.name, wanted)};
    Tensor &tensor = it->second;
    std::vector<int64_t> example(input.dims.begin() + (input.dims.empty() ? 0 : 1), input.dims.end());
    bool fits = tensor.rank() > 0 && !input.dims.empty() &&
                product_of(std::span(tensor.dims()).subspan(1)) == product_of(example);
    if (!fits)
      return Error{fmt::format("the data for '{}' is {}: an example does not fill {}[{}]", input.name, tensor.type().text(),
                               dtype_name(input.dtype), fmt::join(input.dims, ", "))};
    if (is_float(tensor.dtype()) && !is_float(input.dtype))
      return Error{fmt::format("the data for '{}' is {}; the model wants {}", input.name, tensor.type().text(), dtype_name(input.dtype))};
    auto rule = std::find_if(normalise.begin(), normalise.end(), [&](const Normalise &n) { return n.name == input.name; });
    const Normalise *found = rule == normalise.end() ? nullptr : &*rule;
    if (found && !is_float(input.dtype))
      return Error{fmt::format("--normalise {}: the input is {}, not a float", input.name, dtype_name(input.dtype))};
    Tensor values = tensor.dtype() == input.dtype && !found ? std::move(tensor) : converted(tensor, input.dtype, found);
    std::vector<int64_t> dims = example;
    dims.insert(dims.begin(), values.dims()[0]);
    Tensor shaped(values.dtype(), dims);
    std::memcpy(shaped.mutable_bytes(), values.bytes().data(), values.bytes().size());
    out.emplace_back(input.name, std::move(shaped));
  }
  return out;
}

} // namespace kiln
