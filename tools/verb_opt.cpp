// kiln opt: graphs or kernels in, passes over them, text out.
#include "tools/cli.h"
#include "tools/optimise.h"

namespace kiln {

void add_opt(CLI::App &app, int &exit_code) {
  auto options = std::make_shared<OptOptions>();
  CLI::App *sub = app.add_subcommand("opt", "Run passes over a graph or over kernels, text to text");
  options->add_to(*sub);
  sub->callback([options, &exit_code] { exit_code = run_opt(*options); });
}

} // namespace kiln
