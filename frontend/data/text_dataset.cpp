// Text as a source: windows of it with the tokens that follow, or its lines, each with what follows every token.
#include "frontend/data/tokens.h"
#include "frontend/data/windows.h"
#include "frontend/files/mapped_file.h"

#include <fmt/format.h>

#include <cstring>

namespace kiln::data {
namespace {

constexpr const char *kOptions = "window=, stride=, tokens=chars|bytes|words, vocabulary=FILE, fields=x,y";

// x: the newline and a line's tokens; y: its tokens and a newline. y is padded with what cross_entropy ignores.
class Lines : public Dataset {
public:
  Lines(std::vector<std::vector<int64_t>> lines, std::vector<Field> fields, int64_t newline)
      : lines_(std::move(lines)), fields_(std::move(fields)), newline_(newline) {}
  int64_t size() const override { return int64_t(lines_.size()); }
  const std::vector<Field> &fields() const override { return fields_; }
  int64_t length(int64_t index) const override { return int64_t(lines_[size_t(index)].size()) + 1; }
  bool get(int64_t index, uint64_t, std::span<std::byte *const> out, std::string &) const override {
    const auto &line = lines_[size_t(index)];
    std::memcpy(out[0], &newline_, sizeof newline_);
    std::memcpy(out[0] + sizeof newline_, line.data(), line.size() * sizeof(int64_t));
    std::memcpy(out[1], line.data(), line.size() * sizeof(int64_t));
    std::memcpy(out[1] + line.size() * sizeof(int64_t), &newline_, sizeof newline_);
    return true;
  }

private:
  std::vector<std::vector<int64_t>> lines_;
  std::vector<Field> fields_;
  int64_t newline_;
};

Result<DatasetPtr> open_lines(const std::string &path, std::string_view text, const std::vector<std::string> &tokens, bool words,
                              std::vector<Field> fields) {
  int64_t newline = -1;
  for (size_t i = 0; i < tokens.size(); ++i)
    if (tokens[i] == "\n")
      newline = int64_t(i);
  if (newline < 0)
    return Error{fmt::format("'{}': the vocabulary has no \"\\n\", which begins and ends lines", path)};
  std::vector<std::vector<int64_t>> lines;
  int64_t number = 0;
  for (size_t at = 0; at < text.size();) {
    size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.ends_with('\r'))
      line.remove_suffix(1);
    auto numbers = tokenise(line, tokens, words);
    if (!numbers)
      return Error{fmt::format("'{}' line {} of the file, {}", path, number, numbers.error().message)};
    if (!numbers->empty())
      lines.push_back(std::move(*numbers));
  }
  if (lines.empty())
    return Error{fmt::format("'{}' has no lines", path)};
  for (Field &field : fields)
    field.dims = {kVaries};
  fields[1].pad = -100;
  return DatasetPtr(std::make_shared<Lines>(std::move(lines), std::move(fields), newline));
}

} // namespace

Result<DatasetPtr> open_text(SourceText &source, bool lines) {
  KILN_TRY(window, source.take_int("window", 0, 1, int64_t(1) << 40));
  KILN_TRY(stride, source.take_int("stride", std::max<int64_t>(window, 1), 1, int64_t(1) << 40));
  std::string kind = source.take("tokens").value_or("chars"), names = source.take("fields").value_or("x,y");
  auto vocabulary = source.take("vocabulary");
  KILN_RETURN_IF_ERROR(source.finish(kOptions));
  size_t comma = names.find(',');
  if (comma == std::string::npos || comma == 0 || comma + 1 == names.size())
    return Error{fmt::format("{}: fields={} must name two inputs, as in fields=x,y", source.path, names)};
  if (lines == (window > 0))
    return Error{lines ? fmt::format("{}: lines have no window", source.path)
                       : fmt::format("{}: window=64 says how many tokens an example has; lines:{} makes each line one", source.path, source.path)};
  KILN_TRY(file, MappedFile::open(source.path));
  std::string_view text(reinterpret_cast<const char *>(file->bytes().data()), file->size());
  auto tokens = vocabulary ? read_tokens(*vocabulary) : find_tokens(text, kind, lines);
  if (!tokens)
    return Error{vocabulary ? tokens.error().message : fmt::format("'{}' {}", source.path, tokens.error().message)};
  Field x{.name = names.substr(0, comma), .dtype = KILN_I64, .names = *tokens}, y = x;
  y.name = names.substr(comma + 1);
  bool words = kind == "words" && !vocabulary;
  if (lines)
    return open_lines(source.path, text, *tokens, words, {x, y});
  auto numbers = tokenise(text, *tokens, words);
  if (!numbers)
    return Error{fmt::format("'{}' {}", source.path, numbers.error().message)};
  auto rows = std::make_shared<const Tensor>(Tensor::from_i64(*numbers));
  return window_dataset({{x, rows, 0, window, true}, {y, rows, 1, window, true}}, stride, source.path);
}

} // namespace kiln::data
