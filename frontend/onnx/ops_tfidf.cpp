// TfIdfVectorizer: how often each n-gram of a pool stands in a row, its items next to each other or with up to
// max_skip_count items between any two. Position by position, the items of all n-grams of one length are
// compared at once, and what is equal is counted.
#include "frontend/onnx/importer.h"
#include "frontend/onnx/ops.h"
#include "frontend/onnx/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace kiln::onnx {
namespace {

constexpr int64_t kMaxColumns = int64_t(1) << 24; // of the result

struct Pool {
  bool text = false;
  std::vector<std::string> strings;
  std::vector<int64_t> ints;
  std::vector<int64_t> begins; // of the n-grams of each length, and the end
  size_t size() const { return text ? strings.size() : ints.size(); }
  // n-grams of `length` items, and of all lengths
  int64_t count(int64_t length) const { return (begins[size_t(length)] - begins[size_t(length - 1)]) / length; }
  int64_t total() const {
    int64_t sum = 0;
    for (int64_t length = 1; length < int64_t(begins.size()); ++length)
      sum += count(length);
    return sum;
  }
};

Result<Pool> read_pool(OnnxNode &n) {
  Pool out;
  out.strings = n.get_strings("pool_strings");
  out.ints = n.get_ints("pool_int64s");
  out.text = !out.strings.empty();
  out.begins = n.get_ints("ngram_counts");
  if (out.text != n.in(0).text)
    return Error{fmt::format("its input is {}, but its pool holds {}", describe(n.in(0)), out.text ? "strings" : "integers")};
  if (out.begins.empty() || out.begins[0] != 0)
    return Error{"'ngram_counts' must begin with 0"};
  out.begins.push_back(int64_t(out.size()));
  for (size_t i = 0; i + 1 < out.begins.size(); ++i)
    if (out.begins[i] > out.begins[i + 1] || (out.begins[i + 1] - out.begins[i]) % int64_t(i + 1) != 0)
      return Error{fmt::format("'ngram_counts' gives the {}-grams no whole number of items of the pool", i + 1)};
  return out;
}

// bool[B, C, K]: whether each item of x[B, C] is item `j` of each n-gram of `length` items.
Result<Val> is_item(OnnxNode &n, const Val &x, const Pool &pool, int64_t length, int64_t j) {
  Emitter &e = n.emitter();
  int64_t begin = pool.begins[size_t(length - 1)], end = pool.begins[size_t(length)];
  if (pool.text) {
    std::vector<std::string> items;
    for (int64_t i = begin + j; i < end; i += length)
      items.push_back(pool.strings[size_t(i)]);
    return text_matches(e, x, items);
  }
  std::vector<int64_t> items;
  for (int64_t i = begin + j; i < end; i += length)
    items.push_back(pool.ints[size_t(i)]);
  KILN_TRY(against, reshape(e, x, {x.dim(0), x.dim(1), 1}));
  return e.emit(Op::eq, {against, e.ints(items)});
}

// f32[B, K]: how often each n-gram of `length` items stands in the rows, its items `distance` apart.
Result<Val> count_grams(Emitter &e, const Dim &columns, const std::vector<Val> &items, int64_t distance) {
  Dim positions = max(columns - distance * int64_t(items.size() - 1), 0);
  Val all;
  for (size_t j = 0; j < items.size(); ++j) {
    Dim start = positions.is_const(0) ? Dim(0) : Dim(distance * int64_t(j));
    if (!positions.is_const())
      start = min(start, columns - positions);
    KILN_TRY(part, slice_axis(e, items[j], 1, start, positions));
    if (j == 0) {
      all = part;
      continue;
    }
    KILN_TRY(both, e.emit(Op::logical_and, {all, part}));
    all = both;
  }
  KILN_TRY(numbers, convert(e, all, DType::f32));
  return e.emit(Op::reduce_sum, {numbers}, {{"axes", attr_ints(std::vector<int64_t>{1})}, {"keepdims", false}});
}

// The n-grams that count: of least to most items, with at most `skips` others between neighbours.
struct Grams {
  int64_t least, most, skips;
};

// f32[B, K]: how often each of the K n-grams of `length` items stands in the rows of `x`; 0 for lengths that do not count.
Result<Val> count_length(OnnxNode &n, const Val &x, const Pool &pool, const Grams &grams, int64_t length) {
  Emitter &e = n.emitter();
  if (length < grams.least || length > grams.most)
    return broadcast_to(e, e.scalar(DType::f32, 0), {x.dim(0), pool.count(length)});
  std::vector<Val> items;
  for (int64_t j = 0; j < length; ++j) {
    KILN_TRY(is, is_item(n, x, pool, length, j));
    items.push_back(is);
  }
  Val sum;
  for (int64_t distance = 1; distance <= (length == 1 ? 1 : grams.skips + 1); ++distance) {
    KILN_TRY(count, count_grams(e, x.dim(1), items, distance));
    if (distance == 1) {
      sum = count;
      continue;
    }
    KILN_TRY(more, e.emit(Op::add, {sum, count}));
    sum = more;
  }
  return sum;
}

// f32[B, grams]: of all the pool's n-grams.
Result<std::vector<Val>> count_all(OnnxNode &n, const Val &x, const Pool &pool, const Grams &grams) {
  std::vector<Val> counts;
  for (int64_t length = 1; length < int64_t(pool.begins.size()); ++length)
    if (pool.count(length) > 0) {
      KILN_TRY(count, count_length(n, x, pool, grams, length));
      counts.push_back(count);
    }
  return counts;
}

// The n-gram whose count each column of the result has; `grams`, one past the last, for columns without one.
Result<std::vector<int64_t>> column_sources(const std::vector<int64_t> &indexes, int64_t grams) {
  if (int64_t(indexes.size()) != grams || grams == 0)
    return Error{fmt::format("it has {} n-grams and {} 'ngram_indexes'", grams, indexes.size())};
  auto [least, most] = std::minmax_element(indexes.begin(), indexes.end());
  if (*least < 0 || *most >= kMaxColumns)
    return Error{fmt::format("'ngram_indexes' holds the column {}", *least < 0 ? *least : *most)};
  std::vector<int64_t> sources(size_t(*most) + 1, grams);
  for (size_t i = 0; i < indexes.size(); ++i)
    if (std::exchange(sources[size_t(indexes[i])], int64_t(i)) != grams)
      return Error{fmt::format("'ngram_indexes' gives the column {} to two n-grams", indexes[i])};
  return sources;
}

// Counts as the attribute `mode` wants them: TF as they are, IDF whether there are any, both but TF times the weights.
Result<Val> weigh(OnnxNode &n, Val out, const std::string &mode) {
  Emitter &e = n.emitter();
  if (mode == "IDF") {
    KILN_TRY(present, e.emit(Op::gt, {out, e.scalar(DType::f32, 0)}));
    KILN_TRY(ones, convert(e, present, DType::f32));
    out = ones;
  }
  auto weights = n.get_floats("weights");
  if (mode == "TF" || weights.empty())
    return out;
  int64_t outputs = out.dim(1).as_const();
  if (int64_t(weights.size()) != outputs)
    return Error{fmt::format("it has {} weights for {} columns", weights.size(), outputs)};
  Tensor list(DType::f32, {outputs});
  for (int64_t i = 0; i < outputs; ++i)
    list.set_f64(i, weights[size_t(i)]);
  return e.emit(Op::mul, {out, e.constant(std::move(list))});
}

} // namespace

Status import_tfidf_vectorizer(OnnxNode &n) {
  Emitter &e = n.emitter();
  KILN_TRY(pool, read_pool(n));
  Grams grams{n.get_int("min_gram_length", 1), n.get_int("max_gram_length", 1), n.get_int("max_skip_count", 0)};
  std::string mode = n.get_string("mode", "");
  if (grams.least < 1 || grams.most < grams.least || grams.skips < 0 || grams.skips > 1024)
    return Error{fmt::format("it asks for n-grams of {} to {} items with up to {} between them", grams.least, grams.most, grams.skips)};
  if (mode != "TF" && mode != "IDF" && mode != "TFIDF")
    return Error{fmt::format("'mode' is '{}'; there are TF, IDF and TFIDF", mode)};
  Val x = n.in(0);
  int rank = model_rank(x);
  if (rank < 1 || rank > 2)
    return Error{fmt::format("its input must be a row or rows of items, not {}", describe(x))};
  if (rank == 1) {
    Shape row = x.type.shape;
    row.insert(row.begin(), 1);
    KILN_TRY(one, reshape(e, x, std::move(row)));
    one.text = x.text;
    x = one;
  }
  if (!x.text) {
    KILN_TRY(whole, convert(e, x, DType::i64));
    x = whole;
  }
  KILN_TRY(counts, count_all(n, x, pool, grams));
  KILN_TRY(sources, column_sources(n.get_ints("ngram_indexes"), pool.total()));
  int64_t outputs = int64_t(sources.size());
  KILN_TRY(zeros, broadcast_to(e, e.scalar(DType::f32, 0), {x.dim(0), 1})); // for columns without an n-gram
  counts.push_back(zeros);
  KILN_TRY(joined, e.emit(Op::concat, counts, {{"axis", attr_int(1)}}));
  KILN_TRY(picked, e.emit(Op::gather, {joined, e.ints(sources)}, {{"axis", attr_int(1)}}));
  KILN_TRY(out, weigh(n, picked, mode));
  return n.finish(reshape(e, out, rank == 1 ? Shape{outputs} : Shape{x.dim(0), outputs}));
}

} // namespace kiln::onnx
