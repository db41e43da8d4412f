// What an expression stands for while a program is traced: numbers, lists, functions and modules are known
// then; a tensor is a value of the graph being built.
#pragma once

#include "frontend/kir/ast.h"
#include "ir/graph.h"
#include "ir/op_id.h"

#include <map>
#include <string>
#include <variant>
#include <vector>

namespace kiln::kir {

struct Datum;
struct Library;
struct Object;
struct VariableDatum;

struct Poison {};   // an error was reported; whatever is made of it stays silent
struct None {};
struct Ellipsis {};
struct TensorRef {
  ValueId id;
};
// Lists are shared when assigned, as in Python. Owned by the elaborator, as objects and variables are.
struct ListData {
  std::vector<Datum> items;
  bool tuple = false;
  int region_depth = 0; // where it was made
};
struct FuncRef {
  const FuncDecl *decl;
  const Library *library;
  Object *self; // null for a plain function
  bool remat = false; // its values are computed again for gradients
};
struct ModelRef {
  const ModelDecl *decl;
  const Library *library;
};
struct BuiltinRef {
  int index;
};
struct RefName { // @name
  std::string name;
};
struct TypePattern { // f32[3, N] used as a value
  TensorType type;
};

struct Datum {
  std::variant<Poison, None, bool, Dim, double, std::string, DType, ListData *, TensorRef, Object *,
               VariableDatum *, FuncRef, ModelRef, BuiltinRef, Op, const Library *, RefName,
               TypePattern, Ellipsis>
      v;

  template <typename T>
  bool is() const {
    return std::holds_alternative<T>(v);
  }
  template <typename T>
  const T *get() const {
    return std::get_if<T>(&v);
  }
  bool poison() const { return is<Poison>(); }
  bool none() const { return is<None>(); }
  bool number() const { return is<bool>() || is<Dim>() || is<double>(); }
  bool callable() const {
    return is<FuncRef>() || is<ModelRef>() || is<BuiltinRef>() || is<Op>() || is<Object *>();
  }
};

struct ImportedModel;

// A module: an instance of a model, or a model file that was imported.
struct Object {
  const ModelDecl *decl;
  const Library *library;
  std::vector<std::pair<std::string, Datum>> fields; // in the order of declaration
  std::string variadic; // the field of a *parameter: its modules are named by their index alone
  std::string path;     // "net.conv1", once it has a name
  bool named = false;
  const ImportedModel *imported = nullptr;
  bool remat = false; // calls of it are computed again for gradients

  Datum *find(std::string_view name) {
    for (auto &[key, value] : fields)
      if (key == name)
        return &value;
    return nullptr;
  }
};

struct VariableDatum {
  VariableKind kind;
  TensorType type;
  const Expr *initial; // may be null
  Object *owner;       // whose fields `initial` sees; null at the top level
  const Library *library;
  Location location;
  VariableId id; // once it has a name
  bool frozen = false; // not among the parameters of its module
  ConstantId value{};  // of a weight of an imported model; read as a constant while frozen
  std::string device = {}; // where it is used, if the program says so
};

// `import "base.onnx" as base`: the file is read again for each call, with the sizes of the arguments.
struct ImportedModel {
  std::string name, file;
  ModelDecl decl; // has no body; for messages
  std::vector<std::string> inputs;
  std::map<std::string, VariableDatum *, std::less<>> weights;
  Object *object = nullptr;
};

struct Library {
  std::string name; // "nn"; empty for the user's own file
  bool own = false; // the user's own file, or one it imports
  SourceFile file;
  std::map<std::string, Datum, std::less<>> globals;
};

} // namespace kiln::kir
