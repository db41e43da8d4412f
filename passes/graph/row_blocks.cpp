#include "passes/graph/row_blocks.h"

#include <algorithm>

namespace kiln {
namespace {

constexpr int64_t kPanel = 16;
constexpr int64_t kTileRows = 6; // rows of most register tiles divide multiples of it
constexpr int64_t kBlockElements = 8192, kMostRows = 48; // of the first level, beside what the tiles read
constexpr int64_t kMostColumns = kBlockElements / kTileRows;
constexpr int64_t kHeldElements = 1 << 16; // of the second operand, which every block reads
constexpr int64_t kAlone = 1 << 18;        // multiplications that are not worth a second thread

} // namespace

int64_t padded_row(int64_t columns) {
  int64_t panels = (columns + kPanel - 1) / kPanel;
  return (panels | 1) * kPanel;
}

RowBlocks few_rows(const Shape &space) {
  RowBlocks out;
  for (int d = int(space.size()) - 2; d >= 0 && out.dim < 0; --d)
    if (!space[size_t(d)].is_const(1))
      out = {d, std::min(space[size_t(d)].try_const().value_or(kTileRows), kTileRows)};
  return out;
}

std::optional<RowBlocks> row_blocks(const Shape &space, const Dim &depth) {
  auto columns = space.empty() ? std::nullopt : space.back().try_const(), steps = depth.try_const();
  if (!columns || !steps || *columns < 2 || *columns > kMostColumns || *columns * *steps > kHeldElements)
    return std::nullopt;
  RowBlocks out;
  bool one_of_many = false;
  int64_t others = 1; // blocks at the same place of other dims, at least
  for (int d = int(space.size()) - 2; d >= 0; --d) {
    if (space[size_t(d)].is_const(1))
      continue;
    if (out.dim < 0) {
      out.dim = d;
      continue;
    }
    one_of_many = true;
    others *= space[size_t(d)].try_const().value_or(1);
  }
  int64_t most = std::clamp(kBlockElements / padded_row(*columns) / kTileRows * kTileRows, kTileRows, kMostRows);
  auto count = out.dim < 0 ? std::optional<int64_t>(1) : space[size_t(out.dim)].try_const();
  if (!count) {
    out.rows = most;
    return out;
  }
  // Few rows of each of many matrices are better taken together, by a product that sees them as one matrix.
  if (one_of_many && *count < kTileRows)
    return std::nullopt;
  int64_t blocks = (*count + most - 1) / most;
  bool shared = *count * others * *columns * *steps > kAlone;
  auto suits = [&](int64_t b) { return !shared || others * b % 2 == 0; };
  while (!suits(blocks))
    ++blocks;
  // Rather a few blocks more than a last one that needs code of its own.
  for (int64_t b = blocks; b <= blocks + blocks / 2; ++b)
    if (*count % b == 0 && suits(b)) {
      blocks = b;
      break;
    }
  out.rows = (*count + blocks - 1) / blocks;
  if (shared && out.rows < kTileRows)
    return std::nullopt;
  return out;
}

} // namespace kiln
