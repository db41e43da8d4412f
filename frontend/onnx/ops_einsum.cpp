// Einsum: the terms are multiplied from left to right, each product one matrix product over the labels
// that neither the result nor a later term needs.
#include "frontend/onnx/ops.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace kiln::onnx {
namespace {

using Labels = std::string; // one char a dim; those of an ellipsis are '0', '1', ... from the right

struct Term {
  Val value;
  Labels labels;
};

bool contains(const Labels &labels, char c) { return labels.find(c) != Labels::npos; }

Result<Val> arranged(Emitter &e, const Term &t, const Labels &wanted) {
  std::vector<int64_t> order;
  for (char c : wanted)
    order.push_back(int64_t(t.labels.find(c)));
  return permute(e, t.value, order);
}

// A label twice in one operand takes the diagonal: the elements where both indices are the same.
Result<Term> without_repeats(Emitter &e, Term t) {
  for (size_t i = 0; i < t.labels.size(); ++i) {
    size_t k = t.labels.find(t.labels[i], i + 1);
    if (k == Labels::npos)
      continue;
    if (!e.require_equal(t.value.dim(int(i)), t.value.dim(int(k)), "Einsum"))
      return Error{fmt::format("the label '{}' stands for {} and {}", t.labels[i], t.value.dim(int(i)).text(),
                               t.value.dim(int(k)).text())};
    Shape both(size_t(t.value.rank()), Dim(1));
    both[i] = both[k] = t.value.dim(int(i));
    auto index = [&](size_t axis) {
      return e.emit(Op::iota, {}, {{"shape", both}, {"axis", attr_int(int64_t(axis))}, {"dtype", DType::i64}});
    };
    KILN_TRY(row, index(i));
    KILN_TRY(column, index(k));
    KILN_TRY(on, e.emit(Op::eq, {row, column}));
    KILN_TRY(kept, e.emit(Op::where, {on, t.value, e.scalar(t.value.dtype(), 0)}));
    KILN_TRY(summed, e.emit(Op::reduce_sum, {kept}, {{"axes", attr_ints(std::vector<int>{int(k)})}, {"keepdims", false}}));
    t.value = summed;
    t.labels.erase(k, 1);
    --i;
  }
  return t;
}

// Adds up the labels that nothing else needs.
Result<Term> without_unneeded(Emitter &e, Term t, const Labels &needed) {
  std::vector<int> axes;
  Labels kept;
  for (size_t i = 0; i < t.labels.size(); ++i) {
    if (contains(needed, t.labels[i]))
      kept += t.labels[i];
    else
      axes.push_back(int(i));
  }
  if (axes.empty())
    return t;
  KILN_TRY(sum, e.emit(Op::reduce_sum, {t.value}, {{"axes", attr_ints(axes)}, {"keepdims", false}}));
  return Term{sum, kept};
}

Result<Term> product(Emitter &e, const Term &a, const Term &b, const Labels &needed) {
  Labels batch, left, right, inner;
  for (char c : a.labels)
    (!contains(b.labels, c) ? left : contains(needed, c) ? batch : inner) += c;
  for (char c : b.labels)
    if (!contains(a.labels, c))
      right += c;
  KILN_TRY(x, arranged(e, a, batch + left + inner));
  KILN_TRY(y, arranged(e, b, batch + inner + right));
  auto matrix = [&](const Val &v, size_t rows, size_t columns) {
    std::span<const Dim> dims = v.type.shape;
    Shape shape(dims.begin(), dims.begin() + std::ptrdiff_t(batch.size()));
    shape.push_back(element_count(dims.subspan(batch.size(), rows)));
    shape.push_back(element_count(dims.subspan(batch.size() + rows, columns)));
    return reshape(e, v, shape);
  };
  KILN_TRY(m, matrix(x, left.size(), inner.size()));
  KILN_TRY(n, matrix(y, inner.size(), right.size()));
  KILN_TRY(out, e.emit(Op::dot, {m, n}));
  Shape shape(out.type.shape.begin(), out.type.shape.begin() + std::ptrdiff_t(batch.size()));
  for (size_t i = 0; i < left.size(); ++i)
    shape.push_back(x.type.shape[batch.size() + i]);
  for (size_t i = 0; i < right.size(); ++i)
    shape.push_back(y.type.shape[batch.size() + inner.size() + i]);
  KILN_TRY(apart, reshape(e, out, shape));
  return Term{apart, batch + left + right};
}

struct Equation {
  std::vector<Labels> terms;
  std::optional<Labels> result; // as written
};

Result<Labels> expanded(const Labels &written, int rank, int &ellipsis) {
  size_t dots = written.find("...");
  Labels out = written;
  if (dots != Labels::npos) {
    int count = rank < 0 ? ellipsis : rank - int(written.size()) + 3;
    if (count < 0 || count > 10)
      return Error{fmt::format("the term '{}' does not fit an operand of {} dims", written, rank)};
    ellipsis = std::max(ellipsis, count);
    Labels rest;
    for (int i = count; i-- > 0;)
      rest += char('0' + i);
    out = written.substr(0, dots) + rest + written.substr(dots + 3);
  }
  for (char c : out)
    if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')))
      return Error{fmt::format("the term '{}' holds '{}'", written, c)};
  return out;
}

Result<Equation> parse(std::string text) {
  std::erase(text, ' ');
  if (text.size() > 1024 || text.find_first_of("0123456789") != std::string::npos)
    return Error{"the equation is too long, or holds digits"};
  Equation out;
  size_t arrow = text.find("->");
  if (arrow != std::string::npos) {
    out.result = text.substr(arrow + 2);
    text.resize(arrow);
  }
  for (size_t at = 0; at <= text.size();) {
    size_t comma = std::min(text.find(',', at), text.size());
    out.terms.push_back(text.substr(at, comma - at));
    at = comma + 1;
  }
  return out;
}

} // namespace

Status import_einsum(OnnxNode &n) {
  Emitter &e = n.emitter();
  KILN_TRY(equation, parse(n.get_string("equation", "")));
  if (equation.terms.size() != n.input_count())
    return Error{fmt::format("the equation has {} terms for {} inputs", equation.terms.size(), n.input_count())};
  int ellipsis = 0;
  std::vector<Term> terms;
  std::map<char, int> uses;
  for (size_t i = 0; i < n.input_count(); ++i) {
    KILN_TRY(labels, expanded(equation.terms[i], n.rank(i), ellipsis));
    if (int(labels.size()) != n.rank(i))
      return Error{fmt::format("the term '{}' does not fit {}", equation.terms[i], n.in(i).type.text())};
    for (char c : labels)
      ++uses[c];
    KILN_TRY(term, without_repeats(e, {n.in(i), labels}));
    terms.push_back(term);
  }
  Labels result;
  if (equation.result) {
    KILN_TRY(labels, expanded(*equation.result, -1, ellipsis));
    result = labels;
  } else {
    for (int i = ellipsis; i-- > 0;)
      result += char('0' + i);
    for (auto [c, count] : uses)
      if (count == 1 && c > '9')
        result += c;
  }
  for (char c : result)
    if (!uses.contains(c) || std::count(result.begin(), result.end(), c) != 1)
      return Error{fmt::format("the result's label '{}' is not in a term, or twice in the result", c)};
  Term all = terms[0];
  for (size_t i = 0; i < terms.size(); ++i) {
    Labels later = result;
    for (size_t k = i + 1; k < terms.size(); ++k)
      later += terms[k].labels;
    if (i > 0) {
      KILN_TRY(left, without_unneeded(e, all, later + terms[i].labels));
      KILN_TRY(right, without_unneeded(e, terms[i], later + all.labels));
      KILN_TRY(next, product(e, left, right, later));
      all = next;
    }
    KILN_TRY(reduced, without_unneeded(e, all, later));
    all = reduced;
  }
  return n.finish(arranged(e, all, result));
}

} // namespace kiln::onnx
