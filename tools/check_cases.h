// Folders of ONNX test cases: each compiled and run in a process of its own, with limits on time and
// memory, so that a crash or a hang is a line of the report.
#pragma once

#include <string>

namespace kiln {

struct CaseOptions {
  std::string folder;
  int jobs = 1;
  double seconds = 60;          // of one case
  int64_t bytes = int64_t(4) << 30; // of address space
  std::string report, suite;     // a Markdown page to write, and what it calls the cases
  bool json = false;
  bool skip_unsupported = false; // cases of operators that Kiln lacks do not count as failed
};

int check_cases(const CaseOptions &options); // the exit code

} // namespace kiln
