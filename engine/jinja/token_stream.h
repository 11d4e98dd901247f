// The tokens of a template as the parser reads them.
#ifndef SWITCHYARD_ENGINE_JINJA_TOKEN_STREAM_H_
#define SWITCHYARD_ENGINE_JINJA_TOKEN_STREAM_H_

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/jinja/lexer.h"

namespace switchyard::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& current() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  int line() const { return current().line; }
  bool Is(Token::Kind kind) const { return current().kind == kind; }
  bool IsName(std::string_view name) const { return Is(Token::Kind::kName) && current().word == name; }
  bool IsOperator(std::string_view op) const { return Is(Token::Kind::kOperator) && current().word == op; }

  // The current token; goes on to the next one.
  const Token& Take() { return tokens_[at_ + 1 < tokens_.size() ? at_++ : at_]; }
  bool SkipName(std::string_view name) { return IsName(name) && (Take(), true); }
  bool SkipOperator(std::string_view op) { return IsOperator(op) && (Take(), true); }
  absl::Status Expect(Token::Kind kind, const char* what) {
    if (!Is(kind)) return Fail(absl::StrCat("expected ", what, ", got ", Describe()));
    Take();
    return absl::OkStatus();
  }
  absl::Status ExpectOperator(std::string_view op) {
    if (!SkipOperator(op)) return Fail("expected '" + std::string(op) + "', got " + Describe());
    return absl::OkStatus();
  }

  absl::Status Fail(const std::string& message) const { return SyntaxError(line(), message); }

  // The current token for messages.
  std::string Describe() const {
    switch (current().kind) {
      case Token::Kind::kName:
      case Token::Kind::kOperator:
      case Token::Kind::kInteger:
      case Token::Kind::kFloat:
        return absl::StrCat("'", current().word.substr(0, 64), "'");
      case Token::Kind::kString:
        return "a string";
      case Token::Kind::kVariableEnd:
        return "the end of the expression";
      case Token::Kind::kBlockEnd:
        return "the end of the statement";
      case Token::Kind::kEnd:
        return "the end of the template";
      default:
        return "the beginning of a tag";
    }
  }

 private:
  const std::vector<Token> tokens_;
  size_t at_ = 0;
};

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_TOKEN_STREAM_H_
