#include "codegen/tuning.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>

namespace kiln {
namespace {

constexpr std::string_view kHeader = "kiln-tune 1";
constexpr size_t kMaxErrors = 20;

// A setting by its name: the number it holds, if any, and the place it is kept in.
struct Setting {
  std::string_view name;
  int64_t least, most;
  std::optional<int64_t> (*get)(const KernelTuning &);
  void (*set)(KernelTuning &, int64_t);
};

std::optional<int64_t> number(const std::optional<bool> &value) {
  return value ? std::optional<int64_t>(*value) : std::nullopt;
}

const Setting kSettings[] = {
    {"rows", 1, 64, [](const KernelTuning &t) { return t.tile.rows; }, [](KernelTuning &t, int64_t v) { t.tile.rows = v; }},
    {"vectors", 1, 64, [](const KernelTuning &t) { return t.tile.vectors; }, [](KernelTuning &t, int64_t v) { t.tile.vectors = v; }},
    {"depth", 0, 65536, [](const KernelTuning &t) { return t.tile.depth; }, [](KernelTuning &t, int64_t v) { t.tile.depth = v; }},
    {"unroll", 1, 64, [](const KernelTuning &t) { return t.tile.unroll; }, [](KernelTuning &t, int64_t v) { t.tile.unroll = v; }},
    {"prefetch", 0, 1024, [](const KernelTuning &t) { return t.tile.prefetch_steps; },
     [](KernelTuning &t, int64_t v) { t.tile.prefetch_steps = v; }},
    {"next", 0, 1, [](const KernelTuning &t) { return number(t.tile.prefetch_next); },
     [](KernelTuning &t, int64_t v) { t.tile.prefetch_next = v != 0; }},
    {"threads", 0, 1, [](const KernelTuning &t) { return number(t.threads); }, [](KernelTuning &t, int64_t v) { t.threads = v != 0; }},
};

bool is_hash(std::string_view text) {
  return text.size() == 16 && std::all_of(text.begin(), text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

std::string_view next_word(std::string_view &line) {
  size_t begin = std::min(line.find_first_not_of(" \t\r"), line.size());
  size_t end = std::min(line.find_first_of(" \t\r", begin), line.size());
  std::string_view word = line.substr(begin, end - begin);
  line.remove_prefix(end);
  return word;
}

// What is wrong with it; empty if nothing is.
std::string read_setting(std::string_view word, KernelTuning &tuning) {
  size_t equals = std::min(word.find('='), word.size());
  std::string known;
  for (const Setting &s : kSettings) {
    known += (known.empty() ? "" : ", ") + std::string(s.name);
    if (s.name != word.substr(0, equals))
      continue;
    int64_t value = -1;
    std::string_view digits = word.substr(std::min(equals + 1, word.size()));
    auto [stop, code] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (code != std::errc() || stop != digits.data() + digits.size() || value < s.least || value > s.most)
      return fmt::format("'{}': write {}=N with N from {} to {}", word.substr(0, 60), s.name, s.least, s.most);
    if (s.get(tuning))
      return fmt::format("'{}' is set twice", s.name);
    s.set(tuning, value);
    return "";
  }
  return fmt::format("no setting is named '{}'; there are {}", word.substr(0, std::min<size_t>(equals, 60)), known);
}

// Notes end with their line and hold nothing that a terminal would act on.
std::string one_line(std::string text) {
  for (char &c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      c = '?';
  return text;
}

} // namespace

// FNV-1a of the text: a key must not change between builds.
std::string tuning_key(const Kernel &kernel) {
  Kernel bare = kernel;
  bare.name = "k";
  bare.location = {};
  bare.flops = bare.bytes = Dim(0);
  std::string text = print_kernel(bare);
  uint64_t hash = 0xcbf29ce484222325u;
  for (char c : text)
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return fmt::format("{:016x}", hash ^ (hash >> 29));
}

ScheduleOptions KernelTuning::options() const {
  ScheduleOptions out;
  out.tile_choice = tile;
  out.parallelise = threads.value_or(true);
  return out;
}

std::string tuning_text(const KernelTuning &tuning) {
  std::string out;
  for (const Setting &s : kSettings)
    if (auto value = s.get(tuning))
      out += fmt::format("{}{}={}", out.empty() ? "" : " ", s.name, *value);
  return out;
}

bool Tuning::read(const std::string &file, std::string_view text, Diagnostics &diagnostics) {
  size_t errors = 0;
  int at = 0;
  bool has_header = false;
  auto wrong = [&](std::string message) {
    if (++errors <= kMaxErrors)
      diagnostics.error({Symbol(file), at, 1, {}}, std::move(message));
  };
  std::set<std::pair<std::string, std::string>> seen;
  while (!text.empty() && errors < kMaxErrors) {
    ++at;
    size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    std::string_view note;
    if (size_t hash = line.find('#'); hash != line.npos) {
      note = line.substr(hash + 1);
      line = line.substr(0, hash);
    }
    std::string_view target = next_word(line);
    if (target.empty())
      continue;
    if (!has_header) {
      if (target != "kiln-tune" || next_word(line) != "1" || !next_word(line).empty())
        return wrong(fmt::format("not a tuning file: it begins with '{}'; make one with `kiln compile --tune SECONDS`", kHeader)), false;
      has_header = true;
      continue;
    }
    std::string_view hash = next_word(line);
    if (!find_machine(target) || target == "host") {
      wrong(fmt::format("no target is named '{}'; a line is: TARGET HASH NAME=VALUE...", target.substr(0, 60)));
      continue;
    }
    if (!is_hash(hash)) {
      wrong(fmt::format("'{}' is no hash of a kernel: 16 digits of 0-9 and a-f", hash.substr(0, 60)));
      continue;
    }
    KernelTuning tuning;
    std::string problem;
    for (std::string_view word = next_word(line); !word.empty() && problem.empty(); word = next_word(line))
      problem = read_setting(word, tuning);
    if (problem.empty() && !seen.emplace(target, hash).second)
      problem = fmt::format("another line is for the kernel {}", hash);
    if (!problem.empty()) {
      wrong(problem);
      continue;
    }
    size_t first = std::min(note.find_first_not_of(" \t"), note.size());
    std::string kept(note.substr(first, std::min<size_t>(note.find_last_not_of(" \t\r") + 1, first + 200) - first));
    lines_[{std::string(target), std::string(hash)}] = {tuning, one_line(kept)};
  }
  if (errors == 0 && !has_header) {
    at = 1;
    wrong(fmt::format("not a tuning file: it begins with '{}'", kHeader));
  }
  return errors == 0;
}

std::string Tuning::text() const {
  std::string out = "# Schedules chosen by measuring: kiln compile MODEL --tune SECONDS. Without its line a kernel is\n"
                    "# scheduled as the machine description says.\n" +
                    std::string(kHeader) + "\n";
  for (const auto &[key, line] : lines_)
{
    std::string settings = tuning_text(line.tuning);
    out += fmt::format("{} {}{}{}{}{}\n", key.first, key.second, settings.empty() ? "" : " ", settings, line.note.empty() ? "" : "   # ", line.note);
  }
  return out;
}

const KernelTuning *Tuning::find(const Kernel &kernel, const MachineDesc &machine) const {
  if (lines_.empty())
    return nullptr;
  auto it = lines_.find({machine.name, tuning_key(kernel)});
  return it == lines_.end() ? nullptr : &it->second.tuning;
}

void Tuning::set(const Kernel &kernel, const MachineDesc &machine, const KernelTuning &tuning, std::string note) {
  std::pair key{machine.name, tuning_key(kernel)};
  lines_[key] = {tuning, one_line(std::move(note))};
}

} // namespace kiln
