#include "passes/graph/layout_roles.h"

#include "ir/ops/op.h"
#include "passes/graph/index_map.h"

#include <algorithm>
#include <functional>
#include <map>

namespace kiln {
namespace {

// Fewer channels than this are not worth a vector's lanes.
constexpr int64_t kFewChannels = 8;

struct Inside { // a node inside a fusion, or the node itself
  const Node *node;
  std::vector<int> outer; // by operand: the index of the fusion's operand it is, or -1
};

Inside root_of(const Function &function, const Node &outer, const FusionInfo &info) {
  const Node &root = function.node(info.root);
  Inside out{&root, {}};
  for (size_t i = 0; i < root.operands.size(); ++i) {
    if (outer.op != Op::fusion) {
      out.outer.push_back(int(i));
      continue;
    }
    const auto &args = outer.regions[0].args;
    ValueId operand = root.operands[i];
    if (const Node *def = function.def(operand); def && def->op == Op::convert)
      operand = def->operands[0]; // weights in fewer bits
    auto it = std::find(args.begin(), args.end(), operand);
    out.outer.push_back(it == args.end() ? -1 : int(it - args.begin()));
  }
  return out;
}

bool all_static(const Attrs &attrs, std::string_view name) {
  return is_static(attrs.get_dims(name));
}

// The layouts of conv(x, w): the registers of a kernel hold output channels, except where there are
// few of them (then pixels) or where every channel is on its own (then these).
enum class ConvStyle { plain, blocked, few_inputs, depthwise };

bool is_byte_group(const TensorType &type) {
  return type.rank() >= 3 && type.dtype == DType::u8 && type.shape[1].is_const(4);
}

// Groups of whole blocks are convolutions over blocks of their own.
ConvStyle conv_style(const TensorType &type, const Shape &w, const Attrs &attrs, int64_t block) {
  const Shape &x = type.shape;
  auto channels = x[1].try_const(), outputs = w[0].try_const(),
       groups = attrs.get_dim("groups").try_const();
  if (!channels || !outputs || !groups || !all_static(attrs, "pad") || *outputs < kFewChannels)
    return ConvStyle::plain;
  if (*groups == 1)
    return *channels < kFewChannels && !is_byte_group(type) ? ConvStyle::few_inputs
                                                            : ConvStyle::blocked;
  if (*channels / *groups % block == 0 && *outputs / *groups % block == 0)
    return ConvStyle::blocked;
  return *groups == *channels && *outputs == *channels ? ConvStyle::depthwise : ConvStyle::plain;
}

std::vector<int> identity_order(int rank) {
  std::vector<int> out;
  for (int d = 0; d < rank; ++d)
    out.push_back(d);
  return out;
}

// Four inputs (or steps of a window) of 8 bits, or two of bf16, lie side by side for each output: they
// are multiplied together.
constexpr int64_t kQuad = 4, kPair = 2;

int64_t group_of(const TensorType &weights, int dim, bool pairs) {
  auto inputs = weights.shape[size_t(dim)].try_const();
  if (weights.dtype == DType::i8)
    return kQuad;
  return pairs && weights.dtype == DType::bf16 && inputs && *inputs % kPair == 0 ? kPair : 1;
}

Layout conv_weights(ConvStyle style, const TensorType &type, int64_t block, bool pairs) {
  Layout out;
  DType dtype = type.dtype;
  int rank = type.rank();
  if (style == ConvStyle::depthwise && dtype == DType::i8) { // [C/16][1][H][W/4][16][4 w]
    out.blocks = {{0, block}};
    if (auto width = type.shape.back().try_const(); width && *width > 1 && *width <= kQuad)
      out.blocks.push_back({rank - 1, kQuad});
    return out;
  }
  if (style == ConvStyle::few_inputs) { // [O/16][H][W][I][16]
    out.order = {0};
    for (int d = 2; d < rank; ++d)
      out.order.push_back(d);
    out.order.push_back(1);
  } else if (int64_t group = group_of(type, 1, pairs); style == ConvStyle::blocked && group > 1) {
    out.blocks = {{0, block}, {1, group}}; // [O/16][I/4][H][W][16 o][4 i]
    return out;
  } else if (style == ConvStyle::blocked) { // [O/16][I/16][H][W][16 i][16 o]
    out.blocks.push_back({1, block});
  }
  out.blocks.push_back({0, block});
  return out;
}

void conv_wants(const Function &function, const Inside &root, int64_t block, bool pairs, ConvForm form,
                KernelWants &out) {
  const TensorType &x = function.type(root.node->operands[0]);
  const Shape &w = function.type(root.node->operands[1]).shape;
  const Attrs &attrs = root.node->attrs;
  ConvStyle style = form == ConvForm::rows ? ConvStyle::plain : conv_style(x, w, attrs, block);
  if (form == ConvForm::rows_to_blocks && style == ConvStyle::blocked)
    style = ConvStyle::few_inputs;
  int input = root.outer[0], weights = root.outer[1];
  bool to_blocks = style == ConvStyle::blocked || style == ConvStyle::depthwise;
  if (style != ConvStyle::plain) {
    out.makes = Makes::blocked;
    if (weights >= 0) {
      out.operands[size_t(weights)] = Want::weights;
      out.packed[size_t(weights)] = conv_weights(
          style, function.type(root.node->operands[1]), block, pairs && x.dtype == DType::bf16);
    }
  }
  if (root.outer.size() > 2 && root.outer[2] >= 0)
    out.operands[size_t(root.outer[2])] = Want::any;
  if (input < 0)
    return;
  out.operands[size_t(input)] = to_blocks ? Want::blocked : Want::planar;
  if (!all_static(attrs, "pad"))
    return;
  auto pad = attrs.get_ints("pad");
  size_t spatial = pad.size() / 2;
  if (std::all_of(pad.begin(), pad.end(), [](int64_t p) { return p == 0; }))
    return;
  out.padded = input;
  out.padding.lo.assign(pad.begin(), pad.begin() + std::ptrdiff_t(spatial));
  out.padding.hi.assign(pad.begin() + std::ptrdiff_t(spatial), pad.end());
}

// A transposed convolution reads, for output position o, the elements (o + pad - k) / stride.
Padding transposed_padding(const Shape &w, const Attrs &attrs) {
  Padding out;
  auto pad = attrs.get_ints("pad"), stride = attrs.get_ints("stride"),
       extra = attrs.get_ints("output_padding");
  size_t spatial = w.size() - 2;
  for (size_t d = 0; d < spatial; ++d) {
    int64_t kernel = w[d + 2].as_const(), lo = pad[d], s = stride[d], first = 0;
    for (int64_t o = 0; o < s; ++o) {
      int64_t p = lo + o, taps = (kernel - p % s + s - 1) / s;
      first = std::min(first, p / s - (taps - 1));
    }
    out.lo.push_back(-first);
    out.hi.push_back(std::max<int64_t>(0, (kernel - 1 - pad[spatial + d] + extra[d]) / s));
  }
  return out;
}

// One convolution for each phase of the stride; the registers hold output channels.
void transposed_conv_wants(const Function &function, const Inside &root, int64_t block,
                           KernelWants &out) {
  const Shape &x = function.type(root.node->operands[0]).shape,
              &w = function.type(root.node->operands[1]).shape;
  const Attrs &attrs = root.node->attrs;
  auto channels = x[1].try_const(), outputs = w[1].try_const();
  auto dilation = attrs.get_dims("dilation");
  bool one_image = std::all_of(dilation.begin(), dilation.end(),
                               [](const Dim &d) { return d.is_const(1); });
  bool known = is_static(w) && all_static(attrs, "pad") && all_static(attrs, "stride") &&
               all_static(attrs, "output_padding");
  if (!known || !one_image || !attrs.get_dim("groups").is_const(1))
    return;
  bool blocked = channels && outputs && *channels >= kFewChannels && *outputs >= kFewChannels;
  int input = root.outer[0], weights = root.outer[1];
  if (blocked) {
    out.makes = Makes::blocked;
    if (weights >= 0) { // [O/16][I/16][H][W][16 i][16 o]
      Layout &layout = out.packed[size_t(weights)];
      layout.order = identity_order(int(w.size()));
      std::swap(layout.order[0], layout.order[1]);
      layout.blocks = {{0, block}, {1, block}};
      out.operands[size_t(weights)] = Want::weights;
    }
  }
  if (root.outer.size() > 2 && root.outer[2] >= 0)
    out.operands[size_t(root.outer[2])] = Want::any;
  if (input < 0)
    return;
  out.operands[size_t(input)] = blocked ? Want::blocked : Want::planar;
  out.padded = input;
  out.padding = transposed_padding(w, attrs);
}

// Calls f(operand's place in `args`, index) for all that `v` reads of them at `index`; false where that is no
// index.
bool for_reads(const Function &function, ValueId v, const std::vector<ValueId> &args, std::vector<Dim> index,
               const DimRanges &ranges, const std::function<void(size_t, const std::vector<Dim> &)> &f) {
  if (auto it = std::find(args.begin(), args.end(), v); it != args.end()) {
    f(size_t(it - args.begin()), index);
    return true;
  }
  const Node *def = function.def(v);
  if (!def)
    return false;
  for (size_t i = 0; i < def->operands.size(); ++i) {
    auto next = operand_index(function, *def, int(i), index, ranges);
    if (!next || !for_reads(function, def->operands[i], args, std::move(*next), ranges, f))
      return false;
  }
  return true;
}

// Weights of a few bits, which a product unpacks as it reads: words, scales and zero points that lie along the columns
// get panels of them, [N / 16][...][16].
bool unpacks_inside(const Function &function, const Node &outer, ValueId weights) {
  const Node *def = function.def(weights);
  const auto &nodes = outer.regions[0].nodes;
  return def && def->op != Op::constant &&
         std::any_of(nodes.begin(), nodes.end(), [&](NodeId id) {
           return function.node(id).op == Op::shift_right || function.node(id).op == Op::shift_left;
         });
}

void unpacking_wants(const Function &function, const Node &outer, const Node &dot, int64_t block, KernelWants &out) {
  const Shape &shape = function.type(dot.operands[1]).shape;
  bool transposed = dot.attrs.get_bool("transpose_b");
  const size_t columns = transposed ? shape.size() - 2 : shape.size() - 1;
  auto count = shape[columns].try_const();
  IndexSpace space = index_space(shape);
  auto column = space.index[columns].try_symbol();
  if (!count || *count < kFewChannels || !column)
    return;
  std::map<size_t, Layout> packed;
  bool known = for_reads(function, dot.operands[1], outer.regions[0].args, space.index, space.ranges,
                         [&](size_t operand, const std::vector<Dim> &at) {
    Layout layout;
    for (size_t d = 0; d < at.size(); ++d)
      if (at[d].try_symbol() == column) {
        layout.order.insert(layout.order.begin(), int(d));
        layout.blocks.push_back({int(d), block});
      } else {
        layout.order.push_back(int(d));
      }
    if (at.size() > 1 && layout.blocks.size() == 1)
      packed[operand] = std::move(layout);
  });
  if (!known)
    return;
  for (auto &[operand, layout] : packed) {
    out.packed[operand] = layout;
    out.operands[operand] = Want::weights;
  }
}

void dot_wants(const Function &function, const Node &outer, const Inside &root, int64_t block, bool pairs,
               KernelWants &out) {
  int b = root.outer[1];
  if (b < 0 && outer.op == Op::fusion && unpacks_inside(function, outer, root.node->operands[1]))
    return unpacking_wants(function, outer, *root.node, block, out);
  if (b < 0)
    return;
  const Node *def = function.def(root.node->operands[1]);
  const TensorType &type = function.type(root.node->operands[1]);
  bool transposed = root.node->attrs.get_bool("transpose_b");
  int columns = transposed ? type.rank() - 2 : type.rank() - 1;
  auto count = type.shape[size_t(columns)].try_const();
  if (def && def->op != Op::constant && def->op != Op::convert) // inside: a view
    return;
  if (!count || *count < kFewChannels)
    return;
  // [N / 16][K][16]
  Layout &layout = out.packed[size_t(b)];
  if (!transposed) {
    layout.order = identity_order(type.rank());
    std::swap(layout.order[size_t(columns)], layout.order[size_t(columns) - 1]);
  }
  layout.blocks = {{columns, block}};
  int depth = transposed ? type.rank() - 1 : type.rank() - 2;
  pairs = pairs && function.type(root.node->operands[0]).dtype == DType::bf16;
  if (int64_t group = group_of(type, depth, pairs); group > 1) // [N / 16][K / 4][16][4]
    layout.blocks.push_back({depth, group});
  out.operands[size_t(b)] = Want::weights;
}

void set_all(KernelWants &out, Want want) {
  std::fill(out.operands.begin(), out.operands.end(), want);
}

// Whether a fusion (or node) of ops on elements keeps every element in its place.
bool is_pointwise(const Function &function, const Node &outer) {
  auto keeps = [&](const Node &n) {
    const OpDef &def = op_def(n.op);
    return n.op == Op::constant || def.scalar || n.op == Op::broadcast_to;
  };
  if (outer.op != Op::fusion)
    return keeps(outer);
  return std::all_of(outer.regions[0].nodes.begin(), outer.regions[0].nodes.end(),
                     [&](NodeId id) { return keeps(function.node(id)); });
}

// Copies of fewer elements are not worth another one.
constexpr int64_t kManyElements = 4096;

// Movements that take channels apart (a shuffle of channels, heads made of them) copy rows of pixels where these
// lie side by side, and elements one by one where channels do: reading and writing planes is worth a relayout.
bool takes_channels_apart(const Function &function, const Node &outer) {
  const TensorType &type = function.type(outer.results[0]);
  auto count = element_count(type.shape).try_const();
  if (outer.results.size() != 1 || !count || *count < kManyElements)
    return false;
  bool is_fusion = outer.op == Op::fusion, apart = false;
  const Block *region = is_fusion ? &outer.regions[0] : nullptr;
  ValueId root = region ? region->results[0] : outer.results[0];
  IndexSpace space = index_space(type.shape);
  if (space.symbols.empty())
    return false;
  Symbol lane = space.symbols.back();
  bool known = for_reads(function, root, region ? region->args : outer.operands, space.index, space.ranges,
                         [&](size_t operand, const std::vector<Dim> &at) {
    const TensorType &from = function.type(outer.operands[operand]);
    if (!can_block(from) || !is_static(from.shape))
      return;
    int64_t pixels = 1;
    for (size_t d = 2; d < from.shape.size(); ++d)
      pixels *= from.shape[d].as_const();
    Dim channel = simplify(at[1], space.ranges);
    bool kept = type.rank() > 1 && (channel - space.index[1]).is_const(),
         rows_of_pixels = !channel.depends_on(lane);
    apart |= pixels > 1 && !kept && rows_of_pixels;
  });
  return known && apart;
}

// Blocks that do not start where the parts' do are copied in two runs.
bool keeps_blocks(const Function &function, const Node &concat) {
  int64_t axis = concat.attrs.get_int("axis");
  if (axis != 1 && axis != 1 - function.type(concat.results[0]).rank())
    return true;
  return std::all_of(concat.operands.begin(), concat.operands.end(), [&](ValueId v) {
    auto channels = function.type(v).shape[1].try_const();
    return channels && *channels >= kFewChannels;
  });
}

// Its tiles reach past the end of the input where they are partly outside of the result.
void winograd_wants(const Function &function, const Node &outer, const Inside &root,
                    KernelWants &out) {
  set_all(out, Want::match);
  const Node &node = *root.node;
  const Shape &x = function.type(node.operands[0]).shape, &y = function.type(node.results[0]).shape;
  int64_t tile = node.attrs.get_int("tile");
  auto pad = node.attrs.get_ints("pad");
  out.makes = Makes::blocked;
  if (root.outer[1] >= 0) {
    out.operands[size_t(root.outer[1])] = Want::blocked;
    const Node *def = function.def(outer.operands[size_t(root.outer[1])]);
    if (!def || def->op != Op::constant)
      out.spaced = root.outer[1];
  }
  if (root.outer.size() > 2 && root.outer[2] >= 0)
    out.operands[size_t(root.outer[2])] = Want::any;
  if (root.outer[0] < 0)
    return;
  out.operands[size_t(root.outer[0])] = Want::blocked;
  out.padded = root.outer[0];
  for (size_t d = 0; d < 2; ++d) {
    out.padding.lo.push_back(pad[d]);
    if (node.attrs.get_int("tiles") > 0) { // wherever the last tile begins
      out.padding.hi.push_back(pad[d + 2] + tile - 1);
      continue;
    }
    int64_t reach = (y[d + 2].as_const() + tile - 1) / tile * tile + 2;
    out.padding.hi.push_back(std::max<int64_t>(0, reach - pad[d] - x[d + 2].as_const()));
  }
}

void lower_wants(const Function &function, const Node &outer, const Node &root,
                 KernelWants &out) {
  if (outer.op == Op::fusion &&
      !std::all_of(outer.regions[0].nodes.begin(), outer.regions[0].nodes.end(), [&](NodeId id) {
        const Node &n = function.node(id);
        return op_def(n.op).scalar || n.op == Op::constant || n.op == Op::resize || &n == &root;
      }))
    return;
  bool keeps = false;
  if (root.op == Op::concat && function.type(root.results[0]).rank() > 1) {
    keeps = keeps_blocks(function, root);
  } else if (root.op == Op::pad) {
    const auto &lo = root.attrs.get_dims("lo"), &hi = root.attrs.get_dims("hi");
    keeps = lo.size() > 1 && lo[1].is_const(0) && hi[1].is_const(0);
  }
  out.makes = keeps                                         ? Makes::inherits
              : root.op == Op::concat || root.op == Op::pad ? Makes::any
                                                            : Makes::planar;
  set_all(out, keeps ? Want::match : out.makes == Makes::any ? Want::any : Want::planar);
}

} // namespace

bool can_block(const TensorType &type) {
  if (is_byte_group(type))
    return type.rank() <= 5;
  if (type.rank() < 3 || type.rank() > 5 || (!is_float(type.dtype) && type.dtype != DType::u8))
    return false;
  auto channels = type.shape[1].try_const();
  return channels && *channels >= kFewChannels;
}

Layout blocked_layout(const TensorType &type, const PassFlags &flags) {
  bool in_tiles = type.dtype == DType::u8 ? flags.byte_tiles : type.dtype == DType::bf16 && flags.bf16_tiles;
  int64_t block = flags.block;
  if (in_tiles)
    block *= ceildiv(type.shape[1], block).as_const();
  Layout out;
  out.blocks.push_back({1, is_byte_group(type) ? kQuad : block});
  return out;
}

KernelWants kernel_wants(const Function &function, NodeId id, int64_t block, bool pairs, ConvForm form) {
  const Node &node = function.node(id);
  KernelWants out;
  out.operands.assign(node.operands.size(), Want::exact);
  out.packed.resize(node.operands.size());
  const OpDef &own = op_def(node.op);
  if ((own.structural && node.op != Op::fusion) || node.op == Op::constant)
    return out;
  if (node.op != Op::fusion && !own.scalar && !own.element && !own.reduce && !own.lower)
    return out; // a composite that the target has
  set_all(out, Want::planar);
  FusionInfo info = describe_fusion(function, id);
  switch (info.form) {
  case FusionForm::elementwise:
    if (is_pointwise(function, node)) {
      out.makes = Makes::inherits;
      set_all(out, Want::match);
    } else if (node.op == Op::resize && function.type(node.operands[0]).rank() > 1 &&
               function.type(node.operands[0]).shape[1] ==
                   function.type(node.results[0]).shape[1]) {
      // Positions and weights are worked out once for all channels of a block.
      bool copies = node.attrs.get_string("mode") == "nearest";
      out.makes = copies ? Makes::inherits : Makes::as_read;
      set_all(out, Want::match);
    } else if (!takes_channels_apart(function, node)) {
      out.makes = Makes::any;
      set_all(out, Want::any);
    }
    return out;
  case FusionForm::rows: {
    bool over_space = int(info.space.size()) - info.reduced_dims >= 2 && info.space.size() >= 3;
    out.makes = over_space ? Makes::as_read : Makes::planar;
    set_all(out, over_space ? Want::match : Want::planar);
    return out;
  }
  case FusionForm::attention:
    return out;
  case FusionForm::lower:
    if (function.node(info.root).op == Op::winograd_conv) {
      winograd_wants(function, node, root_of(function, node, info), out);
    } else if (node.op == Op::winograd_weights) { // from what the convolution itself would read
      out.makes = Makes::blocked;
      out.operands[0] = Want::weights;
      out.packed[0] = conv_weights(ConvStyle::blocked, function.type(node.operands[0]), block, false);
    } else {
      lower_wants(function, node, function.node(info.root), out);
    }
    return out;
  case FusionForm::chain: // made after layouts are chosen
    set_all(out, Want::any);
    return out;
  case FusionForm::row_block:
    dot_wants(function, node, root_of(function, node, info), block, pairs, out);
    return out;
  case FusionForm::reduce:
    break;
  }
  Inside root = root_of(function, node, info);
  const OpDef &def = op_def(root.node->op);
  bool keeps_shape = std::all_of(node.results.begin(), node.results.end(), [&](ValueId v) {
    return function.type(v).shape == function.type(root.node->results[0]).shape;
  });
  if (root.node->op == Op::conv && keeps_shape) {
    set_all(out, Want::match);
    conv_wants(function, root, block, pairs, form, out);
  } else if (root.node->op == Op::conv_transpose && keeps_shape) {
    set_all(out, Want::match);
    transposed_conv_wants(function, root, block, out);
  } else if (root.node->op == Op::dot) {
    dot_wants(function, node, root, block, pairs, out);
  } else if (def.has(kReduction)) {
    out.makes = Makes::any;
    set_all(out, Want::any);
  } else if (root.node->op == Op::max_pool || root.node->op == Op::avg_pool) {
    out.makes = keeps_shape ? Makes::inherits : Makes::planar;
    set_all(out, keeps_shape ? Want::match : Want::any);
  }
  return out;
}

} // namespace kiln
