// Runs a parsed template.
#ifndef SWITCHYARD_ENGINE_JINJA_INTERPRETER_H_
#define SWITCHYARD_ENGINE_JINJA_INTERPRETER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/jinja/ast.h"
#include "engine/jinja/runtime.h"

namespace switchyard::jinja {

// The variables of a block. Names that it does not know are looked up in its parent. Loops, macros, `with` and blocks
// whose text is captured have one each; `if` has none.
struct Scope {
  explicit Scope(std::shared_ptr<Scope> parent) : parent(std::move(parent)) {}
  const std::shared_ptr<Scope> parent;
  absl::flat_hash_map<std::string, Value> variables;
};

// One rendering; use it once, on one thread.
class Interpreter final : public Runtime {
 public:
  // `context`: the variables that the template gets. The budget outlives the interpreter.
  Interpreter(absl::flat_hash_map<std::string, Value> context, const std::tm& now, Budget* budget);
  ~Interpreter() override;

  // INVALID_ARGUMENT: what Python would raise. ABORTED: raise_exception, with its message. RESOURCE_EXHAUSTED: the
  // budget, or nested too deep. Except for ABORTED the message begins with the line.
  absl::StatusOr<Text> Run(const Body& body);

  Budget* budget() override { return budget_; }
  const std::tm& now() const override { return now_; }
  absl::StatusOr<Value> Call(const Value& function, Arguments arguments) override;
  void Track(std::shared_ptr<Namespace> names) override { namespaces_.push_back(std::move(names)); }

 private:
  class Macro;
  class FilteredItems;
  class ScopeGuard;
  class DepthGuard;
  enum class Flow { kNext, kBreak, kContinue };

  absl::StatusOr<Flow> Execute(const Body& body);
  absl::StatusOr<Flow> Execute(const Stmt& stmt);
  absl::StatusOr<Flow> ExecuteKind(const Stmt& stmt);
  absl::StatusOr<Flow> ExecuteFor(const Stmt& stmt);
  absl::StatusOr<Flow> ExecuteIf(const Stmt& stmt);
  absl::StatusOr<Flow> ExecuteWith(const Stmt& stmt);
  absl::StatusOr<Flow> ExecuteSetBlock(const Stmt& stmt);
  absl::StatusOr<Flow> ExecuteFilterBlock(const Stmt& stmt);
  absl::Status Print(const Stmt& stmt);
  absl::Status Set(const Stmt& stmt);
  absl::Status DefineMacro(const Stmt& stmt);
  absl::Status ExecuteCallBlock(const Stmt& stmt);
  absl::Status Emit(TextView text);
  // The text that `body` writes, in a scope of its own.
  absl::StatusOr<Flow> Capture(const Body& body, Text* text);
  absl::Status Assign(const Target& target, Value value);
  absl::Status Unpack(const Target& target, const Value& value);
  Value MakeMacro(const MacroDefinition& definition);
  absl::StatusOr<Value> CallMacro(const MacroDefinition& definition, const std::shared_ptr<Scope>& closure,
                                  Arguments arguments);
  absl::Status BindParameters(const MacroDefinition& definition, Arguments arguments);

  absl::StatusOr<Value> Evaluate(const Expr& expr);
  absl::StatusOr<Value> EvaluateKind(const Expr& expr);
  absl::StatusOr<std::vector<Value>> EvaluateAll(const std::vector<ExprPtr>& exprs);
  absl::StatusOr<Value> EvaluateDict(const Expr& expr);
  absl::StatusOr<Value> EvaluateSlice(const Expr& expr);
  absl::StatusOr<Value> EvaluateCall(const Expr& expr, std::optional<Value> caller);
  absl::StatusOr<Value> EvaluateFilter(const Expr& expr);
  absl::StatusOr<Value> EvaluateTest(const Expr& expr);
  absl::StatusOr<Value> EvaluateBinary(const Expr& expr);
  absl::StatusOr<Value> EvaluateConcat(const Expr& expr);
  absl::StatusOr<Value> EvaluateCompare(const Expr& expr);
  absl::StatusOr<Value> EvaluateEither(const Expr& expr);
  absl::StatusOr<Value> EvaluateConditional(const Expr& expr);
  absl::StatusOr<bool> Compare(Comparison comparison, const Value& a, const Value& b);
  absl::StatusOr<Arguments> EvaluateArguments(const CallArguments& arguments);
  absl::Status AddStarArguments(const Expr& star, Arguments* out);
  absl::Status AddDoubleStarArguments(const Expr& star, Arguments* out);
  Value Lookup(const std::string& name) const;

  const std::tm now_;
  Budget* const budget_;
  std::shared_ptr<Scope> scope_;
  Text* out_ = nullptr;
  Value block_text_;  // of the filter block that is being filtered
  int depth_ = 0;
  int error_line_ = 0;  // of the innermost node that failed
  // They may hold values that hold them: emptied at the end.
  std::vector<std::shared_ptr<Namespace>> namespaces_;
  std::vector<std::shared_ptr<Scope>> captured_scopes_;
};

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_INTERPRETER_H_
