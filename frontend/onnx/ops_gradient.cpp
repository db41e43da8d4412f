// Gradient of ai.onnx.preview.training: the derivative of one tensor of the graph by others, which the
// attributes name. It becomes more graph (ir/grad).
#include "frontend/onnx/importer.h"
#include "frontend/onnx/ops.h"

#include "ir/grad/grad.h"

#include <fmt/format.h>

namespace kiln::onnx {

Status import_gradient(OnnxNode &n) {
  Emitter &e = n.emitter();
  auto xs = n.get_strings("xs"), names = xs, zs = n.get_strings("zs");
  names.insert(names.end(), zs.begin(), zs.end());
  std::string y = n.get_string("y", "");
  const Val *result = n.importer().value_named(y);
  if (!result || !is_float(result->dtype()))
    return Error{fmt::format("'y' names '{}', which is no tensor of floats before it", y)};
  if (names.size() != n.input_count() || xs.size() < n.output_count())
    return Error{fmt::format("it has {} inputs and {} outputs for {} names", n.input_count(), n.output_count(), names.size())};
  std::vector<ValueId> wrt;
  for (size_t i = 0; i < names.size(); ++i) {
    if (n.view().inputs[i] != names[i])
      return Error{fmt::format("its input {} is '{}', not the tensor '{}' that it is the derivative by", i, n.view().inputs[i], names[i])};
    if (i >= xs.size())
      continue;
    if (!is_float(n.dtype(i)))
      return Error{fmt::format("there is no derivative by '{}', {}", names[i], n.in(i).type.text())};
    KILN_TRY(id, e.materialize(n.in(i)));
    wrt.push_back(id);
  }
  Val value = *result;
  KILN_TRY(of, e.materialize(value));
  KILN_TRY(ones, broadcast_to(e, e.scalar(value.dtype(), 1), value.type.shape));
  KILN_TRY(seed, e.materialize(ones));
  std::vector<ValueId> ofs = {of}, seeds = {seed};
  KILN_TRY(gradients, reverse_gradient(e.builder(), ofs, seeds, wrt));
  for (size_t i = 0; i < gradients.size(); ++i) {
    Val out;
    out.type = e.function().type(gradients[i]);
    out.id = gradients[i];
    n.set(i, out);
  }
  return Unit{};
}

} // namespace kiln::onnx
