// Sums of products by tiles: matrix products, convolutions, their gradients, whatever the layouts.
//
// The parallel loops of the nest fall into those that only one operand knows (rows), those that only the other one
// knows (columns), and those of both (batch). Rows, columns and the reduction are counted by one number each, so a
// convolution is a matrix product whose operands are looked up by coordinates: nothing is copied into place before. A
// block computes a tile: pieces of both operands go into one of several stages of shared memory while earlier ones are
// multiplied, one barrier a step, and every thread keeps a small tile of sums in registers. What stands behind the
// reduction is done with each sum. Sums are added in the order of the reduction, whatever the tile.
//
// Where both operands are bf16 or both are f16, warps multiply 16x8x16 at a time on the tensor cores (mma.sync), which
// add exact products in f32; f32 is multiplied there as tf32 where that is asked for, and in two parts where three such products are faster than
// one by threads (split_product.h). Where a device has it, groups of four
// warps have 64 rows each multiplied straight from shared memory (wgmma), while they copy what is next.
#include "codegen/cuda/product.h"
#include "codegen/cuda/split_product.h"
#include "codegen/cuda/tile_operand.h"
#include "codegen/cuda/tile_shape.h"
#include "codegen/cuda/vector_body.h"
#include "codegen/cuda/warpgroup.h"

#include "ir/kernel/build.h"
#include "ir/kernel/visit.h"

#include <fmt/format.h>

#include <algorithm>

namespace kiln::cuda {
namespace {

class TileEmitter {
public:
  TileEmitter(const Product &p, const TileShape &shape, const NestContext &context)
      : p_(p), shape_(shape), context_(context), dtype_(p.narrow.value_or(p.dtype)),
        type_(c::c_type(dtype_)), a_("a", p.a, dtype_, p.rows, p.sum, "kiln_row0", shape.rows, shape, context, out_.helpers, p.a_edges),
        b_("b", p.b, is_byte() ? p.b.dtype : dtype_, p.columns, p.sum, "kiln_column0", shape.columns, shape, context, out_.helpers, p.b_edges) {}

  // With slices, each tile is multiplied by as many blocks, which leave their sums in kiln_work.
  GpuNest emit() {
    c::Helpers &h = out_.helpers;
    Dim row_tiles = ceildiv(p_.count_rows(), shape_.rows), column_tiles = ceildiv(p_.count_columns(), shape_.columns);
    out_.blocks = row_tiles * column_tiles * product_of(p_.batch) * Dim(shape_.slices);
    if (is_warpgroup() && ends_together()) {
      a_map_ = a_.as_tensor(p_.batch);
      b_map_ = b_.as_tensor(p_.batch);
    }
    // The largest tiles of tensor cores take all registers; of the others two blocks hide each other's waits.
    out_.together = is_tensor() && shape_.rows * shape_.columns > (is_split() ? 128 * 64 : 128 * 128) ? 1 : dtype_bytes(p_.dtype) > 4 ? 1 : 2;
    out_.threads = shape_.threads + (!is_mapped() ? 0 : out_.together == 1 ? 128 : 32);
    int64_t stage = a_.bytes() + b_.bytes();
    out_.shared_bytes = stage * shape_.stages + (is_mapped() ? 16 * shape_.stages : 0);
    out_.in_lines = is_warpgroup();
    const std::string &index = context_.index_type;
    std::string &t = out_.text;
    t += thread_place();
    std::string tiles = fmt::format("  for ({0} kiln_tile = ({0})blockIdx.x; kiln_tile < {1}; kiln_tile += ({0})gridDim.x) {{\n", index, c::c_dim(out_.blocks, h));
    // Blocks that run together share rows and columns: eight rows of tiles, then the next column of them.
    tiles += fmt::format("    const {0} kiln_across = {1}, kiln_down = {2}, kiln_rest = kiln_tile / (kiln_across * kiln_down);\n", index, c::c_dim(column_tiles, h), c::c_dim(row_tiles, h));
    tiles += fmt::format("    const {0} kiln_in = kiln_tile % (kiln_across * kiln_down), kiln_first_row = kiln_in / (kiln_across * 8) * 8,\n"
                     "        kiln_together = kiln_down - kiln_first_row < 8 ? kiln_down - kiln_first_row : 8, kiln_at = kiln_in % (kiln_across * 8);\n",
                     index);
    tiles += fmt::format("    const {0} kiln_row0 = (kiln_first_row + kiln_at % kiln_together) * {1}, kiln_column0 = kiln_at / kiln_together * {2};\n", index, shape_.rows, shape_.columns);
    tiles += fmt::format("    const {0} v_kiln_part = kiln_rest % {1}, kiln_batch = kiln_rest / {1};\n    (void)v_kiln_part;\n    (void)kiln_batch;\n", index, shape_.slices);
    if (!p_.batch.empty())
      tiles += coordinates(p_.batch, "kiln_batch", context_, h, "    ");
    std::string all = fmt::format("({} + {}) / {}", c::c_dim(product_of(p_.sum), h), shape_.depth - 1, shape_.depth), range;
    if (shape_.slices == 1)
      range = fmt::format("    const {} kiln_begin = 0, kiln_steps = {};\n", index, all);
    else
      range = fmt::format("    const {0} kiln_all = {1}, kiln_begin = kiln_all * v_kiln_part / {2}, kiln_steps = kiln_all * (v_kiln_part + 1) / {2};\n", index, all, shape_.slices);
    if (is_mapped())
      t += ring(stage) + producer(tiles + range, stage) + "  int kiln_slot = 0, kiln_turn = 0;\n";
    t += tiles;
    if (!is_mapped())
      t += a_.places() + b_.places();
    t += fmt::format("    {} kiln_acc[{}][{}]{};\n", c::c_type(p_.dtype), sums_down(), sums_across(), is_tensor() ? "[4]" : "");
    t += each_sum("    ", fmt::format("kiln_acc[i][j]{} = {};", is_tensor() ? "[e]" : "", c::c_expr(p_.init->value, h)));
    t += range + (is_mapped() ? steps_of_ring(stage) : steps(index, stage)) + (is_split() ? repair() : "") + finish() + "  }\n";
    out_.work = tile_work(context_.kernel, p_, shape_, context_.machine);
    return std::move(out_);
  }

private:
  bool is_byte() const { return p_.narrow && dtype_bytes(*p_.narrow) == 1; }
  bool is_warpgroup() const { return shape_.unit == TileUnit::warpgroup; }
  bool is_tensor() const { return shape_.unit != TileUnit::scalar; }
  bool is_split() const { return shape_.unit == TileUnit::split; }
  // Of a thread: sums, or groups of 16x8 of its warp, four of which are its own. A warp has 16 of 64 rows of its warpgroup.
  int sums_down() const { return shape_.rows_each / (is_warpgroup() ? 64 : is_tensor() ? 16 : 1); }
  int sums_across() const { return is_tensor() ? shape_.columns_each / 8 : shape_.columns_each; }
  std::string each_sum(const std::string &pad, const std::string &what) const {
    return fmt::format("#pragma unroll\n{0}for (int i = 0; i < {1}; ++i)\n#pragma unroll\n{0}  for (int j = 0; j < {2}; ++j)\n{3}{0}    {4}\n", pad, sums_down(),
                       sums_across(), is_tensor() ? "#pragma unroll\n" + pad + "    for (int e = 0; e < 4; ++e)\n" : "", what);
  }

  // Warps side by side in a tile; of a scalar product, threads four by eight in a warp.
  std::string thread_place() const {
    std::string text = "  const int kiln_thread = (int)threadIdx.x, kiln_lane = kiln_thread % 32, kiln_warp = kiln_thread / 32;\n";
    int across = shape_.columns / shape_.columns_each;
    if (is_warpgroup())
      return text + fmt::format("  const int kiln_group = __shfl_sync(0xffffffffu, kiln_warp / 4, 0), kiln_group_row = kiln_group / {0} * {1}, kiln_warp_column = kiln_group % {0} * {2},\n"
                                "      kiln_warp_row = kiln_group_row + kiln_warp % 4 * 16;\n",
                                across, shape_.rows_each, shape_.columns_each);
    if (is_tensor()) {
      return text + fmt::format("  const int kiln_warp_row = kiln_warp / {0} * {1}, kiln_warp_column = kiln_warp % {0} * {2};\n", across, shape_.rows_each, shape_.columns_each);
    }
    across /= 8;
    return text + fmt::format("  const int kiln_x = kiln_warp % {0} * 8 + kiln_lane % 8, kiln_y = kiln_warp / {0} * 4 + kiln_lane / 8;\n", across);
  }

  // Stage s holds the steps s, s + stages, ... One barrier a step: behind it the step's stage is there for all, and the
  // stage of the step before is read by none, so the next pieces may go there. Warpgroups may still multiply the step before
  // behind the barrier, but no earlier one.
  std::string steps(const std::string &index, int64_t stage) {
    bool any_async = a_.is_async() || b_.is_async(), all_async = a_.is_async() && b_.is_async();
    int ahead = shape_.stages - (is_warpgroup() ? 2 : 1), last = shape_.stages - 1;
    std::string a_at = "kiln_stage", b_at = fmt::format("kiln_stage + {}", a_.bytes()), t;
    auto each = [&](bool async, auto &&f) {
      return (a_.is_async() == async ? f(a_, a_at) : "") + (b_.is_async() == async ? f(b_, b_at) : "");
    };
    std::string stage_of = fmt::format("unsigned char *const kiln_stage = kiln_shared + kiln_slot * {};\n", stage);
    if (any_async) {
      t += fmt::format("    auto kiln_send = [&](const {} kiln_at, const int kiln_slot) {{\n      {}", index, stage_of);
      t += each(true, [](const TileOperand &o, const std::string &at) { return o.send("kiln_at", at); }) + "    };\n";
      t += fmt::format("#pragma unroll\n    for (int s = 0; s < {0}; ++s) {{\n      if (kiln_begin + s < kiln_steps)\n        kiln_send(kiln_begin + s, s);\n      kiln_copy_commit();\n    }}\n", ahead);
    }
    if (!all_async) {
      t += fmt::format("    auto kiln_fetch = [&](const {} kiln_at) {{\n", index);
      t += each(false, [](const TileOperand &o, const std::string &) { return o.fetch("kiln_at"); }) + "    };\n";
      t += fmt::format("    auto kiln_keep_next = [&](const int kiln_slot) {{\n      {}", stage_of);
      t += each(false, [](const TileOperand &o, const std::string &at) { return o.keep(at); }) + "    };\n";
      t += "    if (kiln_begin < kiln_steps) {\n      kiln_fetch(kiln_begin);\n      kiln_keep_next(0);\n    }\n";
    }
    t += fmt::format("    int kiln_slot = 0;\n    for ({} kiln_step = kiln_begin; kiln_step < kiln_steps; ++kiln_step) {{\n", index);
    if (any_async)
      t += fmt::format("      kiln_copy_wait<{}>();\n", ahead - 1);
    t += is_warpgroup() ? "      kiln_async_fence();\n      __syncthreads();\n" : "      __syncthreads();\n";
    if (!all_async)
      t += "      if (kiln_step + 1 < kiln_steps)\n        kiln_fetch(kiln_step + 1);\n";
    std::string send, multiplied = "      {\n        " + stage_of + (is_warpgroup() ? multiply_warpgroups() : is_split() ? multiply_split() : is_tensor() ? multiply_tensors() : multiply()) + "      }\n";
    if (any_async)
      send = fmt::format("      if (kiln_step + {0} < kiln_steps)\n        kiln_send(kiln_step + {0}, kiln_slot {1} {2} ? kiln_slot + {0} : kiln_slot - {3});\n      kiln_copy_commit();\n", ahead,
                         "<", shape_.stages - ahead, shape_.stages - ahead);
    t += is_warpgroup() ? multiplied + send + "      kiln_wgmma_wait<1>();\n" : send + multiplied;
    t += fmt::format("      kiln_slot = kiln_slot == {} ? 0 : kiln_slot + 1;\n", last);
    if (!all_async)
      t += "      if (kiln_step + 1 < kiln_steps)\n        kiln_keep_next(kiln_slot);\n";
    t += "    }\n";
    if (is_warpgroup())
      t += "    kiln_wgmma_wait<0>();\n    kiln_hold(kiln_acc);\n";
    // The next tile begins with stages that none reads or copies to.
    return t + (any_async ? "    kiln_copy_wait<0>();\n" : "") + "    __syncthreads();\n";
  }

  // --- tensors that the device copies

  bool is_mapped() const { return a_map_ && b_map_; }
  // Whether no thread leaves before the others, who would wait for it.
  bool ends_together() const {
    bool all = true;
    std::vector<Stmt> after = p_.after;
    visit_stmts(after, [&](const Stmt &s) { all &= s.is(Stmt::Kind::let) || s.is(Stmt::Kind::store) || s.is(Stmt::Kind::if_); });
    return all;
  }

  // Stages are a ring. Of each, a barrier says that it is full: its bytes are there; another one that it is empty: every warp
  // has multiplied what it had.
  std::string ring(int64_t stage) {
    out_.helpers.insert(std::string(kTensorCopies));
    out_.maps = {a_map_->map, b_map_->map};
    out_.takes_turns = true; // what a block's next tile needs is asked for while this one's sums are stored
    return fmt::format("  uint64_t *const kiln_full = (uint64_t *)(kiln_shared + {0}), *const kiln_empty = kiln_full + {1};\n"
                       "  if (kiln_thread == 0) {{\n    for (int s = 0; s < {1}; ++s) {{\n      kiln_ring_init(kiln_full + s, 1);\n      kiln_ring_init(kiln_empty + s, {2});\n    }}\n"
                       "    kiln_ring_made();\n  }}\n  __syncthreads();\n",
                       stage * shape_.stages, shape_.stages, shape_.threads / 32);
  }
  std::string next_slot(std::string_view pad) const {
    return fmt::format("{0}if (++kiln_slot == {1}) {{\n{0}  kiln_slot = 0;\n{0}  kiln_turn ^= 1;\n{0}}}\n", pad, shape_.stages);
  }

  // A thread of one more warp asks for what all steps of the block's tiles need, as far ahead as stages are empty. Where a block
  // has a multiprocessor for itself it is a whole warpgroup, which leaves its registers to the others.
  std::string producer(const std::string &tiles, int64_t stage) const {
    constexpr int kFewest = 24, kMost = 240;
    std::string text = fmt::format("  if (kiln_group == {}) {{\n", shape_.threads / 128), more;
    if (out_.together == 1) {
      text += fmt::format("    kiln_fewer_registers<{}>();\n", kFewest);
      int left = int(context_.machine.registers / 128 - kFewest) / (shape_.threads / 128) / 8 * 8;
      more = fmt::format("  kiln_more_registers<{}>();\n", std::min(left, kMost));
    }
    text += fmt::format("    if (kiln_thread != {})\n      return;\n    int kiln_slot = 0, kiln_turn = 0;\n{}", shape_.threads, tiles);
    text += fmt::format("      for ({0} kiln_step = kiln_begin; kiln_step < kiln_steps; ++kiln_step) {{\n        kiln_ring_wait(kiln_empty + kiln_slot, kiln_turn ^ 1);\n"
                        "        kiln_ring_expect(kiln_full + kiln_slot, {1});\n        unsigned char *const kiln_stage = kiln_shared + kiln_slot * {1};\n",
                        context_.index_type, stage);
    text += a_.copy_boxes(*a_map_, "kiln_map0", "kiln_step", "kiln_stage") + b_.copy_boxes(*b_map_, "kiln_map1", "kiln_step", fmt::format("kiln_stage + {}", a_.bytes()));
    return text + next_slot("        ") + "      }\n    }\n    return;\n  }\n" + more;
  }

  // A stage is empty when the step after it has been issued and its own products are done.
  std::string steps_of_ring(int64_t stage) {
    constexpr std::string_view kGive = "kiln_ring_arrive(kiln_empty + (kiln_slot == 0 ? {} : kiln_slot - 1), {} && kiln_lane == 0);\n";
    int last = shape_.stages - 1;
    std::string t = fmt::format("    for ({0} kiln_step = kiln_begin; kiln_step < kiln_steps; ++kiln_step) {{\n      kiln_ring_wait(kiln_full + kiln_slot, kiln_turn);\n"
                                "      {{\n        unsigned char *const kiln_stage = kiln_shared + kiln_slot * {1};\n{2}      }}\n      kiln_wgmma_wait<1>();\n",
                                context_.index_type, stage, multiply_warpgroups());
    t += "      " + fmt::format(kGive, last, "kiln_step > kiln_begin") + next_slot("      ") + "    }\n    kiln_wgmma_wait<0>();\n    kiln_hold(kiln_acc);\n";
    return t + "    " + fmt::format(kGive, last, "kiln_steps > kiln_begin");
  }

  // --- products on tensor cores

  std::string multiply_tensors() const {
    int bytes = int(dtype_bytes(dtype_)), pairs = shape_.columns_each / 16;
    std::string round;
    if (dtype_ == DType::f32 && !p_.is_exact)
      round = fmt::format("#pragma unroll\n          for (int e = 0; e < {0} * 4; ++e)\n            kiln_rows[e / 4][e % 4] = kiln_to_tf32(kiln_rows[e / 4][e % 4]);\n"
                          "#pragma unroll\n          for (int e = 0; e < {1} * 4; ++e)\n            kiln_columns[e / 4][e % 4] = kiln_to_tf32(kiln_columns[e / 4][e % 4]);\n",
                          sums_down(), pairs);
    return fmt::format(R"(#pragma unroll
        for (int k = 0; k < {0}; ++k) {{
          uint32_t kiln_rows[{1}][4], kiln_columns[{2}][4];
#pragma unroll
          for (int i = 0; i < {1}; ++i)
            {3}
#pragma unroll
          for (int j = 0; j < {2}; ++j)
            {4}
{5}#pragma unroll
          for (int i = 0; i < {1}; ++i)
#pragma unroll
            for (int j = 0; j < {6}; ++j)
              kiln_mma_{7}(kiln_acc[i][j], kiln_rows[i], kiln_columns[j / 2][j % 2 * 2], kiln_columns[j / 2][j % 2 * 2 + 1]);
        }}
)",
                       shape_.depth * bytes / 32, sums_down(), pairs, a_.fragment(true, "kiln_rows[i]", "kiln_warp_row + i * 16", "kiln_stage"),
                       b_.fragment(false, "kiln_columns[j]", "kiln_warp_column + j * 16", fmt::format("kiln_stage + {}", a_.bytes())), round, sums_across(), is_byte() ? fmt::format("{}_{}", dtype_name(dtype_), dtype_name(p_.b.dtype)) : std::string(dtype_name(dtype_)));
  }

  SplitProduct split() const { return {p_, context_, sums_down(), sums_across(), shape_.depth}; }
  std::string multiply_split() const {
    return split().multiply(a_.fragment(true, "kiln_rows", "kiln_warp_row + i * 16", "kiln_stage"),
                            b_.fragment(false, "kiln_columns[j]", "kiln_warp_column + j * 16", fmt::format("kiln_stage + {}", a_.bytes())));
  }
  std::string repair() {
    return split().repair("kiln_row0 + kiln_warp_row + i * 16 + kiln_lane / 4 + e / 2 * 8", "kiln_column0 + kiln_warp_column + j * 8 + kiln_lane % 4 * 2 + e % 2",
                          fmt::format("kiln_begin * {}", shape_.depth), fmt::format("kiln_steps * {}", shape_.depth), out_.helpers);
  }

  std::string multiply_warpgroups() {
    WarpgroupProduct product{dtype_, is_byte() ? p_.b.dtype : dtype_, shape_.columns_each, a_.lies_across(), b_.lies_across()};
    out_.helpers.insert(product.name());
    return fmt::format(R"(const uint64_t kiln_as = {0}, kiln_bs = {1};
        kiln_wgmma_fence();
#pragma unroll
        for (int k = 0; k < 4; ++k)
#pragma unroll
          for (int i = 0; i < {2}; ++i)
            {3}(kiln_acc[i], kiln_as + i * {4} + k * {5}, kiln_bs + k * {6});
        kiln_wgmma_commit();
)",
                       a_.descriptor("kiln_group_row", "kiln_stage"), b_.descriptor("kiln_warp_column", fmt::format("kiln_stage + {}", a_.bytes())), sums_down(), product.name(),
                       TileOperand::kDescriptorBlock, a_.descriptor_step(), b_.descriptor_step());
  }

  // --- scalar products

  // Threads side by side have neighbouring groups of 16 bytes, which are read together.
  int group(int each) const { return std::min(each, 16 / int(dtype_bytes(dtype_))); }
  std::string spread(std::string_view at, int each, int threads, std::string_view i) const {
    int g = group(each);
    return each == g ? fmt::format("{} * {} + {}", at, g, i) : fmt::format("{0} / {1} * {2} + {3} * {1} + {0} % {1}", i, g, threads * g, at);
  }
  std::string row_at(std::string_view i) const {
    if (is_tensor())
      return fmt::format("kiln_warp_row + {0} / 2 * {1} + kiln_lane / 4 + {0} % 2 * 8", i, is_warpgroup() ? 64 : 16);
    return spread("kiln_y", shape_.rows_each, shape_.rows / shape_.rows_each, i);
  }
  std::string column_at(std::string_view j) const {
    return spread("kiln_x", shape_.columns_each, shape_.columns / shape_.columns_each, j);
  }

  std::string multiply() {
    std::string add;
    if (is_float(p_.dtype)) {
      std::string name = p_.dtype == DType::f64 ? "kiln_fma" : "kiln_fmaf";
      out_.helpers.insert(name);
      add = fmt::format("{}(kiln_rows[i], kiln_columns[j], kiln_acc[i][j])", name);
    } else {
      std::string u = dtype_bits(p_.dtype) == 64 ? "uint64_t" : "uint32_t";
      add = fmt::format("({0})(({1})kiln_acc[i][j] + ({1})kiln_rows[i] * ({1})kiln_columns[j])", type_, u);
    }
    auto take = [&](const TileOperand &o, std::string_view name, int each, int64_t offset, const std::string &at) {
      return fmt::format("#pragma unroll\n          for (int i = 0; i < {0}; i += {1}) {{\n            const auto kiln_some = kiln_load<{1}>(({2} *)(kiln_stage + {3}) + k * {4} + {5});\n"
                         "#pragma unroll\n            for (int e = 0; e < {1}; ++e)\n              {6}[i + e] = kiln_some[e];\n          }}\n",
                         each, group(each), type_, offset, o.row_elements(), at, name);
    };
    return fmt::format("#pragma unroll\n        for (int k = 0; k < {0}; ++k) {{\n          {1} kiln_rows[{2}], kiln_columns[{3}];\n{4}{5}"
                       "#pragma unroll\n          for (int i = 0; i < {2}; ++i)\n#pragma unroll\n            for (int j = 0; j < {3}; ++j)\n"
                       "              kiln_acc[i][j] = {6};\n        }}\n",
                       shape_.depth, type_, shape_.rows_each, shape_.columns_each, take(a_, "kiln_rows", shape_.rows_each, 0, row_at("i")),
                       take(b_, "kiln_columns", shape_.columns_each, a_.bytes(), column_at("i")), add);
  }

  // --- what is done with the sums

  // Neighbouring sums of a thread in a row: their columns are stored together where they may be.
  std::string finish() {
    const std::string &index = context_.index_type;
    const Symbol sums("kiln_sums");
    Stmt columns = *p_.columns.back();
    columns.body = p_.after;
    visit_exprs(columns.body, [&](Expr &e) {
      if (e.is(Expr::Kind::load) && e.name == p_.acc->name)
        e = kb::load(sums, e.dtype, Dim::symbol("kiln_lane"));
    });
    int together = is_tensor() ? 4 : group(shape_.columns_each), groups = (is_tensor() ? 2 * sums_across() : sums_across()) / together;
    int width = std::min(vector_width(columns, false, {sums}, context_), together), down = is_tensor() ? 2 * sums_down() : sums_down();
    while (width > 1 && !is_multiple(p_.count_columns(), width))
      width /= 2;
    Loops loops = p_.columns;
    loops.back() = &columns;
    std::string type = c::c_type(p_.dtype), sum = c::c_name(sums);
    std::string text = fmt::format("#pragma unroll\n    for (int i = 0; i < {}; ++i) {{\n      const {} kiln_row = kiln_row0 + {};\n", down, index, row_at("i"));
    text += coordinates(p_.rows, "kiln_row", context_, out_.helpers, "      ");
    text += fmt::format("#pragma unroll\n      for (int j = 0; j < {}; ++j) {{\n        {} kiln_some[{}];\n{}", groups, type, together, is_tensor() ? exchange() : "");
    if (!is_tensor())
      text += fmt::format("#pragma unroll\n        for (int e = 0; e < {0}; ++e)\n          kiln_some[e] = kiln_acc[i][j * {0} + e];\n"
                          "        const int kiln_own_column = {1};\n",
                          together, column_at(fmt::format("(j * {})", together)));
    text += fmt::format("#pragma unroll\n        for (int e = 0; e < {}; e += {}) {{\n          const {} kiln_column = kiln_column0 + kiln_own_column + e;\n", together, width, index);
    text += fmt::format("          if (kiln_row < {} && kiln_column < {}) {{\n{}", a_.own_total(), b_.own_total(),
                        coordinates(loops, "kiln_column", context_, out_.helpers, "            "));
    text += fmt::format("            {0} {1}[{2}];\n#pragma unroll\n            for (int l = 0; l < {2}; ++l)\n              {1}[l] = kiln_some[e + l];\n", type, sum, width);
    if (width > 1) {
      text += vector_turn(columns, width, 6, {sums}, context_, out_.helpers);
    } else {
      c::StmtStyle style{"*trap = {}; return;", nullptr, "", context_.index_type};
      text += fmt::format("            const int {} = 0;\n", c::c_name(Symbol("kiln_lane"))) + c::c_body(columns.body, 6, style, out_.helpers);
    }
    return text + "          }\n        }\n      }\n    }\n";
  }

  // Of two groups of 8 columns a lane has two each. It gives two to its neighbour and has four in a row then.
  std::string exchange() const {
    return fmt::format(R"(        const bool kiln_odd = kiln_lane % 2 != 0;
#pragma unroll
        for (int e = 0; e < 2; ++e) {{
          const {} kiln_first = kiln_acc[i / 2][j * 2][i % 2 * 2 + e], kiln_second = kiln_acc[i / 2][j * 2 + 1][i % 2 * 2 + e];
          const {} kiln_other = __shfl_xor_sync(0xffffffffu, kiln_odd ? kiln_first : kiln_second, 1);
          kiln_some[e] = kiln_odd ? kiln_other : kiln_first;
          kiln_some[e + 2] = kiln_odd ? kiln_second : kiln_other;
        }}
        const int kiln_own_column = kiln_warp_column + j * 16 + (kiln_odd ? 8 : 0) + kiln_lane % 4 / 2 * 4;
)",
                       c::c_type(p_.dtype), c::c_type(p_.dtype));
  }

  const Product &p_;
  TileShape shape_;
  const NestContext &context_;
  DType dtype_; // in shared memory
  std::string type_;
  GpuNest out_;
  TileOperand a_, b_;
  std::optional<MappedOperand> a_map_, b_map_;
};

Loops results_of(const Product &p) {
  Loops out = p.batch;
  out.insert(out.end(), p.rows.begin(), p.rows.end());
  out.insert(out.end(), p.columns.begin(), p.columns.end());
  return out;
}

// Whether slices of the sum may be added up by another launch: sizes are known, and what stands behind it is plain.
bool may_slice(const Product &p) {
  constexpr int64_t kMostResults = 1 << 20;
  Loops results = results_of(p);
  auto is_simple = [](const Stmt *l) { return is_normalised(*l) && l->end.is_const(); };
  auto count = constant(product_of(results));
  const Expr &init = p.init->value;
  return std::all_of(results.begin(), results.end(), is_simple) && count && *count <= kMostResults && constant(product_of(p.sum)) && init.number == 0 && init.integer == 0 &&
         std::all_of(p.after.begin(), p.after.end(), [](const Stmt &s) { return s.is(Stmt::Kind::let) || s.is(Stmt::Kind::store); });
}

struct SlicedSum {
  Stmt part;  // what is done with a sum of a slice
  Stmt whole; // the nest that adds them up, in order
  int64_t elements = 0;
};

SlicedSum slice_sum(const Product &p, int slices) {
  Loops results = results_of(p);
  Dim at = 0;
  for (const Stmt *l : results)
    at = at * l->end + Dim::symbol(l->name);
  int64_t count = product_of(results).as_const();
  SlicedSum out;
  out.elements = count * slices;
  out.part = kb::store(work_buffer(), at + Dim::symbol("kiln_part") * Dim(count), kb::load(p.acc->name, p.dtype, 0));
  Expr sum = kb::load(work_buffer(), p.dtype, at);
  for (int s = 1; s < slices; ++s)
    sum = kb::add(std::move(sum), kb::load(work_buffer(), p.dtype, at + Dim(count * s)));
  const Symbol total("kiln_total");
  std::vector<Stmt> body{kb::let(total, std::move(sum))};
  body.insert(body.end(), p.after.begin(), p.after.end());
  visit_exprs(body, [&](Expr &e) {
    if (e.is(Expr::Kind::load) && e.name == p.acc->name)
      e = kb::var(total, p.dtype);
  });
  for (auto [loops, known] : {std::pair(&p.rows, &p.a_edges.count), std::pair(&p.columns, &p.b_edges.count)})
    if (*known)
      body = {kb::if_(kb::binary(BinaryOp::lt, kb::index(Dim::symbol((*loops)[0]->name) * (*loops)[1]->end + Dim::symbol((*loops)[1]->name)), kb::index(**known)), std::move(body))};
  for (size_t i = results.size(); i-- > 0;)
    body = {kb::loop(results[i]->name, 0, results[i]->end, LoopKind::parallel, std::move(body))};
  out.whole = std::move(body[0]);
  return out;
}

} // namespace

std::vector<GpuNest> try_emit_tile(const Stmt &nest, const NestContext &context) {
  Rectangle rectangle = make_rectangular(nest);
  auto product = match_product(rectangle.nest);
  if (!product || dtype_bits(product->dtype) < 32 || !take_edges(*product, rectangle))
    return {};
  Dim rows = product->count_rows(), columns = product->count_columns(), sum = product_of(product->sum), batch = product_of(product->batch);
  auto is_at_least = [](const Dim &d, int64_t least) { return !d.is_const() || d.as_const() >= least; };
  // Smaller ones are not worth a tile's padding.
  if (!is_at_least(rows, 4) || !is_at_least(columns, 4) || !is_at_least(sum, 8) || !is_at_least(rows * columns, 64))
    return {};
  // Tensor cores pay even where most of a tile is padding.
  if (is_at_least(sum, 16))
    take_narrow(*product, context.machine);
  TileProblem problem{rows, columns, batch, sum};
  DType dtype = product->narrow.value_or(product->dtype);
  problem.on_tensors = product->narrow.has_value();
  problem.element_bytes = int(dtype_bytes(dtype));
  problem.is_async = product->a.is(Expr::Kind::load) || product->b.is(Expr::Kind::load);
  problem.may_slice = may_slice(*product);
  const GpuMachine &machine = context.machine;
  problem.may_split = dtype == DType::f32 && !product->narrow && machine.splits_products && machine.has_half_tiles && is_at_least(sum, 16);
  TileShape shape = choose_tile(problem, context.machine);
  if (shape.slices == 1)
    return {TileEmitter(*product, shape, context).emit()};
  SlicedSum sliced = slice_sum(*product, shape.slices);
  Product part = *product;
  part.after = {sliced.part};
  std::vector<GpuNest> out{TileEmitter(part, shape, context).emit(), emit_flat(sliced.whole, context)};
  for (GpuNest &n : out)
    add_work(n, product->dtype, sliced.elements);
  return out;
}

} // namespace kiln::cuda
