#include "tests/fuzz/graph_file.h"

#include "frontend/kir/kir.h"

#include <fmt/format.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace kiln::fuzz {

const Function &StoredGraph::function() const {
  for (const Function &f : module.functions)
    if (f.exported)
      return f;
  KILN_CHECK(false, "a stored graph exports a function");
  return module.functions[0];
}

std::string graph_text(const StoredGraph &graph, const std::string &why) {
  std::string out;
  std::istringstream lines(why);
  for (std::string line; std::getline(lines, line);)
    out += "// " + line + "\n";
  out += "// config:";
  for (const std::string &word : graph.config)
    out += " " + word;
  out += fmt::format("\n// runs: {}\n", graph.runs);
  for (const Tensor &t : graph.inputs) {
    out += fmt::format("// input: {} {}", dtype_name(t.dtype()), t.rank());
    for (int64_t d : t.dims())
      out += fmt::format(" {}", d);
    for (int64_t i = 0; i < t.count(); ++i)
      out += is_float(t.dtype()) ? fmt::format(" {:.17g}", t.at_f64(i)) : fmt::format(" {}", t.at_i64(i));
    out += "\n";
  }
  return out + print_module(graph.module, INT64_MAX);
}

Result<StoredGraph> read_graph(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  if (!file)
    return Error{path + ": cannot be read"};
  std::string text((std::istreambuf_iterator<char>(file)), {});
  StoredGraph out;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string slashes, key, word;
    words >> slashes >> key;
    if (slashes != "//")
      continue;
    if (key == "config:")
      while (words >> word)
        out.config.push_back(word);
    if (key == "runs:")
      words >> out.runs;
    if (key != "input:")
      continue;
    int rank = 0;
    words >> word >> rank;
    auto dtype = dtype_from_name(word);
    std::vector<int64_t> dims(static_cast<size_t>(rank));
    for (int64_t &d : dims)
      words >> d;
    if (!words || !dtype || !checked_bytes(*dtype, dims))
      return Error{path + ": a damaged input"};
    Tensor tensor(*dtype, dims);
    for (int64_t i = 0; i < tensor.count() && words >> word; ++i)
      is_float(*dtype) ? tensor.set_f64(i, std::strtod(word.c_str(), nullptr))
                       : tensor.set_i64(i, int64_t(is_unsigned_int(*dtype) ? std::strtoull(word.c_str(), nullptr, 10)
                                                                           : uint64_t(std::strtoll(word.c_str(), nullptr, 10))));
    out.inputs.push_back(std::move(tensor));
  }
  Diagnostics diagnostics;
  if (!load_kir(path, text, {}, out.module, diagnostics))
    return Error{diagnostics.render()};
  return out;
}

} // namespace kiln::fuzz
