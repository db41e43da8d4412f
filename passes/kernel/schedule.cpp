#include "passes/kernel/schedule.h"

#include "passes/kernel/rewrite.h"

namespace kiln {

void schedule(Kernel &kernel, const MachineDesc &machine, const ScheduleOptions &options) {
  auto checked = [&](bool, const char *pass) {
    if (!options.verify_each)
      return;
    Status status = verify_kernel(kernel);
    KILN_CHECK(status.ok(), std::string("after ") + pass + ": " + status.error().message + "\n" +
                                print_kernel(kernel));
  };
  // Bounds are plain, loops are as long as they can be.
  checked(simplify_kernel(kernel), "simplify_kernel");
  checked(choose_turns(kernel, machine), "choose_turns");
  checked(dot_products(kernel, machine) && simplify_kernel(kernel), "dot_products");
  checked(collapse_loops(kernel), "collapse_loops");
  // Nests that accumulate are register tiles.
  if (options.tile)
    checked(tile_contraction(kernel, machine, options.tile_choice) && simplify_kernel(kernel), "tile_contraction");
  if (options.tile)
    checked(split_chains(kernel, machine) && simplify_kernel(kernel), "split_chains");
  // Every loop that can be is made of vectors.
  if (options.vectorise)
    checked(transpose_tiles(kernel, machine), "transpose_tiles");
  if (options.vectorise)
    checked(vectorise(kernel, machine) && simplify_kernel(kernel), "vectorise");
  if (options.vectorise)
    checked(jam_rows(kernel, machine) && simplify_kernel(kernel), "jam_rows");
  // One threads loop, outermost.
  if (options.parallelise)
    checked(parallelise(kernel, machine), "parallelise");
  // Primitive operations on primitive values only.
  checked(expand_narrow(kernel), "expand_narrow");
  if (options.expand_math)
    checked(expand_math(kernel, machine), "expand_math");
  checked(simplify_kernel(kernel), "simplify_kernel");
}

} // namespace kiln
