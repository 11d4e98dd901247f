#include "engine/jinja/parser.h"

#include <utility>

#include "engine/base/status_macros.h"
#include "engine/jinja/expression_parser.h"
#include "engine/jinja/scopes.h"

namespace switchyard::jinja {
namespace {

using Kind = Token::Kind;

StmtPtr Make(Stmt stmt) { return std::make_unique<Stmt>(std::move(stmt)); }

// Which of the special names a macro's body loads before it sets them.
struct SpecialNames {
  bool loads[3] = {};
  bool stored[3] = {};
};
constexpr const char* kSpecialNames[] = {"caller", "kwargs", "varargs"};

class Parser : private NameObserver {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)), expressions_(&tokens_, this) {}

  absl::StatusOr<Body> Run() {
    ASSIGN_OR_RETURN(Body body, ParseBody({}));
    RETURN_IF_ERROR(expressions_.unknown());
    FindHiddenNames(&body);
    return body;
  }

 private:
  using Names = std::initializer_list<std::string_view>;

  void OnLoad(const std::string& name) override {
    for (SpecialNames& macro : macros_) {
      for (int i = 0; i < 3; ++i) macro.loads[i] |= name == kSpecialNames[i] && !macro.stored[i];
    }
  }
  void OnStore(const std::string& name) {
    for (SpecialNames& macro : macros_) {
      for (int i = 0; i < 3; ++i) macro.stored[i] |= name == kSpecialNames[i];
    }
  }

  bool AtOneOf(Names names) const {
    for (const std::string_view name : names) {
      if (tokens_.IsName(name)) return true;
    }
    return false;
  }

  // Statements up to one of the tags `ends`, whose name is then the current token; up to the end if there are none.
  absl::StatusOr<Body> ParseBody(Names ends) {
    Body body;
    while (!tokens_.Is(Kind::kEnd)) {
      if (tokens_.Is(Kind::kData)) {
        const Token& token = tokens_.Take();
        body.statements.push_back(Make({.kind = StmtKind::kText, .line = token.line, .text = token.text}));
      } else if (tokens_.Is(Kind::kVariableBegin)) {
        ASSIGN_OR_RETURN(StmtPtr print, ParseVariable());
        body.statements.push_back(std::move(print));
      } else {
        RETURN_IF_ERROR(tokens_.Expect(Kind::kBlockBegin, "a tag"));
        if (AtOneOf(ends)) return body;
        ASSIGN_OR_RETURN(StmtPtr stmt, ParseStatement());
        body.statements.push_back(std::move(stmt));
        RETURN_IF_ERROR(tokens_.Expect(Kind::kBlockEnd, "the end of the statement"));
      }
    }
    if (ends.size() == 0) return body;
    return tokens_.Fail("the template ends before '" + std::string(*(ends.end() - 1)) + "'");
  }

  // A body in a scope of its own, from behind its opening tag.
  absl::StatusOr<Body> ParseBlock(Names ends, bool is_soft = false) {
    tokens_.SkipOperator(":");
    RETURN_IF_ERROR(tokens_.Expect(Kind::kBlockEnd, "the end of the statement"));
    if (++expressions_.nesting > kMaxSyntaxDepth) {
      return tokens_.Fail(absl::StrCat("nested deeper than ", kMaxSyntaxDepth, " levels"));
    }
    const bool was_soft = std::exchange(expressions_.soft, is_soft);
    ASSIGN_OR_RETURN(Body body, ParseBody(ends));
    expressions_.soft = was_soft;
    --expressions_.nesting;
    return body;
  }
  absl::StatusOr<Body> ParseWholeBlock(std::string_view end) {
    ASSIGN_OR_RETURN(Body body, ParseBlock({end}));
    tokens_.Take();
    return body;
  }

  absl::StatusOr<StmtPtr> ParseVariable() {
    Stmt print{.kind = StmtKind::kPrint, .line = tokens_.Take().line};
    ASSIGN_OR_RETURN(ExprPtr expr, expressions_.ParseTuple());
    print.exprs.push_back(std::move(expr));
    RETURN_IF_ERROR(tokens_.Expect(Kind::kVariableEnd, "the end of the expression"));
    return Make(std::move(print));
  }

  absl::StatusOr<StmtPtr> ParseStatement() {
    using Method = absl::StatusOr<StmtPtr> (Parser::*)(int);
    static constexpr std::pair<std::string_view, Method> kStatements[] = {{"for", &Parser::ParseFor},
                                                                          {"if", &Parser::ParseIf},
                                                                          {"set", &Parser::ParseSet},
                                                                          {"macro", &Parser::ParseMacro},
                                                                          {"call", &Parser::ParseCallBlock},
                                                                          {"filter", &Parser::ParseFilterBlock},
                                                                          {"with", &Parser::ParseWith},
                                                                          {"print", &Parser::ParsePrint},
                                                                          {"break", &Parser::ParseLoopExit},
                                                                          {"continue", &Parser::ParseLoopExit},
                                                                          {"generation", &Parser::ParseGeneration}};
    for (const auto& [name, method] : kStatements) {
      if (!tokens_.IsName(name)) continue;
      // break and continue are told apart by the name.
      const int line = method == &Parser::ParseLoopExit ? tokens_.line() : tokens_.Take().line;
      return (this->*method)(line);
    }
    return tokens_.Fail(absl::StrCat("unknown or unsupported statement ", tokens_.Describe()));
  }

  absl::StatusOr<StmtPtr> ParseFor(int line) {
    Stmt loop{.kind = StmtKind::kFor, .line = line};
    ++num_loops_;  // of the names in it, none may be stored as `loop`
    ASSIGN_OR_RETURN(loop.target, ParseTarget({"in"}, false));
    if (!tokens_.SkipName("in")) return tokens_.Fail(absl::StrCat("expected 'in', got ", tokens_.Describe()));
    ASSIGN_OR_RETURN(ExprPtr iterable, expressions_.ParseTuple(false, {"recursive"}));
    loop.exprs.push_back(std::move(iterable));
    ExprPtr condition;
    if (tokens_.SkipName("if")) {
      ASSIGN_OR_RETURN(condition, expressions_.ParseExpression());
    }
    loop.exprs.push_back(std::move(condition));
    if (tokens_.IsName("recursive")) return tokens_.Fail("recursive loops are not supported");
    ++breakable_;
    ASSIGN_OR_RETURN(loop.body, ParseBlock({"else", "endfor"}));
    --breakable_;
    if (tokens_.Take().word == "else") {
      ASSIGN_OR_RETURN(loop.else_body, ParseWholeBlock("endfor"));
    }
    --num_loops_;
    return Make(std::move(loop));
  }

  absl::StatusOr<StmtPtr> ParseIf(int line) {
    Stmt branches{.kind = StmtKind::kIf, .line = line};
    const bool was_soft = std::exchange(expressions_.soft, true);
    std::string_view end = "elif";
    while (end == "elif") {
      ASSIGN_OR_RETURN(ExprPtr test, expressions_.ParseTuple(false));
      branches.exprs.push_back(std::move(test));
      ASSIGN_OR_RETURN(Body body, ParseBlock({"elif", "else", "endif"}, true));
      branches.bodies.push_back(std::move(body));
      end = tokens_.Take().word;
    }
    if (end == "else") {
      ASSIGN_OR_RETURN(branches.else_body, ParseBlock({"endif"}, true));
      tokens_.Take();
    }
    expressions_.soft = was_soft;
    return Make(std::move(branches));
  }

  absl::StatusOr<StmtPtr> ParseSet(int line) {
    Stmt set{.kind = StmtKind::kSet, .line = line};
    ASSIGN_OR_RETURN(set.target, ParseTarget({}, true));
    if (tokens_.SkipOperator("=")) {
      ASSIGN_OR_RETURN(ExprPtr value, expressions_.ParseTuple());
      set.exprs.push_back(std::move(value));
      return Make(std::move(set));
    }
    set.kind = StmtKind::kSetBlock;
    ASSIGN_OR_RETURN(ExprPtr filter, InnerFilterChain(false));
    set.exprs.push_back(std::move(filter));
    ASSIGN_OR_RETURN(set.body, ParseWholeBlock("endset"));
    return Make(std::move(set));
  }

  absl::StatusOr<ExprPtr> InnerFilterChain(bool starts_with_name) {
    const bool was_soft = std::exchange(expressions_.soft, false);
    ASSIGN_OR_RETURN(ExprPtr filter, expressions_.ParseFilterChain(nullptr, starts_with_name));
    expressions_.soft = was_soft;
    return filter;
  }

  absl::Status ParseSignature(MacroDefinition* macro) {
    RETURN_IF_ERROR(tokens_.ExpectOperator("("));
    bool has_default = false;
    while (!tokens_.IsOperator(")")) {
      if (!macro->parameters.empty()) RETURN_IF_ERROR(tokens_.ExpectOperator(","));
      const std::string name = tokens_.current().word;
      RETURN_IF_ERROR(tokens_.Expect(Kind::kName, "a parameter"));
      RETURN_IF_ERROR(CheckName(name));
      for (const auto& [other, value] : macro->parameters) {
        if (other == name) return tokens_.Fail(absl::StrCat("parameter ", name.substr(0, 64), " is there twice"));
      }
      ExprPtr value;
      if (tokens_.SkipOperator("=")) {
        ASSIGN_OR_RETURN(value, expressions_.ParseExpression());
        has_default = true;
      } else if (has_default) {
        return tokens_.Fail("non-default argument follows default argument");
      }
      macro->parameters.emplace_back(name, std::move(value));
    }
    tokens_.Take();
    return absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<MacroDefinition>> ParseMacroBody(MacroDefinition macro, std::string_view end) {
    macros_.emplace_back();
    const int breakable = std::exchange(breakable_, 0);
    ASSIGN_OR_RETURN(macro.body, ParseWholeBlock(end));
    breakable_ = breakable;
    const SpecialNames special = macros_.back();
    macros_.pop_back();
    bool is_parameter[3] = {};
    for (const auto& [name, value] : macro.parameters) {
      for (int i = 0; i < 3; ++i) is_parameter[i] |= name == kSpecialNames[i];
    }
    macro.uses_caller = special.loads[0] && !is_parameter[0];
    macro.uses_kwargs = special.loads[1] && !is_parameter[1];
    macro.uses_varargs = special.loads[2] && !is_parameter[2];
    return std::make_unique<MacroDefinition>(std::move(macro));
  }

  absl::StatusOr<StmtPtr> ParseMacro(int line) {
    MacroDefinition macro;
    macro.name = tokens_.current().word;
    RETURN_IF_ERROR(tokens_.Expect(Kind::kName, "the name of the macro"));
    RETURN_IF_ERROR(CheckName(macro.name));
    OnStore(macro.name);
    RETURN_IF_ERROR(ParseSignature(&macro));
    Stmt stmt{.kind = StmtKind::kMacro, .line = line};
    ASSIGN_OR_RETURN(stmt.macro, ParseMacroBody(std::move(macro), "endmacro"));
    return Make(std::move(stmt));
  }

  absl::StatusOr<StmtPtr> ParseCallBlock(int line) {
    MacroDefinition macro;
    macro.name = "caller";
    if (tokens_.IsOperator("(")) RETURN_IF_ERROR(ParseSignature(&macro));
    Stmt stmt{.kind = StmtKind::kCallBlock, .line = line};
    ASSIGN_OR_RETURN(ExprPtr call, expressions_.ParseExpression());
    if (call->kind != ExprKind::kCall) return SyntaxError(line, "expected call");
    stmt.exprs.push_back(std::move(call));
    ASSIGN_OR_RETURN(stmt.macro, ParseMacroBody(std::move(macro), "endcall"));
    return Make(std::move(stmt));
  }

  absl::StatusOr<StmtPtr> ParseFilterBlock(int line) {
    Stmt stmt{.kind = StmtKind::kFilterBlock, .line = line};
    ASSIGN_OR_RETURN(ExprPtr filter, InnerFilterChain(true));
    stmt.exprs.push_back(std::move(filter));
    ASSIGN_OR_RETURN(stmt.body, ParseWholeBlock("endfilter"));
    return Make(std::move(stmt));
  }

  absl::StatusOr<StmtPtr> ParseWith(int line) {
    Stmt stmt{.kind = StmtKind::kWith, .line = line};
    while (!tokens_.Is(Kind::kBlockEnd)) {
      if (!stmt.targets.empty()) RETURN_IF_ERROR(tokens_.ExpectOperator(","));
      ASSIGN_OR_RETURN(Target target, ParseTarget({}, false));
      stmt.targets.push_back(std::move(target));
      RETURN_IF_ERROR(tokens_.ExpectOperator("="));
      ASSIGN_OR_RETURN(ExprPtr value, expressions_.ParseExpression());
      stmt.exprs.push_back(std::move(value));
    }
    ASSIGN_OR_RETURN(stmt.body, ParseWholeBlock("endwith"));
    return Make(std::move(stmt));
  }

  absl::StatusOr<StmtPtr> ParsePrint(int line) {
    Stmt print{.kind = StmtKind::kPrint, .line = line};
    while (!tokens_.Is(Kind::kBlockEnd)) {
      if (!print.exprs.empty()) RETURN_IF_ERROR(tokens_.ExpectOperator(","));
      ASSIGN_OR_RETURN(ExprPtr expr, expressions_.ParseExpression());
      print.exprs.push_back(std::move(expr));
    }
    return Make(std::move(print));
  }

  absl::StatusOr<StmtPtr> ParseLoopExit(int line) {
    const bool is_break = tokens_.Take().word == "break";
    if (breakable_ == 0) return SyntaxError(line, "break or continue outside of a loop");
    return Make({.kind = is_break ? StmtKind::kBreak : StmtKind::kContinue, .line = line});
  }

  absl::StatusOr<StmtPtr> ParseGeneration(int line) {
    Stmt stmt{.kind = StmtKind::kGeneration, .line = line};
    const int breakable = std::exchange(breakable_, 0);  // the reference makes it a macro
    ASSIGN_OR_RETURN(stmt.body, ParseWholeBlock("endgeneration"));
    breakable_ = breakable;
    return Make(std::move(stmt));
  }

  absl::Status CheckName(const std::string& name) const {
    for (const char* constant : {"true", "false", "none", "True", "False", "None"}) {
      if (name == constant) return tokens_.Fail(absl::StrCat("cannot assign to ", name));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Target> NameTarget(const std::string& name) {
    RETURN_IF_ERROR(CheckName(name));
    if (name == "loop" && num_loops_ > 0) return tokens_.Fail("cannot assign to the special variable loop");
    OnStore(name);
    return Target{.kind = Target::Kind::kName, .name = name};
  }

  absl::StatusOr<Target> ToTarget(const Expr& expr) {
    if (expr.kind == ExprKind::kName) return NameTarget(expr.name);
    if (expr.kind != ExprKind::kTuple) return SyntaxError(expr.line, "cannot assign to this expression");
    Target target{.kind = Target::Kind::kTuple};
    for (const ExprPtr& part : expr.parts) {
      ASSIGN_OR_RETURN(Target inner, ToTarget(*part));
      target.parts.push_back(std::move(inner));
    }
    return target;
  }

  absl::StatusOr<Target> ParseTargetPart(bool with_namespace) {
    if (tokens_.Is(Kind::kName)) {
      const std::string name = tokens_.Take().word;
      if (!with_namespace || !tokens_.SkipOperator(".")) return NameTarget(name);
      const std::string attribute = tokens_.current().word;
      RETURN_IF_ERROR(tokens_.Expect(Kind::kName, "a name"));
      RETURN_IF_ERROR(CheckName(name));
      return Target{.kind = Target::Kind::kAttribute, .name = name, .attribute = attribute};
    }
    ASSIGN_OR_RETURN(const ExprPtr expr, expressions_.ParsePrimary());
    return ToTarget(*expr);
  }

  absl::StatusOr<Target> ParseTarget(Names ends, bool with_namespace) {
    Target tuple{.kind = Target::Kind::kTuple};
    bool is_tuple = false;
    while (!tokens_.Is(Kind::kBlockEnd) && !tokens_.Is(Kind::kVariableEnd) && !tokens_.IsOperator(")") &&
           !AtOneOf(ends)) {
      ASSIGN_OR_RETURN(Target part, ParseTargetPart(with_namespace));
      tuple.parts.push_back(std::move(part));
      if (!tokens_.SkipOperator(",")) break;
      is_tuple = true;
    }
    if (is_tuple) return tuple;
    if (tuple.parts.empty()) return tokens_.Fail(absl::StrCat("expected a name, got ", tokens_.Describe()));
    return Target(std::move(tuple.parts[0]));
  }

  TokenStream tokens_;
  ExpressionParser expressions_;
  std::vector<SpecialNames> macros_;  // that are open
  int num_loops_ = 0;                 // that are open
  int breakable_ = 0;                 // loops that a break would leave
};

}  // namespace

absl::StatusOr<Body> Parse(TextView source) {
  ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace switchyard::jinja
