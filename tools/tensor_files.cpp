#include "tools/tensor_files.h"

#include "frontend/data/csv.h"
#include "frontend/data/idx.h"
#include "frontend/data/npy.h"
#include "frontend/data/picture.h"
#include "frontend/files/file_writer.h"
#include "frontend/files/mapped_file.h"
#include "tools/chart.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <optional>

namespace kiln {
namespace {

std::string ending(const std::string &path) {
  std::string out = std::filesystem::path(path).extension().string();
  std::transform(out.begin(), out.end(), out.begin(), [](unsigned char c) { return char(std::tolower(c)); });
  return out;
}

const KilnApi &api() { return *kiln_get_api(KILN_API_VERSION); }

Status write_picture(const std::string &path, const Tensor &tensor) {
  std::vector<int64_t> dims(tensor.dims().begin(), tensor.dims().end());
  if (dims.size() == 4 && dims[0] == 1)
    dims.erase(dims.begin());
  bool fits = dims.size() == 3 && (dims[0] == 1 || dims[0] == 3) && (is_float(tensor.dtype()) || tensor.dtype() == DType::u8);
  if (!fits)
    return Error{fmt::format("{}: a picture is f32[3, H, W] or f32[1, H, W] from 0 to 1, or u8, not {}", path, tensor.type().text())};
  data::Picture picture{dims[1], dims[2], dims[0], std::vector<uint8_t>(size_t(tensor.count()))};
  int64_t pixels = dims[1] * dims[2];
  for (int64_t c = 0; c < dims[0]; ++c)
    for (int64_t i = 0; i < pixels; ++i) {
      double v = tensor.at_f64(c * pixels + i) * (tensor.dtype() == DType::u8 ? 1 : 255);
      picture.pixels[size_t(i * dims[0] + c)] = uint8_t(std::lround(std::isfinite(v) ? std::clamp(v, 0.0, 255.0) : 0));
    }
  KILN_TRY(bytes, data::encode_png(picture));
  return write_file(path, bytes);
}

Status write_table(const std::string &path, const Tensor &tensor) {
  int64_t columns = tensor.rank() > 1 ? tensor.dims().back() : 1;
  std::string out;
  for (int64_t i = 0; i < tensor.count(); ++i)
    out += fmt::format("{:.9g}{}", tensor.at_f64(i), (i + 1) % columns == 0 ? "\n" : ",");
  return write_file(path, out);
}

} // namespace

bool is_picture(const std::string &path) {
  std::string e = ending(path);
  return e == ".png" || e == ".jpg" || e == ".jpeg";
}

bool is_data_file(const std::string &path) {
  return is_picture(path) || path.find(".csv:") != std::string::npos || path.ends_with("-ubyte") || path.ends_with("-ubyte.gz");
}

namespace {

Result<Tensor> read_column(const std::string &path, const std::string &column) {
  KILN_TRY(file, MappedFile::open(path));
  std::string_view text(reinterpret_cast<const char *>(file->bytes().data()), file->size());
  auto csv = data::parse_csv(text, {});
  if (!csv)
    return Error{fmt::format("{}: {}", path, csv.error().message)};
  auto at = std::find(csv->header.begin(), csv->header.end(), column);
  size_t index = size_t(at - csv->header.begin());
  if (at == csv->header.end()) {
    char *end = nullptr;
    index = std::strtoul(column.c_str(), &end, 10);
    if (column.empty() || *end || csv->rows.empty() || index >= csv->rows[0].size())
      return Error{fmt::format("{} has no column '{}'; it has {}", path, column, fmt::join(csv->header, ", "))};
  }
  Tensor out(DType::f32, {int64_t(csv->rows.size())});
  for (size_t i = 0; i < csv->rows.size(); ++i) {
    auto number = data::csv_number(csv->rows[i][index]);
    if (!number)
      return Error{fmt::format("{}:{}: '{}' is no number", path, csv->lines[i], csv->rows[i][index])};
    out.set_f64(int64_t(i), *number);
  }
  return out;
}

Result<Tensor> read_arrays(const Session &session, const std::string &input, const std::string &path) {
  KILN_TRY(all, read_idx(path));
  KilnValueInfo info{};
  for (uint32_t i = 0; api().input_info(session.module(), session.entry(), i, &info) == KILN_OK; ++i) {
    if (input != info.name)
      continue;
    auto dtype = dtype_from_code(int(info.dtype));
    std::vector<int64_t> dims;
    int64_t each = 1;
    for (uint32_t d = 0; d < info.rank; ++d)
      dims.push_back(info.dims[d].symbol < 0 ? info.dims[d].value : -1);
    for (size_t d = 1; d < dims.size(); ++d)
      each *= dims[d];
    int64_t have = all.rank() > 0 ? all.dims()[0] : 0;
    if (!dtype || dims.empty() || each < 1 || have == 0 || all.count() / have != each || dims[0] > have)
      return Error{fmt::format("--input {}: {} is {}, which does not fit {}", input, path, all.type().text(), session.input_text(input))};
    if (dims[0] < 0)
      dims[0] = have;
    Tensor out(*dtype, dims);
    double scale = is_float(*dtype) && all.dtype() == DType::u8 ? 1 / 255.0 : 1;
    for (int64_t k = 0; k < out.count(); ++k)
      out.set_f64(k, all.at_f64(k) * scale);
    return out;
  }
  return Error{fmt::format("--input {}: the model has no such input", input)};
}

} // namespace

Result<Tensor> read_data_for(const Session &session, const std::string &input, const std::string &path) {
  if (is_picture(path))
    return read_picture_for(session, input, path);
  if (size_t at = path.find(".csv:"); at != std::string::npos)
    return read_column(path.substr(0, at + 4), path.substr(at + 5));
  return read_arrays(session, input, path);
}

Result<Tensor> read_picture_for(const Session &session, const std::string &input, const std::string &path) {
  KilnValueInfo info{};
  bool found = false;
  for (uint32_t i = 0; !found && api().input_info(session.module(), session.entry(), i, &info) == KILN_OK; ++i)
    found = input == info.name;
  auto dtype = found ? dtype_from_code(int(info.dtype)) : std::nullopt;
  uint32_t first = info.rank == 4 ? 1 : 0;
  bool fits = dtype && (info.rank == 3 || info.rank == 4) && (*dtype == DType::f32 || *dtype == DType::u8) &&
              (first == 0 || info.dims[0].symbol >= 0 || info.dims[0].value == 1);
  int64_t channels = fits && info.dims[first].symbol < 0 ? info.dims[first].value : 3;
  if (!fits || (channels != 1 && channels != 3))
    return Error{fmt::format("--input {}: a picture goes to f32[1, 3, H, W] or f32[3, H, W] (one channel: grey; u8 as it is)", input)};
  KILN_TRY(file, MappedFile::open(path));
  auto picture = data::decode_picture(file->bytes(), channels == 1);
  if (!picture)
    return Error{fmt::format("{}: {}", path, picture.error().message)};
  int64_t height = info.dims[first + 1].symbol < 0 ? info.dims[first + 1].value : picture->height;
  int64_t width = info.dims[first + 2].symbol < 0 ? info.dims[first + 2].value : picture->width;
  if (height != picture->height || width != picture->width)
    picture = data::resized(*picture, height, width);
  std::vector<int64_t> dims{channels, height, width};
  if (first)
    dims.insert(dims.begin(), 1);
  Tensor out(*dtype, dims);
  int64_t pixels = height * width;
  for (int64_t c = 0; c < channels; ++c)
    for (int64_t i = 0; i < pixels; ++i) {
      int value = picture->pixels[size_t(i * channels + c)];
      if (*dtype == DType::u8)
        out.set_i64(c * pixels + i, value);
      else
        out.set_f64(c * pixels + i, value / 255.0);
    }
  return out;
}

Status write_tensor(const std::string &path, const std::string &name, const Tensor &tensor, bool text) {
  std::string e = ending(path);
  if (e == ".png")
    return write_picture(path, tensor);
  if (e == ".csv")
    return write_table(path, tensor);
  if (e == ".svg") {
    KILN_TRY(svg, chart_svg(name, tensor));
    return write_file(path, svg);
  }
  return write_npy(path, tensor, text);
}

namespace {

// What the numbers of a field of the training data stand for: the package's metadata has it.
std::vector<std::string> alphabet(const Session &session) {
  const char *key = nullptr, *value = nullptr;
  std::vector<std::string> out;
  for (uint32_t i = 0; api().metadata(session.module(), i, &key, &value) == KILN_OK; ++i) {
    std::string name = key;
    if (!name.starts_with("data.") || !name.ends_with(".names"))
      continue;
    auto list = nlohmann::json::parse(value, nullptr, false);
    if (list.is_array() && list.size() > out.size() && std::all_of(list.begin(), list.end(), [](const auto &x) { return x.is_string(); }))
      out = list.get<std::vector<std::string>>();
  }
  return out;
}

// The longest tokens that fit, from the left.
Result<std::vector<int64_t>> tokens_of(const std::string &text, const std::vector<std::string> &names) {
  std::vector<int64_t> out;
  for (size_t at = 0; at < text.size();) {
    size_t best = names.size();
    for (size_t i = 0; i < names.size(); ++i)
      if (!names[i].empty() && text.compare(at, names[i].size(), names[i]) == 0 && (best == names.size() || names[i].size() > names[best].size()))
        best = i;
    if (best == names.size())
      return Error{fmt::format("--prompt: the model has not seen '{}'", text.substr(at, 8))};
    out.push_back(int64_t(best));
    at += names[best].size();
  }
  return out;
}

} // namespace

Status run_fed(Session &session, const FeedOptions &options) {
  std::vector<std::pair<size_t, std::string>> feeds;
  auto outputs = session.output_names(), inputs = session.input_names();
  for (const std::string &text : options.feeds) {
    size_t equals = text.find('=');
    std::string from = text.substr(0, equals), to = equals == std::string::npos ? "" : text.substr(equals + 1);
    auto output = std::find(outputs.begin(), outputs.end(), from);
    if (output == outputs.end() || std::find(inputs.begin(), inputs.end(), to) == inputs.end())
      return Error{fmt::format("--feed {}: write OUTPUT=INPUT; outputs: {}; inputs: {}", text, fmt::join(outputs, ", "), fmt::join(inputs, ", "))};
    feeds.emplace_back(size_t(output - outputs.begin()), to);
  }
  std::vector<std::string> names = alphabet(session);
  auto show = [&](const Tensor &t) {
    for (int64_t i = 0; i < t.count(); ++i) {
      int64_t id = is_integer(t.dtype()) ? t.at_i64(i) : -1;
      if (id >= 0 && id < int64_t(names.size()))
        std::cout << names[size_t(id)];
      else
        std::cout << fmt::format("{:.9g}{}", t.at_f64(i), i + 1 < t.count() ? "," : "\n");
    }
    std::cout << std::flush;
  };
  if (!options.prompt.empty()) {
    if (feeds.empty() || names.empty())
      return Error{feeds.empty() ? "--prompt goes to the input of --feed OUTPUT=INPUT"
                                 : "--prompt: the package does not say what its numbers stand for; train it with `kiln train --data FILE.txt ...`"};
    KILN_TRY(tokens, tokens_of(options.prompt, names));
    for (size_t i = 0; i < tokens.size(); ++i) {
      KILN_RETURN_IF_ERROR(session.fill_input(feeds[0].second, double(tokens[i])));
      if (i + 1 < tokens.size())
        KILN_RETURN_IF_ERROR(session.run());
    }
    std::cout << options.prompt;
  }
  for (int64_t i = 0; i < options.repeat; ++i) {
    KILN_RETURN_IF_ERROR(session.run());
    for (const auto &[output, input] : feeds)
      KILN_RETURN_IF_ERROR(session.set_input(input, session.outputs()[output]));
    show(session.outputs()[feeds.empty() ? 0 : feeds[0].first]);
  }
  if (!names.empty())
    std::cout << "\n";
  return Unit{};
}

} // namespace kiln
