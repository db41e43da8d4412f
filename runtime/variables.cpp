// A saved package is the package it came from with a state section at its end: the other sections
// are copied with the digests they have. A state file has the manifest (which names the variables)
// and the state alone.
#include "runtime/variables.h"

#include "runtime/cuda/device.h"

#include <cstring>

#include "runtime/digest.h"

namespace kiln::rt {
namespace {

using namespace package;

bool is_aligned(const void *block) {
  return reinterpret_cast<uintptr_t>(block) % KILN_ALIGNMENT == 0;
}

int32_t check_block(const KilnModule *module, const void *block, const char *function,
                    KilnError *error) {
  if (module == nullptr || (block == nullptr && module->variables_size() != 0))
    return fail(error, KILN_ERROR_USAGE, function, ": null pointer");
  if (!is_aligned(block))
    return fail(error, KILN_ERROR_USAGE, function,
                ": the variables block is not aligned to 64 bytes");
  return KILN_OK;
}

int32_t check_variable(const KilnModule *module, uint32_t index, const void *data, uint64_t size,
                       const char *function, KilnError *error) {
  uint32_t count = module->manifest.header().variables.count;
  if (index >= count)
    return fail(error, KILN_ERROR_USAGE, function, ": variable ", index, " of ", count);
  const VariableRecord &variable = module->manifest.variables()[index];
  int64_t dims[kMaxRank];
  uint64_t wanted = module->manifest.variable_size(variable, dims);
  if (size != wanted)
    return fail(error, KILN_ERROR_SHAPE, function, ": variable '",
                module->manifest.text(variable.name), "' has ", wanted, " bytes, got ", size);
  if (data == nullptr && size != 0)
    return fail(error, KILN_ERROR_USAGE, function, ": null pointer");
  return KILN_OK;
}

// Writes sections one behind the other, then the header page.
class PackageFile {
public:
  PackageFile(const char *path, uint32_t flags) : path_(path) { header_.flags = flags; }

  int32_t create(KilnError *error) { return file_.create(path_, error); }

  int32_t add(SectionHeader section, const uint8_t *data, bool has_digest, KilnError *error) {
    if (header_.section_count == kMaxSections)
      return fail(error, KILN_ERROR_FORMAT, "cannot write '", path_, "': too many sections");
    section.offset = end_;
    if (!has_digest) {
      section.extent = (section.size + kPageSize - 1) / kPageSize * kPageSize;
      Digester digester;
      digester.update(data, section.size);
      digester.update_zeros(section.extent - section.size);
      section.digest = digester.finish();
    }
    if (int32_t code = file_.put(end_, data, section.size, error))
      return code;
    if (int32_t code = file_.put_zeros(end_ + section.size, section.extent - section.size, error))
      return code;
    end_ += section.extent;
    std::memcpy(page_ + sizeof(FileHeader) + header_.section_count * sizeof section, &section,
                sizeof section);
    ++header_.section_count;
    return KILN_OK;
  }

  int32_t finish(KilnError *error) {
    std::memcpy(header_.magic, kMagic, sizeof kMagic);
    header_.format_version = kFormatVersion;
    header_.file_size = end_;
    std::memcpy(page_, &header_, sizeof header_);
    header_.digest = digest_of(page_, sizeof page_);
    std::memcpy(page_, &header_, sizeof header_);
    if (int32_t code = file_.put(0, page_, sizeof page_, error))
      return code;
    return file_.commit(error);
  }

private:
  const char *path_;
  WholeFile file_;
  FileHeader header_{};
  uint64_t end_ = kPageSize;
  uint8_t page_[kPageSize] = {};
};

SectionHeader make_section(SectionKind kind, uint64_t size) {
  SectionHeader section{};
  section.kind = kind;
  section.size = size;
  return section;
}

int32_t write_package(const KilnModule &module, const void *block, PackageFile *out,
                      KilnError *error) {
  const PackageView &view = module.package;
  for (uint32_t i = 0; i < view.header->section_count; ++i) {
    const SectionHeader &section = view.sections[i];
    // The old state is replaced, and a signature would not hold for the new file.
    if (section.kind == SectionKind::State || section.kind == SectionKind::Signature)
      continue;
    if (int32_t code = out->add(section, view.data + section.offset, true, error))
      return code;
  }
  uint64_t size = module.manifest.header().variables_size;
  return out->add(make_section(SectionKind::State, size), static_cast<const uint8_t *>(block),
                  false, error);
}

int32_t write_state(const KilnModule &module, const void *block, PackageFile *out,
                    KilnError *error) {
  Manifest::Bytes manifest = module.manifest.bytes();
  if (int32_t code =
          out->add(make_section(SectionKind::Manifest, manifest.size), manifest.data, false, error))
    return code;
  uint64_t size = module.manifest.header().variables_size;
  return out->add(make_section(SectionKind::State, size), static_cast<const uint8_t *>(block),
                  false, error);
}

const VariableRecord *find_variable(const Manifest &manifest, const char *name) {
  for (uint32_t i = 0; i < manifest.header().variables.count; ++i)
    if (std::strcmp(manifest.text(manifest.variables()[i].name), name) == 0)
      return &manifest.variables()[i];
  return nullptr;
}

// Calls take(mine, theirs, size) for each variable of `mine`, or says how the file's differ.
template <typename Take>
int32_t match_variables(const Manifest &mine, const Manifest &theirs, const char *path,
                        KilnError *error, Take take) {
  uint32_t count = mine.header().variables.count;
  for (uint32_t i = 0; i < count; ++i) {
    const VariableRecord &variable = mine.variables()[i];
    const char *name = mine.text(variable.name);
    const VariableRecord *other = find_variable(theirs, name);
    if (other == nullptr)
      return fail(error, KILN_ERROR_NOT_FOUND, path, ": holds no variable '", name, "'");
    int64_t dims[kMaxRank], other_dims[kMaxRank];
    uint64_t size = mine.variable_size(variable, dims);
    theirs.variable_size(*other, other_dims);
    if (other->dtype != variable.dtype)
      return fail(error, KILN_ERROR_DTYPE, path, ": the variable '", name, "' is ",
                  dtype_name(other->dtype), ", the model's is ", dtype_name(variable.dtype));
    if (other->dims.count != variable.dims.count ||
        std::memcmp(dims, other_dims, variable.dims.count * sizeof dims[0]) != 0)
      return fail(error, KILN_ERROR_SHAPE, path, ": the variable '", name, "' has shape ",
                  Dims{other_dims, other->dims.count}, ", the model's has ",
                  Dims{dims, variable.dims.count});
    take(variable, *other, size);
  }
  if (theirs.header().variables.count > count)
    return fail(error, KILN_ERROR_NOT_FOUND, path, ": holds ", theirs.header().variables.count,
                " variables, the model has ", count);
  return KILN_OK;
}

int32_t load_from(const MappedFile &file, const KilnModule &module, uint8_t *block,
                  const char *path, KilnError *error) {
  PackageView view;
  if (int32_t code = open_package(file.data, file.size, true, nullptr, path, &view, error))
    return code;
  Manifest theirs;
  bool is_state_only = (view.header->flags & kFileStateOnly) != 0;
  if (int32_t code =
          theirs.open(view.manifest.data, view.manifest.size,
                      is_state_only ? Manifest::kAnyWeights : view.weights.size, path, error))
    return code;
  if (view.state.data == nullptr)
    return fail(error, KILN_ERROR_FORMAT, path, ": holds no saved variables");
  if (view.state.size != theirs.header().variables_size)
    return fail(error, KILN_ERROR_FORMAT, path, ": its saved state is of another model");
  auto skip = [](const VariableRecord &, const VariableRecord &, uint64_t) {};
  if (int32_t code = match_variables(module.manifest, theirs, path, error, skip))
    return code;
  auto copy = [&](const VariableRecord &to, const VariableRecord &from, uint64_t size) {
    std::memcpy(block + to.offset, view.state.data + from.offset, size);
  };
  return match_variables(module.manifest, theirs, path, error, copy);
}

} // namespace

int32_t variables_init(const KilnModule *module, void *block, KilnError *error) {
  if (int32_t code = check_block(module, block, "variables_init", error))
    return code;
  if (module->variables_size() == 0)
    return KILN_OK;
  auto *bytes = static_cast<uint8_t *>(block);
  touch_variables(module, kAllVariables, block);
  std::memset(bytes, 0, module->variables_size());
  if (module->saved_state != nullptr) {
    std::memcpy(bytes, module->saved_state, module->manifest.header().variables_size);
    return KILN_OK;
  }
  for (uint32_t i = 0; i < module->manifest.header().variables.count; ++i) {
    const VariableRecord &variable = module->manifest.variables()[i];
    int64_t dims[kMaxRank];
    if (variable.initial != kNoOffset)
      std::memcpy(bytes + variable.offset, module->weights + variable.initial,
                  module->manifest.variable_size(variable, dims));
  }
  return KILN_OK;
}

int32_t variable_read(const KilnModule *module, const void *block, uint32_t index, void *data,
                      uint64_t size, KilnError *error) {
  if (int32_t code = check_block(module, block, "variable_read", error))
    return code;
  if (int32_t code = check_variable(module, index, data, size, "variable_read", error))
    return code;
  if (int32_t code = pull_variables(module, kAllVariables, block, error))
    return code;
  if (size != 0)
    std::memcpy(data,
                static_cast<const uint8_t *>(block) + module->manifest.variables()[index].offset,
                size);
  return KILN_OK;
}

int32_t variable_write(const KilnModule *module, void *block, uint32_t index, const void *data,
                       uint64_t size, KilnError *error) {
  if (int32_t code = check_block(module, block, "variable_write", error))
    return code;
  if (int32_t code = check_variable(module, index, data, size, "variable_write", error))
    return code;
  if (int32_t code = pull_variables(module, kAllVariables, block, error))
    return code;
  touch_variables(module, kAllVariables, block);
  if (size != 0)
    std::memcpy(static_cast<uint8_t *>(block) + module->manifest.variables()[index].offset, data,
                size);
  return KILN_OK;
}

int32_t save(const KilnModule *module, const void *block, const char *path, uint32_t flags,
             KilnError *error) {
  if (path == nullptr)
    return fail(error, KILN_ERROR_USAGE, "save: null pointer");
  if (int32_t code = check_block(module, block, "save", error))
    return code;
  if (int32_t code = pull_variables(module, kAllVariables, block, error))
    return code;
  bool is_state_only = (flags & KILN_SAVE_STATE_ONLY) != 0;
  if (!is_state_only && module->package.data == nullptr)
    return fail(error, KILN_ERROR_USAGE,
                "save: a linked model has no package; use KILN_SAVE_STATE_ONLY");
  PackageFile out(path, is_state_only ? kFileStateOnly : 0);
  if (int32_t code = out.create(error))
    return code;
  if (int32_t code = is_state_only ? write_state(*module, block, &out, error)
                                   : write_package(*module, block, &out, error))
    return code;
  return out.finish(error);
}

int32_t load(const KilnModule *module, void *block, const char *path, KilnError *error) {
  if (path == nullptr)
    return fail(error, KILN_ERROR_USAGE, "load: null pointer");
  if (int32_t code = check_block(module, block, "load", error))
    return code;
  MappedFile file;
  if (int32_t code = map_file(path, &file, error))
    return code;
  int32_t code = load_from(file, *module, static_cast<uint8_t *>(block), path, error);
  if (code == KILN_OK)
    touch_variables(module, kAllVariables, block);
  unmap_file(&file);
  return code;
}

} // namespace kiln::rt
