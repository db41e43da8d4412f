// Streamed softmax by four warps (streamed_softmax.h). A warp has 16 rows; where a share has fewer rows than four warps take, warps with
// the same rows have different keys of every span, and are joined in the end, in order.
//
// Halves are multiplied as they are. f32 is rounded to tf32 where that is asked for; otherwise each operand is a sum of two
// tf32, of whose four products the smallest is left out: what is lost is 2^-20 of a product. The lanes of a warp may take
// keys, values and columns in any order that is the same for both operands, so fragments of f32 are loads of 16 bytes.
#include "codegen/cuda/streamed_softmax.h"

#include "codegen/cuda/inner_product.h"
#include "codegen/cuda/streamed_scores.h"
#include "codegen/cuda/streamed_text.h"
#include "codegen/cuda/vector_body.h"

#include "ir/kernel/build.h"
#include "ir/kernel/visit.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace kiln::cuda {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32, kMostParts = 64;
constexpr int64_t kLeastSpans = 4; // of a block's part
constexpr double kLog2e = 1.4426950408889634;

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
int64_t power_of_two(int64_t n, int64_t least) {
  while (least < n)
    least *= 2;
  return least;
}

std::string filled(std::string_view from, const std::vector<std::pair<std::string_view, std::string>> &names) {
  std::string text(from);
  for (const auto &[name, value] : names)
    for (size_t at = 0; (at = text.find(name, at)) != std::string::npos; at += value.size())
      text.replace(at, name.size(), value);
  return text;
}

class Emitter {
public:
  Emitter(const StreamedSoftmax &s, const std::vector<const Stmt *> &outer, const NestContext &context)
      : s_(s), outer_(outer), context_(context), index_(context.index_type), scores_(s, context), size_(product_of(s.scores.sum).as_const()),
        value_size_(product_of(s.values.columns).as_const()) {
    const Expr &k = s.scores.b, &v = s.values.b;
    auto is_half = [](const Expr &e) { return is_half_valued(e, {}) && e.args[0].is(Expr::Kind::load); };
    halves_ = is_half(k) && is_half(v) && k.args[0].dtype == v.args[0].dtype;
    half_ = halves_ ? std::string(dtype_name(k.args[0].dtype)) : "";
    element_ = halves_ ? 2 : 4;
    size_used_ = round_up(size_, 16);
    values_used_ = round_up(value_size_, halves_ ? 16 : 32);
    size_row_ = (halves_ ? power_of_two(size_used_, 16) : size_used_) * element_;
    values_row_ = (halves_ ? power_of_two(values_used_, 16) : values_used_) * element_;
    stage_ = s.keys * (size_row_ + values_row_);
    out_row_ = values_used_ + (halves_ ? 8 : 4);
    rows_ = c::c_dim(rows(), out_.helpers);
    read_last();
    choose_parts();
  }

  bool fits() const {
    bool may_multiply = halves_ || context_.machine.rounds_products || context_.machine.splits_products;
    return may_multiply && size_ > 0 && value_size_ > 0 && size_ <= most_size() && value_size_ <= most_size() && s_.rows <= 16 * kWarps && (s_.keys == 32 || s_.keys == 64) && context_.machine.has_half_tiles &&
           context_.machine.has_async_copies && shared_bytes() <= context_.machine.block_shared_bytes;
  }

  // `body`: the share's, behind the loops outside.
  std::vector<GpuNest> emit(const std::vector<Stmt> &body) {
    std::vector<GpuNest> out;
    out.push_back(stream());
    out[0].work = streamed_work(context_.kernel, outer_, body, kThreads, amount());
    if (parts_ != Dim(1)) {
      out.push_back(join());
      out[1].work.form = LaunchForm::group; // little beside the other one
      for (GpuNest &nest : out)
        add_work(nest, DType::f32, work_elements_);
    }
    return out;
  }

private:
  Dim rows() const { return s_.last_rows ? extent_of(*s_.last_rows) : Dim(1); }
  Dim total() const { return product_of(outer_); }
  int64_t joined_bytes() const { return 16 * kWarps * (out_row_ + 2) * 4; }
  int64_t most_size() const { return halves_ ? 256 : 128; }
  // Queries of halves are in registers where those have room for them.
  bool queries_stay() const { return !halves_ || size_used_ > 128; }
  // Then they are done with before the second stage comes, where that has room for them.
  int64_t query_bytes() const { return 16 * kWarps * (halves_ ? size_row_ : size_used_ * 4); }
  int64_t query_at() const { return !queries_stay() && query_bytes() <= stage_ ? stage_ : 2 * stage_; }
  int64_t shared_bytes() const { return std::max({2 * stage_, query_at() + query_bytes(), joined_bytes()}); }
  c::StmtStyle style() const { return {"*trap = {}; return;", nullptr, "", index_}; }

  void read_last() {
    last_ = *s_.last_columns;
    lets_ = s_.last;
    auto rename = [&](Expr &e) {
      if (!e.is(Expr::Kind::load))
        return;
      if (e.name == s_.sums)
        e = kb::load(total_, e.dtype, 0);
      else if (e.name == s_.weighted)
        e = kb::load(value_, e.dtype, Dim::symbol(lane_));
    };
    visit_exprs(last_.body, rename);
    visit_exprs(lets_, rename);
    width_ = std::min(vector_width(last_, false, {value_, total_}, context_), 4);
  }

  // Blocks enough for every multiprocessor to have two, where shares are fewer.
  void choose_parts() {
    int64_t slots = 2 * context_.machine.multiprocessors;
    Dim spans = extent_of(*s_.span); // of the last share, which sees most
    for (const Stmt *l : outer_)
      spans = spans.substitute(l->name, max(Dim(0), extent_of(*l) - Dim(1)));
    if (auto known = constant(total())) {
      int64_t parts = *known <= 0 || 2 * *known > slots ? 1 : std::min<int64_t>(slots / *known, kMostParts);
      if (auto count = constant(spans))
        parts = std::min(parts, (*count + kLeastSpans - 1) / kLeastSpans);
      parts_ = std::max<int64_t>(parts, 1);
      slots = *known * std::max<int64_t>(parts, 1);
    } else {
      parts_ = max(Dim(1), min(Dim(kMostParts), floordiv(Dim(slots), max(Dim(1), total()))));
    }
    work_elements_ = slots * s_.rows * (value_size_ + 2);
    work_sums_ = slots * s_.rows * value_size_;
  }

  // For estimates. A warp multiplies 16 rows, whatever there are.
  StreamedWork amount() const {
    constexpr double kUnknownSpans = 2;
    const GpuMachine &m = context_.machine;
    StreamedWork out;
    out.rate = m.tile_rate / (halves_ ? 2.0 : m.rounds_products ? 4.0 : 12.0);
    if (auto known = constant(rows()))
      out.padding = double(round_up(*known, 16)) / double(std::max<int64_t>(*known, 1));
    out.steps = double(size_ + value_size_);
    auto spans = constant(extent_of(*s_.span));
    out.parts = double(constant(parts_).value_or(1));
    out.spans = std::ceil((spans ? double(*spans) : kUnknownSpans) / out.parts);
    return out;
  }

  std::string item(const std::string &at) {
    std::string out = coordinates(outer_, at, context_, out_.helpers, "    ") + c::c_body(s_.before, 2, style(), out_.helpers);
    out += fmt::format("    const int kiln_rows = (int)({});\n    {} kiln_spans = {};\n", rows_, index_, c::c_dim(extent_of(*s_.span), out_.helpers));
    out += scores_.bands(out_.helpers);
    if (parts_ != Dim(1))
      out += fmt::format("    const {0} kiln_share = (kiln_spans + kiln_parts - 1) / kiln_parts > {1} ? (kiln_spans + kiln_parts - 1) / kiln_parts : {1};\n", index_, kLeastSpans);
    return out;
  }

  GpuNest stream() {
    out_.threads = kThreads;
    out_.shared_bytes = shared_bytes();
    out_.blocks = total() * parts_;
    bool is_split = parts_ != Dim(1);
    std::string count = c::c_dim(total(), out_.helpers), parts = c::c_dim(parts_, out_.helpers), t;
    if (is_split)
      t += fmt::format("  const {} kiln_parts = {};\n", index_, parts);
    t += fmt::format("  for ({0} kiln_at = ({0})blockIdx.x; kiln_at < ({1}){2}; kiln_at += ({0})gridDim.x) {{\n", index_, count, is_split ? " * kiln_parts" : "");
    t += fmt::format("    const int kiln_thread = kiln_anew((int)threadIdx.x) & {}, kiln_lane = kiln_thread % 32, kiln_down = kiln_lane / 4, kiln_across = kiln_lane % 4;\n", kThreads - 1);
    t += is_split ? fmt::format("    const {0} kiln_item = kiln_at / kiln_parts, kiln_part = kiln_at % kiln_parts;\n", index_) : fmt::format("    const {0} kiln_item = kiln_at;\n", index_);
    t += item("kiln_item");
    t += is_split ? fmt::format("    const {0} kiln_first_span = kiln_part * kiln_share, kiln_end_span = kiln_first_span + kiln_share < kiln_spans ? kiln_first_span + kiln_share : kiln_spans;\n"
                                "    if (kiln_part > 0 && kiln_first_span >= kiln_spans)\n      continue;\n",
                                index_)
                  : fmt::format("    const {0} kiln_first_span = 0, kiln_end_span = kiln_spans;\n", index_);
    t += queries() + send() + scores_.functions(out_.helpers) + finisher();
    if (auto known = constant(rows()))
      t += "    {\n" + run(ways(*known));
    else
      t += "    if (kiln_rows <= 16) {\n" + run(ways(16)) + "    } else {\n" + run(1);
    t += "    }\n    __syncthreads();\n  }\n";
    out_.text = std::move(t);
    return std::move(out_);
  }

  // Warps that share 16 rows.
  int ways(int64_t rows) const { return int(std::min<int64_t>(rows <= 16 ? 4 : rows <= 32 ? 2 : 1, s_.keys / (halves_ ? 16 : 8))); }

  // --- operands

  // Elements of a query from `kiln_sum` on, as many as 16 bytes hold: f32, or pairs of halves in 32 bits.
  std::string queries() {
    const Product &p = s_.scores;
    bool is_raw = halves_ && is_half_valued(p.a, {}) && p.a.args[0].is(Expr::Kind::load) && p.a.args[0].dtype == p.b.args[0].dtype;
    const Expr &value = is_raw ? p.a.args[0] : p.a;
    int width = halves_ ? 8 : 4, part = width;
    while (part > 1 && !together(value, p.sum, part))
      part /= 2;
    std::string pack = fmt::format("kiln_pack<{}, {}>", c::c_type(value.dtype), width);
    std::string text = fmt::format("    auto kiln_query = [&](const int kiln_row, const int kiln_sum) -> {0} {{\n      {0} kiln_given{{}};\n      if (kiln_row >= kiln_rows)\n        return kiln_given;\n", pack);
    text += coordinates(p.rows, "kiln_row", context_, out_.helpers, "      ");
    if (!p.rows.empty())
      text += fmt::format("      (void){};\n", c::c_name(p.rows[0]->name));
    text += fmt::format("#pragma unroll\n      for (int kiln_e = 0; kiln_e < {}; kiln_e += {}) {{\n        if (kiln_sum + kiln_e >= {})\n          break;\n", width, part, size_);
    text += coordinates(p.sum, "(kiln_sum + kiln_e)", context_, out_.helpers, "        ");
    if (part > 1)
      text += fmt::format("        const auto kiln_some = kiln_load<{0}>({1} + ({2}));\n#pragma unroll\n        for (int i = 0; i < {0}; ++i)\n          kiln_given[kiln_e + i] = kiln_some[i];\n", part,
                          c::c_name(value.name), c::c_dim(value.index, out_.helpers));
    else
      text += fmt::format("        kiln_given[kiln_e] = {};\n", c::c_expr(value, out_.helpers));
    text += "      }\n      return kiln_given;\n    };\n";
    if (!halves_)
      return text;
    out_.helpers.insert("kiln_f32_to_" + half_); // what the shim makes pairs of
    std::string pair = is_raw ? "(uint32_t)kiln_given[e * 2] | (uint32_t)kiln_given[e * 2 + 1] << 16" : fmt::format("kiln_pair_{}(kiln_given[e * 2], kiln_given[e * 2 + 1])", half_);
    return text + fmt::format("    auto kiln_query_pairs = [&](const int kiln_row, const int kiln_sum) -> kiln_pack<uint32_t, 4> {{\n      const auto kiln_given = kiln_query(kiln_row, kiln_sum);\n"
                              "      kiln_pack<uint32_t, 4> kiln_pairs;\n#pragma unroll\n      for (int e = 0; e < 4; ++e)\n        kiln_pairs[e] = {};\n      return kiln_pairs;\n    }};\n",
                              pair);
  }

  // Whether `width` neighbours along the last of the loops lie in one aligned piece.
  bool together(const Expr &e, const Loops &loops, int width) const {
    if (!e.is(Expr::Kind::load) || e.count || loops.size() != 1 || context_.unaligned.contains(e.name) || !moves_by_one(e, loops[0]->name))
      return false;
    auto extent = constant(extent_of(*loops[0]));
    return extent && *extent % width == 0 && is_multiple(e.index - Dim::symbol(loops[0]->name), width);
  }

  // Sends the keys and values of a span on their way to a stage.
  std::string send() {
    std::string text = fmt::format("    auto kiln_send = [&](const {0} {1}, unsigned char *const kiln_stage) {{\n", index_, c::c_name(s_.span->name));
    text += c::c_body(s_.inside, 3, style(), out_.helpers) + fmt::format("      const int kiln_keys = (int)({});\n", keys());
    text += send_operand(s_.scores.b, s_.scores.columns, s_.scores.sum, size_, size_used_, "kiln_stage", true);
    text += send_operand(s_.values.b, s_.values.sum, s_.values.columns, value_size_, values_used_, fmt::format("kiln_stage + {}", s_.keys * size_row_), false);
    return text + "      kiln_copy_commit();\n    };\n";
  }

  std::string keys() { return c::c_dim(product_of(s_.scores.columns), out_.helpers); }

  std::string send_operand(const Expr &b, const Loops &keys, const Loops &along, int64_t size, int64_t used, const std::string &stage, bool is_keys) {
    const Expr &value = halves_ ? b.args[0] : b;
    int width = 16 / element_;
    const KernelBuffer *global = value.is(Expr::Kind::load) ? context_.kernel.find_buffer(value.name) : nullptr;
    while (width * element_ >= 4 && !(global && together(value, along, width)))
      width /= 2;
    bool is_async = width * element_ >= 4;
    if (!is_async)
      width = 1;
    bool key_is_fast = !is_async && moves_by_one(value, keys[0]->name);
    int64_t pieces = used / width;
    std::string place = is_keys ? key_place("kiln_key", "kiln_along * " + std::to_string(element_)) : value_place("kiln_key", "kiln_along * " + std::to_string(element_));
    int64_t lanes = key_is_fast || pieces > kThreads ? pieces : power_of_two(pieces, 1);
    std::string text = fmt::format("#pragma unroll\n      for (int kiln_turn = 0; kiln_turn < {}; ++kiln_turn) {{\n", (s_.keys * lanes + kThreads - 1) / kThreads);
    // A thread has the same place in all of its keys, so that turns differ by numbers that instructions have room for.
    if (!key_is_fast && lanes <= kThreads) {
      text += fmt::format("        const int kiln_key = kiln_thread / {0} + kiln_turn * {1}, kiln_along = kiln_thread % {0} * {2};\n", lanes, kThreads / lanes, width);
      if (lanes != pieces || s_.keys * lanes % kThreads != 0)
        text += fmt::format("        if (kiln_key >= {} || kiln_along >= {})\n          break;\n", s_.keys, used);
    } else {
      text += fmt::format("        const int kiln_piece = kiln_thread + kiln_turn * {};\n", kThreads);
      if (s_.keys * pieces % kThreads != 0)
        text += fmt::format("        if (kiln_piece >= {})\n          break;\n", s_.keys * pieces);
      text += key_is_fast ? fmt::format("        const int kiln_key = kiln_piece % {0}, kiln_along = kiln_piece / {0};\n", s_.keys)
                          : fmt::format("        const int kiln_key = kiln_piece / {0}, kiln_along = kiln_piece % {0} * {1};\n", pieces, width);
    }
    text += fmt::format("        const bool kiln_inside = kiln_key < kiln_keys{};\n", used == size ? "" : fmt::format(" && kiln_along < {}", size));
    text += coordinates(keys, "kiln_key", context_, out_.helpers, "        ") + coordinates(along, "kiln_along", context_, out_.helpers, "        ");
    if (is_async)
      text += fmt::format("        kiln_copy<{0}>({1} + {2}, {3} + ({4}), kiln_inside);\n      }}\n", width * element_, stage, place, c::c_name(value.name), c::c_dim(value.index, out_.helpers));
    else
      text += fmt::format("        {0} kiln_value = 0;\n        if (kiln_inside)\n          kiln_value = {1};\n        *({0} *)({2} + {3}) = kiln_value;\n      }}\n", halves_ ? "uint16_t" : "float",
                          c::c_expr(value, out_.helpers), stage, place);
    return text;
  }

  // Where a key's element lies. Words of f32: so that lanes that take 16 bytes of two keys, or of four values, meet in no bank.
  std::string key_place(std::string_view key, const std::string &at) const {
    if (halves_)
      return fmt::format("kiln_swizzle<{}>({}, {})", size_row_, key, at);
    return key_lies_swizzled() ? fmt::format("(({0}) * {1} + (({2}) ^ (({0}) % 2 * 64)))", key, size_row_, at) : fmt::format("(({0}) * {1} + ({2}))", key, size_row_, at);
  }
  bool key_lies_swizzled() const { return size_row_ % 128 == 0; }
  std::string value_place(std::string_view key, const std::string &at) const {
    return halves_ ? fmt::format("kiln_swizzle<{}>({}, {})", values_row_, key, at) : fmt::format("(({0}) * {1} + (({2}) ^ (({0}) / 2 % 4 * 32)))", key, values_row_, at);
  }

  // --- the last step

  std::string finisher() {
    std::string text = fmt::format("    auto kiln_finish = [&](const int kiln_row, const int kiln_column, const float kiln_total, const kiln_pack<float, {}> &kiln_value) {{\n", width_);
    text += fmt::format("      const float {}[1] = {{kiln_total}};\n      const auto &{} = kiln_value;\n", c::c_name(total_), c::c_name(value_));
    if (s_.last_rows)
      text += coordinates({s_.last_rows}, "kiln_row", context_, out_.helpers, "      ");
    text += c::c_body(lets_, 3, style(), out_.helpers) + coordinates({&last_}, "kiln_column", context_, out_.helpers, "      ");
    if (width_ > 1)
      return text + vector_turn(last_, width_, 3, {value_, total_}, context_, out_.helpers) + "    };\n";
    return text + fmt::format("      const int {} = 0;\n", c::c_name(lane_)) + c::c_body(last_.body, 3, style(), out_.helpers) + "    };\n";
  }

  // --- the block's work

  std::string run(int ways) {
    bool is_split = parts_ != Dim(1);
    std::string last = is_split ? filled(R"(        if (kiln_spans > kiln_share) {
          const int64_t kiln_to = (kiln_at * $ROWS + kiln_row) * $VALUES + kiln_column;
          kiln_store(v_kiln_work + kiln_to, kiln_value);
          if (kiln_column == 0) {
            float *const kiln_sums = v_kiln_work + $SUMS + (kiln_at * $ROWS + kiln_row) * 2;
            kiln_sums[0] = kiln_greatest;
            kiln_sums[1] = kiln_sum;
          }
          continue;
        }
)",
                                         {{"$ROWS", std::to_string(s_.rows)}, {"$VALUES", std::to_string(value_size_)}, {"$SUMS", std::to_string(work_sums_)}})
                                : "";
    std::string free = !scores_.has_bands() ? "" : R"(        if (kiln_sees_all($SPAN, kiln_row0, kiln_first_key + kTiles * 8 - 1)) {
#pragma unroll
          for (int e = 0; e < kTiles * 2; ++e)
            kiln_seen_score($SPAN, kiln_keys, kiln_row0 + kiln_down + e % 2 * 8, kiln_first_key + e / 2 * 8 + kiln_across * 2, kiln_scores[e / 2][e % 2 * 2], kiln_scores[e / 2][e % 2 * 2 + 1]);
        } else
)";
    std::vector<std::pair<std::string_view, std::string>> parts{{"$FREE", free},
                                                               {"$QUERIES", std::string(halves_ ? kStreamedQueryHalves : kStreamedQueryFloats) + std::string(queries_stay() ? "" : kStreamedHoldQueries)},
                                                               {"$MULTIPLY", std::string(halves_ ? kStreamedMultiplyHalves : kStreamedMultiplyFloats)},
                                                               {"$FETCH", std::string(queries_stay() ? kStreamedFetchQuery : kStreamedHeldQuery)},
                                                               {"$WEIGH", std::string(halves_ ? kStreamedWeighHalves : kStreamedWeighFloats)},
                                                               {"$KEEP", std::string(halves_ ? kStreamedKeepHalves : kStreamedKeepFloats)},
                                                               {"$LAST", last},
                                                               {"$WAYS", std::to_string(ways)}};
    return filled(filled(kStreamedRun, parts), names());
  }

  std::vector<std::pair<std::string_view, std::string>> names() {
    if (halves_)
      out_.helpers.insert("kiln_f32_to_" + half_);
    bool rounds = context_.machine.rounds_products;
    return {{"$KEYS_AT", keys()},
            {"$INDEX", index_},
            {"$SPAN", c::c_name(s_.span->name)},
            {"$INSIDE", c::c_body(s_.inside, 4, style(), out_.helpers)},
            {"$TILES", std::to_string(values_used_ / 8)},
            {"$STEPS", std::to_string(size_used_ / 16)},
            {"$KEYS", std::to_string(s_.keys)},
            {"$STAGE", std::to_string(stage_)},
            {"$VALUES_AT", std::to_string(s_.keys * size_row_)},
            {"$QUERY_AT", std::to_string(query_at())},
            {"$KEY_ROW", std::to_string(size_row_)},
            {"$VALUE_ROW", std::to_string(values_row_)},
            {"$OUT_ROW", std::to_string(out_row_)},
            {"$HALF", half_},
            {"$FACTOR", fmt::format("{:.9g}f", float(scores_.factor() * kLog2e))},
            {"$WIDTH", std::to_string(width_)},
            {"$PER_ROW", std::to_string(value_size_ / width_)},
            {"$PRODUCT", rounds ? "kiln_rounded_product" : "kiln_cut_product"},
            {"$KEY_LANE", halves_ ? key_place("kiln_first_key + kiln_lane % 8 + kiln_lane / 16 * 8", "kiln_lane / 8 % 2 * 16") : key_place("(kiln_first_key + kiln_down)", "kiln_across * 16")},
            {"$VALUE_LANE", halves_ ? value_place("kiln_first_key + kiln_lane % 16", "kiln_lane / 16 * 16") : value_place("(kiln_first_key + kiln_across * 2)", "kiln_down * 16")},
            {"$KEY_PLACE", key_lies_swizzled() ? "(kiln_key_lane ^ kiln_step % 2 * 64) + kiln_step / 2 * 128" : "kiln_key_lane + kiln_step * 64"}};
  }

  // Joins the parts of shares that have several.
  GpuNest join() {
    out_ = GpuNest{};
    out_.threads = int(std::clamp<int64_t>(round_up(s_.rows * (value_size_ / width_), 32), 32, kThreads));
    out_.blocks = total();
    std::string t = fmt::format("  const int kiln_thread = (int)threadIdx.x;\n  const {0} kiln_parts = {1};\n  for ({0} kiln_item = ({0})blockIdx.x; kiln_item < {2}; kiln_item += ({0})gridDim.x) {{\n", index_,
                                c::c_dim(parts_, out_.helpers), c::c_dim(total(), out_.helpers));
    rows_ = c::c_dim(rows(), out_.helpers);
    t += item("kiln_item") + "    if (kiln_spans <= kiln_share)\n      continue;\n" + finisher();
    t += filled(R"(    const int kiln_used = (int)((kiln_spans + kiln_share - 1) / kiln_share);
    const float *const kiln_sums = v_kiln_work + $SUMS + kiln_item * kiln_parts * $ROWS * 2;
    for (int kiln_chunk = kiln_thread; kiln_chunk < kiln_rows * $PER_ROW; kiln_chunk += $THREADS) {
      const int kiln_row = kiln_chunk / $PER_ROW, kiln_column = kiln_chunk % $PER_ROW * $WIDTH;
      float kiln_maximum = -INFINITY, kiln_total = 0;
      for (int p = 0; p < kiln_used; ++p)
        kiln_maximum = fmaxf(kiln_maximum, kiln_sums[(p * $ROWS + kiln_row) * 2]);
      const float kiln_base = kiln_maximum == -INFINITY ? 0 : kiln_maximum;
      kiln_pack<float, $WIDTH> kiln_value{};
#pragma unroll 4
      for (int p = 0; p < kiln_used; ++p) {
        const float kiln_weight = kiln_exp2(kiln_sums[(p * $ROWS + kiln_row) * 2] - kiln_base);
        const auto kiln_other = kiln_load<$WIDTH>(v_kiln_work + ((kiln_item * kiln_parts + p) * $ROWS + kiln_row) * $VALUES + kiln_column);
        kiln_total = fmaf(kiln_weight, kiln_sums[(p * $ROWS + kiln_row) * 2 + 1], kiln_total);
#pragma unroll
        for (int e = 0; e < $WIDTH; ++e)
          kiln_value[e] = fmaf(kiln_weight, kiln_other[e], kiln_value[e]);
      }
      kiln_finish(kiln_row, kiln_column, kiln_total, kiln_value);
    }
  }
)",
                {{"$SUMS", std::to_string(work_sums_)},
                 {"$ROWS", std::to_string(s_.rows)},
                 {"$PER_ROW", std::to_string(value_size_ / width_)},
                 {"$THREADS", std::to_string(out_.threads)},
                 {"$WIDTH", std::to_string(width_)},
                 {"$VALUES", std::to_string(value_size_)}});
    out_.text = std::move(t);
    return std::move(out_);
  }

  const StreamedSoftmax &s_;
  const std::vector<const Stmt *> &outer_;
  const NestContext &context_;
  std::string index_;
  StreamedScores scores_;
  int64_t size_, value_size_;            // elements of a key, of a value
  int64_t size_used_ = 0, values_used_ = 0; // of which products take so many
  int64_t size_row_ = 0, values_row_ = 0;   // bytes between keys and values of a stage
  int64_t stage_ = 0, out_row_ = 0;
  bool halves_ = false;
  std::string half_;
  int element_ = 4;
  std::vector<Stmt> lets_;
  Stmt last_;
  int width_ = 1; // columns that a thread stores together
  Dim parts_ = 1;
  int64_t work_elements_ = 0, work_sums_ = 0;
  std::string rows_;
  GpuNest out_;
  const Symbol lane_{"kiln_lane"}, total_{"kiln_sum"}, value_{"kiln_weighted"};
};

} // namespace

std::vector<GpuNest> try_emit_streamed_softmax(const std::vector<const Stmt *> &outer, const std::vector<Stmt> &body, const NestContext &context) {
  auto streamed = match_streamed_softmax(body);
  if (!streamed || !constant(product_of(streamed->scores.sum)))
    return {};
  Emitter emitter(*streamed, outer, context);
  if (!emitter.fits())
    return {};
  return emitter.emit(body);
}

} // namespace kiln::cuda
