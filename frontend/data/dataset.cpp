// Datasets made of other datasets and of arrays, and how a source is opened by its text.
#include "frontend/data/dataset.h"

#include "frontend/files/mapped_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <numeric>

namespace kiln::data {
namespace {

class TensorDataset : public Dataset {
public:
  TensorDataset(std::vector<Tensor> tensors, std::vector<Field> fields) : tensors_(std::move(tensors)), fields_(std::move(fields)) {
    for (const Tensor &t : tensors_)
      bytes_.push_back(t.bytes().size() / size_t(std::max<int64_t>(t.dims()[0], 1)));
  }
  int64_t size() const override { return tensors_[0].dims()[0]; }
  const std::vector<Field> &fields() const override { return fields_; }
  bool get(int64_t index, uint64_t, std::span<std::byte *const> out, std::string &) const override {
    for (size_t i = 0; i < tensors_.size(); ++i)
      std::copy_n(tensors_[i].bytes().data() + size_t(index) * bytes_[i], bytes_[i], out[i]);
    return true;
  }

private:
  std::vector<Tensor> tensors_;
  std::vector<Field> fields_;
  std::vector<size_t> bytes_; // of an example
};

class Zip : public Dataset {
public:
  explicit Zip(std::vector<DatasetPtr> parts) : parts_(std::move(parts)) {
    for (const DatasetPtr &part : parts_)
      fields_.insert(fields_.end(), part->fields().begin(), part->fields().end());
  }
  int64_t size() const override { return parts_[0]->size(); }
  const std::vector<Field> &fields() const override { return fields_; }
  int64_t length(int64_t index) const override {
    int64_t out = 0;
    for (const DatasetPtr &part : parts_)
      out = std::max(out, part->length(index));
    return out;
  }
  bool get(int64_t index, uint64_t draw, std::span<std::byte *const> out, std::string &error) const override {
    size_t at = 0;
    for (const DatasetPtr &part : parts_) {
      size_t n = part->fields().size();
      if (!part->get(index, draw, out.subspan(at, n), error))
        return false;
      at += n;
    }
    return true;
  }

private:
  std::vector<DatasetPtr> parts_;
  std::vector<Field> fields_;
};

class Subset : public Dataset {
public:
  Subset(DatasetPtr of, std::vector<int64_t> indices) : of_(std::move(of)), indices_(std::move(indices)) {}
  int64_t size() const override { return int64_t(indices_.size()); }
  const std::vector<Field> &fields() const override { return of_->fields(); }
  int64_t length(int64_t index) const override { return of_->length(indices_[size_t(index)]); }
  bool get(int64_t index, uint64_t draw, std::span<std::byte *const> out, std::string &error) const override {
    return of_->get(indices_[size_t(index)], draw, out, error);
  }

private:
  DatasetPtr of_;
  std::vector<int64_t> indices_;
};

Result<DatasetPtr> open_source(const std::string &text) {
  KILN_TRY(source, SourceText::parse(text));
  std::string kind;
  for (const char *known : {"csv", "text", "lines", "images", "arrays"})
    if (source.path.starts_with(std::string(known) + ":")) {
      kind = known;
      source.path = source.path.substr(kind.size() + 1);
    }
  std::string extension = std::filesystem::path(source.path).extension().string();
  std::error_code ignored;
  if (kind.empty() && std::filesystem::is_directory(source.path, ignored))
    kind = "images";
  else if (kind.empty() && (extension == ".csv" || extension == ".tsv"))
    kind = "csv";
  else if (kind.empty() && extension == ".txt")
    kind = "text";
  if (kind == "csv")
    return open_csv(source);
  if (kind == "text" || kind == "lines")
    return open_text(source, kind == "lines");
  if (kind == "images")
    return open_pictures(source);
  if (kind == "arrays" || source.path.empty() || extension == ".npz")
    return open_arrays(source);
  return Error{fmt::format("'{}': what it holds is not clear from its name; write INPUT=@{} for an array, or csv:, text:, lines: or images: before it",
                           source.path, source.path)};
}

} // namespace

Dataset::~Dataset() = default;
int64_t Dataset::length(int64_t) const { return 0; }

Result<DatasetPtr> tensor_dataset(std::vector<std::pair<std::string, Tensor>> tensors, std::map<std::string, std::vector<std::string>> names) {
  if (tensors.empty())
    return Error{"there is no data"};
  std::vector<Tensor> values;
  std::vector<Field> fields;
  for (auto &[name, tensor] : tensors) {
    if (tensor.rank() == 0)
      return Error{fmt::format("the data '{}' is a single number; axis 0 counts examples", name)};
    if (tensor.dims()[0] != tensors[0].second.dims()[0])
      return Error{fmt::format("the data '{}' has {} examples, '{}' has {}", name, tensor.dims()[0], tensors[0].first, tensors[0].second.dims()[0])};
    fields.push_back({name, code_of(tensor.dtype()), {tensor.dims().begin() + 1, tensor.dims().end()}, 0, names[name]});
  }
  for (auto &[name, tensor] : tensors)
    values.push_back(std::move(tensor));
  return DatasetPtr(std::make_shared<TensorDataset>(std::move(values), std::move(fields)));
}

// Words are separated by spaces; "..." keeps them together, and \" and \\ are a quote and a backslash in there.
Result<SourceText> SourceText::parse(const std::string &text) {
  std::vector<std::string> words;
  bool quoted = false, in_word = false;
  for (size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == ' ' && !quoted) {
      in_word = false;
      continue;
    }
    if (!in_word)
      words.emplace_back();
    in_word = true;
    if (c == '"')
      quoted = !quoted;
    else if (c == '\\' && quoted && i + 1 < text.size())
      words.back() += text[++i];
    else
      words.back() += c;
  }
  if (quoted)
    return Error{fmt::format("{}: a quote is open", text)};
  if (words.empty())
    return Error{"no data: give a file, a folder, or INPUT=@FILE"};
  SourceText out;
  for (size_t i = 0; i < words.size(); ++i) {
    size_t equals = words[i].find('=');
    if (i == 0 && words[i].find("=@") == std::string::npos) {
      out.path = words[i];
    } else if (equals == std::string::npos || equals == 0) {
      return Error{fmt::format("{}: '{}' is no KEY=VALUE", text, words[i])};
    } else {
      out.words.emplace_back(words[i].substr(0, equals), words[i].substr(equals + 1));
    }
  }
  return out;
}

std::optional<std::string> SourceText::take(std::string_view key) {
  for (size_t i = 0; i < words.size(); ++i)
    if (words[i].first == key) {
      std::string value = words[i].second;
      words.erase(words.begin() + int64_t(i));
      return value;
    }
  return std::nullopt;
}

Result<int64_t> SourceText::take_int(std::string_view key, int64_t otherwise, int64_t least, int64_t most) {
  auto text = take(key);
  if (!text)
    return otherwise;
  int64_t value = 0;
  auto [end, code] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (code != std::errc() || end != text->data() + text->size() || value < least || value > most)
    return Error{fmt::format("{}: {}={} must be a whole number from {} to {}", path, key, *text, least, most)};
  return value;
}

Status SourceText::finish(std::string_view known) const {
  if (!words.empty())
    return Error{fmt::format("{}: there is no option '{}' here; there are {}", path, words[0].first, known)};
  return Unit{};
}

DatasetPtr try_open(const std::string &text, std::string &error) {
  try {
    auto out = open_source(text);
    if (out)
      return *out;
    error = out.error().message;
  } catch (const std::bad_alloc &) {
    error = fmt::format("{}: there is not enough memory for it", text);
  } catch (const std::exception &thrown) {
    error = fmt::format("{}: {}", text, thrown.what());
  }
  return nullptr;
}

DatasetPtr try_zip(std::vector<DatasetPtr> datasets, std::string &error) {
  for (size_t i = 0; i < datasets.size(); ++i) {
    if (datasets[i]->size() != datasets[0]->size()) {
      error = fmt::format("the data '{}' has {} examples, '{}' has {}", datasets[i]->fields()[0].name, datasets[i]->size(),
                          datasets[0]->fields()[0].name, datasets[0]->size());
      return nullptr;
    }
    for (size_t j = 0; j < i; ++j)
      for (const Field &a : datasets[i]->fields())
        for (const Field &b : datasets[j]->fields())
          if (a.name == b.name) {
            error = fmt::format("there is data for '{}' twice", a.name);
            return nullptr;
          }
  }
  if (datasets.empty())
    error = "there is no data";
  return datasets.empty() ? nullptr : datasets.size() == 1 ? datasets[0] : std::make_shared<Zip>(std::move(datasets));
}

DatasetPtr subset(DatasetPtr dataset, std::vector<int64_t> indices) {
  return std::make_shared<Subset>(std::move(dataset), std::move(indices));
}

Split split(DatasetPtr dataset, double fraction, uint64_t seed, bool last) {
  std::vector<int64_t> order(size_t(dataset->size()));
  std::iota(order.begin(), order.end(), int64_t(0));
  if (!last)
    shuffle(order, mix_bits(seed, 0x73706c6974));
  auto at = int64_t(order.size()) - int64_t(std::llround(double(order.size()) * std::clamp(fraction, 0.0, 1.0)));
  std::vector<int64_t> second(order.begin() + at, order.end());
  order.resize(size_t(at));
  std::sort(order.begin(), order.end());
  std::sort(second.begin(), second.end());
  return {subset(dataset, std::move(order)), subset(dataset, std::move(second))};
}

} // namespace kiln::data
