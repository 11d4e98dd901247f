// Expressions. Statements are in interpreter.cc.
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/filters.h"
#include "engine/jinja/interpreter_parts.h"
#include "engine/jinja/predicates.h"
#include "engine/jinja/repr.h"

namespace switchyard::jinja {

absl::StatusOr<Value> Interpreter::Evaluate(const Expr& expr) {
  const DepthGuard depth(this);
  absl::StatusOr<Value> value = depth.status().ok() ? EvaluateKind(expr) : depth.status();
  if (!value.ok() && error_line_ == 0) error_line_ = expr.line;
  return value;
}

absl::StatusOr<Value> Interpreter::EvaluateKind(const Expr& expr) {
  RETURN_IF_ERROR(budget_->Spend());
  switch (expr.kind) {
    case ExprKind::kConstant:
      return expr.constant;
    case ExprKind::kName:
      return Lookup(expr.name);
    case ExprKind::kDict:
      return EvaluateDict(expr);
    case ExprKind::kSlice:
      return EvaluateSlice(expr);
    case ExprKind::kCall:
      return EvaluateCall(expr, std::nullopt);
    case ExprKind::kFilter:
      return EvaluateFilter(expr);
    case ExprKind::kTest:
      return EvaluateTest(expr);
    case ExprKind::kBinary:
    case ExprKind::kSubscript:
      return EvaluateBinary(expr);
    case ExprKind::kConcat:
      return EvaluateConcat(expr);
    case ExprKind::kCompare:
      return EvaluateCompare(expr);
    case ExprKind::kAnd:
    case ExprKind::kOr:
      return EvaluateEither(expr);
    case ExprKind::kConditional:
      return EvaluateConditional(expr);
    case ExprKind::kList:
    case ExprKind::kTuple: {
      ASSIGN_OR_RETURN(std::vector<Value> items, EvaluateAll(expr.parts));
      return expr.kind == ExprKind::kList ? Value::List(std::move(items), budget_)
                                          : Value::Tuple(std::move(items), budget_);
    }
    default:
      break;
  }
  ASSIGN_OR_RETURN(const Value operand, Evaluate(*expr.parts[0]));
  if (expr.kind == ExprKind::kAttribute) return GetAttribute(*this, operand, expr.name);
  if (expr.kind == ExprKind::kNot) return Value::Bool(!IsTrue(operand));
  return expr.kind == ExprKind::kNegate ? Negate(operand) : Plus(operand);
}

Value Interpreter::Lookup(const std::string& name) const {
  for (const Scope* scope = scope_.get(); scope != nullptr; scope = scope->parent.get()) {
    const auto found = scope->variables.find(name);
    if (found != scope->variables.end()) return found->second;
  }
  return Value::Undefined(absl::StrCat(Quoted(name), " is undefined"));
}

absl::StatusOr<std::vector<Value>> Interpreter::EvaluateAll(const std::vector<ExprPtr>& exprs) {
  std::vector<Value> values;
  values.reserve(exprs.size());
  for (const ExprPtr& expr : exprs) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*expr));
    values.push_back(std::move(value));
  }
  return values;
}

absl::StatusOr<Value> Interpreter::EvaluateDict(const Expr& expr) {
  ASSIGN_OR_RETURN(std::vector<Value> values, EvaluateAll(expr.parts));
  auto dict = std::make_shared<Dict>();
  for (size_t i = 0; i < values.size(); i += 2) {
    RETURN_IF_ERROR(dict->Set(std::move(values[i]), std::move(values[i + 1]), budget_));
  }
  return Value::Of(std::shared_ptr<const Dict>(std::move(dict)));
}

absl::StatusOr<Value> Interpreter::EvaluateSlice(const Expr& expr) {
  ASSIGN_OR_RETURN(const std::vector<Value> values, EvaluateAll(expr.parts));
  return Slice(values[0], values[1], values[2], values[3], budget_);
}

absl::Status Interpreter::AddStarArguments(const Expr& star, Arguments* out) {
  ASSIGN_OR_RETURN(const Value values, Evaluate(star));
  ASSIGN_OR_RETURN(const std::vector<Value> items, Collect(values, budget_));
  out->positional.insert(out->positional.end(), items.begin(), items.end());
  return absl::OkStatus();
}

absl::Status Interpreter::AddDoubleStarArguments(const Expr& star, Arguments* out) {
  ASSIGN_OR_RETURN(const Value values, Evaluate(star));
  if (!values.is_dict()) return PythonError("argument after ** must be a mapping");
  for (const auto& [key, value] : values.dict().entries()) {
    if (!key.is_string()) return PythonError("keywords must be strings");
    std::string name = ToUtf8(key.text());
    RETURN_IF_ERROR(budget_->Spend(static_cast<int64_t>(1 + out->named.size())));
    for (const auto& [other, other_value] : out->named) {
      if (other == name) return PythonError("got multiple values for a keyword argument");
    }
    out->named.emplace_back(std::move(name), value);
  }
  return absl::OkStatus();
}

absl::StatusOr<Arguments> Interpreter::EvaluateArguments(const CallArguments& arguments) {
  Arguments out;
  ASSIGN_OR_RETURN(out.positional, EvaluateAll(arguments.positional));
  for (const auto& [name, expr] : arguments.named) {
    ASSIGN_OR_RETURN(Value value, Evaluate(*expr));
    out.named.emplace_back(name, std::move(value));
  }
  if (arguments.star != nullptr) RETURN_IF_ERROR(AddStarArguments(*arguments.star, &out));
  if (arguments.double_star != nullptr) RETURN_IF_ERROR(AddDoubleStarArguments(*arguments.double_star, &out));
  return out;
}

absl::StatusOr<Value> Interpreter::EvaluateCall(const Expr& expr, std::optional<Value> caller) {
  ASSIGN_OR_RETURN(const Value function, Evaluate(*expr.parts[0]));
  ASSIGN_OR_RETURN(Arguments arguments, EvaluateArguments(expr.arguments));
  if (caller.has_value()) arguments.named.emplace_back("caller", *std::move(caller));
  return Call(function, std::move(arguments));
}

absl::StatusOr<Value> Interpreter::Call(const Value& function, Arguments arguments) {
  if (function.is_undefined()) return function.UndefinedError();
  auto* callable = function.As<Function>();
  if (callable == nullptr) return PythonError(absl::StrCat("'", function.TypeName(), "' object is not callable"));
  return callable->Call(*this, std::move(arguments));
}

absl::StatusOr<Value> Interpreter::EvaluateFilter(const Expr& expr) {
  Value subject;
  if (expr.parts.empty()) {
    subject = std::move(block_text_);
  } else {
    ASSIGN_OR_RETURN(subject, Evaluate(*expr.parts[0]));
  }
  ASSIGN_OR_RETURN(Arguments arguments, EvaluateArguments(expr.arguments));
  return CallFilter(*this, expr.name, subject, std::move(arguments));
}

absl::StatusOr<Value> Interpreter::EvaluateTest(const Expr& expr) {
  ASSIGN_OR_RETURN(const Value subject, Evaluate(*expr.parts[0]));
  ASSIGN_OR_RETURN(Arguments arguments, EvaluateArguments(expr.arguments));
  ASSIGN_OR_RETURN(const bool holds, CallPredicate(*this, expr.name, subject, std::move(arguments)));
  return Value::Bool(holds);
}

absl::StatusOr<Value> Interpreter::EvaluateBinary(const Expr& expr) {
  ASSIGN_OR_RETURN(const Value left, Evaluate(*expr.parts[0]));
  ASSIGN_OR_RETURN(const Value right, Evaluate(*expr.parts[1]));
  if (expr.kind == ExprKind::kSubscript) return GetItem(*this, left, right);
  return Apply(expr.op, left, right, budget_);
}

absl::StatusOr<Value> Interpreter::EvaluateConcat(const Expr& expr) {
  Text text;
  ASSIGN_OR_RETURN(const std::vector<Value> values, EvaluateAll(expr.parts));
  for (const Value& value : values) {
    ASSIGN_OR_RETURN(const Text part, Str(value, budget_));
    text += part;
  }
  return Value::Str(std::move(text));
}

absl::StatusOr<bool> Interpreter::Compare(Comparison comparison, const Value& a, const Value& b) {
  switch (comparison) {
    case Comparison::kEqual:
      return Equals(a, b, budget_);
    case Comparison::kLess:
      return Less(a, b, budget_);
    case Comparison::kLessOrEqual:
      return LessOrEqual(a, b, budget_);
    case Comparison::kGreater:
      return Less(b, a, budget_);
    case Comparison::kGreaterOrEqual:
      return LessOrEqual(b, a, budget_);
    case Comparison::kIn:
      return Contains(b, a, budget_);
    case Comparison::kNotEqual: {
      ASSIGN_OR_RETURN(const bool equal, Equals(a, b, budget_));
      return !equal;
    }
    case Comparison::kNotIn: {
      ASSIGN_OR_RETURN(const bool contained, Contains(b, a, budget_));
      return !contained;
    }
  }
  return false;
}

absl::StatusOr<Value> Interpreter::EvaluateCompare(const Expr& expr) {
  ASSIGN_OR_RETURN(Value left, Evaluate(*expr.parts[0]));
  for (size_t i = 0; i < expr.comparisons.size(); ++i) {
    ASSIGN_OR_RETURN(Value right, Evaluate(*expr.parts[i + 1]));
    ASSIGN_OR_RETURN(const bool holds, Compare(expr.comparisons[i], left, right));
    if (!holds) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

absl::StatusOr<Value> Interpreter::EvaluateEither(const Expr& expr) {
  ASSIGN_OR_RETURN(Value left, Evaluate(*expr.parts[0]));
  if (IsTrue(left) == (expr.kind == ExprKind::kOr)) return left;
  return Evaluate(*expr.parts[1]);
}

absl::StatusOr<Value> Interpreter::EvaluateConditional(const Expr& expr) {
  ASSIGN_OR_RETURN(const Value test, Evaluate(*expr.parts[1]));
  if (IsTrue(test)) return Evaluate(*expr.parts[0]);
  if (expr.parts.size() > 2) return Evaluate(*expr.parts[2]);
  return Value::Undefined("the inline if-expression evaluated to false and no else section was defined.");
}

}  // namespace switchyard::jinja
