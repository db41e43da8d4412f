#include "codegen/object_data.h"

#include "ir/pack.h"
#include "kiln/kiln.h"

#include <elf.h>
#include <fmt/format.h>

#include <cstddef>
#include <cstring>

namespace kiln {
namespace {

std::string stem(const Program &program) {
  std::string out = "kiln_";
  for (char c : program.name)
    out += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
  return out;
}

// An ET_REL file taken apart far enough to add sections, symbols and relocations at its end. The file
// comes from our own code generator, so what does not fit is our bug.
class ObjectFile {
public:
  explicit ObjectFile(std::vector<std::byte> bytes) : bytes_(std::move(bytes)) {
    header_ = get<Elf64_Ehdr>(0);
    for (size_t i = 0; i < header_.e_shnum; ++i)
      sections_.push_back(get<Elf64_Shdr>(header_.e_shoff + i * sizeof(Elf64_Shdr)));
    names_ = contents(sections_.at(header_.e_shstrndx));
    for (size_t i = 0; i < sections_.size(); ++i)
      if (sections_[i].sh_type == SHT_SYMTAB)
        symtab_ = i;
    KILN_CHECK(symtab_ > 0, "an object without symbols");
    strings_ = contents(sections_[sections_[symtab_].sh_link]);
    auto table = contents(sections_[symtab_]);
    symbols_.resize(table.size() / sizeof(Elf64_Sym));
    std::memcpy(symbols_.data(), table.data(), symbols_.size() * sizeof(Elf64_Sym));
  }

  size_t add_section(const std::string &name, uint32_t type, uint64_t flags, uint64_t align,
                     std::span<const std::byte> data, uint32_t link = 0, uint32_t info = 0, uint64_t entry = 0) {
    Elf64_Shdr s{};
    s.sh_name = uint32_t(names_.size());
    add_text(names_, name);
    s.sh_type = type;
    s.sh_flags = flags;
    s.sh_addralign = align;
    s.sh_link = link;
    s.sh_info = info;
    s.sh_entsize = entry;
    place(s, data);
    sections_.push_back(s);
    return sections_.size() - 1;
  }

  size_t add_symbol(const std::string &name, size_t section, uint64_t size) {
    Elf64_Sym s{};
    s.st_name = uint32_t(strings_.size());
    add_text(strings_, name);
    s.st_info = ELF64_ST_INFO(STB_GLOBAL, section ? STT_OBJECT : STT_NOTYPE);
    s.st_shndx = uint16_t(section);
    s.st_size = size;
    symbols_.push_back(s);
    return symbols_.size() - 1;
  }

  size_t find_symbol(const std::string &name) const {
    for (size_t i = 0; i < symbols_.size(); ++i)
      if (name == reinterpret_cast<const char *>(strings_.data() + symbols_[i].st_name))
        return i;
    KILN_CHECK(false, "the object lacks " + name);
  }

  size_t symbol_table() const { return symtab_; }
  // Pointers of 64 bits, as every target's relocation of that kind.
  uint32_t pointer_relocation() const { return header_.e_machine == EM_AARCH64 ? 257u : 1u; }

  std::vector<std::byte> finish() {
    place(sections_[symtab_], std::as_bytes(std::span(symbols_)));
    place(sections_[sections_[symtab_].sh_link], strings_);
    // One table may hold both kinds of names.
    if (sections_[symtab_].sh_link == header_.e_shstrndx)
      merge_names();
    else
      place(sections_[header_.e_shstrndx], names_);
    align(8);
    header_.e_shoff = bytes_.size();
    header_.e_shnum = uint16_t(sections_.size());
    append(std::as_bytes(std::span(sections_)));
    std::memcpy(bytes_.data(), &header_, sizeof header_);
    return std::move(bytes_);
  }

private:
  template <typename T>
  T get(uint64_t at) const {
    KILN_CHECK(at <= bytes_.size() && bytes_.size() - at >= sizeof(T), "an object that ends early");
    T out;
    std::memcpy(&out, bytes_.data() + at, sizeof out);
    return out;
  }
  std::vector<std::byte> contents(const Elf64_Shdr &s) const {
    KILN_CHECK(s.sh_offset <= bytes_.size() && s.sh_size <= bytes_.size() - s.sh_offset, "an object that ends early");
    auto begin = bytes_.begin() + std::ptrdiff_t(s.sh_offset);
    return {begin, begin + std::ptrdiff_t(s.sh_size)};
  }
  static void add_text(std::vector<std::byte> &to, const std::string &text) {
    auto bytes = std::as_bytes(std::span(text.c_str(), text.size() + 1));
    to.insert(to.end(), bytes.begin(), bytes.end());
  }
  void align(uint64_t to) { bytes_.resize((bytes_.size() + to - 1) / to * to); }
  void append(std::span<const std::byte> data) { bytes_.insert(bytes_.end(), data.begin(), data.end()); }
  void place(Elf64_Shdr &s, std::span<const std::byte> data) {
    align(std::max<uint64_t>(s.sh_addralign, 1));
    s.sh_offset = bytes_.size();
    s.sh_size = data.size();
    append(data);
  }
  // Section names were added to a copy of the table that symbols' names went to as well: section names
  // move behind those.
  void merge_names() {
    size_t shared = size_t(original_names_size());
    uint32_t moved = uint32_t(strings_.size() - shared);
    for (Elf64_Shdr &s : sections_)
      if (s.sh_name >= shared)
        s.sh_name += moved;
    strings_.insert(strings_.end(), names_.begin() + std::ptrdiff_t(shared), names_.end());
    place(sections_[header_.e_shstrndx], strings_);
  }
  uint64_t original_names_size() const {
    return get<Elf64_Shdr>(header_.e_shoff + header_.e_shstrndx * sizeof(Elf64_Shdr)).sh_size;
  }

  std::vector<std::byte> bytes_;
  Elf64_Ehdr header_{};
  std::vector<Elf64_Shdr> sections_;
  std::vector<Elf64_Sym> symbols_;
  std::vector<std::byte> names_, strings_;
  size_t symtab_ = 0;
};

template <typename T>
std::span<const std::byte> as_bytes(const std::vector<T> &v) {
  return std::as_bytes(std::span(v));
}

} // namespace

std::string model_symbol(const Program &program) { return stem(program) + "_model"; }
std::string weights_symbol(const Program &program) { return stem(program) + "_weights"; }

std::vector<std::byte> weights_section(const Module &module, const Program &program) {
  std::vector<std::byte> out(size_t(program.weights_size));
  for (const Weight &w : program.weights) {
    const Tensor &tensor = module.constants[size_t(w.constant)].tensor;
    std::span<std::byte> to(out.data() + w.offset, size_t(w.size));
    if (w.layout.is_row_major())
      std::memcpy(to.data(), tensor.bytes().data(), to.size());
    else
      pack(tensor, w.layout, to);
  }
  return out;
}

Result<std::vector<std::byte>> object_with_data(const Module &module, const Compiled &compiled, int jobs) {
  const Program &program = compiled.program;
  const TargetCode &target = compiled.targets.at(0);
  cpu::CpuOptions cpu;
  cpu.jobs = jobs;
  cpu.denormals_keep = compiled.denormals_keep;
  KILN_TRY(code, cpu::emit_object(program, target.kernels, target.machine, cpu));
  PackageSpec spec = package_spec(module, compiled);
  std::string error;
  std::vector<uint8_t> manifest = build_manifest(spec, error);
  std::vector<uint8_t> locations = error.empty() ? build_locations(spec, error) : std::vector<uint8_t>();
  if (!error.empty())
    return Error{error};
  std::vector<std::byte> weights = weights_section(module, program);
  weights.resize(weights.size() + package::kWeightSlack);
  std::vector<char> name(target.machine.name.c_str(), target.machine.name.c_str() + target.machine.name.size() + 1);

  ObjectFile object(std::move(code));
  auto data = [&](const std::string &symbol, uint64_t align, std::span<const std::byte> bytes) {
    size_t section = object.add_section(".rodata." + symbol, SHT_PROGBITS, SHF_ALLOC, align, bytes);
    return object.add_symbol(symbol, section, bytes.size());
  };
  std::string prefix = stem(program);
  size_t weights_at = data(weights_symbol(program), 64, weights);
  size_t manifest_at = data(prefix + "_manifest", 8, as_bytes(manifest));
  size_t locations_at = data(prefix + "_locations", 8, as_bytes(locations));
  size_t target_at = data(prefix + "_target", 1, as_bytes(name));

  // The model's record, then its entries; every pointer is a relocation.
  KilnStaticModel model{};
  model.version = KILN_STATIC_MODEL_VERSION;
  model.entry_count = uint32_t(program.entries.size());
  model.manifest_size = manifest.size();
  model.locations_size = locations.size();
  model.weights_size = uint64_t(program.weights_size);
  std::vector<std::byte> record(sizeof model + program.entries.size() * sizeof(KilnStaticEntry));
  std::memcpy(record.data(), &model, sizeof model);
  size_t record_section = object.add_section(".data.rel.ro." + prefix + "_model", SHT_PROGBITS, SHF_ALLOC | SHF_WRITE, 8, record);
  size_t record_at = object.add_symbol(model_symbol(program), record_section, record.size());
  std::vector<Elf64_Rela> relocations;
  auto point = [&](size_t at, size_t symbol, int64_t addend = 0) {
    relocations.push_back({at, ELF64_R_INFO(uint64_t(symbol), object.pointer_relocation()), addend});
  };
  point(offsetof(KilnStaticModel, entries), record_at, sizeof model);
  point(offsetof(KilnStaticModel, manifest), manifest_at);
  point(offsetof(KilnStaticModel, locations), locations_at);
  point(offsetof(KilnStaticModel, weights), weights_at);
  point(offsetof(KilnStaticModel, target), target_at);
  for (size_t e = 0; e < program.entries.size(); ++e) {
    size_t at = sizeof model + e * sizeof(KilnStaticEntry);
    point(at + offsetof(KilnStaticEntry, run), object.find_symbol(cpu::run_symbol(program, program.entries[e])));
    point(at + offsetof(KilnStaticEntry, plan), object.find_symbol(cpu::plan_symbol(program, program.entries[e])));
  }
  object.add_section(".rela.data.rel.ro." + prefix + "_model", SHT_RELA, SHF_INFO_LINK, 8, as_bytes(relocations),
                     uint32_t(object.symbol_table()), uint32_t(record_section), sizeof(Elf64_Rela));
  return object.finish();
}

} // namespace kiln
