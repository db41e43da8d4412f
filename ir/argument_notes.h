// Notes on a module's arguments and results that their types do not tell: which of them are the tensors
// of one sequence of the model, and which are strings. They are metadata, so that they stay with the module in its text
// and in packages, where callers read them ("metadata" in docs/package.md).
#pragma once

#include <map>
#include <string>
#include <string_view>

namespace kiln {

// "kiln.input.x" and "kiln.output.y": the key of the note on a model's input or output.
inline std::string note_key(bool is_output, std::string_view name) {
  return (is_output ? "kiln.output." : "kiln.input.") + std::string(name);
}

// The note on a tensor of strings: u8, the bytes of each in the last dim with zeros behind them.
inline constexpr const char *kTextNote = "text";

inline bool has_note(const std::map<std::string, std::string> &metadata, bool is_output, std::string_view name,
                     std::string_view note) {
  auto it = metadata.find(note_key(is_output, name));
  return it != metadata.end() && it->second == note;
}

} // namespace kiln
