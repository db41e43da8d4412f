/* Kiln's runtime: loads and runs models that `kiln compile` made. C99 and later, and C++.
 *
 * The library exports one function, kiln_get_api(), which returns a table of functions; everything
 * else is types. A module is a loaded package: immutable, and usable from any number of threads. A
 * context runs one entry of a module: it lives in memory that the caller owns, costs little, and
 * belongs to one thread at a time. Nothing is allocated while an entry runs, and no thread starts
 * unless a pool is created. No function aborts, prints or throws.
 *
 *   const KilnApi *kiln = kiln_get_api(KILN_API_VERSION);
 *   KilnModule *module; KilnContext *context; KilnError error; size_t size;
 *   kiln->open("digits.kiln", NULL, &module, &error);
 *   kiln->context_size(module, 0, NULL, &size, &error);
 *   kiln->context_init(module, 0, NULL, aligned_alloc(64, size), size, &context, &error);
 *   kiln->bind_input(context, 0, &x, &error);
 *   kiln->bind_output(context, 0, &y, &error);
 *   kiln->run(context, &error);
 *
 * Functions that can fail return a code (KILN_OK is 0) and describe the failure in `error`, which
 * may be NULL. Strings that are handed out live as long as their module. Indices count from 0.
 */
#ifndef KILN_KILN_H
#define KILN_KILN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define KILN_EXPORT __attribute__((visibility("default")))
#else
#define KILN_EXPORT
#endif

#define KILN_API_VERSION 1u

/* Contexts, variables blocks and packages in memory start at a multiple of this many bytes. */
#define KILN_MEMORY_ALIGNMENT 64
#define KILN_MAX_RANK 16

enum {
  KILN_OK = 0,
  KILN_ERROR_USAGE = 1,     /* a wrong index, a null pointer, memory too small or misaligned */
  KILN_ERROR_IO = 2,        /* a file cannot be opened, read or written */
  KILN_ERROR_FORMAT = 3,    /* not a package, truncated, or damaged */
  KILN_ERROR_VERSION = 4,   /* a package of another version than this runtime reads */
  KILN_ERROR_MACHINE = 5,   /* a package without code that this machine runs */
  KILN_ERROR_NOT_FOUND = 6, /* no entry, target or variable of that name */
  KILN_ERROR_MEMORY = 7,    /* the system gives no more memory, or no more threads */
  KILN_ERROR_DTYPE = 8,     /* a tensor of another dtype than wanted */
  KILN_ERROR_SHAPE = 9,     /* a tensor of another shape than wanted, or dims the model refuses */
  KILN_ERROR_UNBOUND = 10,  /* an input or output without data, a dim without a value */
  KILN_ERROR_TRAP = 11,     /* the model stopped: division by zero, an index out of range */
  KILN_ERROR_CAPACITY = 12, /* the model stopped: a size found in the data exceeds a capacity that the
                             * caller may raise; see grown_dims */
  KILN_ERROR_DEVICE = 13    /* no GPU or no driver for it, or the driver failed */
};

enum {
  KILN_F64 = 1,
  KILN_F32 = 2,
  KILN_F16 = 3,
  KILN_BF16 = 4,
  KILN_I64 = 5,
  KILN_I32 = 6,
  KILN_I16 = 7,
  KILN_I8 = 8,
  KILN_U64 = 9,
  KILN_U32 = 10,
  KILN_U16 = 11,
  KILN_U8 = 12,
  KILN_BOOL = 13,
  /* One byte an element, the code in its low bits: floats of 8 and 4 bits, integers of 4 and 2. Those with
   * a sign (I4, I2) are the integer in an int8_t. */
  KILN_F8E4M3FN = 14,
  KILN_F8E4M3FNUZ = 15,
  KILN_F8E5M2 = 16,
  KILN_F8E5M2FNUZ = 17,
  KILN_F8E8M0 = 18,
  KILN_F4E2M1 = 19,
  KILN_I4 = 20,
  KILN_U4 = 21,
  KILN_I2 = 22,
  KILN_U2 = 23
};

typedef struct KilnModule KilnModule;
typedef struct KilnContext KilnContext;
typedef struct KilnPool KilnPool;

/* NUL-terminated; `node` and `location` are empty unless the failure has a place in the model. */
typedef struct KilnError {
  int32_t code;
  char message[256];
  char node[96];
  char location[160];
} KilnError;

/* --- modules --- */

enum {
  /* Does not check the digest of the weights, which reads all of them. The other sections always
   * are checked. */
  KILN_OPEN_TRUST_WEIGHTS = 1,
  /* The options have a device. Without this flag `device` is not looked at. */
  KILN_OPEN_DEVICE = 2
};

typedef struct KilnOpenOptions {
  uint32_t flags;
  uint32_t reserved;
  const char *target; /* the code section to use; NULL takes the best one for this machine */
  /* Where runs compute: "cpu", "cuda" or "cuda:N" (the N-th GPU, the first without a number), or "auto": the
   * first GPU where there is one that the package has code for, else the CPU. module_info's target says which it
   * became. NULL: entries compute where the program has placed them, and on the CPU where it has not; with "cuda",
   * those that the program has placed on the CPU compute there, with "cpu" all of them do. Tensors are bound in
   * host memory all the same. An entry that computes on both sides does so unless the device is "cpu". */
  const char *device;
} KilnOpenOptions;

/* A model linked into the program (`kiln compile --emit=object` defines one). */
struct KilnFrame;
typedef struct KilnStaticEntry {
  int32_t (*run)(struct KilnFrame *frame);
  int32_t (*plan)(const int64_t *dims, int64_t *out);
} KilnStaticEntry;

#define KILN_STATIC_MODEL_VERSION 1u
typedef struct KilnStaticModel {
  uint32_t version; /* KILN_STATIC_MODEL_VERSION */
  uint32_t entry_count;
  const KilnStaticEntry *entries;
  const void *manifest; /* the manifest section's bytes, aligned to 8 */
  uint64_t manifest_size;
  const void *locations; /* the locations section's bytes, aligned to 8, or NULL */
  uint64_t locations_size;
  const void *weights; /* aligned to 64, with 64 readable bytes after their end, or NULL */
  uint64_t weights_size;
  const char *target; /* e.g. "x86-64-v3": checked against the machine, unless NULL */
} KilnStaticModel;

typedef struct KilnModuleInfo {
  const char *name;
  const char *producer;
  const char *target; /* of the code that was chosen; of both, "x86-64-v4 and cuda:0 sm_90", where some entries
                       * compute on the processor and some on a GPU: see entry_target */
  uint32_t entry_count;
  uint32_t variable_count;
  uint32_t metadata_count;
  uint32_t reserved;
  uint64_t variables_size; /* bytes of a variables block; 0 where the model has no variables */
  uint64_t weights_size;
} KilnModuleInfo;

typedef struct KilnEntryInfo {
  const char *name;
  uint32_t input_count;
  uint32_t output_count;
  uint32_t symbol_count;
  uint32_t kernel_count;
  int64_t arena_size; /* -1 where it depends on the dims */
  uint32_t writes_variables;
  uint32_t size_count; /* sizes that a run finds in its data; where there are none, output_dims and
                        * result_dims are the same */
} KilnEntryInfo;

typedef struct KilnDim {
  int64_t value;    /* -1 unless constant */
  int32_t symbol;   /* index of the symbolic dim it is; -1 otherwise */
  int32_t reserved;
  const char *text; /* "N", "2*N+1", "224" */
} KilnDim;

typedef struct KilnValueInfo {
  const char *name;
  uint32_t dtype;
  uint32_t rank;
  KilnDim dims[KILN_MAX_RANK];
} KilnValueInfo;

typedef struct KilnSymbolInfo {
  const char *name;
  int64_t min;
  int64_t max; /* INT64_MAX where there is no bound */
} KilnSymbolInfo;

typedef struct KilnKernelInfo {
  const char *name;
  const char *file; /* "" where unknown */
  uint32_t line;
  uint32_t column;
  const char *node;
  double flops; /* estimates of one run; 0 where unknown */
  double bytes;
} KilnKernelInfo;

typedef struct KilnVariableInfo {
  const char *name;
  uint32_t dtype;
  uint32_t rank;
  int64_t dims[KILN_MAX_RANK];
  uint64_t size; /* in bytes */
  uint32_t is_param;
  uint32_t reserved;
} KilnVariableInfo;

/* --- running --- */

/* Who does the parallel work. parallel_for calls body(closure, begin, end) over disjoint ranges that
 * cover [0, n), on any threads, and returns when all are done. Results do not depend on the split.
 * `threads` is how many calls of body may run at once, 1 at least: contexts hold scratch memory for as
 * many. `hand_over` is how many nanoseconds pass from calling parallel_for until every thread could have
 * answered, 0 where that is not known: loops that are not worth it stay on the calling thread. */
typedef struct KilnExecutor {
  uint32_t threads;
  uint32_t hand_over;
  void *self;
  void (*parallel_for)(void *self, int64_t n,
                       void (*body)(void *closure, int64_t begin, int64_t end), void *closure);
} KilnExecutor;

typedef struct KilnContextOptions {
  /* One value for each symbolic dim of the entry: the largest it will run with. NULL takes the
   * upper bounds that the model declares. A capacity, which no input's shape tells, may be -1: the
   * model's own. */
  const int64_t *dims;
  /* A block that several contexts share, e.g. training and prediction; see variables_init. NULL
   * gives the context a block of its own, inside its memory, with the model's initial values. */
  void *variables;
  /* Must outlive the context; NULL runs on the calling thread alone. */
  const KilnExecutor *executor;
} KilnContextOptions;

/* A dense, row-major tensor. `size` is in bytes. `dims` may be NULL: an input then has the shape that
 * set_dims gives it, and of an output only the size is checked. */
typedef struct KilnTensor {
  void *data;
  uint64_t size;
  uint32_t dtype;
  uint32_t rank;
  const int64_t *dims;
} KilnTensor;

/* Called on the running thread after each kernel, in the order of the plan. */
typedef void (*KilnKernelHook)(void *self, uint32_t entry, uint32_t kernel);

enum {
  /* Writes only the variables, for `load`; otherwise `save` writes a whole package that opens with
   * the saved values. */
  KILN_SAVE_STATE_ONLY = 1
};

typedef struct KilnApi {
  uint32_t version;
  uint32_t size; /* sizeof(KilnApi) in the library */

  const char *(*code_text)(int32_t code);

  /* A file must be replaced by renaming, never edited, while it is open. */
  int32_t (*open)(const char *path, const KilnOpenOptions *options, KilnModule **module,
                  KilnError *error);
  /* `data` stays the caller's, 64-byte aligned and unchanged until close. */
  int32_t (*open_memory)(const void *data, size_t size, const KilnOpenOptions *options,
                         KilnModule **module, KilnError *error);
  int32_t (*open_static)(const KilnStaticModel *model, KilnModule **module, KilnError *error);
  void (*close)(KilnModule *module);

  int32_t (*module_info)(const KilnModule *module, KilnModuleInfo *info);
  int32_t (*entry_info)(const KilnModule *module, uint32_t entry, KilnEntryInfo *info);
  /* The entry's index, or -1. */
  int32_t (*find_entry)(const KilnModule *module, const char *name);
  int32_t (*input_info)(const KilnModule *module, uint32_t entry, uint32_t index,
                        KilnValueInfo *info);
  int32_t (*output_info)(const KilnModule *module, uint32_t entry, uint32_t index,
                         KilnValueInfo *info);
  int32_t (*symbol_info)(const KilnModule *module, uint32_t entry, uint32_t index,
                         KilnSymbolInfo *info);
  int32_t (*kernel_info)(const KilnModule *module, uint32_t entry, uint32_t index,
                         KilnKernelInfo *info);
  int32_t (*variable_info)(const KilnModule *module, uint32_t index, KilnVariableInfo *info);
  int32_t (*metadata)(const KilnModule *module, uint32_t index, const char **key,
                      const char **value);

  /* A variables block is module_info's variables_size bytes of the caller's, 64-byte aligned.
   * variables_init writes the initial values. A block may be used by several contexts, of any
   * entries, but by one thread at a time while an entry that writes variables runs. */
  int32_t (*variables_init)(const KilnModule *module, void *block, KilnError *error);
  int32_t (*variable_read)(const KilnModule *module, const void *block, uint32_t index, void *data,
                           uint64_t size, KilnError *error);
  int32_t (*variable_write)(const KilnModule *module, void *block, uint32_t index, const void *data,
                            uint64_t size, KilnError *error);
  /* The file appears whole or not at all. */
  int32_t (*save)(const KilnModule *module, const void *block, const char *path, uint32_t flags,
                  KilnError *error);
  /* Reads what `save` wrote, of this model or of one with the same variables. Changes nothing
   * unless all of it fits. */
  int32_t (*load)(const KilnModule *module, void *block, const char *path, KilnError *error);

  int32_t (*context_size)(const KilnModule *module, uint32_t entry,
                          const KilnContextOptions *options, size_t *size, KilnError *error);
  /* `memory` is 64-byte aligned and holds at least context_size bytes for the same options. The
   * context ends with its memory; there is nothing to release. */
  int32_t (*context_init)(const KilnModule *module, uint32_t entry,
                          const KilnContextOptions *options, void *memory, size_t size,
                          KilnContext **context, KilnError *error);
  /* The variables block that the context uses; NULL where the model has no variables. On a device it has
   * their values as of this call, and what is written to it before the next run is sent with that run. */
  void *(*context_variables)(KilnContext *context);
  /* Values of the entry's symbolic dims, for those that no bound input's shape tells. NULL forgets
   * them. */
  int32_t (*set_dims)(KilnContext *context, const int64_t *dims, uint32_t count, KilnError *error);
  /* Tensors stay the caller's and bound until bound anew. A tensor may move between runs only by
   * being bound again; its contents may change freely. */
  int32_t (*bind_input)(KilnContext *context, uint32_t index, const KilnTensor *tensor,
                        KilnError *error);
  int32_t (*bind_output)(KilnContext *context, uint32_t index, const KilnTensor *tensor,
                         KilnError *error);
  /* The shape an output will have, from the shapes bound and dims set so far; the largest it can
   * have, where it depends on the data. Writes as many dims as output_info's rank. */
  int32_t (*output_dims)(KilnContext *context, uint32_t index, int64_t *dims, KilnError *error);
  int32_t (*run)(KilnContext *context, KilnError *error);
  /* NULL removes it. */
  int32_t (*set_kernel_hook)(KilnContext *context, KilnKernelHook hook, void *self);

  /* Threads that sleep when idle: `threads` in all, counting the one that calls run. A pool may serve
   * many contexts; one that finds it busy runs on its own thread. */
  int32_t (*pool_create)(uint32_t threads, KilnPool **pool, KilnError *error);
  const KilnExecutor *(*pool_executor)(KilnPool *pool);
  void (*pool_destroy)(KilnPool *pool);

  /* The shape that an output has after a run: its elements lie at the start of what is bound, dense. */
  int32_t (*result_dims)(KilnContext *context, uint32_t index, int64_t *dims, KilnError *error);
  /* After KILN_ERROR_CAPACITY: the dims (as many as symbol_count) of a context that has room for what
   * that run found. The run may have written some of the outputs and variables. */
  int32_t (*grown_dims)(KilnContext *context, int64_t *dims, KilnError *error);
  /* The value that a symbolic dim has where nobody gives one: a capacity's own. -1 for other dims. */
  int64_t (*capacity)(const KilnModule *module, uint32_t entry, uint32_t symbol);
  /* Gives back what a context holds on a device; close does it for all contexts of a module. On the CPU
   * there is nothing to give back. */
  void (*context_end)(KilnContext *context);

  /* A run in two parts, so that the caller can do something else meanwhile: start begins it, finish waits for it and
   * says how it went. What is bound stays as it is until then. On the CPU start does all of it, and finish says how
   * it went. Between the two inputs may be bound anew for the next run, and send begins to copy them to the device
   * while this run computes: what is bound may change when send returns. On the CPU send copies nothing, and inputs
   * stay as they are until the next run is finished.
   *
   *   bind_input(c, 0, batch 0); start(c)
   *   bind_input(c, 0, batch 1); send(c); finish(c); start(c) ...
   */
  int32_t (*start)(KilnContext *context, KilnError *error);
  int32_t (*send)(KilnContext *context, KilnError *error);
  int32_t (*finish)(KilnContext *context, KilnError *error);

  /* Where an entry computes, "x86-64-v4" or "cuda:0 sm_90", or "x86-64-v4 and cuda:0 sm_90" where its program copies
   * values between them; and where one of its kernels does (kernel_info's index). NULL for a wrong index. */
  const char *(*entry_target)(const KilnModule *module, uint32_t entry);
  const char *(*kernel_target)(const KilnModule *module, uint32_t entry, uint32_t kernel);
} KilnApi;

/* NULL where this library does not speak that version. */
KILN_EXPORT const KilnApi *kiln_get_api(uint32_t version);

#ifdef __cplusplus
}
#endif
#endif
