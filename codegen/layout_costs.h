// What a choice of layouts costs on a machine: the parts of the peak that kernels reach over blocks of channels and over rows
// of pixels, and what copying between the two takes. Medians of single convolutions of 8 to 512 channels and images of 7x7 to 112x112
// (tests/bench/models.py makes such) as parts of what the lanes in use could reach; lanes that stay empty are counted by who asks.
#pragma once

#include <cstdint>

namespace kiln {

struct LayoutCosts {
  // Parts of the peak of multiply-adds.
  double blocks = 0.93, depthwise_blocks = 0.75;
  // Reads rows, a pixel for all lanes, and writes blocks: windows, and 1x1 convolutions.
  double blocks_of_rows = 0.91, pointwise_blocks_of_rows = 0.72;
  double rows = 0.88, strided_rows = 0.75;
  double depthwise_rows = 0.4, strided_depthwise_rows = 0.15;
  double pointwise_rows = 0.85, strided_pointwise_rows = 0.3;
  // 1x1 convolutions over planes that take more of the second level together: they share its sets, and pages.
  double far_pointwise_rows = 0.55, near_planes = 1.0 / 3;
  double unknown_rows = 0.4; // of any of these, where only a run knows how many pixels there are
  double copied = 1.5;      // elements a cycle, of any dtype, from one layout to another
  double streamed = 12;     // bytes a cycle that a kernel reads and writes at most
  double launch = 2000;     // cycles for a kernel more
  double picked = 1;         // cycles of an element that a pooling window over rows reads
};

// Of machines with vectors of so many bytes.
constexpr LayoutCosts layout_costs(int64_t vector_bytes) {
  LayoutCosts out;
  if (vector_bytes <= 32) {
    out.rows = 0.85;
    out.strided_rows = 0.62;
    out.depthwise_rows = 0.55;
    out.strided_depthwise_rows = 0.25;
  }
  return out;
}

} // namespace kiln
