#include "tools/training_data.h"

#include "tools/cli.h"
#include "tools/usage.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace kiln {
namespace {

int64_t product_of(std::span<const int64_t> dims) {
  int64_t out = 1;
  for (int64_t d : dims)
    out *= d;
  return out;
}

// Each text may be a whole source or fields of arrays; those that are fields belong together.
Result<data::DatasetPtr> open_sources(const std::vector<std::string> &texts) {
  std::string error, fields;
  std::vector<data::DatasetPtr> parts;
  for (const std::string &text : texts) {
    size_t at = text.find("=@");
    if (at != std::string::npos && text.find_first_of(" \"") > at) {
      fields += (fields.empty() ? "" : " ") + text;
      continue;
    }
    parts.push_back(data::try_open(text, error));
    if (!parts.back())
      return Error{fmt::format("--data {}: {}", text, error)};
  }
  if (!fields.empty()) {
    parts.push_back(data::try_open(fields, error));
    if (!parts.back())
      return Error{fmt::format("--data {}: {}", fields, error)};
  }
  auto out = data::try_zip(std::move(parts), error);
  if (!out)
    return Error{"--data: " + error};
  return out;
}

std::optional<double> parse_number(const std::string &text) {
  char *end = nullptr;
  double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0' || !std::isfinite(value))
    return std::nullopt;
  return value;
}

struct Normalising {
  std::string name;
  std::optional<double> mean, std; // neither: of the data
};

Result<Normalising> parse_normalise(const std::string &text) {
  size_t equals = text.find('='), comma = text.find(',', equals == std::string::npos ? 0 : equals);
  Error error{fmt::format("'{}': write INPUT=MEAN,DEVIATION or INPUT=auto", text)};
  if (equals == std::string::npos || equals == 0)
    return error;
  Normalising out{text.substr(0, equals), {}, {}};
  if (text.substr(equals + 1) == "auto")
    return out;
  out.mean = comma == std::string::npos ? std::nullopt : parse_number(text.substr(equals + 1, comma - equals - 1));
  out.std = comma == std::string::npos ? std::nullopt : parse_number(text.substr(comma + 1));
  if (!out.mean || !out.std || *out.std == 0)
    return error;
  return out;
}

Status normalise(const std::string &text, TrainData &data) {
  KILN_TRY(how, parse_normalise(text));
  auto &input = data.inputs[how.name];
  if (how.mean) {
    input.mean = {*how.mean};
    input.std = {*how.std};
    return Unit{};
  }
  data::Statistics found;
  std::string why;
  if (!data::try_statistics(*data.train, how.name, found, why))
    return Error{fmt::format("--normalise {}: {}", text, why)};
  input.mean = found.mean;
  input.std = found.std;
  return Unit{};
}

Status parse_augment(const std::string &text, TrainData &data) {
  size_t equals = text.find('=');
  Error error{fmt::format("'{}': write INPUT=flip, INPUT=crop:4 or INPUT=flip,crop:4", text)};
  if (equals == std::string::npos || equals == 0)
    return error;
  auto &input = data.inputs[text.substr(0, equals)];
  std::string list = text.substr(equals + 1);
  for (size_t at = 0; at <= list.size();) {
    size_t comma = std::min(list.find(',', at), list.size());
    std::string word = list.substr(at, comma - at);
    at = comma + 1;
    auto crop = word.starts_with("crop:") ? parse_int(word.substr(5)) : std::nullopt;
    if (word == "flip")
      input.flip = true;
    else if (crop && *crop > 0 && *crop < 1 << 20)
      input.crop = *crop;
    else
      return error;
  }
  return Unit{};
}

struct Part {
  double fraction;
  bool last;
};

Result<Part> parse_split(const std::string &text) {
  bool last = text.starts_with("last:");
  auto fraction = parse_number(last ? text.substr(5) : text);
  if (!fraction || *fraction <= 0 || *fraction >= 1)
    return Error{fmt::format("'{}': write the part for validation, as in 0.2, or last:0.2 for the last examples", text)};
  return Part{*fraction, last};
}

Status split_off(const std::string &text, uint64_t seed, TrainData &data) {
  KILN_TRY(part, parse_split(text));
  data::Split parts = data::split(data.train, part.fraction, seed, part.last);
  if (parts.first->size() == 0 || parts.second->size() == 0)
    return Error{fmt::format("--split {} of {} examples leaves one part empty", text, data.train->size())};
  data.train = parts.first;
  data.validation = parts.second;
  return Unit{};
}

const data::Field *find_field(const data::Dataset &dataset, const std::string &name) {
  for (const data::Field &field : dataset.fields())
    if (field.name == name)
      return &field;
  return nullptr;
}

std::string wanted_text(const EntryShape &entry) {
  std::string out;
  for (const auto &input : entry.inputs)
    out += (out.empty() ? "" : ", ") + input.text();
  return out;
}

} // namespace

Result<std::pair<std::string, double>> parse_setting(const std::string &text) {
  size_t equals = std::min(text.find('='), text.size());
  auto value = equals < text.size() ? parse_number(text.substr(equals + 1)) : std::nullopt;
  if (equals == 0 || !value)
    return Error{fmt::format("'{}': write INPUT=NUMBER", text)};
  return std::pair(text.substr(0, equals), *value);
}

void DataOptions::add_to(CLI::App &verb) {
  verb.add_option("-d,--data", data, "where the examples are, see below")->required()->allow_extra_args(false);
  CLI::Option *given = verb.add_option("--validate", validation, "data for the entry `evaluate`, after each epoch")->allow_extra_args(false);
  verb.add_option("--split", split, "0.2 or last:0.2: a part of the data, drawn by the seed or its end, is for validation")
      ->check(well_formed(parse_split))
      ->excludes(given);
  verb.add_option("--normalise", normalise, "INPUT=MEAN,DEVIATION or INPUT=auto")->allow_extra_args(false)->check(well_formed(parse_normalise));
  verb.add_option("--augment", augment, "INPUT=flip,crop:4 for pictures: mirrored, and shifted by up to 4 pixels")
      ->allow_extra_args(false)
      ->check(well_formed([](const std::string &text) { TrainData ignored; return parse_augment(text, ignored); }));
}

Result<TrainData> open_data(const DataOptions &options) {
  TrainData out;
  KILN_TRY(train, open_sources(options.data));
  out.train = train;
  if (!options.validation.empty()) {
    KILN_TRY(validation, open_sources(options.validation));
    out.validation = validation;
  }
  if (!options.split.empty())
    KILN_RETURN_IF_ERROR(split_off(options.split, options.seed, out));
  for (const std::string &text : options.normalise)
    KILN_RETURN_IF_ERROR(normalise(text, out));
  for (const std::string &text : options.augment)
    KILN_RETURN_IF_ERROR(parse_augment(text, out));
  for (const auto &[name, what] : out.inputs)
    if (!find_field(*out.train, name))
      return Error{fmt::format("--normalise and --augment: there is no data '{}'", name)};
  for (const data::Field &field : out.train->fields())
    for (const std::string &text : options.data)
      if ((" " + text).find(" " + field.name + "=") != std::string::npos)
        out.named.push_back(field.name);
  return out;
}

Result<data::DatasetPtr> fit_data(const data::DatasetPtr &dataset, const TrainData &data, const EntryShape &entry, bool augment) {
  std::string wanted = wanted_text(entry);
  for (const std::string &name : data.named)
    if (std::none_of(entry.inputs.begin(), entry.inputs.end(), [&](const auto &i) { return i.name == name; }))
      return Error{fmt::format("the model has no input '{}'; it has {}", name, wanted)};
  std::vector<data::Transform> transforms;
  for (const auto &input : entry.inputs) {
    if (input.dims.empty())
      continue;
    const data::Field *field = find_field(*dataset, input.name);
    if (!field)
      return Error{fmt::format("no data for the input '{}'; '{}' wants {}", input.name, entry.name, wanted)};
    data::Transform t{.field = input.name, .dtype = uint32_t(input.dtype)};
    std::span<const int64_t> example = std::span(input.dims).subspan(1);
    bool known = std::all_of(example.begin(), example.end(), [](int64_t d) { return d >= 0; });
    bool varies = !field->dims.empty() && field->dims[0] == data::kVaries;
    if (known && input.symbols[0] < 0 && input.dims[0] < 0)
      known = false; // y: i64[B*T]
    if (known && !varies && input.dims[0] >= 0 && input.dims[0] != entry.batch && entry.batch > 0 &&
        input.dims[0] * product_of(example) == entry.batch * product_of(field->dims))
      known = false; // x: i64[8, 128], y: i64[1024]: a batch's elements in one row
    if (known && (varies || product_of(example) != product_of(field->dims)))
      return Error{fmt::format("the data for '{}' is {}[{}]: an example does not fill {}", input.name, dtype_name(*dtype_from_code(int(field->dtype))),
                               fmt::join(field->dims, ", "), input.text())};
    if (known) {
      t.reshape = true;
      t.dims.assign(example.begin(), example.end());
    }
    if (auto it = data.inputs.find(input.name); it != data.inputs.end()) {
      t.mean = it->second.mean;
      t.std = it->second.std;
      t.flip = augment && it->second.flip;
      t.crop = augment ? it->second.crop : 0;
    }
    transforms.push_back(std::move(t));
  }
  std::string error;
  auto out = data::try_transformed(dataset, std::move(transforms), error);
  if (!out)
    return Error{error};
  return out;
}

Result<std::vector<int64_t>> entry_dims(const EntryShape &entry, const std::vector<const data::Dataset *> &datasets, int64_t batch,
                                        const std::vector<int64_t> &buckets) {
  std::vector<int64_t> out(entry.symbols.size(), -1);
  if (entry.batch_symbol >= 0)
    out[size_t(entry.batch_symbol)] = batch;
  for (const auto &input : entry.inputs)
    for (size_t d = 1; d < input.dims.size(); ++d) {
      if (input.symbols[d] < 0 || input.symbols[d] == entry.batch_symbol)
        continue;
      int64_t &most = out[size_t(input.symbols[d])];
      for (const data::Dataset *dataset : datasets) {
        const data::Field *field = find_field(*dataset, input.name);
        if (!field || d > field->dims.size())
          continue;
        most = std::max(most, field->dims[d - 1]);
        for (int64_t i = 0; field->dims[d - 1] == data::kVaries && i < dataset->size(); ++i)
          most = std::max(most, dataset->length(i));
        if (field->dims[d - 1] == data::kVaries && !buckets.empty())
          most = std::max(most, buckets.back());
      }
    }
  for (size_t s = 0; s < out.size(); ++s)
    if (out[s] < 0)
      return Error{fmt::format("the data does not tell the size {} of '{}'; fix it with --dim {}=...", entry.symbols[s], entry.name, entry.symbols[s])};
  return out;
}

} // namespace kiln
