#include "passes/pass_manager.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>

namespace kiln {
namespace {

constexpr PassInfo kPasses[] = {
#define KILN_PASS(stem, name, doc) {name, doc, stem},
#include "passes/passes.def"
#undef KILN_PASS
};

void check_verifies(const Module &module, std::string_view pass) {
  Diagnostics broken(20);
  verify(module, broken);
  KILN_CHECK(!broken.has_errors(),
             fmt::format("the module does not verify after the pass '{}':\n{}"
                         "rerun with --dump-dir and give the last dump to: kiln opt --passes {}",
                         pass, broken.render(), pass));
}

} // namespace

std::span<const PassInfo> all_passes() {
  return kPasses;
}

const PassInfo *find_pass(std::string_view name) {
  for (const PassInfo &pass : kPasses)
    if (pass.name == name)
      return &pass;
  return nullptr;
}

bool PassManager::run(Module &module, std::string_view name) {
  if (stopped_)
    return false;
  const PassInfo *pass = find_pass(name);
  KILN_CHECK(pass, fmt::format("no pass is named '{}'", name));
  std::string before;
  if (options_.verify_each)
    before = print_module(module);

  auto start = std::chrono::steady_clock::now();
  last_ = pass->run(module, context_);
  std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  timings_.push_back({pass->name, elapsed.count(), last_});

  if (last_ == Changed::yes || options_.verify_each)
    check_verifies(module, name);
  if (options_.verify_each && last_ == Changed::no && !context_.diagnostics.has_errors())
    KILN_CHECK(print_module(module) == before,
               fmt::format("the pass '{}' changed the module and said that it did not", name));
  if (last_ == Changed::yes)
    dump(module, name);
  stopped_ = context_.diagnostics.has_errors() || name == options_.stop_after;
  return !stopped_;
}

bool PassManager::run_until_stable(Module &module, std::span<const std::string_view> passes,
                                   int rounds) {
  for (int i = 0; i < rounds; ++i) {
    Changed changed = Changed::no;
    for (std::string_view pass : passes) {
      if (!run(module, pass))
        return false;
      changed |= last_;
    }
    if (changed == Changed::no)
      break;
  }
  return true;
}

void PassManager::dump(const Module &module, std::string_view pass) {
  if (options_.dump_dir.empty())
    return;
  std::string path = fmt::format("{}/{:02}-{}.kir", options_.dump_dir, timings_.size(), pass);
  std::ofstream out(path, std::ios::binary);
  out << print_module(module);
  if (!out.flush())
    context_.diagnostics.error({}, fmt::format("cannot write '{}': {}", path, std::strerror(errno)));
}

std::string PassManager::timing_table() const {
  struct Row {
    std::string_view pass;
    double seconds = 0;
    int runs = 0, changed = 0;
  };
  std::vector<Row> rows;
  double total = 0;
  for (const Timing &t : timings_) {
    auto row =
        std::find_if(rows.begin(), rows.end(), [&](const Row &r) { return r.pass == t.pass; });
    if (row == rows.end())
      row = rows.insert(rows.end(), Row{t.pass});
    row->seconds += t.seconds;
    ++row->runs;
    row->changed += t.changed == Changed::yes;
    total += t.seconds;
  }
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row &a, const Row &b) { return a.seconds > b.seconds; });
  std::string out =
      fmt::format("{:>10}  {:>5}  {:>5}  {:>7}  {}\n", "ms", "%", "runs", "changed", "pass");
  for (const Row &r : rows)
    out += fmt::format("{:>10.2f}  {:>5.1f}  {:>5}  {:>7}  {}\n", r.seconds * 1e3,
                       total > 0 ? 100 * r.seconds / total : 0.0, r.runs, r.changed, r.pass);
  return out + fmt::format("{:>10.2f}  total\n", total * 1e3);
}

Result<std::vector<std::string_view>> parse_pass_list(std::string_view list) {
  std::vector<std::string_view> out;
  while (!list.empty()) {
    size_t comma = std::min(list.find(','), list.size());
    std::string_view name = list.substr(0, comma);
    list.remove_prefix(std::min(comma + 1, list.size()));
    if (name.empty())
      continue;
    const PassInfo *pass = find_pass(name);
    if (!pass) {
      std::string known;
      for (const PassInfo &p : kPasses)
        known += (known.empty() ? "" : ", ") + std::string(p.name);
      return Error{fmt::format("no pass is named '{}'; there are: {}", name, known)};
    }
    out.push_back(pass->name);
  }
  return out;
}

} // namespace kiln
