// Checks an image from its bytes alone, then maps it. Nothing of it runs before all checks have
// passed.
#include "runtime/elf_image.h"

#include <cstring>
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/cpu_target.h"

namespace kiln::rt {
namespace {

constexpr uint32_t kMaxSegments = 16;
constexpr uint64_t kMaxSpan = uint64_t{1} << 31;

// The loadable segments of a checked image, in ascending order of their addresses.
struct Layout {
  Elf64_Phdr segments[kMaxSegments];
  uint32_t count = 0;
  uint64_t span = 0;
  uint64_t entry = 0;

  // Whether [address, address + size) lies in the bytes of one segment with these flags.
  bool holds(uint64_t address, uint64_t size, uint32_t flags) const {
    for (uint32_t i = 0; i < count; ++i) {
      const Elf64_Phdr &segment = segments[i];
      if ((segment.p_flags & flags) == flags && address >= segment.p_vaddr &&
          size <= segment.p_filesz && address - segment.p_vaddr <= segment.p_filesz - size)
        return true;
    }
    return false;
  }
};

bool is_in_file(const Elf64_Phdr &header, uint64_t size) {
  return header.p_offset <= size && header.p_filesz <= size - header.p_offset;
}

// Writable segments are fine where nothing but the dynamic table and what the linker made read-only
// after relocation lies in them.
bool is_constant(const Elf64_Phdr &segment, const Elf64_Phdr *headers, uint32_t count) {
  if ((segment.p_flags & PF_W) == 0)
    return true;
  for (uint32_t i = 0; i < count; ++i) {
    const Elf64_Phdr &other = headers[i];
    if ((other.p_type == PT_GNU_RELRO || other.p_type == PT_DYNAMIC) &&
        other.p_vaddr <= segment.p_vaddr &&
        other.p_vaddr + other.p_memsz >= segment.p_vaddr + segment.p_memsz)
      return true;
  }
  return false;
}

const char *flaw_of_dynamic(const uint8_t *elf, const Elf64_Phdr &header) {
  for (uint64_t at = 0; at + sizeof(Elf64_Dyn) <= header.p_filesz; at += sizeof(Elf64_Dyn)) {
    Elf64_Dyn entry;
    std::memcpy(&entry, elf + header.p_offset + at, sizeof entry);
    switch (entry.d_tag) {
    case DT_NULL:
      return nullptr;
    case DT_NEEDED:
      return "imports from another library";
    case DT_JMPREL:
    case DT_TEXTREL:
      return "relocations";
    case DT_RELSZ:
    case DT_RELASZ:
    case 35: // DT_RELRSZ
    case DT_PLTRELSZ:
      if (entry.d_un.d_val != 0)
        return "relocations";
      break;
    case DT_INIT:
    case DT_FINI:
      return "initializers";
    case DT_INIT_ARRAYSZ:
    case DT_FINI_ARRAYSZ:
    case DT_PREINIT_ARRAYSZ:
      if (entry.d_un.d_val != 0)
        return "initializers";
      break;
    default:
      break;
    }
  }
  return nullptr;
}

const char *add_segment(const Elf64_Phdr &segment, const Elf64_Phdr *headers, uint32_t count,
                        uint64_t size, Layout *layout) {
  if (!is_in_file(segment, size) || segment.p_vaddr >= kMaxSpan || segment.p_memsz >= kMaxSpan)
    return "a segment outside the image";
  if (layout->count == kMaxSegments)
    return "too many segments";
  if (segment.p_vaddr < layout->span)
    return "overlapping segments";
  if ((segment.p_flags & (PF_W | PF_X)) == (PF_W | PF_X))
    return "code that is writable";
  if (segment.p_memsz != segment.p_filesz || !is_constant(segment, headers, count))
    return "writable data";
  layout->segments[layout->count++] = segment;
  layout->span = segment.p_vaddr + segment.p_memsz;
  return nullptr;
}

// A fragment of a sentence that begins "has", or null.
const char *read_layout(const uint8_t *elf, uint64_t size, Layout *layout) {
  Elf64_Ehdr header;
  if (size < sizeof header)
    return "no ELF header";
  std::memcpy(&header, elf, sizeof header);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64 ||
      header.e_ident[EI_DATA] != ELFDATA2LSB || header.e_type != ET_DYN)
    return "no ELF image of the kind wanted";
  constexpr uint32_t kMaxHeaders = 32;
  Elf64_Phdr headers[kMaxHeaders];
  uint32_t count = header.e_phnum;
  if (header.e_phentsize != sizeof headers[0] || count > kMaxHeaders || header.e_phoff > size ||
      count * sizeof headers[0] > size - header.e_phoff)
    return "malformed program headers";
  std::memcpy(headers, elf + header.e_phoff, count * sizeof headers[0]);
  for (uint32_t i = 0; i < count; ++i) {
    const char *flaw = nullptr;
    if (headers[i].p_type == PT_LOAD && headers[i].p_memsz != 0)
      flaw = add_segment(headers[i], headers, count, size, layout);
    else if (headers[i].p_type == PT_DYNAMIC)
      flaw = is_in_file(headers[i], size) ? flaw_of_dynamic(elf, headers[i])
                                          : "a segment outside the image";
    else if (headers[i].p_type == PT_INTERP)
      flaw = "an interpreter";
    else if (headers[i].p_type == PT_TLS)
      flaw = "thread-local data";
    if (flaw != nullptr)
      return flaw;
  }
  layout->entry = header.e_entry;
  return nullptr;
}

int protection(const Elf64_Phdr &segment) {
  return PROT_READ | ((segment.p_flags & PF_X) != 0 ? PROT_EXEC : 0);
}

uint64_t page_size() {
  return static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

// Whether each segment can be mapped straight from the file: same offset in a page there as here,
// and no page shared by two segments.
bool is_mappable(const Layout &layout, uint64_t file_offset) {
  uint64_t page = page_size();
  uint64_t end = 0;
  for (uint32_t i = 0; i < layout.count; ++i) {
    const Elf64_Phdr &segment = layout.segments[i];
    uint64_t start = segment.p_vaddr / page * page;
    if ((file_offset + segment.p_offset) % page != segment.p_vaddr % page || (i > 0 && start < end))
      return false;
    end = (segment.p_vaddr + segment.p_filesz + page - 1) / page * page;
  }
  return true;
}

bool map_segments(const Layout &layout, int descriptor, uint64_t file_offset, uint8_t *base) {
  uint64_t page = page_size();
  for (uint32_t i = 0; i < layout.count; ++i) {
    const Elf64_Phdr &segment = layout.segments[i];
    uint64_t before = segment.p_vaddr % page;
    void *wanted = base + segment.p_vaddr - before;
    auto offset = static_cast<off_t>(file_offset + segment.p_offset - before);
    if (mmap(wanted, segment.p_filesz + before, protection(segment), MAP_PRIVATE | MAP_FIXED,
             descriptor, offset) != wanted)
      return false;
  }
  return true;
}

// For images in memory, file systems mounted noexec, and pages larger than the image was linked
// for. A page that two segments share gets the protection of both; none of them is writable.
bool copy_segments(const Layout &layout, const uint8_t *elf, uint8_t *base, uint64_t span) {
  if (mmap(base, span, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
      base)
    return false;
  for (uint32_t i = 0; i < layout.count; ++i)
    std::memcpy(base + layout.segments[i].p_vaddr, elf + layout.segments[i].p_offset,
                layout.segments[i].p_filesz);
  __builtin___clear_cache(reinterpret_cast<char *>(base), reinterpret_cast<char *>(base + span));
  uint64_t page = page_size();
  if (mprotect(base, span, PROT_READ) != 0)
    return false;
  for (uint32_t i = 0; i < layout.count; ++i) {
    const Elf64_Phdr &segment = layout.segments[i];
    uint64_t before = segment.p_vaddr % page;
    if ((segment.p_flags & PF_X) != 0 &&
        mprotect(base + segment.p_vaddr - before, segment.p_filesz + before, protection(segment)) !=
            0)
      return false;
  }
  return true;
}

// Finds the header that e_entry points to and checks that every entry lies in executable code.
const char *find_entries(const Layout &layout, CodeImage *image, uint32_t entry_count) {
  if (layout.entry % alignof(KilnImageEntry) != 0 ||
      !layout.holds(layout.entry, sizeof(KilnImageHeader), PF_R))
    return "no entry table";
  image->header = reinterpret_cast<const KilnImageHeader *>(image->base + layout.entry);
  image->entries = reinterpret_cast<const KilnImageEntry *>(image->header + 1);
  if (image->header->magic != KILN_IMAGE_MAGIC)
    return "no entry table";
  if (image->header->entries != entry_count)
    return "another number of entries than the manifest";
  uint64_t table = sizeof(KilnImageHeader) + uint64_t{entry_count} * sizeof(KilnImageEntry);
  if (!layout.holds(layout.entry, table, PF_R))
    return "an entry table outside the image";
  for (uint32_t i = 0; i < entry_count; ++i)
    if (!layout.holds(layout.entry + static_cast<uint64_t>(image->entries[i].run), 1, PF_X) ||
        !layout.holds(layout.entry + static_cast<uint64_t>(image->entries[i].plan), 1, PF_X))
      return "an entry outside its code";
  return nullptr;
}

} // namespace

int32_t map_image(const uint8_t *elf, uint64_t size, int descriptor, uint64_t file_offset,
                  const char *target, uint32_t entry_count, const char *what, CodeImage *image,
                  KilnError *error) {
  Layout layout;
  if (const char *flaw = read_layout(elf, size, &layout))
    return fail(error, KILN_ERROR_FORMAT, what, ": the code for ", target, " has ", flaw);
  Elf64_Ehdr header;
  std::memcpy(&header, elf, sizeof header);
  if (header.e_machine != native_elf_machine())
    return fail(error, KILN_ERROR_MACHINE, what, ": the code for ", target, " is for ELF machine ",
                uint32_t{header.e_machine}, ", and this one is ", uint32_t{native_elf_machine()});
  if (layout.count == 0)
    return fail(error, KILN_ERROR_FORMAT, what, ": the code for ", target, " has no segments");
  uint64_t page = page_size();
  uint64_t span = (layout.span + page - 1) / page * page;
  void *base = mmap(nullptr, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED)
    return fail(error, KILN_ERROR_MEMORY, what, ": no memory for ", span, " bytes of code");
  image->base = static_cast<uint8_t *>(base);
  image->span = span;
  bool is_mapped = descriptor >= 0 && is_mappable(layout, file_offset) &&
                   map_segments(layout, descriptor, file_offset, image->base);
  if (!is_mapped && !copy_segments(layout, elf, image->base, span)) {
    unmap_image(image);
    return fail(error, KILN_ERROR_MEMORY, what,
                ": the system refuses executable memory for the code");
  }
  const char *flaw = find_entries(layout, image, entry_count);
  uint32_t abi = flaw == nullptr ? image->header->abi : KILN_ENTRY_ABI;
  if (flaw == nullptr && abi == KILN_ENTRY_ABI)
    return KILN_OK;
  unmap_image(image);
  if (flaw == nullptr)
    return fail(error, KILN_ERROR_VERSION, what, ": the code for ", target,
                " has the interface version ", abi, ", this runtime runs version ", KILN_ENTRY_ABI,
                "; compile the model again");
  return fail(error, KILN_ERROR_FORMAT, what, ": the code for ", target, " has ", flaw);
}

void unmap_image(CodeImage *image) {
  if (image->base != nullptr)
    munmap(image->base, image->span);
  *image = CodeImage();
}

} // namespace kiln::rt
