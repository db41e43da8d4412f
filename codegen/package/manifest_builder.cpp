// Lays out a PackageSpec's manifest and locations: records into tables, text into one pool.
//
// Everything the runtime would refuse is refused here first, by name, so that a bad spec never
// becomes a file.
#include <cstring>
#include <map>

#include "codegen/package/package_writer.h"
#include "runtime/entry_abi.h"

namespace kiln {
namespace {

using namespace package;

bool is_dtype(uint32_t code) {
  switch (code) {
#define KILN_DTYPE(name, bits, kind, number)                                                       \
  case number:                                                                                     \
    return true;
#include "runtime/dtypes.def"
#undef KILN_DTYPE
  }
  return false;
}

uint64_t dtype_size(uint32_t code) {
  switch (code) {
#define KILN_DTYPE(name, bits, kind, number)                                                       \
  case number:                                                                                     \
    return bits / 8;
#include "runtime/dtypes.def"
#undef KILN_DTYPE
  }
  return 0;
}

class StringPool {
public:
  String add(const std::string &text) {
    auto [it, is_new] = seen_.try_emplace(text, static_cast<uint32_t>(bytes_.size()));
    if (is_new) {
      bytes_.insert(bytes_.end(), text.begin(), text.end());
      bytes_.push_back(0);
    }
    return {it->second, static_cast<uint32_t>(text.size())};
  }
  const std::vector<uint8_t> &bytes() const { return bytes_; }

private:
  std::map<std::string, uint32_t, std::less<>> seen_;
  std::vector<uint8_t> bytes_;
};

// Appends a table's bytes, aligned to 8, and says where it lies.
template <typename Record>
Table append_table(std::vector<uint8_t> &out, const std::vector<Record> &records) {
  out.resize((out.size() + 7) / 8 * 8);
  Table table{static_cast<uint32_t>(out.size()), static_cast<uint32_t>(records.size())};
  auto *bytes = reinterpret_cast<const uint8_t *>(records.data());
  out.insert(out.end(), bytes, bytes + records.size() * sizeof(Record));
  return table;
}

class ManifestBuilder {
public:
  explicit ManifestBuilder(const PackageSpec &spec) : spec_(spec) {}

  std::vector<uint8_t> build(std::string &error) {
    for (const PackageEntry &entry : spec_.entries)
      add_entry(entry);
    for (const PackageVariable &variable : spec_.variables)
      add_variable(variable);
    for (const auto &[key, value] : spec_.metadata)
      metadata_.push_back({strings_.add(key), strings_.add(value)});
    std::vector<uint8_t> out = lay_out();
    if (error_.empty() && out.size() > std::numeric_limits<uint32_t>::max())
      error_ = "the manifest is larger than 4 GiB";
    error = error_;
    return out;
  }

private:
  void fail(std::string message) {
    if (error_.empty())
      error_ = std::move(message);
  }

  void add_entry(const PackageEntry &entry) {
    const std::string where = "entry '" + entry.name + "'";
    EntryRecord record{};
    record.name = strings_.add(entry.name);
    record.inputs = add_values(entry, entry.inputs, where + ", input '");
    record.outputs = add_values(entry, entry.outputs, where + ", output '");
    record.symbols = {static_cast<uint32_t>(symbols_.size()), count(entry.symbols)};
    for (const PackageSymbol &symbol : entry.symbols) {
      if (symbol.min < 0 || symbol.max < symbol.min)
        fail(where + ": the dim '" + symbol.name + "' has an empty or negative range");
      if (symbol.variable != kNoIndex && symbol.variable >= spec_.variables.size())
        fail(where + ": the dim '" + symbol.name + "' is held by a variable that does not exist");
      symbols_.push_back({strings_.add(symbol.name), symbol.min, symbol.max, symbol.otherwise, symbol.variable, 0});
    }
    record.sizes = {static_cast<uint32_t>(symbols_.size()), count(entry.sizes)};
    for (const PackageSize &size : entry.sizes) {
      if (size.capacity >= static_cast<int64_t>(entry.symbols.size()))
        fail(where + ": the size '" + size.name + "' has a capacity that does not exist");
      symbols_.push_back({strings_.add(size.name), 0, std::numeric_limits<int64_t>::max(), size.capacity, kNoIndex, 0});
    }
    record.constraints = {static_cast<uint32_t>(constraints_.size()), count(entry.constraints)};
    for (const std::string &text : entry.constraints)
      constraints_.push_back(strings_.add(text));
    record.kernels = {static_cast<uint32_t>(kernels_.size()), count(entry.kernels)};
    for (const PackageKernel &kernel : entry.kernels) {
      if (kernel.location != kNoIndex && kernel.location >= spec_.locations.size())
        fail(where + ": kernel '" + kernel.name + "' has a location that does not exist");
      kernels_.push_back({strings_.add(kernel.name), kernel.location, kernel.units, kernel.flops, kernel.bytes,
                          kernel.weight_bytes, strings_.add(kernel.flops_text),
                          strings_.add(kernel.bytes_text)});
    }
    record.flags = (entry.writes_variables ? kEntryWritesVariables : 0) | (entry.device == "cuda" ? kEntryOnDevice : 0) |
                   (entry.device == "cpu" ? kEntryOnHost : 0);
    record.on_device = entry.is_twin || entry.is_part || !entry.parts.empty() ? 0 : twin_of(entry);
    record.parts = add_parts(entry);
    for (const PackagePart &part : entry.parts)
      if (spec_.entries[part.entry].writes_variables)
        record.flags |= kEntryWritesVariables;
    record.arena_size = entry.arena_size;
    record.scratch_size = entry.scratch_size;
    entries_.push_back(record);
  }

  Range add_parts(const PackageEntry &entry) {
    Range range{static_cast<uint32_t>(parts_.size()), count(entry.parts)};
    if (entry.parts.size() > kMaxParts)
      fail("entry '" + entry.name + "' goes from device to device more than " + std::to_string(kMaxParts) + " times");
    for (const PackagePart &part : entry.parts) {
      if (part.arguments.size() > kMaxPartArguments)
        fail("entry '" + entry.name + "' copies more than " + std::to_string(kMaxPartArguments) + " values between devices at a time");
      parts_.push_back({part.entry,
                        (part.is_on_device ? kPartOnDevice : 0) | (part.uses_variables ? kPartUsesVariables : 0),
                        {static_cast<uint32_t>(part_arguments_.size()), count(part.arguments)}});
      for (const PackagePartArgument &argument : part.arguments)
        part_arguments_.push_back({argument.kind, argument.index});
    }
    return range;
  }

  // The index of the entry that is this one on a device; 0 where there is none.
  uint32_t twin_of(const PackageEntry &entry) const {
    for (size_t i = 0; i < spec_.entries.size(); ++i)
      if (spec_.entries[i].is_twin && !spec_.entries[i].is_part && spec_.entries[i].name == entry.name)
        return static_cast<uint32_t>(i);
    return 0;
  }

  Range add_values(const PackageEntry &entry, const std::vector<PackageValue> &values,
                   const std::string &where) {
    Range range{static_cast<uint32_t>(values_.size()), count(values)};
    for (const PackageValue &value : values) {
      if (!is_dtype(value.dtype))
        fail(where + value.name + "': no dtype has the code " + std::to_string(value.dtype));
      Range dims{static_cast<uint32_t>(dims_.size()), count(value.dims)};
      if (value.dims.size() > kMaxRank)
        fail(where + value.name + "': more than " + std::to_string(kMaxRank) + " dims");
      for (const PackageDim &dim : value.dims)
        add_dim(entry, dim, where + value.name + "'");
      values_.push_back({strings_.add(value.name), value.dtype, 0, dims});
    }
    return range;
  }

  void add_dim(const PackageEntry &entry, const PackageDim &dim, const std::string &where) {
    std::string text = dim.text;
    if (dim.kind == DimKind::Const) {
      if (dim.value < 0)
        fail(where + ": a dim of " + std::to_string(dim.value));
      if (text.empty())
        text = std::to_string(dim.value);
    } else if (dim.kind == DimKind::Symbol) {
      if (dim.symbol >= entry.symbols.size())
        fail(where + ": a symbolic dim that the entry does not have");
      else if (text.empty())
        text = entry.symbols[dim.symbol].name;
    } else if (text.empty()) {
      fail(where + ": a computed dim without its text");
    }
    dims_.push_back({dim.kind, dim.symbol, dim.value, strings_.add(text)});
  }

  void add_variable(const PackageVariable &variable) {
    const std::string where = "variable '" + variable.name + "'";
    if (!is_dtype(variable.dtype))
      fail(where + ": no dtype has the code " + std::to_string(variable.dtype));
    if (variable.dims.size() > kMaxRank)
      fail(where + ": more than " + std::to_string(kMaxRank) + " dims");
    Range dims{static_cast<uint32_t>(dims_.size()), count(variable.dims)};
    uint64_t bytes = dtype_size(variable.dtype);
    for (int64_t dim : variable.dims) {
      if (dim < 0 || __builtin_mul_overflow(bytes, static_cast<uint64_t>(dim), &bytes))
        fail(where + ": a dim of " + std::to_string(dim));
      dims_.push_back({DimKind::Const, 0, dim, strings_.add(std::to_string(dim))});
    }
    if (variable.offset % KILN_ALIGNMENT != 0)
      fail(where + ": its offset is not a multiple of 64");
    if (bytes > spec_.variables_size || variable.offset > spec_.variables_size - bytes)
      fail(where + ": it ends after the variables block");
    bool is_set = variable.initial != kNoOffset;
    if (is_set && (bytes > spec_.weights_size || variable.initial > spec_.weights_size - bytes))
      fail(where + ": its initial value ends after the weights");
    variables_.push_back({strings_.add(variable.name), variable.dtype,
                          variable.is_param ? kVariableParam : 0, dims, variable.offset,
                          variable.initial});
  }

  std::vector<uint8_t> lay_out() {
    ManifestHeader header{};
    header.magic = kManifestMagic;
    header.entry_abi = KILN_ENTRY_ABI;
    for (const PackageEntry &entry : spec_.entries)
      header.hidden_entries += entry.is_twin || entry.is_part;
    header.flags = spec_.keep_denormals ? kManifestKeepDenormals : 0;
    header.model_name = strings_.add(spec_.model_name);
    header.producer = strings_.add(spec_.producer);
    header.weights_size = spec_.weights_size;
    header.variables_size = spec_.variables_size;
    std::vector<uint8_t> out(sizeof header);
    header.entries = append_table(out, entries_);
    header.values = append_table(out, values_);
    header.dims = append_table(out, dims_);
    header.symbols = append_table(out, symbols_);
    header.constraints = append_table(out, constraints_);
    header.kernels = append_table(out, kernels_);
    header.variables = append_table(out, variables_);
    header.metadata = append_table(out, metadata_);
    header.parts = append_table(out, parts_);
    header.part_arguments = append_table(out, part_arguments_);
    header.strings = append_table(out, strings_.bytes());
    std::memcpy(out.data(), &header, sizeof header);
    return out;
  }

  template <typename T>
  static uint32_t count(const std::vector<T> &items) {
    return static_cast<uint32_t>(items.size());
  }

  const PackageSpec &spec_;
  std::string error_;
  StringPool strings_;
  std::vector<EntryRecord> entries_;
  std::vector<ValueRecord> values_;
  std::vector<DimRecord> dims_;
  std::vector<SymbolRecord> symbols_;
  std::vector<String> constraints_;
  std::vector<KernelRecord> kernels_;
  std::vector<VariableRecord> variables_;
  std::vector<MetadataRecord> metadata_;
  std::vector<PartRecord> parts_;
  std::vector<PartArgumentRecord> part_arguments_;
};

} // namespace

std::vector<uint8_t> build_manifest(const PackageSpec &spec, std::string &error) {
  return ManifestBuilder(spec).build(error);
}

std::vector<uint8_t> build_locations(const PackageSpec &spec, std::string &error) {
  error.clear();
  StringPool strings;
  std::vector<LocationRecord> records;
  for (const PackageLocation &location : spec.locations)
    records.push_back(
        {strings.add(location.file), location.line, location.column, strings.add(location.node)});
  LocationsHeader header{};
  header.magic = kLocationsMagic;
  std::vector<uint8_t> out(sizeof header);
  header.records = append_table(out, records);
  header.strings = append_table(out, strings.bytes());
  std::memcpy(out.data(), &header, sizeof header);
  if (out.size() > std::numeric_limits<uint32_t>::max())
    error = "the source locations are larger than 4 GiB";
  return out;
}

} // namespace kiln
