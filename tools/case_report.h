// The outcomes of ONNX test cases as a page: docs/conformance.md is one. The same cases and outcomes give
// the same bytes.
#pragma once

#include <string>
#include <vector>

namespace kiln {

struct CaseOutcome {
  std::string kind, name; // "node", "test_relu"
  std::string word;       // "passed", "failed", "random", "unsupported", "crashed", "timeout"
  std::string why;        // all reasons, one a line
};

// `suite` says which cases they are: "ONNX 1.23.2, node and model tests".
std::string case_report(const std::vector<CaseOutcome> &outcomes, const std::string &suite);

} // namespace kiln
