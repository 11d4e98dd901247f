// Expressions, with the precedence of jinja2, loosest first:
// if-else | or | and | not | comparisons, in | + - | ~ | * / // % | ** | signs | filters, tests | . [] ()
#ifndef SWITCHYARD_ENGINE_JINJA_EXPRESSION_PARSER_H_
#define SWITCHYARD_ENGINE_JINJA_EXPRESSION_PARSER_H_

#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/jinja/ast.h"
#include "engine/jinja/token_stream.h"

namespace switchyard::jinja {

// Told of what the expressions use.
class NameObserver {
 public:
  virtual ~NameObserver() = default;
  virtual void OnLoad(const std::string& name) = 0;
};

class ExpressionParser {
 public:
  ExpressionParser(TokenStream* tokens, NameObserver* observer) : tokens_(*tokens), observer_(*observer) {}

  absl::StatusOr<ExprPtr> ParseExpression(bool with_conditional = true);
  // One expression, or several with commas between them as a tuple. `end_names`: words that end it.
  absl::StatusOr<ExprPtr> ParseTuple(bool with_conditional = true,
                                     std::initializer_list<std::string_view> end_names = {},
                                     bool in_parentheses = false);
  absl::StatusOr<ExprPtr> ParsePrimary();
  // name(...) | name ...: the chain of filters of a block, applied to its text. Null: there is none.
  absl::StatusOr<ExprPtr> ParseFilterChain(ExprPtr subject, bool starts_with_name);

  // The first filter or test that does not exist. Inside of `if` such a one is an error only when it is reached.
  absl::Status unknown() const { return unknown_.empty() ? absl::OkStatus() : unknown_.front(); }

  bool soft = false;  // inside of if
  int nesting = 0;    // of parentheses and blocks

 private:
  using Expression = absl::StatusOr<ExprPtr>;

  absl::StatusOr<ExprPtr> Finish(Expr expr) const;
  Expression Binary(Expr expr, ExprPtr left, ExprPtr right) const;
  Expression ParseConditional();
  Expression ParseOr();
  Expression ParseAnd();
  Expression ParseNot();
  Expression ParseComparison();
  Expression ParseSum();
  Expression ParseConcat();
  Expression ParseProduct();
  Expression ParsePower();
  Expression ParseUnary(bool with_filters);
  Expression ParsePostfix(ExprPtr expr);
  Expression ParseFilters(ExprPtr expr);
  Expression ParseFilter(ExprPtr subject);
  Expression ParseTest(ExprPtr subject);
  Expression ParseAttribute(ExprPtr object);
  Expression ParseSubscript(ExprPtr object);
  Expression ParseSlice(ExprPtr object, ExprPtr start);
  Expression ParseCall(ExprPtr function);
  Expression ParseName();
  Expression ParseStrings();
  Expression ParseNumber();
  Expression ParseParentheses();
  Expression ParseList();
  Expression ParseDict();
  absl::StatusOr<std::string> ParseDottedName();
  absl::StatusOr<CallArguments> ParseArguments();
  absl::Status ParseArgument(CallArguments* arguments);
  void NoteUnknown(const char* kind, const std::string& name, int line);

  TokenStream& tokens_;
  NameObserver& observer_;
  std::vector<absl::Status> unknown_;
};

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_EXPRESSION_PARSER_H_
