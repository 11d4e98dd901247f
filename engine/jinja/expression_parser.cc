// Operators, from the loosest to the tightest. What they apply to is in primary_parser.cc.
#include "engine/jinja/expression_parser.h"

#include <algorithm>

#include "engine/base/status_macros.h"

namespace switchyard::jinja {
namespace {

using Kind = Token::Kind;

int DepthOf(const ExprPtr& expr) { return expr == nullptr ? 0 : expr->depth; }

int DepthOf(const CallArguments& arguments) {
  int depth = std::max(DepthOf(arguments.star), DepthOf(arguments.double_star));
  for (const ExprPtr& value : arguments.positional) depth = std::max(depth, DepthOf(value));
  for (const auto& [name, value] : arguments.named) depth = std::max(depth, DepthOf(value));
  return depth;
}

struct ComparisonName {
  std::string_view op;
  Comparison comparison;
};
constexpr ComparisonName kComparisons[] = {
    {"==", Comparison::kEqual},       {"!=", Comparison::kNotEqual}, {"<", Comparison::kLess},
    {"<=", Comparison::kLessOrEqual}, {">", Comparison::kGreater},   {">=", Comparison::kGreaterOrEqual},
};

}  // namespace

absl::StatusOr<ExprPtr> ExpressionParser::Finish(Expr expr) const {
  int depth = DepthOf(expr.arguments);
  for (const ExprPtr& part : expr.parts) depth = std::max(depth, DepthOf(part));
  expr.depth = depth + 1;
  if (expr.depth > kMaxExpressionDepth) {
    return SyntaxError(expr.line, absl::StrCat("the expression has more than ", kMaxExpressionDepth, " levels"));
  }
  return std::make_unique<const Expr>(std::move(expr));
}

absl::StatusOr<ExprPtr> ExpressionParser::Binary(Expr expr, ExprPtr left, ExprPtr right) const {
  expr.parts.push_back(std::move(left));
  expr.parts.push_back(std::move(right));
  return Finish(std::move(expr));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseExpression(bool with_conditional) {
  if (++nesting > kMaxSyntaxDepth) return tokens_.Fail(absl::StrCat("nested deeper than ", kMaxSyntaxDepth, " levels"));
  ASSIGN_OR_RETURN(ExprPtr expr, with_conditional ? ParseConditional() : ParseOr());
  --nesting;
  return expr;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseTuple(bool with_conditional,
                                                     std::initializer_list<std::string_view> end_names,
                                                     bool in_parentheses) {
  Expr tuple{.kind = ExprKind::kTuple, .line = tokens_.line()};
  const auto at_end = [&] {
    return tokens_.Is(Kind::kVariableEnd) || tokens_.Is(Kind::kBlockEnd) || tokens_.IsOperator(")") ||
           std::any_of(end_names.begin(), end_names.end(), [&](auto name) { return tokens_.IsName(name); });
  };
  bool is_tuple = false;
  while (!at_end()) {
    ASSIGN_OR_RETURN(ExprPtr part, ParseExpression(with_conditional));
    tuple.parts.push_back(std::move(part));
    if (!tokens_.SkipOperator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !tuple.parts.empty()) return std::move(tuple.parts[0]);
  if (!is_tuple && !in_parentheses) {
    return tokens_.Fail(absl::StrCat("expected an expression, got ", tokens_.Describe()));
  }
  return Finish(std::move(tuple));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseConditional() {
  const bool was_soft = soft;
  const int line = tokens_.line();
  const size_t num_unknown = unknown_.size();
  ASSIGN_OR_RETURN(ExprPtr expr, ParseOr());
  if (tokens_.IsName("if")) unknown_.resize(num_unknown);
  while (tokens_.SkipName("if")) {
    soft = true;
    Expr conditional{.kind = ExprKind::kConditional, .line = line};
    conditional.parts.push_back(std::move(expr));
    ASSIGN_OR_RETURN(ExprPtr test, ParseOr());
    conditional.parts.push_back(std::move(test));
    if (tokens_.SkipName("else")) {
      ASSIGN_OR_RETURN(ExprPtr otherwise, ParseExpression());
      conditional.parts.push_back(std::move(otherwise));
    }
    ASSIGN_OR_RETURN(expr, Finish(std::move(conditional)));
  }
  soft = was_soft;
  return expr;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseOr() {
  ASSIGN_OR_RETURN(ExprPtr left, ParseAnd());
  while (tokens_.IsName("or")) {
    const int line = tokens_.Take().line;
    ASSIGN_OR_RETURN(ExprPtr right, ParseAnd());
    ASSIGN_OR_RETURN(left, Binary({.kind = ExprKind::kOr, .line = line}, std::move(left), std::move(right)));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseAnd() {
  ASSIGN_OR_RETURN(ExprPtr left, ParseNot());
  while (tokens_.IsName("and")) {
    const int line = tokens_.Take().line;
    ASSIGN_OR_RETURN(ExprPtr right, ParseNot());
    ASSIGN_OR_RETURN(left, Binary({.kind = ExprKind::kAnd, .line = line}, std::move(left), std::move(right)));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseNot() {
  int count = 0;
  const int line = tokens_.line();
  while (tokens_.SkipName("not")) ++count;
  ASSIGN_OR_RETURN(ExprPtr expr, ParseComparison());
  for (; count > 0; --count) {
    Expr negated{.kind = ExprKind::kNot, .line = line};
    negated.parts.push_back(std::move(expr));
    ASSIGN_OR_RETURN(expr, Finish(std::move(negated)));
  }
  return expr;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseComparison() {
  Expr compare{.kind = ExprKind::kCompare, .line = tokens_.line()};
  ASSIGN_OR_RETURN(ExprPtr first, ParseSum());
  compare.parts.push_back(std::move(first));
  while (true) {
    const auto* found = std::find_if(std::begin(kComparisons), std::end(kComparisons),
                                     [&](const ComparisonName& name) { return tokens_.IsOperator(name.op); });
    if (found != std::end(kComparisons)) {
      tokens_.Take();
      compare.comparisons.push_back(found->comparison);
    } else if (tokens_.SkipName("in")) {
      compare.comparisons.push_back(Comparison::kIn);
    } else if (tokens_.IsName("not") && tokens_.ahead().kind == Kind::kName && tokens_.ahead().word == "in") {
      tokens_.Take();
      tokens_.Take();
      compare.comparisons.push_back(Comparison::kNotIn);
    } else {
      break;
    }
    ASSIGN_OR_RETURN(ExprPtr next, ParseSum());
    compare.parts.push_back(std::move(next));
  }
  if (compare.comparisons.empty()) return std::move(compare.parts[0]);
  return Finish(std::move(compare));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseSum() {
  ASSIGN_OR_RETURN(ExprPtr left, ParseConcat());
  while (tokens_.IsOperator("+") || tokens_.IsOperator("-")) {
    const Token& token = tokens_.Take();
    Expr sum{.kind = ExprKind::kBinary, .line = token.line};
    sum.op = token.word == "+" ? Operator::kAdd : Operator::kSubtract;
    ASSIGN_OR_RETURN(ExprPtr right, ParseConcat());
    ASSIGN_OR_RETURN(left, Binary(std::move(sum), std::move(left), std::move(right)));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseConcat() {
  Expr concat{.kind = ExprKind::kConcat, .line = tokens_.line()};
  do {
    ASSIGN_OR_RETURN(ExprPtr part, ParseProduct());
    concat.parts.push_back(std::move(part));
  } while (tokens_.SkipOperator("~"));
  if (concat.parts.size() == 1) return std::move(concat.parts[0]);
  return Finish(std::move(concat));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseProduct() {
  ASSIGN_OR_RETURN(ExprPtr left, ParsePower());
  while (tokens_.IsOperator("*") || tokens_.IsOperator("/") || tokens_.IsOperator("//") || tokens_.IsOperator("%")) {
    const Token& token = tokens_.Take();
    Expr product{.kind = ExprKind::kBinary, .line = token.line};
    product.op = token.word == "*"    ? Operator::kMultiply
                 : token.word == "/"  ? Operator::kDivide
                 : token.word == "//" ? Operator::kFloorDivide
                                      : Operator::kModulo;
    ASSIGN_OR_RETURN(ExprPtr right, ParsePower());
    ASSIGN_OR_RETURN(left, Binary(std::move(product), std::move(left), std::move(right)));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParsePower() {
  ASSIGN_OR_RETURN(ExprPtr left, ParseUnary(true));
  while (tokens_.IsOperator("**")) {
    Expr power{.kind = ExprKind::kBinary, .line = tokens_.Take().line};
    power.op = Operator::kPower;
    ASSIGN_OR_RETURN(ExprPtr right, ParseUnary(true));
    ASSIGN_OR_RETURN(left, Binary(std::move(power), std::move(left), std::move(right)));
  }
  return left;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseUnary(bool with_filters) {
  ExprPtr expr;
  if (tokens_.IsOperator("-") || tokens_.IsOperator("+")) {
    if (++nesting > kMaxSyntaxDepth) return tokens_.Fail("too many signs");
    const Token& token = tokens_.Take();
    Expr sign{.kind = token.word == "-" ? ExprKind::kNegate : ExprKind::kPlus, .line = token.line};
    ASSIGN_OR_RETURN(ExprPtr operand, ParseUnary(false));
    --nesting;
    sign.parts.push_back(std::move(operand));
    ASSIGN_OR_RETURN(expr, Finish(std::move(sign)));
  } else {
    ASSIGN_OR_RETURN(expr, ParsePrimary());
  }
  ASSIGN_OR_RETURN(expr, ParsePostfix(std::move(expr)));
  if (!with_filters) return expr;
  return ParseFilters(std::move(expr));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParsePostfix(ExprPtr expr) {
  while (true) {
    if (tokens_.IsOperator(".")) {
      ASSIGN_OR_RETURN(expr, ParseAttribute(std::move(expr)));
    } else if (tokens_.IsOperator("[")) {
      ASSIGN_OR_RETURN(expr, ParseSubscript(std::move(expr)));
    } else if (tokens_.IsOperator("(")) {
      ASSIGN_OR_RETURN(expr, ParseCall(std::move(expr)));
    } else {
      return expr;
    }
  }
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseFilters(ExprPtr expr) {
  while (true) {
    if (tokens_.SkipOperator("|")) {
      ASSIGN_OR_RETURN(expr, ParseFilter(std::move(expr)));
    } else if (tokens_.IsName("is")) {
      ASSIGN_OR_RETURN(expr, ParseTest(std::move(expr)));
    } else if (tokens_.IsOperator("(")) {
      ASSIGN_OR_RETURN(expr, ParseCall(std::move(expr)));
    } else {
      return expr;
    }
  }
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseFilterChain(ExprPtr subject, bool starts_with_name) {
  while (starts_with_name || tokens_.SkipOperator("|")) {
    ASSIGN_OR_RETURN(subject, ParseFilter(std::move(subject)));
    starts_with_name = false;
  }
  return subject;
}

}  // namespace switchyard::jinja
