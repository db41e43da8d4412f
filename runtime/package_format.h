// The bytes of a `.kiln` package: what the writer lays out and the runtime checks and maps.
//
//   page 0        FileHeader, section table, zeros
//   page 1...     manifest, code (one section a target), locations, weights, state
//
// Little endian throughout. Each section starts on a page and extends, zero padded, to the next
// one, so that it can be mapped by itself and no byte of the file is outside a digest. Page 0
// carries the digest of itself (with the digest field as zeros), and the section table those of the
// sections.
//
// The manifest is a header of tables (offset and count, in bytes from the manifest's start and in
// records) over plain records; text lives in one pool, each string followed by a NUL that `size`
// does not count, so the runtime hands out pointers into the mapping. docs/package.md is the prose.
#pragma once

#include <cstdint>

namespace kiln::package {

inline constexpr uint8_t kMagic[8] = {'K', 'I', 'L', 'N', 0x0d, 0x0a, 0x1a, 0x00};
inline constexpr uint32_t kFormatVersion = 4;
inline constexpr uint32_t kPageSize = 4096;
inline constexpr uint32_t kTargetNameSize = 32;
inline constexpr uint64_t kWeightSlack = 64; // readable zeros after the weights (KILN_ALIGNMENT)

struct Digest {
  uint64_t word[4];
};

enum class SectionKind : uint32_t {
  Manifest = 1,
  Code = 2, // an ELF64 ET_DYN image without imports or relocations; `name` is its target
  Locations = 3,
  Weights = 4,
  State = 5,    // the variables block, as saved; supersedes the initial values of the manifest
  Signature = 6, // reserved: ed25519 over the BLAKE2b-256 of everything before it
  Device = 7 // kernels for a GPU, `name` says which: runtime/cuda/device_format.h
};

struct SectionHeader {
  SectionKind kind;
  uint32_t reserved;
  uint64_t offset; // from the file's start, a multiple of kPageSize
  uint64_t size;   // bytes in use
  uint64_t extent; // bytes up to the next section or the file's end; what the digest covers
  char name[kTargetNameSize]; // NUL padded
  Digest digest;
};

// FileFlags: manifest and state, to be loaded into a model's variables
inline constexpr uint32_t kFileStateOnly = 1u << 0;

struct FileHeader {
  uint8_t magic[8];
  uint32_t format_version;
  uint32_t section_count;
  uint64_t file_size;
  uint32_t flags; // FileFlags
  uint32_t reserved;
  Digest digest; // of page 0 with this field as zeros
};

inline constexpr uint32_t kMaxSections = (kPageSize - sizeof(FileHeader)) / sizeof(SectionHeader);

// --- manifest -----------------------------------------------------------------------------------

inline constexpr uint32_t kManifestMagic = 0x4e414d4bu; // "KMAN"
inline constexpr uint32_t kNoIndex = 0xffffffffu;
inline constexpr uint64_t kNoOffset = ~uint64_t{0};
inline constexpr uint32_t kMaxRank = 16;

struct String {
  uint32_t offset; // in the manifest's string pool
  uint32_t size;   // without the NUL
};

struct Table {
  uint32_t offset; // in bytes from the start of the manifest, a multiple of 8
  uint32_t count;  // in records (in bytes for the string pool)
};

struct Range {
  uint32_t first; // record in the table
  uint32_t count;
};

enum class DimKind : uint32_t {
  Const = 0,  // value
  Symbol = 1, // the entry's symbolic dim `symbol`
  Planned = 2 // of an output: what plan() says; of an input: the value of `text`
};

struct DimRecord {
  DimKind kind;
  uint32_t symbol; // index in the entry's symbols
  int64_t value;
  String text; // how people write it: "N", "2*N+1", "224"
};

struct ValueRecord {
  String name;
  uint32_t dtype; // code in dtypes.def
  uint32_t reserved;
  Range dims;
};

struct SymbolRecord {
  String name;
  int64_t min;
  int64_t max; // INT64_MAX where there is no bound
  // Of a dim: the value it has where the caller gives none (capacities), or -1. Of a size: the dim that
  // is its capacity, or -1.
  int64_t otherwise;
  uint32_t variable; // the i64[] variable whose value it has when a run begins, or kNoIndex
  uint32_t reserved;
};

// KernelRecord::units: what multiplies in a kernel, each where code for it is (a package has code for several processors):
// dots of bytes and of pairs of bf16 by vectors, and by matrix registers. None: f32 multiply-adds.
inline constexpr uint32_t kByteDots = 1u << 0;
inline constexpr uint32_t kPairDots = 1u << 1;
inline constexpr uint32_t kByteTiles = 1u << 2;
inline constexpr uint32_t kPairTiles = 1u << 3;

struct KernelRecord {
  String name;
  uint32_t location; // record of the locations section, or kNoIndex
  uint32_t units;
  double flops; // estimates of one run; 0 where they depend on symbolic dims
  double bytes;
  double weight_bytes; // the part of `bytes` that is the same in every run
  String flops_text;   // both over the entry's symbols: "2*N*768"
  String bytes_text;
};

// EntryFlags: some variable is written; the program says that it computes on a GPU, or on the processor
inline constexpr uint32_t kEntryWritesVariables = 1u << 0;
inline constexpr uint32_t kEntryOnDevice = 1u << 1;
inline constexpr uint32_t kEntryOnHost = 1u << 2;

struct EntryRecord {
  String name;
  Range inputs;      // in the values table
  Range outputs;     // in the values table
  Range symbols;     // in the symbols table
  Range constraints; // in the constraints table
  Range kernels;     // in the kernels table, by plan position
  Range sizes;       // in the symbols table: what run() finds
  uint32_t flags;    // EntryFlags
  uint32_t on_device; // the entry that is the same for a device, or 0: it is this one
  int64_t arena_size;   // bytes, or -1 where plan() must say
  int64_t scratch_size; // bytes, for each thread
  Range parts;          // in the parts table; none of most
};

// An entry that computes on the processor and on a GPU runs others one after the other: parts, each on one of them.
// Its own code is all of it on the processor.
enum class PartArgumentKind : uint32_t {
  Input = 0,  // of the entry in parts
  Output = 1, // likewise
  Border = 2  // a value that goes from part to part: an output of one, an input of later ones; numbered as they are made
};

inline constexpr uint32_t kMaxParts = 256;         // of an entry
inline constexpr uint32_t kMaxPartArguments = 4096; // of a part

struct PartArgumentRecord {
  PartArgumentKind kind;
  uint32_t index;
};

// PartFlags: on the GPU; some variable is read or written
inline constexpr uint32_t kPartOnDevice = 1u << 0;
inline constexpr uint32_t kPartUsesVariables = 1u << 1;

struct PartRecord {
  uint32_t entry;  // one without callers
  uint32_t flags;  // PartFlags
  Range arguments; // in the part arguments table: what its inputs are, then its outputs
};

// VariableFlags: learned; otherwise state (optimizer moments, running means, counters)
inline constexpr uint32_t kVariableParam = 1u << 0;

struct VariableRecord {
  String name;
  uint32_t dtype;
  uint32_t flags;   // VariableFlags
  Range dims;       // all Const
  uint64_t offset;  // in the variables block, a multiple of 64
  uint64_t initial; // offset of the initial value in the weights, or kNoOffset for zeros
};

struct MetadataRecord {
  String key;
  String value;
};

// ManifestFlags: otherwise denormals count as zero while an entry runs
inline constexpr uint32_t kManifestKeepDenormals = 1u << 0;

struct ManifestHeader {
  uint32_t magic;
  uint32_t entry_abi; // KILN_ENTRY_ABI of the code
  uint32_t flags;     // ManifestFlags
  uint32_t hidden_entries; // the last ones of the entries: parts of others, and what others are on a device; they have no callers
  String model_name;
  String producer;
  uint64_t weights_size;
  uint64_t variables_size;
  Table strings;
  Table entries;     // EntryRecord
  Table values;      // ValueRecord
  Table dims;        // DimRecord
  Table symbols;     // SymbolRecord
  Table constraints; // String
  Table kernels;     // KernelRecord
  Table variables;   // VariableRecord
  Table metadata;    // MetadataRecord
  Table parts;       // PartRecord
  Table part_arguments; // PartArgumentRecord
};

// --- locations ----------------------------------------------------------------------------------

inline constexpr uint32_t kLocationsMagic = 0x434f4c4bu; // "KLOC"

struct LocationRecord {
  String file;
  uint32_t line;   // 1-based; 0 where the source has no lines (ONNX)
  uint32_t column; // 1-based
  String node;     // the source's own name for it, e.g. an ONNX node
};

struct LocationsHeader {
  uint32_t magic;
  uint32_t reserved;
  Table strings;
  Table records; // LocationRecord
};

static_assert(sizeof(Digest) == 32 && sizeof(FileHeader) == 64 && sizeof(SectionHeader) == 96);
static_assert(sizeof(DimRecord) == 24 && sizeof(ValueRecord) == 24 && sizeof(SymbolRecord) == 40);
static_assert(sizeof(KernelRecord) == 56 && sizeof(EntryRecord) == 88);
static_assert(sizeof(PartRecord) == 16 && sizeof(PartArgumentRecord) == 8);
static_assert(sizeof(VariableRecord) == 40 && sizeof(MetadataRecord) == 16);
static_assert(sizeof(ManifestHeader) == 136 && sizeof(LocationRecord) == 24);
static_assert(sizeof(LocationsHeader) == 24);

} // namespace kiln::package
