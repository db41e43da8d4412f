#include "codegen/cuda/tensor_map.h"

#include "codegen/cuda/vector_body.h"

#include <algorithm>

namespace kiln::cuda {
namespace {

// The loops as one axis: its stride, where every loop but the last one moves by the whole of those inside; nothing otherwise.
std::optional<Dim> stride_of(const Dim &index, const Loops &loops) {
  std::optional<Dim> stride;
  Dim next = 0;
  for (size_t i = loops.size(); i-- > 0;) {
    const Stmt &l = *loops[i];
    auto step = index.coefficient_of(l.name);
    if (!is_normalised(l) || !step)
      return std::nullopt;
    if (l.end.is_const(1))
      continue;
    if (stride && *step != next)
      return std::nullopt;
    if (!stride)
      stride = *step;
    next = *step * l.end;
  }
  return stride;
}

} // namespace

std::optional<MappedOperand> map_operand(const Expr &load, int element, const Loops &own, const Loops &sum, const Loops &batch, int own_box, int sum_box,
                                         bool is_along, const NestContext &context) {
  constexpr size_t kMostAxes = 5;
  MappedOperand out;
  const auto &buffers = context.kernel.buffers;
  auto buffer = std::find_if(buffers.begin(), buffers.end(), [&](const KernelBuffer &b) { return b.name == load.name; });
  // Copies of the device do not see what the kernel itself writes.
  if (!load.is(Expr::Kind::load) || load.count || buffer == buffers.end() || buffer->access != Access::in || context.is_aliased ||
      context.unaligned.contains(load.name))
    return std::nullopt;
  out.map.buffer = int(buffer - buffers.begin());
  out.map.element = element;
  auto own_stride = stride_of(load.index, own), sum_stride = stride_of(load.index, sum);
  if (!own_stride || !sum_stride)
    return std::nullopt;
  TensorMap::Axis owns{product_of(own), *own_stride, own_box}, sums{product_of(sum), *sum_stride, sum_box};
  out.map.axes = {is_along ? sums : owns, is_along ? owns : sums};
  Dim rest = load.index;
  for (const Loops *loops : {&own, &sum, &batch})
    for (const Stmt *l : *loops)
      rest = rest.substitute(l->name, 0);
  out.map.offset = rest;
  for (const Stmt *l : batch) {
    auto step = load.index.coefficient_of(l->name);
    if (!is_normalised(*l) || !step)
      return std::nullopt;
    if (step->is_const(0))
      continue;
    out.map.axes.push_back({extent_of(*l), *step, 1});
    out.batch.push_back(c::c_name(l->name));
  }
  // The index has to be what the axes say, and nothing that only the kernel's loops know.
  Dim told = rest;
  for (const Loops *loops : {&own, &sum, &batch})
    for (const Stmt *l : *loops)
      told += *load.index.coefficient_of(l->name) * Dim::symbol(l->name);
  auto is_known = [&](const Dim &d) {
    std::vector<Symbol> symbols = d.symbols();
    return std::all_of(symbols.begin(), symbols.end(), [&](Symbol s) { return std::find(context.kernel.dims.begin(), context.kernel.dims.end(), s) != context.kernel.dims.end(); });
  };
  bool fits = told == load.index && is_known(rest) && is_multiple(rest, 16 / element) && out.map.axes.size() <= kMostAxes && out.map.axes[0].stride.is_const(1);
  for (size_t i = 0; i < out.map.axes.size(); ++i) {
    const TensorMap::Axis &axis = out.map.axes[i];
    fits &= is_known(axis.size) && is_known(axis.stride) && axis.box <= 256 && (i == 0 || (!axis.stride.is_const(0) && is_multiple(axis.stride, 16 / element)));
  }
  return fits ? std::optional(out) : std::nullopt;
}

const std::string_view kTensorCopiesText = R"(#ifndef KILN_CUDA_SHIM
struct __align__(64) kiln_tensor_map {
  unsigned char bytes[128];
};
__device__ __forceinline__ uint32_t kiln_shared_address(const void *at) { return (uint32_t)__cvta_generic_to_shared(at); }
// Barriers that pass by turns of a ring: a turn is over when as many have arrived as they were made for, and as many bytes
// have been copied as were told to be expected.
__device__ __forceinline__ void kiln_ring_init(uint64_t *barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(kiln_shared_address(barrier)), "r"(arrivals) : "memory");
}
// Behind this and a barrier of the block everybody, copies too, sees what was made.
__device__ __forceinline__ void kiln_ring_made() { asm volatile("fence.mbarrier_init.release.cluster;\n fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ __forceinline__ void kiln_ring_arrive(uint64_t *barrier, bool when) {
  asm volatile("{.reg .pred p; setp.ne.b32 p, %1, 0; @p mbarrier.arrive.shared::cta.b64 _, [%0];}" ::"r"(kiln_shared_address(barrier)), "r"((int)when) : "memory");
}
__device__ __forceinline__ void kiln_ring_expect(uint64_t *barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(kiln_shared_address(barrier)), "r"(bytes) : "memory");
}
// Until a turn of that parity is over; of parity 1 one is before the first.
__device__ __forceinline__ void kiln_ring_wait(uint64_t *barrier, int parity) {
  asm volatile("{\n .reg .pred over;\nagain:\n mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n @!over bra again;\n}" ::"r"(kiln_shared_address(barrier)),
               "r"(parity)
               : "memory");
}
// By a whole warpgroup each, before its threads part.
template <int kCount>
__device__ __forceinline__ void kiln_more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kCount));
}
template <int kCount>
__device__ __forceinline__ void kiln_fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kCount));
}
__device__ __forceinline__ void kiln_copy_box(void *to, const kiln_tensor_map &map, uint64_t *barrier, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(kiln_shared_address(to)),
               "l"(&map), "r"(kiln_shared_address(barrier)), "r"(x), "r"(y)
               : "memory");
}
__device__ __forceinline__ void kiln_copy_box(void *to, const kiln_tensor_map &map, uint64_t *barrier, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(kiln_shared_address(to)),
               "l"(&map), "r"(kiln_shared_address(barrier)), "r"(x), "r"(y), "r"(z)
               : "memory");
}
__device__ __forceinline__ void kiln_copy_box(void *to, const kiln_tensor_map &map, uint64_t *barrier, int x, int y, int z, int u) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(kiln_shared_address(to)),
               "l"(&map), "r"(kiln_shared_address(barrier)), "r"(x), "r"(y), "r"(z), "r"(u)
               : "memory");
}
__device__ __forceinline__ void kiln_copy_box(void *to, const kiln_tensor_map &map, uint64_t *barrier, int x, int y, int z, int u, int v) {
  asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6, %7}], [%2];" ::"r"(kiln_shared_address(to)),
               "l"(&map), "r"(kiln_shared_address(barrier)), "r"(x), "r"(y), "r"(z), "r"(u), "r"(v)
               : "memory");
}
#endif
)";

} // namespace kiln::cuda
