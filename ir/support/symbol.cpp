#include "ir/support/symbol.h"

#include <atomic>
#include <deque>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <unordered_map>

namespace kiln {
namespace {

struct SymbolTable {
  std::shared_mutex mutex;
  std::deque<std::string> texts{""};
  std::unordered_map<std::string_view, uint32_t> ids{{texts[0], 0}};
};

SymbolTable &table() {
  static auto *instance = new SymbolTable;
  return *instance;
}

} // namespace

Symbol::Symbol(std::string_view text) {
  SymbolTable &t = table();
  {
    std::shared_lock lock(t.mutex);
    if (auto it = t.ids.find(text); it != t.ids.end()) {
      id_ = it->second;
      return;
    }
  }
  std::unique_lock lock(t.mutex);
  if (auto it = t.ids.find(text); it != t.ids.end()) {
    id_ = it->second;
    return;
  }
  id_ = uint32_t(t.texts.size());
  t.texts.emplace_back(text);
  t.ids.emplace(t.texts.back(), id_);
}

std::string_view Symbol::text() const {
  SymbolTable &t = table();
  std::shared_lock lock(t.mutex);
  return t.texts[id_];
}

Symbol fresh_symbol(std::string_view stem) {
  static std::atomic<uint64_t> next{0};
  return Symbol(std::string(stem) + "." + std::to_string(next.fetch_add(1)));
}

} // namespace kiln
