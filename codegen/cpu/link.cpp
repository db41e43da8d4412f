#include "codegen/cpu/link.h"

#include "codegen/cpu/relocate.h"
#include "runtime/entry_abi.h"

#include <llvm/BinaryFormat/ELF.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

namespace kiln::cpu {
namespace {

namespace elf = llvm::ELF;
constexpr uint64_t kPage = 4096;
constexpr uint64_t kCodeAlignment = 64;

uint64_t align_up(uint64_t v, uint64_t alignment) {
  return (v + alignment - 1) / alignment * alignment;
}

class Linker {
public:
  Linker(uint16_t machine, const std::vector<LinkUnit> &units,
         const std::vector<LinkEntry> &entries)
      : machine_(machine), units_(units), entries_(entries) {}

  Result<std::vector<std::byte>> run() {
    lay_out();
    define_symbols();
    image_.resize(image_end_);
    KILN_RETURN_IF_ERROR(copy_sections());
    KILN_RETURN_IF_ERROR(write_entries());
    write_tables();
    write_headers();
    std::vector<std::byte> out(image_.size());
    std::memcpy(out.data(), image_.data(), image_.size());
    return out;
  }

private:
  template <typename T>
  void put(uint64_t offset, const T &value) {
    std::memcpy(image_.data() + offset, &value, sizeof value);
  }
  template <typename T>
  void append(const T &value) {
    image_.resize(image_.size() + sizeof value);
    put(image_.size() - sizeof value, value);
  }

  void lay_out() {
    header_ =
        align_up(sizeof(elf::Elf64_Ehdr) + kSegments * sizeof(elf::Elf64_Phdr), kCodeAlignment);
    uint64_t at = header_ + sizeof(KilnImageHeader) + entries_.size() * sizeof(KilnImageEntry);
    places_.resize(units_.size());
    constants_ = align_up(at, kCodeAlignment);
    constants_end_ = place_sections(constants_, false);
    code_ = align_up(constants_end_, kPage);
    image_end_ = place_sections(code_, true);
  }

  uint64_t place_sections(uint64_t at, bool executable) {
    for (size_t u = 0; u < units_.size(); ++u) {
      const auto &sections = units_[u].object->sections;
      places_[u].resize(sections.size());
      for (size_t s = 0; s < sections.size(); ++s) {
        if (!sections[s].loaded || sections[s].executable != executable)
          continue;
        uint64_t alignment = sections[s].alignment;
        at = align_up(at, executable ? std::max(alignment, kCodeAlignment) : alignment);
        places_[u][s] = at;
        at += sections[s].bytes.size();
      }
    }
    return at;
  }

  uint64_t symbol_address(size_t unit, const ObjectSymbol &symbol) const {
    return places_[unit][symbol.section] + symbol.value;
  }

  // Kernels answer to their link names, everything else to its own.
  void define_symbols() {
    for (size_t u = 0; u < units_.size(); ++u)
      for (const ObjectSymbol &symbol : units_[u].object->symbols) {
        if (!symbol.defined || !symbol.function)
          continue;
        if (units_[u].link_names.empty())
          addresses_[symbol.name] = symbol_address(u, symbol);
        else if (symbol.name == kKernelFunction)
          for (const std::string &name : units_[u].link_names)
            addresses_[name] = symbol_address(u, symbol);
      }
  }

  Status copy_sections() {
    for (size_t u = 0; u < units_.size(); ++u) {
      const ObjectFile &object = *units_[u].object;
      for (size_t s = 0; s < object.sections.size(); ++s) {
        const ObjectSection &section = object.sections[s];
        if (!section.loaded)
          continue;
        uint64_t place = places_[u][s];
        std::copy(section.bytes.begin(), section.bytes.end(),
                  image_.begin() + std::ptrdiff_t(place));
        for (const Relocation &relocation : section.relocations)
          KILN_RETURN_IF_ERROR(relocate(u, section, place, relocation));
      }
    }
    return Unit{};
  }

  Status relocate(size_t unit, const ObjectSection &section, uint64_t place,
                  const Relocation &relocation) {
    const ObjectFile &object = *units_[unit].object;
    if (relocation.offset >= section.bytes.size() || relocation.symbol >= object.symbols.size())
      return Error{"a relocation lies outside its section"};
    const ObjectSymbol &symbol = object.symbols[relocation.symbol];
    uint64_t address = 0;
    if (symbol.defined) {
      address = symbol_address(unit, symbol);
    } else if (auto it = addresses_.find(symbol.name); it != addresses_.end()) {
      address = it->second;
    } else {
      return Error{"the code calls " + symbol.name + ", which an image cannot import"};
    }
    uint64_t at = place + relocation.offset;
    return apply_relocation(machine_, relocation.type, image_.data() + at,
                            section.bytes.size() - relocation.offset, at,
                            address + uint64_t(relocation.addend));
  }

  Status write_entries() {
    put(header_, KilnImageHeader{KILN_IMAGE_MAGIC, KILN_ENTRY_ABI, uint32_t(entries_.size()), 0});
    uint64_t at = header_ + sizeof(KilnImageHeader);
    for (const LinkEntry &entry : entries_) {
      auto run = addresses_.find(entry.run), plan = addresses_.find(entry.plan);
      if (run == addresses_.end() || plan == addresses_.end())
        return Error{"the entry " + entry.run + " has no code"};
      put(at, KilnImageEntry{int64_t(run->second - header_), int64_t(plan->second - header_)});
      at += sizeof(KilnImageEntry);
    }
    return Unit{};
  }

  uint32_t add_string(std::string &pool, const std::string &text) {
    uint32_t at = uint32_t(pool.size());
    pool += text;
    pool += '\0';
    return at;
  }

  void add_symbol(const std::string &name, uint64_t address, uint64_t size) {
    elf::Elf64_Sym symbol{};
    symbol.st_name = add_string(strings_, name);
    symbol.setBindingAndType(elf::STB_LOCAL, elf::STT_FUNC);
    symbol.st_shndx = kTextSection;
    symbol.st_value = address;
    symbol.st_size = size;
    append(symbol);
    ++symbol_count_;
  }

  void write_tables() {
    strings_.assign(1, '\0');
    image_.resize(align_up(image_.size(), 8));
    symbols_ = image_.size();
    append(elf::Elf64_Sym{});
    symbol_count_ = 1;
    for (size_t u = 0; u < units_.size(); ++u)
      for (const ObjectSymbol &symbol : units_[u].object->symbols) {
        if (!symbol.defined || !symbol.function)
          continue;
        uint64_t address = symbol_address(u, symbol);
        const auto &labels = units_[u].labels;
        if (labels.empty())
          add_symbol(symbol.name, address, symbol.size);
        else if (symbol.name == kKernelFunction)
          for (const std::string &label : labels)
            add_symbol(label, address, symbol.size);
        else
          add_symbol(labels[0] + symbol.name.substr(std::strlen(kKernelFunction)), address,
                     symbol.size);
      }
    strings_at_ = image_.size();
    image_.insert(image_.end(), strings_.begin(), strings_.end());
  }

  void add_section(std::string &names, const char *name, uint32_t type, uint64_t flags,
                   uint64_t offset, uint64_t size, uint64_t alignment, uint32_t link = 0,
                   uint32_t info = 0, uint64_t entry_size = 0) {
    elf::Elf64_Shdr header{};
    header.sh_name = add_string(names, name);
    header.sh_type = type;
    header.sh_flags = flags;
    header.sh_addr = flags & elf::SHF_ALLOC ? offset : 0;
    header.sh_offset = offset;
    header.sh_size = size;
    header.sh_link = link;
    header.sh_info = info;
    header.sh_addralign = alignment;
    header.sh_entsize = entry_size;
    section_headers_.push_back(header);
  }

  void write_headers() {
    std::string names(1, '\0');
    section_headers_.push_back({});
    add_section(names, ".rodata", elf::SHT_PROGBITS, elf::SHF_ALLOC, header_,
                constants_end_ - header_, kCodeAlignment);
    add_section(names, ".text", elf::SHT_PROGBITS, elf::SHF_ALLOC | elf::SHF_EXECINSTR, code_,
                image_end_ - code_, kPage);
    add_section(names, ".symtab", elf::SHT_SYMTAB, 0, symbols_,
                symbol_count_ * sizeof(elf::Elf64_Sym), 8, 4, uint32_t(symbol_count_),
                sizeof(elf::Elf64_Sym));
    add_section(names, ".strtab", elf::SHT_STRTAB, 0, strings_at_, strings_.size(), 1);
    uint64_t names_at = image_.size();
    add_section(names, ".shstrtab", elf::SHT_STRTAB, 0, names_at, 0, 1);
    section_headers_.back().sh_size = names.size();
    image_.insert(image_.end(), names.begin(), names.end());
    image_.resize(align_up(image_.size(), 8));
    uint64_t sections_at = image_.size();
    for (const elf::Elf64_Shdr &header : section_headers_)
      append(header);
    write_file_header(sections_at);
  }

  void write_file_header(uint64_t sections_at) {
    elf::Elf64_Ehdr header{};
    std::memcpy(header.e_ident, elf::ElfMagic, 4);
    header.e_ident[elf::EI_CLASS] = elf::ELFCLASS64;
    header.e_ident[elf::EI_DATA] = elf::ELFDATA2LSB;
    header.e_ident[elf::EI_VERSION] = elf::EV_CURRENT;
    header.e_type = elf::ET_DYN;
    header.e_machine = machine_;
    header.e_version = elf::EV_CURRENT;
    header.e_entry = header_;
    header.e_phoff = sizeof(elf::Elf64_Ehdr);
    header.e_shoff = sections_at;
    header.e_ehsize = sizeof(elf::Elf64_Ehdr);
    header.e_phentsize = sizeof(elf::Elf64_Phdr);
    header.e_phnum = kSegments;
    header.e_shentsize = sizeof(elf::Elf64_Shdr);
    header.e_shnum = uint16_t(section_headers_.size());
    header.e_shstrndx = uint16_t(section_headers_.size() - 1);
    put(0, header);
    auto segment = [](uint32_t type, uint32_t flags, uint64_t offset, uint64_t size) {
      elf::Elf64_Phdr p{};
      p.p_type = type;
      p.p_flags = flags;
      p.p_offset = p.p_vaddr = p.p_paddr = offset;
      p.p_filesz = p.p_memsz = size;
      p.p_align = type == elf::PT_LOAD ? kPage : 16;
      return p;
    };
    elf::Elf64_Phdr segments[kSegments] = {
        segment(elf::PT_LOAD, elf::PF_R, 0, constants_end_),
        segment(elf::PT_LOAD, elf::PF_R | elf::PF_X, code_, image_end_ - code_),
        segment(elf::PT_GNU_STACK, elf::PF_R | elf::PF_W, 0, 0)};
    put(sizeof(elf::Elf64_Ehdr), segments);
  }

  static constexpr uint16_t kSegments = 3;
  static constexpr uint16_t kTextSection = 2;

  uint16_t machine_;
  const std::vector<LinkUnit> &units_;
  const std::vector<LinkEntry> &entries_;
  std::vector<std::vector<uint64_t>> places_; // of each unit's sections
  std::map<std::string, uint64_t> addresses_;
  uint64_t header_ = 0, constants_ = 0, constants_end_ = 0, code_ = 0, image_end_ = 0;
  std::vector<uint8_t> image_;
  std::string strings_;
  uint64_t symbols_ = 0, symbol_count_ = 0, strings_at_ = 0;
  std::vector<elf::Elf64_Shdr> section_headers_;
};

} // namespace

Result<std::vector<std::byte>> link_image(uint16_t machine, const std::vector<LinkUnit> &units,
                                          const std::vector<LinkEntry> &entries) {
  return Linker(machine, units, entries).run();
}

std::vector<std::string> undefined_symbols(const std::vector<LinkUnit> &units) {
  std::set<std::string> defined, used;
  for (const LinkUnit &unit : units) {
    defined.insert(unit.link_names.begin(), unit.link_names.end());
    for (const ObjectSymbol &symbol : unit.object->symbols)
      (symbol.defined ? defined : used).insert(symbol.name);
  }
  used.erase("");
  std::vector<std::string> out;
  std::set_difference(used.begin(), used.end(), defined.begin(), defined.end(),
                      std::back_inserter(out));
  return out;
}

} // namespace kiln::cpu
