// An op of the table, drawn from one of its samples: sizes, dtypes and attributes are changed as long as
// infer accepts them, and operands are fitted to the result.
#include "tests/fuzz/graph_maker.h"

#include <algorithm>
#include <cmath>

namespace kiln::fuzz {

// A sample with other sizes, on its way into the graph.
struct GraphMaker::Draft {
  std::vector<TensorType> operands;
  std::vector<std::optional<ValueId>> given; // values that fit as they are
  Attrs attrs;
  InputRange range;
  std::map<int64_t, int64_t> sizes; // of the sample -> of the draft
};

namespace {

constexpr std::initializer_list<int64_t> kSizes = {1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 12, 15, 16, 17, 20, 31, 32, 33};

DType draw_dtype(Random &random) {
  static const std::vector<DType> kAll = {
#define KILN_DTYPE(name, bits, kind, code) DType::name,
#include "ir/dtypes.def"
#undef KILN_DTYPE
  };
  return random.pick(kAll);
}

int64_t draw_size(Random &random) { return random.chance(0.02) ? 0 : random.one_of(kSizes); }

// Values that the op's samples have for an attribute.
std::vector<Attr> seen_values(const OpDef &def, std::string_view name) {
  std::vector<Attr> out;
  for (const OpSample &s : def.samples)
    if (const Attr *attr = s.attrs.find(name))
      out.push_back(*attr);
  return out;
}

Dim other_size(const Dim &d, const std::map<int64_t, int64_t> &sizes) {
  auto known = d.try_const();
  if (!known)
    return d;
  auto it = sizes.find(*known);
  return it == sizes.end() ? d : Dim(it->second);
}

void change_dims(Random &random, std::string_view name, int rank, std::vector<Dim> &list) {
  if (name == "axes") {
    list.clear();
    for (int d = 0; d < rank; ++d)
      if (random.chance(0.5))
        list.push_back(random.chance(0.8) ? d : d - rank);
  } else if (name == "dims") {
    for (size_t i = 0; i + 1 < list.size(); ++i)
      std::swap(list[i], list[i + size_t(random.below(int64_t(list.size() - i)))]);
  } else if (!list.empty()) {
    for (int64_t n = random.between(1, 2); n > 0; --n)
      list[size_t(random.below(int64_t(list.size())))] = random.one_of({0, 1, 1, 2, 2, 3, 4, 5, -1});
  }
}

void change_attribute(Random &random, const OpDef &def, const AttrSpec &spec, int rank, Attrs &attrs) {
  std::vector<Attr> seen = seen_values(def, spec.name);
  if (!seen.empty() && random.chance(0.5)) {
    attrs.set(spec.name, random.pick(seen));
    return;
  }
  const Attr *now = attrs.find(spec.name) ? attrs.find(spec.name) : spec.default_value ? &*spec.default_value : nullptr;
  if (!now)
    return;
  Attr changed = *now;
  if (bool *flag = std::get_if<bool>(&changed))
    *flag = !*flag;
  else if (Dim *dim = std::get_if<Dim>(&changed))
    *dim = spec.name == "axis" && rank > 0 ? Dim(random.between(-rank, rank - 1)) : Dim(random.between(-2, 5));
  else if (double *real = std::get_if<double>(&changed))
    *real = random.chance(0.5) ? random.uniform(-2, 2) : *real * random.uniform(0.5, 1.5);
  else if (auto *dims = std::get_if<std::vector<Dim>>(&changed))
    change_dims(random, spec.name, rank, *dims);
  else if (auto *reals = std::get_if<std::vector<double>>(&changed); reals && !reals->empty())
    (*reals)[size_t(random.below(int64_t(reals->size())))] = random.uniform(0.25, 3);
  else if (DType *dtype = std::get_if<DType>(&changed))
    *dtype = draw_dtype(random);
  attrs.set(spec.name, std::move(changed));
}

// Ranges of indices follow the size that they index.
void change_range(const OpSample &sample, const std::map<int64_t, int64_t> &sizes, InputRange &range) {
  for (const auto &[from, to] : sizes) {
    if (from != to && from > 1 && (sample.hi == double(from) - 1 || sample.hi == double(from)))
      range.hi = std::max(sample.hi - double(from - to), 0.0);
    if (from != to && from > 1 && sample.lo == -double(from))
      range.lo = -double(to);
  }
}

} // namespace

bool GraphMaker::try_sample(Op op, const OpSample &sample, int wildness) {
  const OpDef &def = op_def(op);
  Draft draft{sample.operands, std::vector<std::optional<ValueId>>(sample.operands.size()), sample.attrs, {sample.lo, sample.hi, sample.nonzero}, {}};
  for (const TensorType &t : sample.operands)
    if (!is_static(t.shape))
      return false;
  if (wildness > 0) {
    // A value of the graph gives its sizes to the operand that it fits.
    size_t slot = draft.operands.empty() ? 0 : size_t(random_.below(int64_t(draft.operands.size())));
    std::optional<ValueId> leader;
    if (!draft.operands.empty() && random_.chance(0.6))
      for (int tries = 0; tries < 6 && !leader; ++tries)
        if (auto v = any_value(); v && type(*v).rank() == draft.operands[slot].rank() && (type(*v).dtype == draft.operands[slot].dtype || random_.chance(0.2)))
          leader = v;
    if (leader) {
      for (size_t d = 0; d < value(*leader).dims().size(); ++d)
        draft.sizes.emplace(draft.operands[slot].shape[d].as_const(), value(*leader).dims()[d]);
      draft.given[slot] = leader;
    }
    for (const TensorType &t : sample.operands)
      for (const Dim &d : t.shape)
        draft.sizes.emplace(d.as_const(), random_.chance(0.5) ? d.as_const() : draw_size(random_));
    for (TensorType &t : draft.operands) {
      for (Dim &d : t.shape)
        d = other_size(d, draft.sizes);
      if (random_.chance(0.08) && t.rank() > 0)
        t.shape[size_t(random_.below(t.rank()))] = random_.chance(0.7) ? 1 : draw_size(random_);
      if (random_.chance(0.04) && t.rank() > 0)
        t.shape.erase(t.shape.begin());
      if (random_.chance(0.04) && t.rank() < 5)
        t.shape.insert(t.shape.begin(), Dim(draw_size(random_)));
    }
    if (random_.chance(0.3) && !draft.operands.empty()) {
      DType from = random_.pick(draft.operands).dtype, to = draw_dtype(random_);
      for (TensorType &t : draft.operands)
        if (t.dtype == from)
          t.dtype = to;
    }
    if (random_.chance(0.5))
      for (const auto &[name, attr] : sample.attrs.all()) {
        if (const Dim *dim = std::get_if<Dim>(&attr))
          draft.attrs.set(name, other_size(*dim, draft.sizes));
        if (const auto *list = std::get_if<std::vector<Dim>>(&attr)) {
          std::vector<Dim> changed;
          for (const Dim &d : *list)
            changed.push_back(other_size(d, draft.sizes));
          draft.attrs.set(name, std::move(changed));
        }
      }
    int rank = draft.operands.empty() ? 0 : draft.operands[0].rank();
    for (const AttrSpec &spec : def.attrs)
      if (random_.chance(0.25))
        change_attribute(random_, def, spec, rank, draft.attrs);
    if (int(draft.operands.size()) > def.min_operands && random_.chance(0.2))
      draft.operands.pop_back(), draft.given.pop_back();
    else if ((def.max_operands < 0 || int(draft.operands.size()) < def.max_operands) && !draft.operands.empty() && random_.chance(0.1))
      draft.operands.push_back(random_.pick(draft.operands)), draft.given.push_back({});
    change_range(sample, draft.sizes, draft.range);
  }

  // With numbers alone first: what infer refuses is not worth making operands for.
  Attrs attrs = draft.attrs;
  for (const AttrSpec &spec : def.attrs)
    if (!attrs.has(spec.name) && spec.default_value)
      attrs.set(spec.name, *spec.default_value);
  for (const TensorType &t : draft.operands)
    if (count_of(sizes_of(t.shape)) > largest_)
      return false;
  for (const AttrSpec &spec : def.attrs)
    if (const Attr *attr = attrs.find(spec.name); !attr || !attr_matches(*attr, spec.kind))
      return false;
  InferContext context{draft.operands, attrs, {}, &function_, &module_, {}};
  auto types = def.infer(context);
  if (!types || !context.required.empty())
    return false;
  for (const TensorType &t : *types)
    for (const Dim &d : t.shape)
      if (d.is_const() && d.as_const() < 0)
        return false;

  std::vector<ValueId> operands;
  for (size_t i = 0; i < draft.operands.size(); ++i) {
    const TensorType &want = draft.operands[i];
    Sizes sizes = sizes_of(want.shape);
    std::optional<ValueId> v = draft.given[i] ? draft.given[i] : random_.chance(0.65) ? any_value() : std::nullopt;
    if (v)
      v = fit(*v, want.dtype, sizes);
    bool guard = is_integer(want.dtype) ? !def.has(kElementwise) || draft.range.nonzero || random_.chance(0.3) : !wild_ || random_.chance(0.5);
    if (v && guard)
      v = fit_range(*v, draft.range);
    operands.push_back(v ? *v : new_value(want.dtype, sizes, draft.range));
  }
  return emit(op, operands, draft.attrs).has_value();
}

bool GraphMaker::table_op(Op op) {
  const OpDef &def = op_def(op);
  if (def.samples.empty())
    return false;
  for (int tries = 0; tries < 12; ++tries)
    if (try_sample(op, random_.pick(def.samples), tries < 10 ? 1 : 0))
      return true;
  return false;
}

void GraphMaker::step() {
  if (random_.chance(0.22))
    return movement();
  Op op = random_.pick(style_.ops);
  if (op_def(op).structural)
    control_op(op);
  else
    table_op(op);
}

} // namespace kiln::fuzz
