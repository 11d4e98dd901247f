// A parsed template. Immutable after Parse; depths are bounded by limits.h, so that walking it may recurse.
#ifndef SWITCHYARD_ENGINE_JINJA_AST_H_
#define SWITCHYARD_ENGINE_JINJA_AST_H_

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/jinja/operators.h"
#include "engine/jinja/value.h"

namespace switchyard::jinja {

struct Expr;
struct Stmt;
using ExprPtr = std::unique_ptr<const Expr>;
using StmtPtr = std::unique_ptr<Stmt>;

struct Body {
  std::vector<StmtPtr> statements = {};
  // Names that are undefined when the body begins, whatever their value outside of it: see scopes.h.
  std::vector<std::string> hidden_names = {};
};

enum class ExprKind {
  kConstant,     // constant
  kName,         // name
  kList,         // parts
  kTuple,        // parts
  kDict,         // parts: key, value, key, value, ...
  kAttribute,    // parts[0].name
  kSubscript,    // parts[0][parts[1]]
  kSlice,        // parts[0][parts[1]:parts[2]:parts[3]]; what is absent is the constant none
  kCall,         // parts[0](arguments)
  kFilter,       // parts[0] | name(arguments); no parts: applies to the text of a block
  kTest,         // parts[0] is name(arguments)
  kNot,          // not parts[0]
  kNegate,       // -parts[0]
  kPlus,         // +parts[0]
  kBinary,       // parts[0] op parts[1]
  kConcat,       // parts[0] ~ parts[1] ~ ...
  kCompare,      // parts[0] comparisons[0] parts[1] comparisons[1] ...
  kAnd,          // parts[0] and parts[1]
  kOr,           // parts[0] or parts[1]
  kConditional,  // parts[0] if parts[1] else parts[2], which may be absent
};

enum class Comparison { kEqual, kNotEqual, kLess, kLessOrEqual, kGreater, kGreaterOrEqual, kIn, kNotIn };

struct CallArguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr star, double_star;  // *args, **kwargs; may be null
};

struct Expr {
  ExprKind kind;
  int line = 0;
  int depth = 1;
  Value constant = {};
  std::string name = {};
  std::vector<ExprPtr> parts = {};
  CallArguments arguments = {};
  Operator op = Operator::kAdd;
  std::vector<Comparison> comparisons = {};
};

// What is assigned to: a name, an attribute of a namespace, or a tuple of such.
struct Target {
  enum class Kind { kName, kAttribute, kTuple };
  Kind kind = Kind::kName;
  std::string name = {};
  std::string attribute = {};
  std::vector<Target> parts = {};
};

struct MacroDefinition {
  std::string name;
  std::vector<std::pair<std::string, ExprPtr>> parameters;  // with their defaults, which may be null
  Body body;
  bool uses_caller = false, uses_kwargs = false, uses_varargs = false;  // that are not parameters
};

enum class StmtKind {
  kText,         // text
  kPrint,        // exprs
  kFor,          // for target in exprs[0] if exprs[1]: body; else: else_body. exprs[1] may be null
  kIf,           // exprs[i]: bodies[i]; else: else_body
  kSet,          // target = exprs[0]
  kSetBlock,     // target = body | exprs[0], which may be null
  kMacro,        // macro
  kCallBlock,    // exprs[0], a call, with macro as its caller
  kFilterBlock,  // body | exprs[0]
  kWith,         // targets[i] = exprs[i] in body
  kGeneration,   // body: marks what the assistant says
  kBreak,
  kContinue,
};

struct Stmt {
  StmtKind kind;
  int line = 0;
  Text text = {};
  Target target = {};
  std::vector<Target> targets = {};
  std::vector<ExprPtr> exprs = {};
  std::vector<Body> bodies = {};
  Body body = {};
  Body else_body = {};
  std::unique_ptr<MacroDefinition> macro = {};
};

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_AST_H_
