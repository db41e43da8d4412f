// CSV files as a source: columns become fields, text becomes classes, and lines become examples or windows over a series.
#include "frontend/data/csv.h"
#include "frontend/data/windows.h"
#include "frontend/files/mapped_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <set>

namespace kiln::data {
namespace {

constexpr const char *kOptions = "header=yes|no, separator=, classes=COLUMNS, missing=skip or a number, window=, horizon=, stride=, and NAME=COLUMNS";

std::optional<int64_t> column_number(std::string_view text) {
  int64_t value = 0;
  auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  return code == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

struct Table {
  std::string path;
  std::shared_ptr<const MappedFile> file; // what cells are views of
  Csv csv;
  size_t width() const { return csv.rows[0].size(); }
  std::string columns_text() const {
    return csv.header.empty() ? fmt::format("it has no header, and columns 0 to {}", width() - 1)
                              : fmt::format("its columns are {}", fmt::join(csv.header, ", "));
  }
  std::string column_text(size_t c) const { return csv.header.empty() ? fmt::format("column {}", c) : fmt::format("column '{}'", csv.header[c]); }

  // "0-3", "age", "-1" (the last), and lists of them.
  Result<std::vector<size_t>> columns(const std::string &text) const {
    std::vector<size_t> out;
    for (size_t at = 0; at <= text.size();) {
      size_t comma = std::min(text.find(',', at), text.size());
      std::string part = text.substr(at, comma - at);
      at = comma + 1;
      auto named = std::find(csv.header.begin(), csv.header.end(), part);
      size_t dash = part.find('-', 1);
      auto first = column_number(part.substr(0, dash)), last = dash == std::string::npos ? first : column_number(part.substr(dash + 1));
      if (named != csv.header.end()) {
        first = last = named - csv.header.begin();
      } else if (first && *first < 0) {
        first = last = *first + int64_t(width());
      }
      if (!first || !last || *first < 0 || *last >= int64_t(width()) || *last < *first)
        return Error{fmt::format("'{}' has no column '{}'; {}", path, part, columns_text())};
      for (int64_t c = *first; c <= *last; ++c)
        out.push_back(size_t(c));
    }
    return out;
  }
};

// Distinct values in order; numbers by size, so that class 10 comes after class 9.
std::vector<std::string> classes_of(const Table &table, size_t column) {
  std::set<std::string_view> distinct;
  for (const auto &row : table.csv.rows)
    distinct.insert(row[column]);
  std::vector<std::string> out(distinct.begin(), distinct.end());
  if (std::all_of(out.begin(), out.end(), [](const std::string &s) { return csv_number(s).has_value(); }))
    std::sort(out.begin(), out.end(), [](const std::string &a, const std::string &b) { return *csv_number(a) < *csv_number(b); });
  return out;
}

struct Column {
  std::vector<double> values;
  std::vector<std::string> names;
  bool whole = true;
};

Result<Column> read_column(const Table &table, size_t column, bool as_classes, std::optional<double> missing) {
  Column out;
  const auto &rows = table.csv.rows;
  if (as_classes || (!csv_number(rows[0][column]) && !rows[0][column].empty())) {
    out.names = classes_of(table, column);
    if (!as_classes && out.names.size() > 1000 && out.names.size() > rows.size() / 2)
      return Error{fmt::format("'{}' line {}: '{}' in {} is no number, and the column has too many different texts to be classes", table.path,
                               table.csv.lines[0], rows[0][column], table.column_text(column))};
    std::map<std::string_view, double> index;
    for (size_t i = 0; i < out.names.size(); ++i)
      index[out.names[i]] = double(i);
    for (const auto &row : rows)
      out.values.push_back(index[row[column]]);
    return out;
  }
  for (size_t r = 0; r < rows.size(); ++r) {
    std::string_view cell = rows[r][column];
    auto value = csv_number(cell);
    if (!value && cell.empty() && missing)
      value = missing;
    if (!value)
      return Error{cell.empty() ? fmt::format("'{}' line {}: nothing in {}; missing=skip leaves such lines out, missing=0 puts a number there",
                                              table.path, table.csv.lines[r], table.column_text(column))
                                : fmt::format("'{}' line {}: '{}' in {} is no number, as those above are; classes={} takes the column as names",
                                              table.path, table.csv.lines[r], cell, table.column_text(column),
                                              table.csv.header.empty() ? std::to_string(column) : table.csv.header[column])};
    out.whole &= *value == std::floor(*value) && std::abs(*value) < 9e15;
    out.values.push_back(*value);
  }
  return out;
}

// One column is [rows], of integers where all of them are; several are f32[rows, columns].
Result<std::pair<Field, Tensor>> read_field(const Table &table, const std::string &name, const std::string &text,
                                            const std::vector<size_t> &classes, std::optional<double> missing) {
  KILN_TRY(columns, table.columns(text));
  Field field{.name = name};
  auto rows = int64_t(table.csv.rows.size()), n = int64_t(columns.size());
  Tensor out(DType::f32, n == 1 ? std::vector<int64_t>{rows} : std::vector<int64_t>{rows, n});
  for (int64_t c = 0; c < n; ++c) {
    bool as_classes = std::find(classes.begin(), classes.end(), columns[size_t(c)]) != classes.end();
    KILN_TRY(column, read_column(table, columns[size_t(c)], as_classes, missing));
    if (n == 1 && column.whole)
      out = Tensor(DType::i64, {rows});
    for (int64_t r = 0; r < rows; ++r)
      out.set_f64(r * n + c, column.values[size_t(r)]);
    if (n == 1)
      field.names = std::move(column.names);
  }
  field.dtype = code_of(out.dtype());
  return std::pair(std::move(field), std::move(out));
}

Tensor with_columns(const Tensor &rows) {
  Tensor out(rows.dtype(), {rows.dims()[0], 1});
  std::memcpy(out.mutable_bytes(), rows.bytes().data(), rows.bytes().size());
  return out;
}

Result<Table> read_table(SourceText &source) {
  Table out;
  out.path = source.path;
  CsvOptions options;
  if (auto header = source.take("header")) {
    if (*header != "yes" && *header != "no")
      return Error{fmt::format("{}: header={} must be yes or no", source.path, *header)};
    options.header = *header == "yes";
  }
  if (auto separator = source.take("separator")) {
    if (separator->size() != 1 && *separator != "tab")
      return Error{fmt::format("{}: separator={} must be one character, or tab", source.path, *separator)};
    options.separator = *separator == "tab" ? '\t' : (*separator)[0];
  }
  KILN_TRY(file, MappedFile::open(source.path));
  auto bytes = file->bytes();
  auto csv = parse_csv({reinterpret_cast<const char *>(bytes.data()), bytes.size()}, options);
  if (!csv)
    return Error{fmt::format("'{}' line {}", source.path, csv.error().message)};
  out.csv = std::move(*csv);
  out.file = file;
  return out;
}

Status skip_missing(Table &table, const std::vector<std::string> &columns) {
  std::vector<size_t> used;
  for (const std::string &text : columns) {
    KILN_TRY(some, table.columns(text));
    used.insert(used.end(), some.begin(), some.end());
  }
  Csv &csv = table.csv;
  size_t kept = 0;
  for (size_t r = 0; r < csv.rows.size(); ++r) {
    if (std::any_of(used.begin(), used.end(), [&](size_t c) { return csv.rows[r][c].empty(); }))
      continue;
    if (kept != r) {
      csv.rows[kept] = std::move(csv.rows[r]);
      csv.lines[kept] = csv.lines[r];
    }
    ++kept;
  }
  csv.rows.resize(kept);
  csv.lines.resize(kept);
  if (kept == 0)
    return Error{fmt::format("'{}': each line lacks a cell", table.path)};
  return Unit{};
}

} // namespace

Result<DatasetPtr> open_csv(SourceText &source) {
  KILN_TRY(table, read_table(source));
  KILN_TRY(window, source.take_int("window", 0, 1, int64_t(1) << 40));
  KILN_TRY(horizon, source.take_int("horizon", 1, 1, int64_t(1) << 40));
  KILN_TRY(stride, source.take_int("stride", 1, 1, int64_t(1) << 40));
  std::vector<size_t> classes;
  if (auto text = source.take("classes")) {
    KILN_TRY(columns, table.columns(*text));
    classes = columns;
  }
  auto missing = source.take("missing");
  std::optional<double> instead = missing ? csv_number(*missing) : std::nullopt;
  if (missing && *missing != "skip" && !instead)
    return Error{fmt::format("{}: missing={} must be skip or a number", source.path, *missing)};
  if (source.words.empty())
    return Error{fmt::format("'{}': say which columns go to which input, as in x=0-3 y=4; {}. Options are {}", source.path, table.columns_text(), kOptions)};
  std::vector<std::string> texts;
  for (const auto &[name, columns] : source.words)
    texts.push_back(columns);
  if (missing && *missing == "skip")
    KILN_RETURN_IF_ERROR(skip_missing(table, texts));
  std::vector<std::pair<std::string, Tensor>> tensors;
  std::map<std::string, std::vector<std::string>> names;
  std::vector<Track> tracks;
  for (const auto &[name, columns] : source.words) {
    KILN_TRY(read, read_field(table, name, columns, classes, instead));
    if (!read.first.names.empty())
      names[name] = read.first.names;
    if (window > 0) {
      bool first = tracks.empty();
      if (first && read.second.rank() == 1) // [window, 1]: a series has its columns on the last axis, one of them too
        read.second = with_columns(read.second);
      tracks.push_back({read.first, std::make_shared<const Tensor>(std::move(read.second)), first ? 0 : window, first ? window : horizon, first});
    } else {
      tensors.emplace_back(name, std::move(read.second));
    }
  }
  if (window > 0)
    return window_dataset(std::move(tracks), stride, source.path);
  return tensor_dataset(std::move(tensors), std::move(names));
}

} // namespace kiln::data
