// Ops whose definitions have not landed yet.
#include "ir/ops/op.h"

namespace kiln {

#define KILN_PENDING(id) const OpDef op_##id{.name = #id, .doc = "", .structural = true};
KILN_PENDING(reduce_sum)
KILN_PENDING(reduce_mean)
KILN_PENDING(reduce_max)
KILN_PENDING(reduce_min)
KILN_PENDING(reduce_prod)
KILN_PENDING(reduce_any)
KILN_PENDING(reduce_all)
KILN_PENDING(reduce_l1)
KILN_PENDING(reduce_l2)
KILN_PENDING(reduce_sum_square)
KILN_PENDING(reduce_log_sum_exp)
KILN_PENDING(argmax)
KILN_PENDING(argmin)
KILN_PENDING(dot)
KILN_PENDING(conv)
KILN_PENDING(conv_transpose)
KILN_PENDING(max_pool)
KILN_PENDING(avg_pool)
KILN_PENDING(random_bits)

} // namespace kiln
