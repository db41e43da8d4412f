#include "codegen/cpu/object_file.h"

#include <llvm/Object/ELF.h>

namespace kiln::cpu {
namespace {

using Elf = llvm::object::ELFFile<llvm::object::ELF64LE>;
using Shdr = Elf::Elf_Shdr;

Error object_error(llvm::Error error) {
  return Error{"LLVM's object cannot be read: " + llvm::toString(std::move(error))};
}

Status read_relocations(const Elf &elf, const Shdr &header, ObjectFile &out) {
  auto relas = elf.relas(header);
  if (!relas)
    return object_error(relas.takeError());
  if (header.sh_info >= out.sections.size())
    return Error{"LLVM's object relocates a section that it does not have"};
  for (const auto &rela : *relas)
    out.sections[header.sh_info].relocations.push_back(
        {rela.r_offset, rela.getType(false), rela.getSymbol(false), rela.r_addend});
  return Unit{};
}

Status read_symbols(const Elf &elf, const Shdr &header, ObjectFile &out) {
  auto symbols = elf.symbols(&header);
  if (!symbols)
    return object_error(symbols.takeError());
  auto strings = elf.getStringTableForSymtab(header);
  if (!strings)
    return object_error(strings.takeError());
  for (const auto &symbol : *symbols) {
    auto name = symbol.getName(*strings);
    if (!name)
      return object_error(name.takeError());
    ObjectSymbol s;
    s.name = name->str();
    s.defined = symbol.st_shndx != llvm::ELF::SHN_UNDEF && symbol.st_shndx < out.sections.size();
    s.function = symbol.getType() == llvm::ELF::STT_FUNC;
    s.section = s.defined ? size_t(symbol.st_shndx) : 0;
    s.value = symbol.st_value;
    s.size = symbol.st_size;
    out.symbols.push_back(std::move(s));
  }
  return Unit{};
}

} // namespace

Result<ObjectFile> read_object(std::string_view bytes) {
  auto elf = Elf::create(llvm::StringRef(bytes.data(), bytes.size()));
  if (!elf)
    return object_error(elf.takeError());
  auto headers = elf->sections();
  if (!headers)
    return object_error(headers.takeError());
  ObjectFile out;
  for (const Shdr &header : *headers) {
    ObjectSection section;
    auto name = elf->getSectionName(header);
    if (!name)
      return object_error(name.takeError());
    section.name = name->str();
    section.loaded = (header.sh_flags & llvm::ELF::SHF_ALLOC) != 0 && header.sh_size != 0;
    section.executable = (header.sh_flags & llvm::ELF::SHF_EXECINSTR) != 0;
    section.alignment = std::max<uint64_t>(1, header.sh_addralign);
    if (section.loaded) {
      if ((header.sh_flags & llvm::ELF::SHF_WRITE) != 0 ||
          header.sh_type != llvm::ELF::SHT_PROGBITS)
        return Error{"LLVM made a section of another kind than code and constants: " +
                     section.name};
      auto contents = elf->getSectionContents(header);
      if (!contents)
        return object_error(contents.takeError());
      section.bytes.assign(contents->begin(), contents->end());
    }
    out.sections.push_back(std::move(section));
  }
  for (const Shdr &header : *headers) {
    if (header.sh_type == llvm::ELF::SHT_RELA)
      KILN_RETURN_IF_ERROR(read_relocations(*elf, header, out));
    if (header.sh_type == llvm::ELF::SHT_SYMTAB)
      KILN_RETURN_IF_ERROR(read_symbols(*elf, header, out));
  }
  return out;
}

} // namespace kiln::cpu
