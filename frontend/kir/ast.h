// The syntax tree: what was written, with places, before any name is looked up.
#pragma once

#include "ir/support/diagnostic.h"
#include "ir/type.h"

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace kiln::kir {

struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<Expr>;
using Body = std::vector<std::unique_ptr<Stmt>>;

enum class ExprKind : uint8_t {
  integer,     // text
  real,        // text
  string,      // text
  boolean,     // text "true" or "false"
  none,
  name,        // text
  ref,         // @text: a variable or function of the module
  member,      // kids[0] . text
  index,       // kids[0] [ kids[1...] ]
  call,        // kids[0] ( kids[1...], keywords )
  literal,     // constant(kids[0]: data...), data as token texts; text "splat" where one stands for all
  unary,       // text kids[0]
  binary,      // kids[0] text kids[1]: arithmetic, comparisons, and, or
  conditional, // kids[0] if kids[1] else kids[2]
  list,        // [kids...]
  tuple,       // (kids...)
  each,        // [kids[0] for names in kids[1] if kids[2]?]
  slice,       // kids (each may be null) start : stop : step
  ellipsis,
  spread,      // *kids[0]
};

struct Expr {
  ExprKind kind;
  Location location;
  int depth = 1; // of the tree below; bounded
  bool quoted = false;
  std::string text;
  std::vector<ExprPtr> kids;
  std::vector<std::pair<std::string, ExprPtr>> keywords;
  std::vector<std::string> data;
  std::vector<std::string> names;
};

struct Param {
  std::string name;
  Location location;
  ExprPtr type;  // may be null
  Layout layout;
  ExprPtr default_value; // may be null
  std::string device;    // "cpu", "cuda"; may be empty
  bool variadic = false; // *name
};

struct ResultDecl {
  std::string name; // may be empty
  ExprPtr type;
};

struct FuncDecl {
  std::string name;
  Location location;
  bool exported = false;
  bool typed_results = false; // has ->
  std::vector<Param> params;
  std::vector<ResultDecl> results;
  std::string grad; // the function that gives its gradient; may be empty
  std::string device; // "cpu", "cuda"; may be empty
  Location device_location;
  Body body;
};

struct ModelDecl {
  std::string name;
  Location location;
  std::vector<Param> params;
  Body body; // fields, param, state, loops; methods are below
  std::vector<std::unique_ptr<FuncDecl>> methods;
};

struct Region {
  Location location;
  std::vector<Param> args;
  Body body;
};

struct Target {
  ExprPtr expr;
  ExprPtr type; // may be null
  Layout layout;
  std::string device; // of a variable; may be empty
};

enum class StmtKind : uint8_t {
  expr,       // value
  assign,     // targets = value, regions; or target `text`= value (text is the operator)
  variable,   // param/state targets[0] (= value)?; text is "param" or "state"
  return_,    // value (may be null)
  yield,      // value (may be null)
  if_,        // value, body, other
  for_,       // names in value, body
  while_,     // value, body
  break_,
  continue_,
  assert_,    // value, message (may be null)
  func,       // a function or method
  model,
  import,     // names; or the file `text` as names[0]
  dim,        // names[0] = value .. message (null: no upper bound)
  size,       // size names[0] <= value = message
  capacity,   // capacity names[0] = value
  constraint, // value == message, text: the reason
  metadata,   // names[0] = text
};

struct Stmt {
  StmtKind kind;
  Location location;
  std::string text;
  std::vector<std::string> names;
  std::vector<Target> targets;
  std::vector<Region> regions;
  ExprPtr value, message;
  Body body, other;
  std::unique_ptr<FuncDecl> func;
  std::unique_ptr<ModelDecl> model;
};

struct SourceFile {
  Symbol name;
  Body body;
  std::set<std::string> refs;    // every @name
  std::set<std::string, std::less<>> skipped; // names in statements that were left out for an error
};

} // namespace kiln::kir
