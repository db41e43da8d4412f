#include "codegen/cuda/tile_operand.h"

#include "codegen/cuda/vector_body.h"
#include "codegen/cuda/warpgroup.h"

#include "ir/kernel/build.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::cuda {
namespace {

// The index as a part that the sum's loops move and one that they do not; nothing where it is no sum of such parts.
bool split_index(const Dim &index, const Loops &sum, Dim &own_part, Dim &sum_part) {
  sum_part = 0;
  for (const Stmt *l : sum) {
    auto step = index.coefficient_of(l->name);
    if (!step || std::any_of(sum.begin(), sum.end(), [&](const Stmt *other) { return step->depends_on(other->name); }))
      return false;
    sum_part += *step * Dim::symbol(l->name);
  }
  own_part = index - sum_part;
  return std::none_of(sum.begin(), sum.end(), [&](const Stmt *l) { return own_part.depends_on(l->name); });
}

// How many elements lie one after the other as the loops turn, the last one fastest, and are guarded alike; `rest`: the index of the first.
Dim length_of_run(const Dim &index, const Loops &loops, const std::vector<Guard> &guards, Dim &rest) {
  Dim length = 1;
  rest = index;
  for (size_t i = loops.size(); i-- > 0;) {
    const Stmt &l = *loops[i];
    if (!is_normalised(l) || index.coefficient_of(l.name) != length ||
        std::any_of(guards.begin(), guards.end(), [&](const Guard &g) { return g.value.depends_on(l.name); }))
      break;
    rest = rest - length * Dim::symbol(l.name);
    length *= l.end;
  }
  return length;
}

// Whether what the loops count lies in the buffer, also behind the last row or column.
bool is_inside(const Dim &index, const Loops &own, const Loops &sum, Symbol buffer, const NestContext &context) {
  auto greatest = [&](Symbol name) -> std::optional<Dim> {
    for (const auto *loops : {&own, &sum})
      for (const Stmt *l : *loops)
        if (l->name == name)
          return l->end - 1;
    return std::nullopt;
  };
  const KernelBuffer *b = context.kernel.find_buffer(buffer);
  Dim most = bounds_of(index, greatest).greatest;
  return b && b->size.is_const() && most.is_const() && most.as_const() < b->size.as_const();
}

} // namespace

TileOperand::TileOperand(std::string name, const Expr &value, DType dtype, const Loops &own, const Loops &sum, std::string first, int own_size,
                         const TileShape &shape, const NestContext &context, c::Helpers &helpers, const OperandEdges &edges)
    : name_(std::move(name)), value_(value), own_(own), sum_(sum), first_(std::move(first)), own_size_(own_size), shape_(shape), context_(context),
      helpers_(helpers), own_total_(c::c_dim(edges.count.value_or(product_of(own)), helpers)), sum_total_(c::c_dim(product_of(sum), helpers)), type_(c::c_type(dtype)),
      element_(int(dtype_bytes(dtype))), sum_is_fast_(moves_by_one(value, sum.back()->name)) {
  has_edges_ = !edges.guards.empty() || edges.count;
  for (const Guard &g : edges.guards) {
    SplitGuard &split = guards_.emplace_back();
    bool is_split = split_index(g.value, sum, split.own_part, split.sum_part);
    KILN_CHECK(is_split, "a guard of a sum that is no sum of its loops");
    split.limit = g.limit;
  }
  bool for_warpgroups = shape.unit == TileUnit::warpgroup;
  layout_ = shape.unit == TileUnit::scalar      ? TileLayout::steps
            : sum_is_fast_ || element_ == 1     ? TileLayout::own_bytes
            : element_ == 2                     ? (for_warpgroups ? TileLayout::step_lines : TileLayout::step_halves)
            : for_warpgroups                    ? TileLayout::own_bytes
                                                : TileLayout::step_words;
  // Asynchronous copies come from global memory alone, not from what a group keeps in shared memory.
  load_ = value.is(Expr::Kind::convert) && value.dtype == dtype ? &value.args[0] : &value;
  bool is_load = load_->is(Expr::Kind::load) && !load_->count && context.kernel.find_buffer(load_->name);
  bool is_copied = is_load && value.is(Expr::Kind::load) && value.dtype == dtype && context.machine.has_async_copies;
  if (is_load && split_index(load_->index, sum, own_part_, sum_part_)) {
    Dim rest, run = length_of_run(load_->index, sum_is_fast_ ? sum : own, edges.guards, rest);
    bool plain = !run.is_const(1) && !context.unaligned.contains(load_->name);
    // Pieces of rows or columns may lie across the last one.
    auto ends_well = [&](int n) { return sum_is_fast_ || !edges.count || is_multiple(*edges.count, n) || is_inside(load_->index, own, sum, load_->name, context); };
    auto widest = [&](int most) {
      while (most > 1 && (!is_multiple(run, most) || !is_multiple(rest, most) || !ends_well(most)))
        most /= 2;
      return most;
    };
    // What lies in rows of steps is turned around on the way, one element at a time.
    bool turns_around = layout_ == TileLayout::steps ? sum_is_fast_ : layout_ == TileLayout::own_bytes && !sum_is_fast_;
    int whole = 16 / element_; // elements of 16 bytes, as they are in shared memory
    if (plain && element_ >= 4 && (turns_around ? layout_ == TileLayout::steps : !is_copied) && (own_size * shape.depth / whole) % 32 == 0 &&
        widest(whole) == whole)
      pack_ = whole;
    if (is_copied && pack_ == 0) {
      width_ = plain && !turns_around ? widest(whole) : 1;
      // A few steps and then the next row: weights of bytes in groups of four.
      along_own_ = sum_is_fast_ && layout_ == TileLayout::own_bytes && width_ > 1 && run.is_const(width_);
      if (width_ * element_ < 4)
        width_ = 0;
      in_quads_ = element_ == 1 && layout_ == TileLayout::own_bytes && !sum_is_fast_ && plain && own_size % 32 == 0 && widest(4) == 4;
    }
  }
  // Eight steps and four rows of a warp, or eight pieces side by side, meet in no bank; of packs that are turned around,
  // 32 bytes side by side, or 64 of elements of 8 bytes.
  along_own_ |= !sum_is_fast_;
  in_squares_ = layout_ == TileLayout::own_bytes && !sum_is_fast_ && element_ == 4;
  int across = shape.depth / width();
  run_ = !sum_is_fast_ ? own_size_ / width() : along_own_ ? own_size_ : layout_ != TileLayout::steps ? across : std::min(pack_ > 0 ? element_ / 2 : 8, across);
}

int TileOperand::row_elements() const { return own_size_ + 16 / element_; }

int64_t TileOperand::bytes() const {
  int64_t elements = layout_ == TileLayout::steps ? int64_t(shape_.depth) * row_elements() : int64_t(shape_.depth) * own_size_;
  return (elements * element_ + 127) / 128 * 128;
}

int TileOperand::own_turns() const {
  // Pieces until the same row or column comes again.
  int around = in_squares_ ? own_size_ * 4 : in_quads_ ? own_size_ : along_own_ ? run_ : 0;
  if (around > 0 && shape_.threads % around == 0)
    return 1;
  return around > 0 && around % shape_.threads == 0 ? std::min(turns(), around / shape_.threads) : turns();
}

std::string TileOperand::own_turn() const { return own_turns() == 1 ? "0" : own_turns() == turns() ? "j" : fmt::format("j % {}", own_turns()); }

std::string TileOperand::own_at() const {
  if (in_quads_)
    return fmt::format("(kiln_piece % 8 + kiln_piece / 32 % {} * 8) * 4", own_size_ / 32);
  if (in_squares_)
    return fmt::format("(kiln_piece % 8 + kiln_piece / 32 % {} * 8)", own_size_ / 8);
  std::string w = width() > 1 && !sum_is_fast_ ? fmt::format(" * {}", width()) : "";
  if (along_own_)
    return own_turns() > 1 ? fmt::format("kiln_piece % {}{}", run_, w) : fmt::format("kiln_thread % {}{}", run_, w);
  int columns = shape_.depth / width();
  return run_ == columns ? fmt::format("kiln_piece / {}", run_) : fmt::format("kiln_piece / {} % {}", run_, own_size_);
}

std::string TileOperand::step_at() const {
  if (in_quads_)
    return fmt::format("(kiln_piece / 8 % 4 + kiln_piece / {} * 4) * 4", own_size_);
  if (in_squares_)
    return fmt::format("(kiln_piece / 8 % 4 + kiln_piece / {} * 4)", own_size_ * 4);
  std::string w = width() > 1 ? fmt::format(" * {}", width()) : "";
  if (along_own_)
    return fmt::format("kiln_piece / {}{}", run_, sum_is_fast_ ? w : "");
  int columns = shape_.depth / width();
  return run_ == columns ? fmt::format("kiln_piece % {}{}", run_, w) : fmt::format("(kiln_piece % {0} + kiln_piece / {1} * {0}){2}", run_, run_ * own_size_, w);
}

std::string TileOperand::turn_head(const std::string &pad) const {
  std::string guard = pieces() % shape_.threads == 0 ? "" : fmt::format("{}  if (kiln_piece < {})\n", pad, pieces());
  return fmt::format("#pragma unroll\n{0}for (int j = 0; j < {1}; ++j) {{\n{0}  const int kiln_piece = kiln_thread + j * {2};\n{3}{0}  {{\n", pad, turns(), shape_.threads, guard);
}

std::string TileOperand::held(const Stmt *loop) const { return fmt::format("kiln_{}_{}", name_, c::c_name(loop->name)); }

std::string TileOperand::coordinates_of(const Loops &loops, const std::string &flat, const std::string &pad) const {
  return coordinates(loops, flat, context_, helpers_, pad);
}

std::string TileOperand::places() const {
  const std::string &index = context_.index_type;
  int count = own_turns();
  std::string text = fmt::format("    bool kiln_{}_inside[{}];\n", name_, count);
  bool has_places = is_async() || in_quads_ || pack_ > 0;
  if (has_places)
    text += fmt::format("    {} kiln_{}_at[{}];\n", index, name_, count);
  if (!is_async())
    text += fmt::format("    {} kiln_next_{}[{}];\n", in_quads_ ? "uint32_t" : pack_ > 0 ? fmt::format("kiln_pack<{}, {}>", c::c_type(load_->dtype), pack_) : type_, name_,
                        turns() * (in_quads_ ? 4 : 1));
  for (size_t i = 0; i < guards_.size(); ++i)
    text += fmt::format("    {} {}[{}];\n", index, guard_at(i), count);
  for (const Stmt *l : own_)
    text += has_places ? "" : fmt::format("    {} {}[{}];\n", index, held(l), count);
  text += fmt::format("#pragma unroll\n    for (int j = 0; j < {0}; ++j) {{\n      const int kiln_piece = kiln_thread + j * {1};\n      const {2} kiln_own = {3} + {4};\n"
                      "      kiln_{5}_inside[j] = kiln_own < {6};\n      (void)kiln_piece;\n",
                      count, shape_.threads, index, first_, own_at(), name_, own_total_);
  text += coordinates_of(own_, "kiln_own", "      ");
  for (size_t i = 0; i < guards_.size(); ++i)
    text += fmt::format("      {}[j] = {};\n", guard_at(i), c::c_dim(guards_[i].own_part, helpers_));
  if (has_places)
    text += fmt::format("      kiln_{}_at[j] = {};\n", name_, c::c_dim(own_part_, helpers_));
  else
    for (const Stmt *l : own_)
      text += fmt::format("      {}[j] = {};\n", held(l), c::c_name(l->name));
  return text + "    }\n";
}

std::string TileOperand::guards_hold() const {
  std::string text;
  for (size_t i = 0; i < guards_.size(); ++i) {
    std::string at = fmt::format("{}[{}] + {}", guard_at(i), own_turn(), c::c_dim(guards_[i].sum_part, helpers_));
    text += " && " + guard_text(at, guards_[i].limit, context_, helpers_);
  }
  return text;
}

// Byte address of the turn's first element in a stage.
std::string TileOperand::place(const std::string &stage) const { return place(stage, own_at(), step_at()); }

std::string TileOperand::place(const std::string &stage, const std::string &own, const std::string &step) const {
  switch (layout_) {
  case TileLayout::steps:
    return fmt::format("{} + (({}) * {} + {}) * {}", stage, step, row_elements(), own, element_);
  case TileLayout::own_bytes:
    return fmt::format("{} + kiln_swizzle<{}>({}, ({}) * {})", stage, row_bytes(), own, step, element_);
  case TileLayout::step_halves:
    return fmt::format("{} + kiln_swizzle<{}>({}, ({}) * {})", stage, row_bytes(), step, own, element_);
  case TileLayout::step_lines:
    return fmt::format("{0} + ({1}) / 64 * {2} + kiln_swizzle<128>({3}, ({1}) % 64 * 2)", stage, own, shape_.depth * 128, step);
  case TileLayout::step_words:
    return fmt::format("{} + kiln_swizzle_words<{}>({}, ({}) * {})", stage, row_bytes(), step, own, element_);
  }
  return "";
}

std::string TileOperand::send(const std::string &step, const std::string &stage) const {
  std::string text = "      {\n" + turn_head("        ");
  text += fmt::format("            const {} kiln_sum = {} * {} + {};\n", context_.index_type, step, shape_.depth, step_at());
  text += coordinates_of(sum_, "kiln_sum", "            ");
  // What is outside is not read, but has an address all the same.
  text += fmt::format("            const bool kiln_inside = kiln_{}_inside[{}] && kiln_sum < {}{};\n", name_, own_turn(), sum_total_, guards_hold());
  text += fmt::format("            kiln_copy<{0}>({1}, {2} + (kiln_inside ? kiln_{3}_at[{4}] + {5} : 0), kiln_inside);\n", width_ * element_, place(stage),
                      c::c_name(value_.name), name_, own_turn(), c::c_dim(sum_part_, helpers_));
  return text + "          }\n        }\n      }\n";
}

// Four neighbouring bytes of each of four steps; eight threads have a whole sector of memory.
std::string TileOperand::fetch_quads(const std::string &step) const {
  std::string turn = own_turn();
  std::string text = "      {\n" + turn_head("        ") + "#pragma unroll\n            for (int e = 0; e < 4; ++e) {\n";
  text += fmt::format("              const {} kiln_sum = {} * {} + {} + e;\n", context_.index_type, step, shape_.depth, step_at());
  text += coordinates_of(sum_, "kiln_sum", "              ");
  text += fmt::format("              kiln_next_{0}[j * 4 + e] = kiln_{0}_inside[{1}] && kiln_sum < {2}{5} ? kiln_word({3} + kiln_{0}_at[{1}] + {4}) : 0u;\n            }}\n", name_, turn,
                      sum_total_, c::c_name(value_.name), c::c_dim(sum_part_, helpers_), guards_hold());
  return text + "          }\n        }\n      }\n";
}

// Eight threads side by side begin with different ones of their four, so that a warp's words lie in different banks.
std::string TileOperand::keep_quads(const std::string &stage) const {
  std::string_view store = shape_.unit == TileUnit::warpgroup ? "kiln_keep((uint32_t *)({}), kiln_words[e]);" : "*(uint32_t *)({}) = kiln_words[e];";
  std::string text = "      {\n" + turn_head("        ");
  text += fmt::format("            const int kiln_around = kiln_piece / 2 % 4;\n            uint32_t kiln_words[4];\n            kiln_turn_bytes(kiln_words, kiln_next_{} + j * 4, kiln_around);\n", name_);
  text += "#pragma unroll\n            for (int e = 0; e < 4; ++e)\n              ";
  text += fmt::format(fmt::runtime(store), place(stage, fmt::format("({} + (e ^ kiln_around))", own_at()), step_at()));
  return text + "\n          }\n        }\n      }\n";
}

std::string TileOperand::fetch_packs(const std::string &step) const {
  std::string turn = own_turn();
  std::string text = "      {\n" + turn_head("        ");
  text += fmt::format("            const {} kiln_sum = {} * {} + {};\n", context_.index_type, step, shape_.depth, step_at());
  text += coordinates_of(sum_, "kiln_sum", "            ");
  text += fmt::format("            if (kiln_{0}_inside[{1}] && kiln_sum < {2}{6})\n              kiln_next_{0}[j] = kiln_load<{3}>({4} + kiln_{0}_at[{1}] + {5});\n", name_, turn, sum_total_, pack_,
                      c::c_name(load_->name), c::c_dim(sum_part_, helpers_), guards_hold());
  text += fmt::format("            else\n#pragma unroll\n              for (int e = 0; e < {0}; ++e)\n                kiln_next_{1}[j][e] = 0;\n", pack_, name_);
  return text + "          }\n        }\n      }\n";
}

// Side by side, or, where they are turned around, one below the other.
std::string TileOperand::keep_packs(const std::string &stage) const {
  bool turns_around = layout_ == TileLayout::steps && sum_is_fast_;
  std::string element = fmt::format("kiln_next_{}[j][e]", name_);
  if (load_ != &value_) {
    Expr one = value_;
    one.args[0] = kb::var(Symbol("kiln_element"), load_->dtype);
    element = c::c_expr(one, helpers_);
  }
  std::string text = "      {\n" + turn_head("        ");
  text += fmt::format("            kiln_pack<{}, {}> kiln_wide;\n#pragma unroll\n            for (int e = 0; e < {}; ++e) {{\n", type_, pack_, pack_);
  if (load_ != &value_)
    text += fmt::format("              const {} {} = kiln_next_{}[j][e];\n", c::c_type(load_->dtype), c::c_name(Symbol("kiln_element")), name_);
  text += fmt::format("              kiln_wide[e] = {};\n", element);
  if (turns_around)
    return text + fmt::format("              *({} *)({}) = kiln_wide[e];\n            }}\n          }}\n        }}\n      }}\n", type_, place(stage, own_at(), step_at() + " + e"));
  std::string store = shape_.unit == TileUnit::warpgroup ? fmt::format("kiln_keep((kiln_pack<{}, {}> *)({}), kiln_wide)", type_, pack_, place(stage))
                                                         : fmt::format("kiln_store<{}>(({} *)({}), kiln_wide)", pack_, type_, place(stage));
  return text + fmt::format("            }}\n            {};\n          }}\n        }}\n      }}\n", store);
}

std::string TileOperand::fetch(const std::string &step) const {
  if (in_quads_)
    return fetch_quads(step);
  if (pack_ > 0)
    return fetch_packs(step);
  std::string text = "      {\n" + turn_head("        ");
  text += fmt::format("            const {} kiln_sum = {} * {} + {};\n", context_.index_type, step, shape_.depth, step_at());
  text += coordinates_of(sum_, "kiln_sum", "            ");
  std::string turn = own_turn();
  for (const Stmt *l : own_)
    text += fmt::format("            const {} {} = {}[{}];\n", context_.index_type, c::c_name(l->name), held(l), turn);
  text += fmt::format("            kiln_next_{0}[j] = kiln_{0}_inside[{1}] && kiln_sum < {2}{5} ? ({4})({3}) : ({4})0;\n", name_, turn, sum_total_, c::c_expr(value_, helpers_),
                      type_, guards_hold());
  return text + "          }\n        }\n      }\n";
}

std::optional<MappedOperand> TileOperand::as_tensor(const Loops &batch) const {
  bool is_along = layout_ == TileLayout::own_bytes && sum_is_fast_;
  if (has_edges_ || !is_async() || !context_.machine.has_tensor_copies || (!is_along && !lies_across()))
    return std::nullopt;
  return map_operand(value_, element_, own_, sum_, batch, is_along ? own_size_ : 64, shape_.depth, is_along, context_);
}

std::string TileOperand::copy_boxes(const MappedOperand &mapped, const std::string &map, const std::string &step, const std::string &stage) const {
  std::string batch, text, sum = fmt::format("(int)({} * {})", step, shape_.depth);
  for (const std::string &b : mapped.batch)
    batch += fmt::format(", (int){}", b);
  if (!lies_across())
    return fmt::format("          kiln_copy_box({}, {}, kiln_full + kiln_slot, {}, (int){}{});\n", stage, map, sum, first_, batch);
  for (int block = 0; block < own_size_ / 64; ++block)
    text += fmt::format("          kiln_copy_box({} + {}, {}, kiln_full + kiln_slot, (int){} + {}, {}{});\n", stage, block * shape_.depth * 128, map, first_, block * 64, sum, batch);
  return text;
}

std::string TileOperand::keep(const std::string &stage) const {
  if (in_quads_)
    return keep_quads(stage);
  if (pack_ > 0)
    return keep_packs(stage);
  std::string_view store = shape_.unit == TileUnit::warpgroup ? "kiln_keep(({0} *)({1}), kiln_next_{2}[j]);" : "*({0} *)({1}) = kiln_next_{2}[j];";
  return "      {\n" + turn_head("        ") + "            " + fmt::format(fmt::runtime(store), type_, place(stage), name_) + "\n          }\n        }\n      }\n";
}

std::string TileOperand::descriptor(const std::string &base, const std::string &stage) const {
  return fmt::format("kiln_descriptor({} + ({}) * 128, UINT64_C({:#x}))", stage, base, warpgroup_descriptor(lies_across()));
}

std::string TileOperand::fragment(bool down, const std::string &to, const std::string &base, const std::string &stage) const {
  // Of the four blocks of a fragment, those of rows go down first, those of columns along the sum.
  auto far = [&](bool along_sum, std::string_view second, std::string_view fourth) { return along_sum == down ? fourth : second; };
  std::string_view step = far(true, "kiln_lane / 8 % 2", "kiln_lane / 16"), own = far(false, "kiln_lane / 8 % 2", "kiln_lane / 16");
  if (layout_ == TileLayout::own_bytes)
    return fmt::format("kiln_ldmatrix({}, {} + kiln_swizzle<{}>({} + kiln_lane % 8 + {} * 8, k * 32 + {} * 16));", to, stage, row_bytes(), base, own, step);
  if (layout_ == TileLayout::step_halves)
    return fmt::format("kiln_ldmatrix_across({}, {} + kiln_swizzle<{}>(k * 16 + kiln_lane % 8 + {} * 8, ({} + {} * 8) * 2));", to, stage, row_bytes(), step, base, own);
  return fmt::format("for (int e = 0; e < 4; ++e)\n            {}[e] = *(const uint32_t *)({} + kiln_swizzle_words<{}>(k * 8 + kiln_lane % 4 + {} * 4, "
                     "({} + kiln_lane / 4 + {} * 8) * 4));",
                     to, stage, row_bytes(), far(true, "e % 2", "e / 2"), base, far(false, "e % 2", "e / 2"));
}

} // namespace kiln::cuda
