// winograd_weights and winograd_conv: 3 x 3 convolutions with stride 1 by Winograd's minimal filtering.
// The winograd pass puts them in the place of a conv; the weights' transform is folded where they are
// constants.
//
// A kernel works on blocks of tile rows, so that what it holds between its three steps stays in the
// cache. V and M have one plane for each of the (m + 2)^2 points; rows are padded, so that the planes
// do not fall into the same cache sets.
//
//   for each block                    V[point][tile][c] = B' x B
//     for each group of panels of o   M[point][tile][o] = sum over c of V[point][tile][c] U[point][o][c]
//                                     y = A' M A, and whatever is fused behind
#include "ir/ops/winograd.h"

#include "ir/ops/infer_util.h"
#include "ir/ops/ref_util.h"

#include <fmt/format.h>

namespace kiln {
namespace {

constexpr int64_t kPanel = 16;

Status check_f32(const InferContext &c, int operand) {
  return check_dtype(c, operand, c.operands[size_t(operand)].dtype == DType::f32, "f32");
}

Result<int64_t> tile_attr(const Attrs &attrs) {
  KILN_TRY(tile, int_attr(attrs, "tile"));
  if (tile != 2 && tile != 4)
    return Error{fmt::format("'tile' is {}; it must be 2 or 4", tile)};
  return tile;
}

// --- winograd_weights ---------------------------------------------------------------------------

Result<std::vector<TensorType>> infer_weights(InferContext &c) {
  KILN_RETURN_IF_ERROR(check_f32(c, 0));
  KILN_RETURN_IF_ERROR(check_rank(c, 0, 4));
  const Shape &w = c.operands[0].shape;
  if (!w[2].is_const(3) || !w[3].is_const(3))
    return Error{fmt::format("the weights are {}; the last two dims must be 3", shape_text(w))};
  KILN_TRY(tile, tile_attr(c.attrs));
  return one_result(DType::f32, {Dim((tile + 2) * (tile + 2)), w[0], w[1]});
}

Result<std::vector<Tensor>> ref_weights(const RefContext &c) {
  const WinogradMatrices &m = winograd_matrices(c.attrs.get_int("tile"));
  const Tensor &w = *c.operands[0];
  Tensor out = make_tensor(c.results[0]);
  int64_t filters = w.dims()[0] * w.dims()[1], points = m.points;
  auto weights = widen_all<double>(w);
  auto *u = out.data<float>();
  for (int64_t f = 0; f < filters; ++f)
    for (int64_t a = 0; a < points; ++a)
      for (int64_t b = 0; b < points; ++b) {
        double sum = 0;
        for (size_t i = 0; i < 3; ++i)
          for (size_t j = 0; j < 3; ++j)
            sum += m.weights[size_t(a)][i] * m.weights[size_t(b)][j] * weights[size_t(f) * 9 + i * 3 + j];
        u[(a * points + b) * filters + f] = float(sum);
      }
  return std::vector{std::move(out)};
}

void lower_weights(LowerContext &c) {
  int64_t tile = c.attrs().get_int("tile"), points = tile + 2;
  const Shape &w = c.operand_type(0).shape;
  c.loop("p", 0, ceildiv(w[0], kPanel), LoopKind::parallel, [&](const Dim &panel) {
    c.loop("c", 0, w[1], LoopKind::parallel, [&](const Dim &channel) {
      Dim end = min(Dim(kPanel), w[0] - panel * Dim(kPanel));
      c.loop("l", 0, end, LoopKind::parallel, [&](const Dim &lane) {
        Dim o = panel * Dim(kPanel) + lane;
        std::vector<std::vector<Expr>> columns; // by tap j: the points over i
        for (int64_t j = 0; j < 3; ++j) {
          std::vector<Expr> taps;
          for (int64_t i = 0; i < 3; ++i)
            taps.push_back(c.bind(c.operand(0, std::vector<Dim>{o, channel, Dim(i), Dim(j)})));
          columns.push_back(winograd_weights_row(c, tile, taps));
        }
        for (int64_t a = 0; a < points; ++a) {
          size_t at = size_t(a);
          auto row = winograd_weights_row(c, tile, {columns[0][at], columns[1][at], columns[2][at]});
          for (int64_t b = 0; b < points; ++b)
            c.emit(c.store_result(0, std::vector<Dim>{Dim(a * points + b), o, channel}, row[size_t(b)]));
        }
      });
    });
  });
}

// --- winograd_conv ------------------------------------------------------------------------------

Result<std::vector<TensorType>> infer_conv(InferContext &c) {
  for (int i = 0; i < int(c.operands.size()); ++i)
    KILN_RETURN_IF_ERROR(check_f32(c, i));
  KILN_RETURN_IF_ERROR(check_rank(c, 0, 4));
  KILN_RETURN_IF_ERROR(check_rank(c, 1, 3));
  KILN_TRY(tile, tile_attr(c.attrs));
  KILN_TRY(rows, int_attr(c.attrs, "rows"));
  if (rows < 1)
    return Error{fmt::format("'rows' is {}; it must be at least 1", rows)};
  const Shape &x = c.operands[0].shape, &u = c.operands[1].shape;
  int64_t points = (tile + 2) * (tile + 2);
  KILN_TRY(groups, int_attr(c.attrs, "groups"));
  auto splits = [&](const Dim &channels, int64_t by) {
    return channels.is_const() && channels.as_const() % groups == 0 && channels.as_const() / groups % by == 0;
  };
  if (groups < 1 || (groups > 1 && (!splits(x[1], 1) || !splits(u[1], kPanel))))
    return Error{fmt::format("'groups' is {}; it must divide the channels, those of the result into multiples of {}",
                             groups, kPanel)};
  KILN_RETURN_IF_ERROR(equal_shapes(c, u, {Dim(points), u[1], groups == 1 ? x[1] : Dim(x[1].as_const() / groups)},
                                    "the transformed weights and [points, channels out, channels in of a group]"));
  if (c.operands.size() > 2)
    KILN_RETURN_IF_ERROR(equal_shapes(c, c.operands[2].shape, {u[1]}, "the bias and the output channels"));
  KILN_TRY(pad, ints_attr(c.attrs, "pad", 4, 0));
  Shape out{x[0], u[1]};
  if (!x[1].is_const())
    return Error{"the number of channels must be known"};
  KILN_TRY(tiles, int_attr(c.attrs, "tiles"));
  bool known = x[2].is_const() && x[3].is_const();
  if (tiles < 0 || tiles > (1 << 16) || (!known && tiles == 0))
    return Error{fmt::format("'tiles' is {}; an image of unknown size needs how many are computed at a time", tiles)};
  for (size_t d = 0; d < 2; ++d) {
    auto size = x[d + 2].try_const();
    if ((size && *size > (int64_t(1) << 31)) || pad[d] > (1 << 20) || pad[d + 2] > (1 << 20))
      return Error{"the image is too large"};
    Dim result = x[d + 2] + Dim(pad[d] + pad[d + 2] - 2);
    if (!require_at_most(c, 1, result))
      return Error{fmt::format("the kernel is larger than the padded input along dim {}", d + 2)};
    out.push_back(std::move(result));
  }
  return one_result(DType::f32, std::move(out));
}

using Square = std::vector<double>; // points x points, row by row

// left * x * left', for `left` of n rows and x of k x k.
Square sandwich(const std::vector<std::vector<double>> &left, const Square &x) {
  size_t n = left.size(), k = left[0].size();
  Square half(n * k), out(n * n);
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < k; ++j)
      for (size_t s = 0; s < k; ++s)
        half[i * k + j] += left[i][s] * x[s * k + j];
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j)
      for (size_t s = 0; s < k; ++s)
        out[i * n + j] += half[i * k + s] * left[j][s];
  return out;
}

Result<std::vector<Tensor>> ref_conv(const RefContext &c) {
  const WinogradMatrices &m = winograd_matrices(c.attrs.get_int("tile"));
  const Tensor &x = *c.operands[0];
  Tensor out = make_tensor(c.results[0]);
  auto pad = c.attrs.get_ints("pad");
  const auto &in = x.dims(), &to = out.dims();
  int64_t tile = m.tile, points = m.points, channels = in[1], outputs = to[1];
  int64_t groups = c.attrs.get_int("groups"), in_group = channels / groups, out_group = outputs / groups;
  auto image = widen_all<double>(x), u = widen_all<double>(*c.operands[1]);
  std::vector<double> bias(size_t(outputs), 0.0), result(size_t(out.count()));
  if (c.operands.size() > 2)
    bias = widen_all<double>(*c.operands[2]);
  std::vector<Square> v(static_cast<size_t>(channels));
  for (int64_t n = 0; n < to[0]; ++n)
    for (int64_t top = 0; top < to[2]; top += tile)
      for (int64_t left = 0; left < to[3]; left += tile) {
        for (int64_t ch = 0; ch < channels; ++ch) {
          Square d(size_t(points * points));
          for (int64_t i = 0; i < points; ++i)
            for (int64_t j = 0; j < points; ++j) {
              int64_t row = top + i - pad[0], column = left + j - pad[1];
              if (row >= 0 && row < in[2] && column >= 0 && column < in[3])
                d[size_t(i * points + j)] =
                    image[size_t(((n * channels + ch) * in[2] + row) * in[3] + column)];
            }
          v[size_t(ch)] = sandwich(m.input, d);
        }
        for (int64_t o = 0; o < outputs; ++o) {
          Square product(size_t(points * points));
          for (int64_t ch = 0; ch < in_group; ++ch)
            for (size_t k = 0; k < product.size(); ++k)
              product[k] += v[size_t(o / out_group * in_group + ch)][k] *
                            u[(k * size_t(outputs) + size_t(o)) * size_t(in_group) + size_t(ch)];
          Square y = sandwich(m.output, product);
          for (int64_t i = 0; i < tile && top + i < to[2]; ++i)
            for (int64_t j = 0; j < tile && left + j < to[3]; ++j)
              result[size_t(((n * outputs + o) * to[2] + top + i) * to[3] + left + j)] =
                  y[size_t(i * tile + j)] + bias[size_t(o)];
        }
      }
  narrow(result.data(), 0, out.count(), out);
  return std::vector{std::move(out)};
}

// Panels of outputs whose M is held at once: a divisor, so that all groups are equal.
int64_t panels_in_group(int64_t panels) {
  for (int64_t group : {4, 3, 6, 5, 7, 2})
    if (panels % group == 0)
      return group;
  return panels <= 16 ? panels : 1;
}

class ConvLowering {
public:
  explicit ConvLowering(LowerContext &c) : c_(c) {
    tile_ = c.attrs().get_int("tile");
    points_ = tile_ + 2;
    auto pad = c.attrs().get_ints("pad");
    const Shape &x = c.operand_type(0).shape, &y = c.result_type().shape;
    channels_ = x[1];
    outputs_ = y[1];
    flat_ = c.attrs().get_int("tiles");
    for (size_t d = 0; d < 2; ++d) {
      image_[d] = x[d + 2];
      pad_[d] = pad[d];
      size_[d] = y[d + 2];
      if (flat_ > 0) {
        padded_[d] = c.operand_zero_padded(0, int(d) + 2, pad_[d], pad[d + 2] + tile_ - 1);
        continue;
      }
      out_[d] = y[d + 2].as_const();
      tiles_[d] = (out_[d] + tile_ - 1) / tile_;
      whole_[d] = out_[d] / tile_;
      padded_[d] = c.operand_zero_padded(0, int(d) + 2, pad_[d], tiles_[d] * tile_ + 2 - pad_[d] - x[d + 2].as_const());
    }
    panels_ = ceildiv(outputs_, kPanel);
    int64_t groups = c.attrs().get_int("groups");
    alone_ = groups == 1 ? panels_ : Dim(outputs_.as_const() / groups / kPanel);
    in_group_ = c.operand_type(1).shape[2];
    group_ = alone_.is_const() ? panels_in_group(alone_.as_const()) : 1;
    rows_ = flat_ > 0 ? 1 : std::min(c.attrs().get_int("rows"), tiles_[0]);
  }

  void run() {
    if (flat_ > 0)
      return run_flat();
    c_.loop("n", 0, c_.result_type().shape[0], LoopKind::parallel, [&](const Dim &n) {
      n_ = n;
      int64_t whole = tiles_[0] / rows_, rest = tiles_[0] % rows_;
      c_.loop("b", 0, whole + (rest > 0), LoopKind::parallel, [&](const Dim &b) {
        if (rest == 0)
          return block(b * Dim(rows_), rows_);
        c_.if_then(kb::lt(kb::index(b), kb::index(whole)), [&] { block(b * Dim(rows_), rows_); });
        c_.if_then(kb::le(kb::index(whole), kb::index(b)), [&] { block(whole * rows_, rest); });
      });
    });
  }

private:
  // Elements of one plane of V or M: not a multiple of 4 KiB, and a little more than their rows need.
  struct Planes {
    Symbol name;
    Dim row, plane;
    Dim at(const Dim &point, const Dim &tile, const Dim &column) const {
      return point * plane + tile * row + column;
    }
  };
  struct Element {
    Dim tile, column; // of M
  };
  Planes planes(std::string_view name, int64_t tiles, int64_t columns) {
    int64_t row = (columns + kPanel - 1) / kPanel * kPanel + kPanel, plane = tiles * row;
    if (plane % 256 == 0)
      plane += kPanel;
    Planes out{fresh_symbol(name), row, plane};
    c_.emit(kb::alloc(out.name, DType::f32, points_ * points_ * plane, 1, MemorySpace::stack));
    return out;
  }

  void block(const Dim &first, int64_t rows) {
    Planes v = planes("v", rows * tiles_[1], channels_.as_const());
    transform_input(v, first, rows);
    c_.loop("g", 0, floordiv(panels_, group_), LoopKind::parallel, [&](const Dim &g) {
      Planes m = planes("m", rows * tiles_[1], group_ * kPanel);
      multiply(v, m, g * Dim(group_), rows * tiles_[1]);
      transform_output(m, g * Dim(group_), first, rows);
    });
  }

  // --- images of unknown size ---
  //
  // The tiles of an image are numbered row by row, and so many of them at a time are one block: blocks
  // are equal whatever the size of the image, but the last.

  void run_flat() {
    across_ = ceildiv(size_[1], tile_);
    Dim total = ceildiv(size_[0], tile_) * across_, whole = floordiv(total, flat_);
    c_.loop("n", 0, c_.result_type().shape[0], LoopKind::parallel, [&](const Dim &n) {
      n_ = n;
      c_.loop("b", 0, ceildiv(total, flat_), LoopKind::parallel, [&](const Dim &b) {
        Dim first = b * Dim(flat_);
        c_.if_then(kb::lt(kb::index(b), kb::index(whole)), [&] { flat_block(first, flat_); });
        c_.if_then(kb::le(kb::index(whole), kb::index(b)), [&] {
          flat_block(first, named(total - first, 1, Dim(flat_)));
        });
      });
    });
  }

  Dim named(const Dim &d, const Dim &least, const Dim &end) {
    return c_.bind_index(kb::max(kb::index(d), kb::index(least)), least, end);
  }

  void flat_block(const Dim &first, const Dim &count) {
    Planes v = planes("v", flat_, channels_.as_const());
    c_.loop("c", 0, ceildiv(channels_, kPanel), LoopKind::parallel, [&](const Dim &block) {
      over_tiles(first, count, [&](const Dim &t, const Dim &ty, const Dim &tx) {
        Dim end = min(Dim(kPanel), channels_ - block * Dim(kPanel));
        c_.loop("l", 0, end, LoopKind::parallel, [&](const Dim &lane) {
          input_tile(v, t, block * Dim(kPanel) + lane, ty, tx);
        });
      });
    });
    c_.loop("g", 0, floordiv(panels_, group_), LoopKind::parallel, [&](const Dim &g) {
      Planes m = planes("m", flat_, group_ * kPanel);
      Dim first_panel = g * Dim(group_);
      multiply(v, m, first_panel, count);
      c_.loop("p", 0, group_, LoopKind::parallel, [&](const Dim &p) {
        over_tiles(first, count, [&](const Dim &t, const Dim &ty, const Dim &tx) {
          Expr inside = kb::logical_and(kb::le(kb::index((ty + Dim(1)) * Dim(tile_)), kb::index(size_[0])),
                                        kb::le(kb::index((tx + Dim(1)) * Dim(tile_)), kb::index(size_[1])));
          Element at{t, p * Dim(kPanel)};
          auto lanes_of = [&](const std::function<void(const Dim &)> &body) {
            c_.loop("l", 0, lanes(first_panel + p), LoopKind::parallel, body);
          };
          c_.if_then(inside, [&] {
            lanes_of([&](const Dim &lane) {
              output_tile(m, {at.tile, at.column + lane}, first_panel * Dim(kPanel), ty, tx, tile_, tile_);
            });
          });
          c_.if_then(kb::logical_not(inside), [&] { edge_tile(m, at, first_panel * Dim(kPanel), ty, tx, lanes_of); });
        });
      });
    });
  }

  // Tiles first .. first + count, each with its place in the image.
  void over_tiles(const Dim &first, const Dim &count,
                  const std::function<void(const Dim &t, const Dim &ty, const Dim &tx)> &body) {
    c_.loop("t", 0, count, LoopKind::parallel, [&](const Dim &t) {
      Dim ty = named(floordiv(first + t, across_), 0, ceildiv(size_[0], tile_));
      Dim tx = named(first + t - ty * across_, 0, across_);
      body(t, ty, tx);
    });
  }

  // A tile that is partly outside: computed aside, and what is inside is stored.
  void edge_tile(const Planes &m, const Element &at, const Dim &first_output, const Dim &ty, const Dim &tx,
                 const std::function<void(const std::function<void(const Dim &)> &)> &lanes_of) {
    Symbol aside = fresh_symbol("e");
    c_.emit(kb::alloc(aside, DType::f32, tile_ * tile_ * kPanel, 1, MemorySpace::stack));
    lanes_of([&](const Dim &lane) {
      auto rows = output_rows(m, {at.tile, at.column + lane}, tile_);
      for (int64_t i = 0; i < tile_; ++i)
        for (int64_t j = 0; j < tile_; ++j)
          c_.emit(kb::store(aside, Dim((i * tile_ + j) * kPanel) + lane, rows[size_t(i)][size_t(j)]));
    });
    Dim height = named(min(Dim(tile_), size_[0] - ty * Dim(tile_)), 1, tile_ + 1);
    Dim width = named(min(Dim(tile_), size_[1] - tx * Dim(tile_)), 1, tile_ + 1);
    c_.loop("i", 0, height, LoopKind::parallel, [&](const Dim &i) {
      c_.loop("j", 0, width, LoopKind::parallel, [&](const Dim &j) {
        lanes_of([&](const Dim &lane) {
          Dim o = first_output + at.column + lane;
          Expr value = kb::load(aside, DType::f32, (i * Dim(tile_) + j) * Dim(kPanel) + lane);
          store(o, ty * Dim(tile_) + i, tx * Dim(tile_) + j, std::move(value));
        });
      });
    });
  }

  // --- what both have in common ---

  // An element of the input, 0 outside of it.
  Expr input(const Dim &channel, const Dim &y, const Dim &x) {
    std::vector<Dim> at{n_, channel, y, x};
    Expr inside;
    for (size_t d = 0; d < 2; ++d) {
      if (padded_[d])
        continue;
      Dim &i = at[d + 2];
      Expr here = kb::logical_and(kb::le(kb::index(0), kb::index(i)), kb::lt(kb::index(i), kb::index(image_[d])));
      inside = inside.is(Expr::Kind::none) ? here : kb::logical_and(inside, here);
      i = max(0, min(i, image_[d] - Dim(1)));
    }
    Expr value = c_.operand(0, at);
    return inside.is(Expr::Kind::none) ? value : kb::select(inside, value, kb::number(DType::f32, 0));
  }

  void transform_input(const Planes &v, const Dim &first, int64_t rows) {
    c_.loop("ty", 0, rows, LoopKind::parallel, [&](const Dim &ty) {
      c_.loop("c", 0, ceildiv(channels_, kPanel), LoopKind::parallel, [&](const Dim &block) {
        c_.loop("tx", 0, tiles_[1], LoopKind::parallel, [&](const Dim &tx) {
          Dim end = min(Dim(kPanel), channels_ - block * Dim(kPanel));
          c_.loop("l", 0, end, LoopKind::parallel, [&](const Dim &lane) {
            input_tile(v, ty * Dim(tiles_[1]) + tx, block * Dim(kPanel) + lane, first + ty, tx);
          });
        });
      });
    });
  }

  // Row `at` of V from one tile of the input.
  void input_tile(const Planes &v, const Dim &at, const Dim &channel, const Dim &ty, const Dim &tx) {
    std::vector<std::vector<Expr>> columns;
    for (int64_t j = 0; j < points_; ++j) {
      std::vector<Expr> column;
      for (int64_t i = 0; i < points_; ++i)
        column.push_back(
            c_.bind(input(channel, ty * Dim(tile_) + Dim(i - pad_[0]), tx * Dim(tile_) + Dim(j - pad_[1]))));
      columns.push_back(winograd_input_row(c_, tile_, column));
    }
    for (int64_t i = 0; i < points_; ++i) {
      std::vector<Expr> row;
      for (const auto &column : columns)
        row.push_back(column[size_t(i)]);
      row = winograd_input_row(c_, tile_, row);
      for (int64_t j = 0; j < points_; ++j)
        c_.emit(kb::store(v.name, v.at(i * points_ + j, at, channel), row[size_t(j)]));
    }
  }

  Dim lanes(const Dim &panel) { return c_.simplified(min(Dim(kPanel), outputs_ - panel * Dim(kPanel))); }

  void multiply(const Planes &v, const Planes &m, const Dim &first_panel, const Dim &tiles) {
    Dim first_channel = c_.simplified(floordiv(first_panel, alone_) * in_group_);
    c_.loop("k", 0, points_ * points_, LoopKind::parallel, [&](const Dim &point) {
      c_.loop("t", 0, tiles, LoopKind::parallel, [&](const Dim &t) {
        c_.loop("p", 0, group_, LoopKind::parallel, [&](const Dim &p) {
          c_.loop("l", 0, lanes(first_panel + p), LoopKind::parallel, [&](const Dim &lane) {
            Dim o = (first_panel + p) * Dim(kPanel) + lane;
            Symbol sum = fresh_symbol("acc");
            c_.emit(kb::alloc(sum, DType::f32, 1, 1, MemorySpace::reg));
            c_.emit(kb::store(sum, 0, kb::number(DType::f32, 0)));
            c_.loop("c", 0, in_group_, LoopKind::reduce, [&](const Dim &channel) {
              Expr term = kb::mul(kb::load(v.name, DType::f32, v.at(point, t, first_channel + channel)),
                                  c_.operand(1, std::vector<Dim>{point, o, channel}));
              c_.emit(kb::store(sum, 0, kb::add(kb::load(sum, DType::f32, 0), std::move(term))));
            });
            c_.emit(kb::store(m.name, m.at(point, t, p * Dim(kPanel) + lane), kb::load(sum, DType::f32, 0)));
          });
        });
      });
    });
  }

  // Tiles at the lower and right edge may be partly outside.
  void transform_output(const Planes &m, const Dim &first_panel, const Dim &first, int64_t rows) {
    Dim whole = c_.simplified(min(Dim(rows), Dim(whole_[0]) - first));
    if (whole_[0] == tiles_[0])
      whole = rows;
    for (bool last_row : {false, true}) {
      int64_t height = last_row ? out_[0] % tile_ : tile_;
      if (height == 0)
        continue;
      c_.loop("ty", last_row ? whole : Dim(0), last_row ? Dim(rows) : whole, LoopKind::parallel, [&](const Dim &ty) {
        c_.loop("p", 0, group_, LoopKind::parallel, [&](const Dim &p) {
          auto tile = [&](const Dim &tx, int64_t width) {
            c_.loop("l", 0, lanes(first_panel + p), LoopKind::parallel, [&](const Dim &lane) {
              output_tile(m, {ty * Dim(tiles_[1]) + tx, p * Dim(kPanel) + lane}, first_panel * Dim(kPanel),
                          first + ty, tx, height, width);
            });
          };
          c_.loop("tx", 0, whole_[1], LoopKind::parallel, [&](const Dim &tx) { tile(tx, tile_); });
          if (whole_[1] < tiles_[1])
            tile(whole_[1], out_[1] % tile_);
        });
      });
    }
  }

  // The results of one tile, row by row, without the bias.
  std::vector<std::vector<Expr>> output_rows(const Planes &m, const Element &at, int64_t height) {
    std::vector<std::vector<Expr>> columns, out;
    for (int64_t j = 0; j < points_; ++j) {
      std::vector<Expr> column;
      for (int64_t i = 0; i < points_; ++i)
        column.push_back(c_.bind(kb::load(m.name, DType::f32, m.at(i * points_ + j, at.tile, at.column))));
      columns.push_back(winograd_output_row(c_, tile_, column));
    }
    for (int64_t i = 0; i < height; ++i) {
      std::vector<Expr> row;
      for (const auto &column : columns)
        row.push_back(column[size_t(i)]);
      out.push_back(winograd_output_row(c_, tile_, row));
    }
    return out;
  }

  void store(const Dim &output, const Dim &y, const Dim &x, Expr value) {
    if (c_.node().operands.size() > 2)
      value = kb::add(std::move(value), c_.operand(2, std::vector{output}));
    c_.emit(c_.store_result(0, std::vector<Dim>{n_, output, y, x}, std::move(value)));
  }

  void output_tile(const Planes &m, const Element &at, const Dim &first_output, const Dim &ty, const Dim &tx,
                   int64_t height, int64_t width) {
    auto rows = output_rows(m, at, height);
    Dim o = first_output + at.column;
    for (int64_t r = 0; r < height; ++r)
      for (int64_t j = 0; j < width; ++j)
        store(o, ty * Dim(tile_) + Dim(r), tx * Dim(tile_) + Dim(j), std::move(rows[size_t(r)][size_t(j)]));
  }

  LowerContext &c_;
  int64_t tile_, points_, group_, rows_, flat_;
  int64_t out_[2] = {}, pad_[2], tiles_[2] = {}, whole_[2] = {}; // of images of known size
  bool padded_[2];
  Dim channels_, outputs_, panels_, n_;
  Dim alone_, in_group_; // panels that read the same channels, and how many these are
  Dim image_[2], size_[2], across_; // the input, the result, tiles from left to right
};

void lower_conv(LowerContext &c) { ConvLowering(c).run(); }

OpSample conv_sample(int64_t tile, Shape x, int64_t outputs, std::vector<Dim> pad, bool bias,
                     int64_t rows, int64_t tiles = 0, int64_t groups = 1) {
  OpSample s{{{DType::f32, x}, {DType::f32, {Dim((tile + 2) * (tile + 2)), outputs, Dim(x[1].as_const() / groups)}}},
             {{"tile", Dim(tile)}, {"pad", std::move(pad)}, {"rows", Dim(rows)}, {"tiles", Dim(tiles)}, {"groups", Dim(groups)}},
             -1,
             1};
  if (bias)
    s.operands.push_back({DType::f32, {outputs}});
  return s;
}

} // namespace

const OpDef op_winograd_weights{
    .name = "winograd_weights",
    .doc = "The weights w[M, C, 3, 3] of a convolution as winograd_conv takes them: [(tile + 2)^2, M, C].",
    .min_operands = 1,
    .max_operands = 1,
    .attrs = {{"tile", AttrKind::integer, std::nullopt, "2 or 4: the width of a tile of results"}},
    .infer = infer_weights,
    .ref = ref_weights,
    .lower = lower_weights,
    .traits = kExpensive,
    .samples = {{{{DType::f32, {5, 3, 3, 3}}}, {{"tile", Dim(2)}}},
                {{{DType::f32, {35, 6, 3, 3}}}, {{"tile", Dim(4)}}}},
};

const OpDef op_winograd_conv{
    .name = "winograd_conv",
    .doc = "Convolution of x[N, C, H, W] with 3 x 3 weights that winograd_weights has transformed, plus bias[M], "
           "with stride 1. What is not finite in x spreads over its tile. (x, u, bias?)",
    .min_operands = 2,
    .max_operands = 3,
    .attrs = {{"tile", AttrKind::integer, std::nullopt, "as of the weights"},
              {"pad", AttrKind::dims, std::nullopt, "zeros before each spatial dim, then those after"},
              {"rows", AttrKind::integer, std::nullopt, "tile rows that one worker transforms at a time"},
              {"tiles", AttrKind::integer, Attr(Dim(0)), "where H or W is not known: tiles, instead of rows of them"},
              {"groups", AttrKind::integer, Attr(Dim(1)), "of channels: whole blocks of 16 of the result"}},
    .infer = infer_conv,
    .ref = ref_conv,
    .lower = lower_conv,
    .traits = kExpensive | kEpilogue,
    .samples = {conv_sample(2, {1, 3, 5, 7}, 4, {1, 1, 1, 1}, true, 2),
                conv_sample(4, {2, 5, 9, 6}, 17, {1, 0, 0, 2}, false, 1),
                conv_sample(4, {1, 16, 12, 13}, 32, {1, 1, 1, 1}, true, 2),
                conv_sample(4, {1, 17, 11, 8}, 48, {0, 0, 0, 0}, true, 100),
                conv_sample(2, {1, 32, 6, 6}, 64, {1, 1, 1, 1}, false, 2),
                conv_sample(4, {2, 17, 9, 13}, 20, {1, 1, 1, 1}, true, 1, 4),
                conv_sample(2, {1, 16, 8, 6}, 32, {0, 0, 0, 0}, false, 1, 5),
                conv_sample(4, {1, 64, 8, 9}, 96, {1, 1, 1, 1}, true, 2, 0, 2),
                conv_sample(2, {1, 15, 5, 6}, 48, {1, 1, 1, 1}, false, 1, 4, 3)},
    .tolerance = 1e-3,
};

} // namespace kiln
