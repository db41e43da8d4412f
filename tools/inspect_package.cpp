// kiln inspect of a package: what its manifest and its section table say, and the code inside.
#include "tools/inspect.h"

#include "frontend/files/mapped_file.h"
#include "runtime/package_format.h"

#include <elf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <iostream>

namespace kiln {
namespace {

struct Section {
  std::string kind, name;
  uint64_t offset, size;
};

const char *kind_name(package::SectionKind kind) {
  switch (kind) {
  case package::SectionKind::Manifest: return "manifest";
  case package::SectionKind::Code: return "code";
  case package::SectionKind::Locations: return "locations";
  case package::SectionKind::Weights: return "weights";
  case package::SectionKind::State: return "state";
  case package::SectionKind::Signature: return "signature";
  case package::SectionKind::Device: return "device";
  }
  return "?";
}

// The session has been opened before, so the runtime has checked the file; bounds are checked all the same.
std::vector<Section> read_sections(std::span<const std::byte> file) {
  std::vector<Section> out;
  package::FileHeader header;
  if (file.size() < sizeof header)
    return out;
  std::memcpy(&header, file.data(), sizeof header);
  for (uint32_t i = 0; i < std::min(header.section_count, package::kMaxSections); ++i) {
    package::SectionHeader section;
    size_t at = sizeof header + i * sizeof section;
    if (at + sizeof section > file.size())
      break;
    std::memcpy(&section, file.data() + at, sizeof section);
    out.push_back({kind_name(section.kind), std::string(section.name, strnlen(section.name, sizeof section.name)),
                   section.offset, section.size});
  }
  return out;
}

struct CodeFunction {
  std::string name;
  uint64_t size;
};

std::vector<CodeFunction> read_functions(std::span<const std::byte> elf) {
  std::vector<CodeFunction> out;
  auto get = [&](uint64_t at, auto &value) {
    if (at > elf.size() || elf.size() - at < sizeof value)
      return false;
    std::memcpy(&value, elf.data() + at, sizeof value);
    return true;
  };
  Elf64_Ehdr header;
  if (!get(0, header))
    return out;
  for (uint32_t i = 0; i < header.e_shnum; ++i) {
    Elf64_Shdr table, names;
    if (!get(header.e_shoff + i * sizeof table, table) || (table.sh_type != SHT_SYMTAB && table.sh_type != SHT_DYNSYM) ||
        !get(header.e_shoff + table.sh_link * sizeof names, names))
      continue;
    for (uint64_t at = 0; at + sizeof(Elf64_Sym) <= table.sh_size; at += sizeof(Elf64_Sym)) {
      Elf64_Sym symbol;
      if (!get(table.sh_offset + at, symbol))
        break;
      uint64_t name = names.sh_offset + symbol.st_name;
      if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || name >= elf.size())
        continue;
      const char *text = reinterpret_cast<const char *>(elf.data() + name);
      out.push_back({std::string(text, strnlen(text, elf.size() - name)), symbol.st_size});
    }
  }
  std::stable_sort(out.begin(), out.end(), [](const CodeFunction &a, const CodeFunction &b) { return a.size > b.size; });
  return out;
}

std::string dims_text(const KilnValueInfo &v) {
  std::string out;
  for (uint32_t d = 0; d < v.rank; ++d)
    out += (d ? ", " : "") + std::string(v.dims[d].text);
  auto dtype = dtype_from_code(int(v.dtype));
  return fmt::format("{}[{}]", dtype ? dtype_name(*dtype) : "?", out);
}

int print_io(const KilnApi &api, const KilnModule *module, bool json) {
  KilnModuleInfo info{};
  api.module_info(module, &info);
  std::string entries, text = fmt::format("{}, by {}, code for {}; {} bytes of weights, {} of variables\n", info.name,
                                          info.producer, info.target, info.weights_size, info.variables_size);
  for (uint32_t e = 0; e < info.entry_count; ++e) {
    KilnEntryInfo entry{};
    api.entry_info(module, e, &entry);
    std::string target = api.entry_target(module, e);
    text += fmt::format("{}: {} kernels, arena {}{}\n", entry.name, entry.kernel_count,
                        entry.arena_size >= 0 ? fmt::format("{} bytes", entry.arena_size) : "depends on the sizes",
                        target == info.target ? "" : ", on " + target);
    std::string lists[2];
    for (int side = 0; side < 2; ++side)
      for (uint32_t i = 0; i < (side ? entry.output_count : entry.input_count); ++i) {
        KilnValueInfo v{};
        (side ? api.output_info : api.input_info)(module, e, i, &v);
        text += fmt::format("  {} {}: {}\n", side ? "output" : "input ", v.name, dims_text(v));
        lists[side] += fmt::format("{}{{\"name\": {}, \"type\": {}}}", lists[side].empty() ? "" : ", ", json_quote(v.name),
                                   json_quote(dims_text(v)));
      }
    for (uint32_t i = 0; i < entry.symbol_count; ++i) {
      KilnSymbolInfo symbol{};
      api.symbol_info(module, e, i, &symbol);
      text += fmt::format("  size   {}: {} or more{}\n", symbol.name, symbol.min,
                          symbol.max == INT64_MAX ? "" : fmt::format(", at most {}", symbol.max));
    }
    entries += fmt::format("{}{{\"name\": {}, \"target\": {}, \"kernels\": {}, \"arena_bytes\": {}, \"inputs\": [{}], \"outputs\": [{}]}}",
                           e ? ", " : "", json_quote(entry.name), json_quote(target), entry.kernel_count, entry.arena_size, lists[0], lists[1]);
  }
  for (uint32_t i = 0; i < info.variable_count; ++i) {
    KilnVariableInfo v{};
    api.variable_info(module, i, &v);
    text += fmt::format("  {} {}: {} bytes\n", v.is_param ? "param" : "state", v.name, v.size);
  }
  const char *key = nullptr, *value = nullptr;
  for (uint32_t i = 0; api.metadata(module, i, &key, &value) == KILN_OK; ++i)
    if (std::string_view(key).starts_with("parts of ")) // of an entry that computes on the processor and on a GPU
      text += fmt::format("  {}: {}\n", key, value);
    else if (std::string_view(key).starts_with("data.")) // what it was trained on
      text += fmt::format("  {}: {:.200}{}\n", key, value, std::strlen(value) > 200 ? "..." : "");
  std::cout << (json ? fmt::format("{{\"name\": {}, \"target\": {}, \"weights_bytes\": {}, \"variables_bytes\": {}, \"entries\": [{}]}}\n",
                                   json_quote(info.name), json_quote(info.target), info.weights_size, info.variables_size, entries)
                     : text);
  return kFine;
}

int print_kernels(const KilnApi &api, const KilnModule *module, bool json) {
  KilnModuleInfo info{};
  api.module_info(module, &info);
  std::string list, text = fmt::format("{:>12} {:>12}  kernel\n", "MFLOP", "KiB");
  for (uint32_t e = 0; e < info.entry_count; ++e) {
    KilnEntryInfo entry{};
    api.entry_info(module, e, &entry);
    for (uint32_t k = 0; k < entry.kernel_count; ++k) {
      KilnKernelInfo kernel{};
      api.kernel_info(module, e, k, &kernel);
      text += fmt::format("{:12.3f} {:12.1f}  {}{}{}\n", kernel.flops * 1e-6, kernel.bytes / 1024, kernel.name,
                          *kernel.node ? "  of " : "", kernel.node);
      list += fmt::format("{}{{\"entry\": {}, \"name\": {}, \"node\": {}, \"flops\": {}, \"bytes\": {}}}", list.empty() ? "" : ",\n  ",
                          json_quote(entry.name), json_quote(kernel.name), json_quote(kernel.node), kernel.flops, kernel.bytes);
    }
  }
  std::cout << (json ? "{\"kernels\": [\n  " + list + "]}\n" : text);
  return kFine;
}

} // namespace

int inspect_package(const ModelOptions &options, const std::string &what) {
  auto session = Session::open(options.path, {});
  if (!session)
    return report(session.error(), options.json);
  const KilnApi &api = *kiln_get_api(KILN_API_VERSION);
  if (what == "io")
    return print_io(api, session->module(), options.json);
  if (what == "ops")
    return print_kernels(api, session->module(), options.json);
  auto file = MappedFile::open(options.path);
  if (!file)
    return report(file.error(), options.json);
  std::string list, text;
  for (const Section &s : read_sections((*file)->bytes())) {
    if (what == "size") {
      text += fmt::format("{:>12}  {} {}\n", s.size, s.kind, s.name);
      list += fmt::format("{}{{\"section\": {}, \"name\": {}, \"offset\": {}, \"bytes\": {}}}", list.empty() ? "" : ", ",
                          json_quote(s.kind), json_quote(s.name), s.offset, s.size);
    } else if (s.kind == "code" && s.offset <= (*file)->size() && s.size <= (*file)->size() - s.offset) {
      text += fmt::format("{}: {} bytes; to read it: tail -c +{} {} | head -c {} > code.elf && objdump -d code.elf\n", s.name,
                          s.size, s.offset + 1, options.path, s.size);
      std::string functions;
      for (const CodeFunction &f : read_functions((*file)->bytes().subspan(s.offset, s.size))) {
        text += fmt::format("{:>10}  {}\n", f.size, f.name);
        functions += fmt::format("{}{{\"name\": {}, \"bytes\": {}}}", functions.empty() ? "" : ", ", json_quote(f.name), f.size);
      }
      list += fmt::format("{}{{\"target\": {}, \"bytes\": {}, \"functions\": [{}]}}", list.empty() ? "" : ",\n  ",
                          json_quote(s.name), s.size, functions);
    }
  }
  if (what == "size")
    text += fmt::format("{:>12}  the file\n", (*file)->size());
  std::cout << (options.json ? fmt::format("{{\"{}\": [{}]}}\n", what == "size" ? "sections" : "code", list) : text);
  return kFine;
}

} // namespace kiln
