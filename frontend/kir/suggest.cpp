// "Did you mean": the nearest name by edits (insert, delete, replace, swap of neighbours).
#include "frontend/kir/elaborator.h"

#include <algorithm>
#include <cctype>

namespace kiln::kir {
namespace {

size_t edits(std::string_view a, std::string_view b) {
  std::vector<size_t> before(b.size() + 1), row(b.size() + 1), next(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j)
    row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    next[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      bool same = std::tolower(static_cast<unsigned char>(a[i - 1])) ==
                  std::tolower(static_cast<unsigned char>(b[j - 1]));
      next[j] = std::min({row[j] + 1, next[j - 1] + 1, row[j - 1] + (same ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        next[j] = std::min(next[j], before[j - 2] + 1);
    }
    before.swap(row);
    row.swap(next);
  }
  return row[b.size()];
}

} // namespace

std::string_view said_otherwise(std::string_view name) {
  static constexpr std::pair<std::string_view, std::string_view> kOtherwise[] = {
      {"torch", "names stand alone: ones(2, 3), nn.Linear(3, 4), optim.Adam(net)"},
      {"F", "functions stand alone: relu(x), softmax(x, dim=1); losses are in `import loss`"},
      {"functional", "functions stand alone: relu(x), softmax(x, dim=1); losses are in `import loss`"},
      {"np", "names stand alone: ones(2, 3), arange(4)"},
      {"print", "a function returns what is to be seen; `kiln eval` and `kiln repl` show the value of an expression"},
      {"backward", "gradients are values: g = grad(loss, wrt), with tensors, params or modules as wrt"},
      {"zero_grad", "gradients are values, made anew by each grad(loss, wrt); there is nothing to set to zero"},
      {"requires_grad_", "every float has a gradient; freeze(module) takes params out of parameters(module), stop_gradient(x) keeps gradients out"},
      {"requires_grad", "every float has a gradient; freeze(module) takes params out of parameters(module), stop_gradient(x) keeps gradients out"},
      {"no_grad", "nothing is kept for gradients that nobody takes; stop_gradient(x) keeps them from going through x"},
      {"numpy", "`kiln run --output x=@x.npy` writes a result for NumPy"},
      {"tolist", "values are known when the program runs; `kiln run --output x=@x.csv` writes them"},
      {"cuda", "x.to(cuda) copies x there; `device cuda` after a function's results says where it computes"},
      {"cpu", "x.to(cpu) copies x there; kiln compile --target says for which processor"},
      {"is_tensor", "kind(x) == \"tensor\" tells"},
      {"lambda", "a named function can be passed instead: func f(x) { return x }"},
  };
  for (const auto &[key, instead] : kOtherwise)
    if (key == name)
      return instead;
  return {};
}

std::string suggestion(std::string_view name, std::span<const std::string> known) {
  constexpr size_t kLongest = 64;
  std::string best;
  size_t best_edits = std::max<size_t>(1, name.size() / 3) + 1;
  if (name.size() > kLongest)
    return best;
  for (const std::string &candidate : known) {
    if (candidate.size() > kLongest || candidate == name || candidate.starts_with("_"))
      continue;
    size_t gap = candidate.size() > name.size() ? candidate.size() - name.size() : name.size() - candidate.size();
    if (gap >= best_edits)
      continue;
    size_t n = edits(name, candidate);
    if (n < best_edits || (n == best_edits && !best.empty() && candidate < best)) {
      best = candidate;
      best_edits = n;
    }
  }
  return best;
}

} // namespace kiln::kir
