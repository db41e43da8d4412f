#include "tools/case_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>

namespace kiln {
namespace {

constexpr std::array kWords = {"passed", "random", "unsupported", "failed", "crashed", "timeout"};

// A cell of a table: nothing in it ends the cell, the line, or is taken for markup.
std::string cell(const std::string &text) {
  std::string out;
  for (char c : text) {
    if (c == '\n')
      out += "<br>";
    else if (c == '|' || c == '<' || c == '>' || c == '*' || c == '_' || c == '`' || c == '\\' || c == '[')
      out += fmt::format("\\{}", c);
    else
      out += static_cast<unsigned char>(c) < 32 ? ' ' : c;
  }
  return out;
}

} // namespace

std::string case_report(const std::vector<CaseOutcome> &outcomes, const std::string &suite) {
  std::map<std::string, std::map<std::string, int>> table;
  for (const CaseOutcome &o : outcomes) {
    ++table[o.kind][o.word];
    ++table["all"][o.word];
  }
  std::string out = "# Conformance\n\nThe test cases of the ONNX project";
  if (!suite.empty())
    out += fmt::format(" ({})", suite);
  out += ": each is imported, compiled for the host at -O 2, run, and\n"
         "compared with its stored outputs within its own tolerances. This page is written by\n\n"
         "    kiln check --cases FOLDER --report docs/conformance.md\n\n"
         "*random* are cases of ops that draw numbers, whose stored outputs are of another generator; types and shapes agree. "
         "*unsupported*\nare refused before anything is compiled, for the reasons listed.\n\n| kind | cases |";
  for (const char *word : kWords)
    out += fmt::format(" {} |", word);
  out += "\n| --- | ---: |";
  for (size_t i = 0; i < kWords.size(); ++i)
    out += " ---: |";
  out += "\n";
  auto row = [&](const std::string &kind, std::map<std::string, int> &counts) {
    int sum = 0;
    for (const auto &[word, count] : counts)
      sum += count;
    out += fmt::format("| {} | {} |", kind, sum);
    for (const char *word : kWords)
      out += fmt::format(" {} |", counts[word]);
    out += "\n";
  };
  for (auto &[kind, counts] : table)
    if (kind != "all")
      row(kind, counts);
  if (table.size() != 2)
    row("all", table["all"]);
  bool any = false;
  for (const char *word : kWords)
    for (const CaseOutcome &o : outcomes)
      if (o.word == word && o.word != "passed") {
        if (!any)
          out += "\n## Every case that is not right\n\n| case | is | because |\n| --- | --- | --- |\n";
        any = true;
        out += fmt::format("| {}/{} | {} | {} |\n", cell(o.kind), cell(o.name), o.word, cell(o.why));
      }
  return out;
}

} // namespace kiln
