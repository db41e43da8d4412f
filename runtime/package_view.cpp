// Opens packages: from "is it one" to "none of its bytes has changed". The order matters for what
// people read: the version is looked at before the digest, since another version may digest
// otherwise, and the size after it, since a damaged size is not a truncated file.
#include "runtime/package_view.h"

#include <cstring>

#include "runtime/cpu_target.h"
#include "runtime/prefault.h"
#include "runtime/wide_digest.h"

namespace kiln::rt {
namespace {

using namespace package;

const char *kind_name(SectionKind kind) {
  switch (kind) {
  case SectionKind::Manifest:
    return "manifest";
  case SectionKind::Code:
    return "code";
  case SectionKind::Locations:
    return "source locations";
  case SectionKind::Weights:
    return "weights";
  case SectionKind::State:
    return "saved state";
  case SectionKind::Signature:
    return "signature";
  case SectionKind::Device:
    return "device";
  }
  return "unknown";
}

Digest digest_of_header(const uint8_t *page) {
  FileHeader header;
  std::memcpy(&header, page, sizeof header);
  header.digest = Digest{};
  Digester digester;
  digester.update(&header, sizeof header);
  digester.update(page + sizeof header, kPageSize - sizeof header);
  return digester.finish();
}

int32_t check_header(const uint8_t *data, uint64_t size, const char *what, KilnError *error) {
  if (size < sizeof kMagic || std::memcmp(data, kMagic, sizeof kMagic) != 0)
    return fail(error, KILN_ERROR_FORMAT, what, ": not a Kiln package");
  if (size < kPageSize)
    return fail(error, KILN_ERROR_FORMAT, what, ": truncated: ", size,
                " bytes, shorter than a package's header");
  FileHeader header;
  std::memcpy(&header, data, sizeof header);
  if (header.format_version != kFormatVersion)
    return fail(error, KILN_ERROR_VERSION, what, ": package format version ", header.format_version,
                ", this runtime reads version ", kFormatVersion, "; compile the model again");
  if (!same_digest(digest_of_header(data), header.digest))
    return fail(error, KILN_ERROR_FORMAT, what, ": damaged: the header does not match its digest");
  if (size < header.file_size)
    return fail(error, KILN_ERROR_FORMAT, what, ": truncated: ", size, " of ", header.file_size,
                " bytes");
  if (size > header.file_size)
    return fail(error, KILN_ERROR_FORMAT, what, ": ", size - header.file_size,
                " bytes follow its end");
  return KILN_OK;
}

// In pieces that stay behind the pages that are mapped.
Digest digest_of_section(const uint8_t *data, const SectionHeader &section, AbsorbStripes absorb,
                         Prefault *prefault) {
  constexpr uint64_t kPiece = uint64_t{1} << 20;
  Digester digester(absorb);
  for (uint64_t at = 0; at < section.extent; at += kPiece) {
    uint64_t size = section.extent - at < kPiece ? section.extent - at : kPiece;
    if (prefault != nullptr)
      prefault->reach(section.offset + at + size);
    digester.update(data + section.offset + at, size);
  }
  return digester.finish();
}

// Sections lie one behind the other, without gaps, from the first page to the file's end.
bool are_laid_out(const PackageView &view) {
  if (view.header->section_count > kMaxSections)
    return false;
  uint64_t at = kPageSize;
  for (uint32_t i = 0; i < view.header->section_count; ++i) {
    const SectionHeader &section = view.sections[i];
    if (section.offset != at || section.extent % kPageSize != 0 ||
        section.extent > view.header->file_size - at || section.size > section.extent ||
        section.name[kTargetNameSize - 1] != 0)
      return false;
    at += section.extent;
  }
  return at == view.header->file_size;
}

// Where a section of this kind is kept; null for those that may come several times.
Section *slot(PackageView *view, SectionKind kind) {
  switch (kind) {
  case SectionKind::Manifest:
    return &view->manifest;
  case SectionKind::Locations:
    return &view->locations;
  case SectionKind::Weights:
    return &view->weights;
  case SectionKind::State:
    return &view->state;
  default:
    return nullptr;
  }
}

} // namespace

int32_t open_package(const uint8_t *data, uint64_t size, bool checks_weights, Prefault *prefault,
                     const char *what, PackageView *view, KilnError *error) {
  if (int32_t code = check_header(data, size, what, error))
    return code;
  view->data = data;
  view->header = reinterpret_cast<const FileHeader *>(data);
  view->sections = reinterpret_cast<const SectionHeader *>(data + sizeof(FileHeader));
  if (!are_laid_out(*view))
    return fail(error, KILN_ERROR_FORMAT, what, ": its section table is malformed");
  AbsorbStripes absorb = fastest_absorb();
  for (uint32_t i = 0; i < view->header->section_count; ++i) {
    const SectionHeader &section = view->sections[i];
    bool is_checked = checks_weights || section.kind != SectionKind::Weights;
    if (is_checked &&
        !same_digest(digest_of_section(data, section, absorb, prefault), section.digest))
      return fail(error, KILN_ERROR_FORMAT, what, ": damaged: the section '",
                  kind_name(section.kind), section.name[0] != 0 ? " " : "", section.name,
                  "' does not match its digest");
    Section *place = slot(view, section.kind);
    if (place == nullptr)
      continue;
    if (place->data != nullptr)
      return fail(error, KILN_ERROR_FORMAT, what, ": two sections '", kind_name(section.kind), "'");
    *place = {data + section.offset, section.size};
  }
  if (view->weights.data != nullptr &&
      view->weights.data + view->weights.size + kWeightSlack > data + size)
    return fail(error, KILN_ERROR_FORMAT, what, ": its section table is malformed");
  return KILN_OK;
}

int32_t choose_code(const PackageView &view, const char *wanted, const char *what,
                    const SectionHeader **chosen, KilnError *error) {
  char has[96];
  Text list(has, sizeof has);
  int32_t best = -1;
  bool is_there = false;
  for (uint32_t i = 0; i < view.header->section_count; ++i) {
    const SectionHeader &section = view.sections[i];
    if (section.kind != SectionKind::Code)
      continue;
    list << (has[0] != 0 ? ", " : "") << section.name;
    if (wanted != nullptr && std::strcmp(wanted, section.name) != 0)
      continue;
    is_there = true;
    int32_t rank = target_rank(section.name);
    if (rank > best)
      best = rank, *chosen = &section;
  }
  if (best >= 0)
    return KILN_OK;
  if (wanted != nullptr && !is_there)
    return fail(error, KILN_ERROR_NOT_FOUND, what, ": no code for the target '", wanted,
                "'; it has ", has[0] != 0 ? has : "none");
  if (has[0] == 0)
    return fail(error, KILN_ERROR_MACHINE, what, ": holds no code");
  char here[96];
  Text machine(here, sizeof here);
  describe_machine(machine);
  return fail(error, KILN_ERROR_MACHINE, what, ": built for ", wanted != nullptr ? wanted : has,
              ", and this machine is ", here);
}

} // namespace kiln::rt
