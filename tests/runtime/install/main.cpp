#include <kiln/kiln.hpp>

int main(int argc, char **argv) {
  if (argc != 2)
    return 1;
  auto module = kiln::runtime::Module::open(argv[1]);
  auto context = module.context("scale");
  float x[4] = {1, 1, 1, 1}, y[4] = {}, total[1] = {};
  context.input("x", x, {1, 4});
  context.output("y", y);
  context.output("total", total);
  context.run();
  return total[0] == 10 ? 0 : 1;
}
