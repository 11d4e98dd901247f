// What expressions are made of: names, literals, calls, subscripts, filters and tests.
#include <charconv>

#include "absl/strings/numbers.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/expression_parser.h"
#include "engine/jinja/filters.h"
#include "engine/jinja/predicates.h"

namespace switchyard::jinja {
namespace {

using Kind = Token::Kind;

ExprPtr Constant(Value value, int line) {
  Expr expr{.kind = ExprKind::kConstant, .line = line};
  expr.constant = std::move(value);
  return std::make_unique<const Expr>(std::move(expr));
}

}  // namespace

absl::StatusOr<std::string> ExpressionParser::ParseDottedName() {
  std::string name = tokens_.current().word;
  RETURN_IF_ERROR(tokens_.Expect(Kind::kName, "a name"));
  while (tokens_.SkipOperator(".")) {
    absl::StrAppend(&name, ".", tokens_.current().word);
    RETURN_IF_ERROR(tokens_.Expect(Kind::kName, "a name"));
  }
  return name;
}

void ExpressionParser::NoteUnknown(const char* kind, const std::string& name, int line) {
  if (!soft) unknown_.push_back(SyntaxError(line, absl::StrCat("no ", kind, " named '", name.substr(0, 64), "'")));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseFilter(ExprPtr subject) {
  Expr filter{.kind = ExprKind::kFilter, .line = tokens_.line()};
  ASSIGN_OR_RETURN(filter.name, ParseDottedName());
  if (!IsFilter(filter.name)) NoteUnknown("filter", filter.name, filter.line);
  if (tokens_.IsOperator("(")) {
    ASSIGN_OR_RETURN(filter.arguments, ParseArguments());
  }
  if (subject != nullptr) filter.parts.push_back(std::move(subject));
  return Finish(std::move(filter));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseTest(ExprPtr subject) {
  Expr test{.kind = ExprKind::kTest, .line = tokens_.Take().line};
  const bool negated = tokens_.SkipName("not");
  ASSIGN_OR_RETURN(test.name, ParseDottedName());
  if (!IsPredicate(test.name)) NoteUnknown("test", test.name, test.line);
  test.parts.push_back(std::move(subject));
  const Kind kind = tokens_.current().kind;
  const bool is_operand = kind == Kind::kName || kind == Kind::kString || kind == Kind::kInteger ||
                          kind == Kind::kFloat || tokens_.IsOperator("[") || tokens_.IsOperator("{");
  if (tokens_.IsOperator("(")) {
    ASSIGN_OR_RETURN(test.arguments, ParseArguments());
  } else if (is_operand && !tokens_.IsName("else") && !tokens_.IsName("or") && !tokens_.IsName("and")) {
    if (tokens_.IsName("is")) return tokens_.Fail("tests cannot be chained with is");
    ASSIGN_OR_RETURN(ExprPtr operand, ParsePrimary());
    ASSIGN_OR_RETURN(operand, ParsePostfix(std::move(operand)));
    test.arguments.positional.push_back(std::move(operand));
  }
  const int line = test.line;
  ASSIGN_OR_RETURN(ExprPtr expr, Finish(std::move(test)));
  if (!negated) return expr;
  Expr negation{.kind = ExprKind::kNot, .line = line};
  negation.parts.push_back(std::move(expr));
  return Finish(std::move(negation));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseAttribute(ExprPtr object) {
  const int line = tokens_.Take().line;
  const Token& token = tokens_.Take();
  if (token.kind == Kind::kName) {
    Expr attribute{.kind = ExprKind::kAttribute, .line = line, .name = token.word};
    attribute.parts.push_back(std::move(object));
    return Finish(std::move(attribute));
  }
  int64_t index = 0;
  if (token.kind != Kind::kInteger || !absl::SimpleAtoi(token.word, &index)) {
    return SyntaxError(token.line, "expected name or number");
  }
  return Binary({.kind = ExprKind::kSubscript, .line = line}, std::move(object), Constant(Value::Int(index), line));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseSubscript(ExprPtr object) {
  const int line = tokens_.Take().line;
  if (tokens_.IsOperator(":")) return ParseSlice(std::move(object), Constant(Value::None(), line));
  Expr tuple{.kind = ExprKind::kTuple, .line = line};
  while (!tokens_.IsOperator("]")) {
    if (!tuple.parts.empty()) RETURN_IF_ERROR(tokens_.ExpectOperator(","));
    ASSIGN_OR_RETURN(ExprPtr part, ParseExpression());
    if (tokens_.IsOperator(":") && tuple.parts.empty()) return ParseSlice(std::move(object), std::move(part));
    tuple.parts.push_back(std::move(part));
  }
  tokens_.Take();
  ExprPtr index;
  if (tuple.parts.size() == 1) {
    index = std::move(tuple.parts[0]);
  } else {
    ASSIGN_OR_RETURN(index, Finish(std::move(tuple)));
  }
  return Binary({.kind = ExprKind::kSubscript, .line = line}, std::move(object), std::move(index));
}

// From the first colon on.
absl::StatusOr<ExprPtr> ExpressionParser::ParseSlice(ExprPtr object, ExprPtr start) {
  Expr slice{.kind = ExprKind::kSlice, .line = tokens_.line()};
  slice.parts.push_back(std::move(object));
  slice.parts.push_back(std::move(start));
  while (slice.parts.size() < 4) {
    const bool has_colon = tokens_.SkipOperator(":");
    if (has_colon && !tokens_.IsOperator(":") && !tokens_.IsOperator("]")) {
      ASSIGN_OR_RETURN(ExprPtr bound, ParseExpression());
      slice.parts.push_back(std::move(bound));
    } else {
      slice.parts.push_back(Constant(Value::None(), slice.line));
    }
  }
  RETURN_IF_ERROR(tokens_.ExpectOperator("]"));
  return Finish(std::move(slice));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseCall(ExprPtr function) {
  Expr call{.kind = ExprKind::kCall, .line = tokens_.line()};
  ASSIGN_OR_RETURN(call.arguments, ParseArguments());
  call.parts.push_back(std::move(function));
  return Finish(std::move(call));
}

absl::StatusOr<CallArguments> ExpressionParser::ParseArguments() {
  RETURN_IF_ERROR(tokens_.ExpectOperator("("));
  CallArguments arguments;
  bool first = true;
  while (!tokens_.IsOperator(")")) {
    if (!first) {
      RETURN_IF_ERROR(tokens_.ExpectOperator(","));
      if (tokens_.IsOperator(")")) break;
    }
    RETURN_IF_ERROR(ParseArgument(&arguments));
    first = false;
  }
  RETURN_IF_ERROR(tokens_.ExpectOperator(")"));
  return arguments;
}

absl::Status ExpressionParser::ParseArgument(CallArguments* arguments) {
  const auto fail = [&] { return tokens_.Fail("invalid syntax for function call expression"); };
  const bool had_star = arguments->star != nullptr, had_double_star = arguments->double_star != nullptr;
  if (tokens_.IsOperator("*") || tokens_.IsOperator("**")) {
    const bool is_double = tokens_.Take().word == "**";
    if (had_double_star || (had_star && !is_double)) return fail();
    ASSIGN_OR_RETURN((is_double ? arguments->double_star : arguments->star), ParseExpression());
    return absl::OkStatus();
  }
  if (tokens_.Is(Kind::kName) && tokens_.ahead().kind == Kind::kOperator && tokens_.ahead().word == "=") {
    if (had_double_star) return fail();
    const std::string name = tokens_.Take().word;
    tokens_.Take();
    for (const auto& [other, value] : arguments->named) {
      if (other == name) return tokens_.Fail(absl::StrCat("keyword argument repeated: ", name.substr(0, 64)));
    }
    ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
    arguments->named.emplace_back(name, std::move(value));
    return absl::OkStatus();
  }
  if (had_star || had_double_star || !arguments->named.empty()) return fail();
  ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
  arguments->positional.push_back(std::move(value));
  return absl::OkStatus();
}

absl::StatusOr<ExprPtr> ExpressionParser::ParsePrimary() {
  switch (tokens_.current().kind) {
    case Kind::kName:
      return ParseName();
    case Kind::kString:
      return ParseStrings();
    case Kind::kInteger:
    case Kind::kFloat:
      return ParseNumber();
    default:
      break;
  }
  if (tokens_.IsOperator("(")) return ParseParentheses();
  if (tokens_.IsOperator("[")) return ParseList();
  if (tokens_.IsOperator("{")) return ParseDict();
  return tokens_.Fail(absl::StrCat("unexpected ", tokens_.Describe()));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseName() {
  const Token& token = tokens_.Take();
  const std::string& word = token.word;
  if (word == "true" || word == "True") return Constant(Value::Bool(true), token.line);
  if (word == "false" || word == "False") return Constant(Value::Bool(false), token.line);
  if (word == "none" || word == "None") return Constant(Value::None(), token.line);
  observer_.OnLoad(word);
  return Finish({.kind = ExprKind::kName, .line = token.line, .name = word});
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseStrings() {
  const int line = tokens_.line();
  Text text;
  while (tokens_.Is(Kind::kString)) text += tokens_.Take().text;
  return Constant(Value::Str(std::move(text)), line);
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseNumber() {
  const Token& token = tokens_.Take();
  if (token.kind == Kind::kFloat) {
    double value = 0;
    // Out of range is 0 or infinity.
    if (!absl::SimpleAtod(token.word, &value)) return SyntaxError(token.line, "not a number");
    return Constant(Value::Float(value), token.line);
  }
  const char base = token.word.size() > 1 ? static_cast<char>(token.word[1] | 0x20) : '\0';
  const int radix = base == 'x' ? 16 : base == 'o' ? 8 : base == 'b' ? 2 : 10;
  const char* begin = token.word.data() + (radix == 10 ? 0 : 2);
  int64_t value = 0;
  if (std::from_chars(begin, token.word.data() + token.word.size(), value, radix).ec != std::errc()) {
    return SyntaxError(token.line, "an integer leaves the range of 64 bits");
  }
  return Constant(Value::Int(value), token.line);
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseParentheses() {
  tokens_.Take();
  ASSIGN_OR_RETURN(ExprPtr expr, ParseTuple(true, {}, /*in_parentheses=*/true));
  RETURN_IF_ERROR(tokens_.ExpectOperator(")"));
  return expr;
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseList() {
  Expr list{.kind = ExprKind::kList, .line = tokens_.Take().line};
  while (!tokens_.IsOperator("]")) {
    if (!list.parts.empty()) {
      RETURN_IF_ERROR(tokens_.ExpectOperator(","));
      if (tokens_.IsOperator("]")) break;
    }
    ASSIGN_OR_RETURN(ExprPtr item, ParseExpression());
    list.parts.push_back(std::move(item));
  }
  RETURN_IF_ERROR(tokens_.ExpectOperator("]"));
  return Finish(std::move(list));
}

absl::StatusOr<ExprPtr> ExpressionParser::ParseDict() {
  Expr dict{.kind = ExprKind::kDict, .line = tokens_.Take().line};
  while (!tokens_.IsOperator("}")) {
    if (!dict.parts.empty()) {
      RETURN_IF_ERROR(tokens_.ExpectOperator(","));
      if (tokens_.IsOperator("}")) break;
    }
    ASSIGN_OR_RETURN(ExprPtr key, ParseExpression());
    RETURN_IF_ERROR(tokens_.ExpectOperator(":"));
    ASSIGN_OR_RETURN(ExprPtr value, ParseExpression());
    dict.parts.push_back(std::move(key));
    dict.parts.push_back(std::move(value));
  }
  RETURN_IF_ERROR(tokens_.ExpectOperator("}"));
  return Finish(std::move(dict));
}

}  // namespace switchyard::jinja
