// Statements. Expressions are in evaluate.cc.
#include "engine/jinja/interpreter.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/filters.h"
#include "engine/jinja/interpreter_parts.h"
#include "engine/jinja/lexer.h"
#include "engine/jinja/loop.h"
#include "engine/jinja/repr.h"

namespace switchyard::jinja {

// The items of a loop that fulfil its condition.
class Interpreter::FilteredItems : public Iterator {
 public:
  FilteredItems(Interpreter* interpreter, const Stmt& loop, std::shared_ptr<Iterator> items)
      : Iterator(items->depth() + 1),
        interpreter_(*interpreter),
        loop_(loop),
        items_(std::move(items)),
        scope_(interpreter->scope_) {}

  absl::StatusOr<std::optional<Value>> Next() override {
    while (true) {
      ASSIGN_OR_RETURN(std::optional<Value> item, items_->Next());
      if (!item.has_value()) return item;
      const ScopeGuard scope(&interpreter_, scope_);
      RETURN_IF_ERROR(interpreter_.Assign(loop_.target, *item));
      ASSIGN_OR_RETURN(const Value passes, interpreter_.Evaluate(*loop_.exprs[1]));
      if (IsTrue(passes)) return item;
    }
  }

 private:
  Interpreter& interpreter_;
  const Stmt& loop_;
  const std::shared_ptr<Iterator> items_;
  const std::shared_ptr<Scope> scope_;
};

Interpreter::Interpreter(absl::flat_hash_map<std::string, Value> context, const std::tm& now, Budget* budget)
    : now_(now), budget_(budget), scope_(std::make_shared<Scope>(nullptr)) {
  scope_->variables = std::move(context);
  scope_ = std::make_shared<Scope>(scope_);
}

Interpreter::~Interpreter() {
  for (const auto& names : namespaces_) names->attributes.clear();
  for (const auto& scope : captured_scopes_) scope->variables.clear();
}

absl::StatusOr<Text> Interpreter::Run(const Body& body) {
  Text text;
  out_ = &text;
  const absl::StatusOr<Flow> flow = Execute(body);
  if (absl::IsAborted(flow.status())) return flow.status();
  if (!flow.ok()) return AtLine(error_line_, flow.status());
  return text;
}

absl::Status Interpreter::Emit(TextView text) {
  RETURN_IF_ERROR(budget_->Grow(static_cast<int64_t>(text.size())));
  *out_ += text;
  return absl::OkStatus();
}

absl::StatusOr<Interpreter::Flow> Interpreter::Execute(const Body& body) {
  for (const std::string& name : body.hidden_names) {
    scope_->variables[name] = Value::Undefined(absl::StrCat(Quoted(name), " is undefined"));
  }
  for (const StmtPtr& stmt : body.statements) {
    ASSIGN_OR_RETURN(const Flow flow, Execute(*stmt));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::Execute(const Stmt& stmt) {
  const DepthGuard depth(this);
  absl::StatusOr<Flow> flow = depth.status().ok() ? ExecuteKind(stmt) : depth.status();
  if (!flow.ok() && error_line_ == 0) error_line_ = stmt.line;
  return flow;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteKind(const Stmt& stmt) {
  RETURN_IF_ERROR(budget_->Spend());
  absl::Status done;
  switch (stmt.kind) {
    case StmtKind::kFor:
      return ExecuteFor(stmt);
    case StmtKind::kIf:
      return ExecuteIf(stmt);
    case StmtKind::kWith:
      return ExecuteWith(stmt);
    case StmtKind::kSetBlock:
      return ExecuteSetBlock(stmt);
    case StmtKind::kFilterBlock:
      return ExecuteFilterBlock(stmt);
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
    case StmtKind::kGeneration: {
      const ScopeGuard scope(this, scope_);
      return Execute(stmt.body);
    }
    case StmtKind::kText:
      done = Emit(stmt.text);
      break;
    case StmtKind::kPrint:
      done = Print(stmt);
      break;
    case StmtKind::kSet:
      done = Set(stmt);
      break;
    case StmtKind::kMacro:
      done = DefineMacro(stmt);
      break;
    case StmtKind::kCallBlock:
      done = ExecuteCallBlock(stmt);
      break;
  }
  if (!done.ok()) return done;
  return Flow::kNext;
}

absl::Status Interpreter::Print(const Stmt& stmt) {
  for (const ExprPtr& expr : stmt.exprs) {
    ASSIGN_OR_RETURN(const Value value, Evaluate(*expr));
    if (value.is_string()) {
      RETURN_IF_ERROR(Emit(value.text()));
    } else {
      ASSIGN_OR_RETURN(const Text text, Str(value, budget_));
      RETURN_IF_ERROR(Emit(text));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteIf(const Stmt& stmt) {
  for (size_t i = 0; i < stmt.bodies.size(); ++i) {
    ASSIGN_OR_RETURN(const Value test, Evaluate(*stmt.exprs[i]));
    if (IsTrue(test)) return Execute(stmt.bodies[i]);
  }
  return Execute(stmt.else_body);
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteFor(const Stmt& stmt) {
  ASSIGN_OR_RETURN(Value iterable, Evaluate(*stmt.exprs[0]));
  ASSIGN_OR_RETURN(std::shared_ptr<Iterator> items, Iterate(iterable, budget_));
  if (stmt.exprs[1] != nullptr) {
    items = std::make_shared<FilteredItems>(this, stmt, std::move(items));
    iterable = Value::Of(std::static_pointer_cast<Object>(items));
  }
  RETURN_IF_ERROR(CheckDepth(items->depth()));
  const auto loop = std::make_shared<Loop>(std::move(iterable), std::move(items));
  // As the reference has it: a round that ends with `continue` or `break` does not keep `else` from running.
  bool finished_one = false;
  while (true) {
    ASSIGN_OR_RETURN(std::optional<Value> item, loop->Advance());
    if (!item.has_value()) break;
    const ScopeGuard scope(this, scope_);
    scope_->variables["loop"] = Value::Of(std::shared_ptr<Object>(loop));
    RETURN_IF_ERROR(Assign(stmt.target, *std::move(item)));
    ASSIGN_OR_RETURN(const Flow flow, Execute(stmt.body));
    if (flow == Flow::kBreak) break;
    finished_one |= flow == Flow::kNext;
  }
  if (finished_one) return Flow::kNext;
  const ScopeGuard scope(this, scope_);
  return Execute(stmt.else_body);
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteWith(const Stmt& stmt) {
  ASSIGN_OR_RETURN(std::vector<Value> values, EvaluateAll(stmt.exprs));
  const ScopeGuard scope(this, scope_);
  for (size_t i = 0; i < values.size(); ++i) RETURN_IF_ERROR(Assign(stmt.targets[i], std::move(values[i])));
  return Execute(stmt.body);
}

absl::StatusOr<Interpreter::Flow> Interpreter::Capture(const Body& body, Text* text) {
  Text* const out = std::exchange(out_, text);
  absl::StatusOr<Flow> flow = Execute(body);
  out_ = out;
  return flow;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteSetBlock(const Stmt& stmt) {
  Value value;
  {
    const ScopeGuard scope(this, scope_);
    Text text;
    ASSIGN_OR_RETURN(const Flow flow, Capture(stmt.body, &text));
    if (flow != Flow::kNext) return flow;
    value = Value::Str(std::move(text));
    if (stmt.exprs[0] != nullptr) {
      block_text_ = std::move(value);
      ASSIGN_OR_RETURN(value, Evaluate(*stmt.exprs[0]));
    }
  }
  RETURN_IF_ERROR(Assign(stmt.target, std::move(value)));
  return Flow::kNext;
}

absl::StatusOr<Interpreter::Flow> Interpreter::ExecuteFilterBlock(const Stmt& stmt) {
  const ScopeGuard scope(this, scope_);
  Text text;
  ASSIGN_OR_RETURN(const Flow flow, Capture(stmt.body, &text));
  if (flow != Flow::kNext) return flow;
  block_text_ = Value::Str(std::move(text));
  ASSIGN_OR_RETURN(const Value value, Evaluate(*stmt.exprs[0]));
  ASSIGN_OR_RETURN(const Text filtered, Str(value, budget_));
  RETURN_IF_ERROR(Emit(filtered));
  return Flow::kNext;
}

absl::Status Interpreter::Set(const Stmt& stmt) {
  ASSIGN_OR_RETURN(Value value, Evaluate(*stmt.exprs[0]));
  return Assign(stmt.target, std::move(value));
}

absl::Status Interpreter::Assign(const Target& target, Value value) {
  if (target.kind == Target::Kind::kTuple) return Unpack(target, value);
  if (target.kind == Target::Kind::kName) {
    scope_->variables[target.name] = std::move(value);
    return absl::OkStatus();
  }
  const Value owner = Lookup(target.name);
  auto* names = owner.As<Namespace>();
  if (names == nullptr) return PythonError("cannot assign attribute on non-namespace object");
  RETURN_IF_ERROR(budget_->Spend(static_cast<int64_t>(names->attributes.size())));
  names->Set(target.attribute, std::move(value));
  return absl::OkStatus();
}

absl::Status Interpreter::Unpack(const Target& target, const Value& value) {
  ASSIGN_OR_RETURN(const std::shared_ptr<Iterator> items, Iterate(value, budget_));
  std::vector<Value> values;
  while (values.size() <= target.parts.size()) {
    ASSIGN_OR_RETURN(std::optional<Value> item, items->Next());
    if (!item.has_value()) break;
    values.push_back(*std::move(item));
  }
  if (values.size() != target.parts.size()) {
    return PythonError(absl::StrCat(values.size() < target.parts.size() ? "not enough" : "too many",
                                    " values to unpack (expected ", target.parts.size(), ")"));
  }
  for (size_t i = 0; i < values.size(); ++i) RETURN_IF_ERROR(Assign(target.parts[i], std::move(values[i])));
  return absl::OkStatus();
}

// ------------------------------------------------------------------------------------------------------- macros

class Interpreter::Macro : public Function {
 public:
  Macro(Interpreter* interpreter, const MacroDefinition& definition)
      : interpreter_(*interpreter), definition_(definition), scope_(interpreter->scope_) {}
  std::string TypeName() const override { return "Macro"; }
  absl::StatusOr<std::string> Describe(Budget*) override {
    return absl::StrCat("<Macro ", Quoted(definition_.name), ">");
  }
  absl::StatusOr<Value> Call(Runtime&, Arguments arguments) override {
    return interpreter_.CallMacro(definition_, scope_, std::move(arguments));
  }

 private:
  Interpreter& interpreter_;
  const MacroDefinition& definition_;
  const std::shared_ptr<Scope> scope_;
};

Value Interpreter::MakeMacro(const MacroDefinition& definition) {
  captured_scopes_.push_back(scope_);
  return Value::Of(std::shared_ptr<Object>(std::make_shared<Macro>(this, definition)));
}

absl::Status Interpreter::DefineMacro(const Stmt& stmt) {
  RETURN_IF_ERROR(budget_->Grow(64));
  scope_->variables[stmt.macro->name] = MakeMacro(*stmt.macro);
  return absl::OkStatus();
}

absl::Status Interpreter::ExecuteCallBlock(const Stmt& stmt) {
  RETURN_IF_ERROR(budget_->Grow(64));
  ASSIGN_OR_RETURN(const Value value, EvaluateCall(*stmt.exprs[0], MakeMacro(*stmt.macro)));
  ASSIGN_OR_RETURN(const Text text, Str(value, budget_));
  return Emit(text);
}

absl::StatusOr<Value> Interpreter::CallMacro(const MacroDefinition& definition, const std::shared_ptr<Scope>& closure,
                                             Arguments arguments) {
  const ScopeGuard scope(this, closure);
  RETURN_IF_ERROR(BindParameters(definition, std::move(arguments)));
  Text text;
  RETURN_IF_ERROR(Capture(definition.body, &text).status());
  return Value::Str(std::move(text));
}

// As jinja2.runtime.Macro.__call__, into the current scope.
absl::Status Interpreter::BindParameters(const MacroDefinition& definition, Arguments arguments) {
  auto& [positional, named] = arguments;
  const auto take_named = [&named](const std::string& name) -> std::optional<Value> {
    for (auto entry = named.begin(); entry != named.end(); ++entry) {
      if (entry->first != name) continue;
      Value value = std::move(entry->second);
      named.erase(entry);
      return value;
    }
    return std::nullopt;
  };
  const auto& parameters = definition.parameters;
  auto& variables = scope_->variables;
  std::vector<bool> given(parameters.size());
  for (size_t i = 0; i < parameters.size(); ++i) {
    const std::string& name = parameters[i].first;
    std::optional<Value> value = i < positional.size() ? positional[i] : take_named(name);
    given[i] = value.has_value();
    variables[name] =
        given[i] ? *std::move(value) : Value::Undefined(absl::StrCat("parameter ", Quoted(name), " was not provided"));
  }
  if (definition.uses_caller) {
    variables["caller"] = take_named("caller").value_or(Value::Undefined("No caller defined"));
  }
  if (definition.uses_kwargs) {
    auto kwargs = std::make_shared<Dict>();
    for (auto& [name, value] : named) RETURN_IF_ERROR(kwargs->Set(Value::Utf8(name), std::move(value), budget_));
    variables["kwargs"] = Value::Of(std::shared_ptr<const Dict>(std::move(kwargs)));
  } else if (!named.empty()) {
    return PythonError(
        absl::StrCat("macro ", Quoted(definition.name), " takes no keyword argument ", Quoted(named.front().first)));
  }
  const size_t num_taken = std::min(positional.size(), parameters.size());
  if (definition.uses_varargs) {
    ASSIGN_OR_RETURN(
        variables["varargs"],
        Value::Tuple({positional.begin() + static_cast<std::ptrdiff_t>(num_taken), positional.end()}, budget_));
  } else if (positional.size() > num_taken) {
    return PythonError(
        absl::StrCat("macro ", Quoted(definition.name), " takes not more than ", parameters.size(), " argument(s)"));
  }
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (given[i] || parameters[i].second == nullptr) continue;
    ASSIGN_OR_RETURN(Value value, Evaluate(*parameters[i].second));
    variables[parameters[i].first] = std::move(value);
  }
  return absl::OkStatus();
}

}  // namespace switchyard::jinja
