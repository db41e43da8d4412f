// Operators of strings whose results are as long as the strings say: how many parts StringSplit finds, how many
// strings StringNormalizer keeps, is a size that the run finds.
#include "frontend/onnx/ops.h"
#include "frontend/onnx/selection.h"
#include "frontend/onnx/text.h"

#include <fmt/format.h>

namespace kiln::onnx {
namespace {

// Strings as rows, i64 arithmetic over their bytes.
class Splitter {
public:
  Splitter(Emitter &e, const Val &rows, std::optional<int64_t> most)
      : e_(e), rows_(rows), most_(most), width_(text_width(rows)) {}

  // Whether the delimiter begins at each byte, matches from left to right without a common byte.
  Result<Val> matches(const std::string &delimiter) {
    KILN_TRY(wide, widen(e_, rows_, width_ + int64_t(delimiter.size()) - 1));
    Val all;
    for (size_t j = 0; j < delimiter.size(); ++j) {
      KILN_TRY(shifted, slice_axis(e_, wide, 1, int64_t(j), width_));
      KILN_TRY(is, e_.emit(Op::eq, {shifted, e_.scalar(DType::u8, uint8_t(delimiter[j]))}));
      if (j > 0) {
        KILN_TRY(both, e_.emit(Op::logical_and, {all, is}));
        is = both;
      }
      all = is;
    }
    return has_border(delimiter) ? first_matches(all, int64_t(delimiter.size())) : Result<Val>(all);
  }

  // Whether each byte is part of a word, and whether it is its first or its last one.
  Status words() {
    KILN_TRY(length, text_length(e_, rows_));
    KILN_TRY(end, unsqueezed(e_, length, 1));
    KILN_TRY(at, counted(e_, width_));
    KILN_TRY(inside, e_.emit(Op::lt, {at, end}));
    KILN_TRY(from_tab, e_.emit(Op::ge, {rows_, e_.scalar(DType::u8, 9)}));
    KILN_TRY(to_return, e_.emit(Op::le, {rows_, e_.scalar(DType::u8, 13)}));
    KILN_TRY(control, e_.emit(Op::logical_and, {from_tab, to_return}));
    KILN_TRY(blank, e_.emit(Op::eq, {rows_, e_.scalar(DType::u8, ' ')}));
    KILN_TRY(space, e_.emit(Op::logical_or, {control, blank}));
    KILN_TRY(other, e_.emit(Op::logical_not, {space}));
    KILN_TRY(word, e_.emit(Op::logical_and, {inside, other}));
    KILN_TRY(ones, convert(e_, word, DType::i64));
    KILN_TRY(padded, e_.emit(Op::pad, {ones}, {{"lo", std::vector<Dim>{0, 1}}, {"hi", std::vector<Dim>{0, 1}}}));
    KILN_TRY(before, slice_axis(e_, padded, 1, 0, width_));
    KILN_TRY(after, slice_axis(e_, padded, 1, 2, width_));
    KILN_TRY(begins, e_.emit(Op::gt, {ones, before}));
    KILN_TRY(ends, e_.emit(Op::gt, {ones, after}));
    first_ = begins;
    last_ = ends;
    return Unit{};
  }

  // Parts between delimiters.
  Status split(const std::string &delimiter) {
    KILN_TRY(found, matches(delimiter));
    KILN_TRY(numbers, running_count(found));
    KILN_TRY(total, count(found));
    KILN_TRY(cuts, limited(total, 0));
    KILN_TRY(parts, e_.emit(Op::add, {cuts, number(e_, 1)}));
    count_ = parts;
    KILN_TRY(size, bind(floordiv(width_, int64_t(delimiter.size())) + 1, 1));
    // Part p goes from behind match p to match p + 1, counted from 1; the last goes to the end.
    KILN_TRY(at, counted(e_, width_));
    KILN_TRY(behind, e_.emit(Op::add, {at, number(e_, int64_t(delimiter.size()))}));
    KILN_TRY(starts, place(found, numbers, behind, 0, size));
    KILN_TRY(stops, place(found, numbers, at, 1, size));
    KILN_TRY(index, counted(e_, size));
    KILN_TRY(cut_column, unsqueezed(e_, cuts, 1));
    KILN_TRY(is_cut, e_.emit(Op::lt, {index, cut_column}));
    return finish(size, starts, stops, is_cut);
  }

  // Parts between runs of white space.
  Status split_words() {
    KILN_RETURN_IF_ERROR(words());
    KILN_TRY(numbers, running_count(first_));
    KILN_TRY(total, count(first_));
    KILN_TRY(parts, limited(total, 1));
    count_ = parts;
    KILN_TRY(size, bind(floordiv(width_ + 1, 2), 1));
    KILN_TRY(at, counted(e_, width_));
    KILN_TRY(behind, e_.emit(Op::add, {at, number(e_, 1)}));
    KILN_TRY(starts, place(first_, numbers, at, 1, size));
    KILN_TRY(stops, place(last_, numbers, behind, 1, size));
    // The last part that is allowed goes to the end of the string.
    KILN_TRY(index, counted(e_, size));
    Val is_cut = e_.scalar(DType::bool_, 1);
    if (most_) {
      KILN_TRY(below, e_.emit(Op::lt, {index, number(e_, *most_)}));
      is_cut = below;
    }
    return finish(size, starts, stops, is_cut);
  }

  const Val &parts() const { return parts_; } // text[R, P]
  const Val &part_count() const { return count_; } // i64[R]

private:
  static bool has_border(const std::string &text) {
    for (size_t n = 1; n < text.size(); ++n)
      if (text.compare(0, n, text, text.size() - n, n) == 0)
        return true;
    return false;
  }

  // The leftmost matches that do not overlap: a scan over the bytes that remembers how many to pass over.
  Result<Val> first_matches(const Val &candidates, int64_t length) {
    KILN_TRY(turned, permute(e_, candidates, {1, 0}));
    Shape row = {rows_.dim(0)};
    KILN_TRY(start, broadcast_to(e_, e_.scalar(DType::i64, 0), row));
    Block body;
    Val left = e_.argument(body, {DType::i64, row}, "left"), here = e_.argument(body, {DType::bool_, row}, "here");
    {
      IntoBlock scope(e_.builder(), body);
      KILN_TRY(free, e_.emit(Op::le, {left, e_.scalar(DType::i64, 0)}));
      KILN_TRY(taken, e_.emit(Op::logical_and, {here, free}));
      KILN_TRY(less, e_.emit(Op::sub, {left, e_.scalar(DType::i64, 1)}));
      KILN_TRY(next, e_.emit(Op::where, {taken, e_.scalar(DType::i64, double(length - 1)), less}));
      KILN_TRY(next_id, e_.materialize(next));
      KILN_TRY(taken_id, e_.materialize(taken));
      body.results = {next_id, taken_id};
    }
    std::vector<Block> regions;
    regions.push_back(std::move(body));
    std::vector<Val> operands = {start, turned};
    KILN_TRY(results, e_.emit_all(Op::scan, operands, {{"carried", attr_int(1)}}, std::move(regions)));
    return permute(e_, results.at(1), {1, 0});
  }

  Result<Val> running_count(const Val &mask) {
    KILN_TRY(numbers, convert(e_, mask, DType::i64));
    return e_.emit(Op::cumsum, {numbers}, {{"axis", attr_int(1)}});
  }
  Result<Val> count(const Val &mask) {
    KILN_TRY(numbers, convert(e_, mask, DType::i64));
    return e_.emit(Op::reduce_sum, {numbers}, {{"axes", std::vector<Dim>{1}}, {"keepdims", false}});
  }
  Result<Val> limited(const Val &total, int64_t more) {
    return most_ ? e_.emit(Op::minimum, {total, number(e_, *most_ + more)}) : Result<Val>(total);
  }

  // The largest count as the size of the new axis.
  Result<Dim> bind(const Dim &bound, int64_t more) {
    if (rows_.dim(0).is_const(0))
      return Dim(0);
    KILN_TRY(largest, e_.emit(Op::reduce_max, {count_}, {{"axes", std::vector<Dim>{0}}, {"keepdims", false}}));
    KILN_TRY(some, e_.emit(Op::maximum, {largest, number(e_, 0)}));
    return e_.bind_size(some, most_ ? min(bound, *most_ + more) : bound, "parts");
  }

  // i64[R, P]: for each p the value of `at` where the mark with the number p + `first` is; 0 without one.
  Result<Val> place(const Val &marks, const Val &numbers, const Val &at, int64_t first, const Dim &size) {
    // What is no mark, or beyond the parts, goes to a place behind them.
    KILN_TRY(part, e_.emit(Op::sub, {numbers, number(e_, first)}));
    KILN_TRY(marked, e_.emit(Op::where, {marks, part, number(e_, size)}));
    KILN_TRY(to, e_.emit(Op::minimum, {marked, number(e_, size)}));
    KILN_TRY(values, broadcast_to(e_, at, {rows_.dim(0), width_}));
    KILN_TRY(blank, broadcast_to(e_, number(e_, 0), {rows_.dim(0), size + Dim(1)}));
    KILN_TRY(placed, e_.emit(Op::scatter_elements, {blank, to, values}, {{"axis", attr_int(1)}}));
    return slice_axis(e_, placed, 1, 0, size);
  }

  // Bytes from `starts` to `stops`, or to the end of the string where the part is not cut there; as wide as the longest
  // part.
  Status finish(const Dim &size, const Val &starts, const Val &stops, const Val &is_cut) {
    KILN_TRY(length, text_length(e_, rows_));
    KILN_TRY(end, unsqueezed(e_, length, 1));
    KILN_TRY(stop, e_.emit(Op::where, {is_cut, stops, end}));
    KILN_TRY(index, counted(e_, size));
    KILN_TRY(counts, unsqueezed(e_, count_, 1));
    KILN_TRY(exists, e_.emit(Op::lt, {index, counts}));
    KILN_TRY(last, e_.emit(Op::where, {exists, stop, starts}));
    KILN_TRY(part_width, longest(starts, last));
    KILN_TRY(first_column, unsqueezed(e_, starts, 2));
    KILN_TRY(last_column, unsqueezed(e_, last, 2));
    KILN_TRY(at, counted(e_, part_width));
    KILN_TRY(from, e_.emit(Op::add, {at, first_column}));
    KILN_TRY(inside, e_.emit(Op::lt, {from, last_column}));
    KILN_TRY(safe, e_.emit(Op::minimum, {from, number(e_, width_ - 1)}));
    // Of all bytes, row after row.
    KILN_TRY(row, counted(e_, rows_.dim(0)));
    KILN_TRY(row_start, e_.emit(Op::mul, {row, number(e_, width_)}));
    KILN_TRY(row_column, reshape(e_, row_start, {rows_.dim(0), 1, 1}));
    KILN_TRY(place, e_.emit(Op::add, {safe, row_column}));
    KILN_TRY(flat, reshape(e_, rows_, {rows_.dim(0) * width_}));
    KILN_TRY(bytes, e_.emit(Op::gather, {flat, place}, {{"axis", attr_int(0)}}));
    KILN_TRY(out, e_.emit(Op::where, {inside, bytes, e_.scalar(DType::u8, 0)}));
    parts_ = as_text(out);
    return Unit{};
  }

  Result<Dim> longest(const Val &starts, const Val &stops) {
    if (rows_.dim(0).is_const(0))
      return width_;
    KILN_TRY(lengths, e_.emit(Op::sub, {stops, starts}));
    KILN_TRY(most, e_.emit(Op::reduce_max, {lengths}, {{"axes", std::vector<Dim>{0, 1}}, {"keepdims", false}}));
    KILN_TRY(some, e_.emit(Op::maximum, {most, number(e_, 1)}));
    return e_.bind_size(some, width_, "part_width");
  }

  Emitter &e_;
  Val rows_; // u8[R, L]
  std::optional<int64_t> most_;
  Dim width_;
  Val first_, last_, parts_, count_;
};

} // namespace

Status import_string_split(OnnxNode &n) {
  Emitter &e = n.emitter();
  const Val &x = n.in(0);
  if (!x.text)
    return Error{fmt::format("its input is {}, not strings", describe(x))};
  std::string delimiter = n.get_string("delimiter", "");
  std::optional<int64_t> most;
  if (n.has_attr("maxsplit"))
    most = n.get_int("maxsplit", 0);
  if (most && (*most < 0 || *most > (int64_t(1) << 40)))
    most.reset();
  if (delimiter.find('\0') != std::string::npos)
    return Error{"a delimiter with a zero byte is not supported"};
  Shape shape = text_shape(x);
  KILN_TRY(rows, reshape(e, x, {element_count(shape), text_width(x)}));
  Splitter splitter(e, as_text(rows), most);
  KILN_RETURN_IF_ERROR(delimiter.empty() ? splitter.split_words() : splitter.split(delimiter));
  KILN_TRY(counts, reshape(e, splitter.part_count(), shape));
  shape.push_back(splitter.parts().dim(1));
  shape.push_back(text_width(splitter.parts()));
  KILN_TRY(parts, reshape(e, splitter.parts(), std::move(shape)));
  n.set(0, as_text(parts));
  n.set(1, counts);
  return Unit{};
}

Result<Val> without_stop_words(Emitter &e, const Val &x, std::span<const std::string> stop_words, bool case_matters) {
  Shape shape = text_shape(x);
  if (shape.size() != 1 && !(shape.size() == 2 && shape[0].is_const(1)))
    return Error{fmt::format("its input is {}; where it removes stop words that must be a row of strings", describe(x))};
  const Dim &count = shape.back();
  KILN_TRY(rows, reshape(e, x, {count, text_width(x)}));
  rows.text = true;
  KILN_TRY(words, text_constant(e, stop_words));
  Val compared = rows;
  if (!case_matters) {
    KILN_TRY(low_rows, change_case(e, rows, false));
    KILN_TRY(low_words, change_case(e, words, false));
    compared = low_rows;
    words = low_words;
  }
  KILN_TRY(against, unsqueezed(e, compared, 1));
  KILN_TRY(is, text_equal(e, as_text(against), words));
  KILN_TRY(stops, e.emit(Op::reduce_any, {is}, {{"axes", std::vector<Dim>{1}}, {"keepdims", false}}));
  KILN_TRY(kept, e.emit(Op::logical_not, {stops}));
  KILN_TRY(none, e.emit(Op::reduce_all, {stops}, {{"axes", std::vector<Dim>{0}}, {"keepdims", true}}));
  KILN_TRY(mask, e.emit(Op::concat, {kept, none}, {{"axis", attr_int(0)}}));
  KILN_TRY(selection, select_true(e, mask, "kept"));
  KILN_TRY(padded, e.emit(Op::pad, {rows}, {{"lo", std::vector<Dim>{0, 0}}, {"hi", std::vector<Dim>{1, 0}}}));
  KILN_TRY(out, e.emit(Op::gather, {padded, selection.positions}, {{"axis", attr_int(0)}}));
  shape.back() = selection.count;
  shape.push_back(text_width(x));
  KILN_TRY(shaped, reshape(e, out, std::move(shape)));
  return as_text(shaped);
}

} // namespace kiln::onnx
