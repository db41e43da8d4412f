// What a Tracer holds; for its own files.
#pragma once

#include "frontend/trace/trace.h"

#include <map>

namespace kiln::trace {

struct Tracer::State {
  explicit State(Diagnostics &d) : diagnostics(d) {}
  Diagnostics &diagnostics;
  Module module;
  // The function being traced; its id tells tensors of other functions apart.
  std::unique_ptr<Function> function;
  std::unique_ptr<GraphBuilder> builder;
  std::map<VariableId, ValueId> current;

  // A variable's value where the builder stands.
  ValueId read(VariableId variable) {
    auto [it, fresh] = current.emplace(variable, ValueId());
    if (fresh) {
      it->second = (*builder)(Op::read_variable, {}, {{"variable", variable}});
      function->value(it->second).name = module.variables[size_t(variable)].name;
    }
    return it->second;
  }
};

inline Location location_of(const Where &where) {
  std::string_view file = where.file_name();
  size_t slash = file.rfind('/');
  return {Symbol(slash == std::string_view::npos ? file : file.substr(slash + 1)), int(where.line()), int(where.column()), {}};
}

} // namespace kiln::trace
