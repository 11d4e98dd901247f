#include "engine/jinja/scopes.h"

#include "absl/container/flat_hash_set.h"

namespace switchyard::jinja {
namespace {

using Names = absl::flat_hash_set<std::string>;

// The names that one scope itself uses, in the order of jinja2.idtracking: not those of the scopes inside of it.
class ScopeNames {
 public:
  explicit ScopeNames(const ScopeNames* parent) : parent_(parent) {}

  void AddParameter(const Target& target) {
    if (target.kind == Target::Kind::kName) used_.insert(target.name);
    for (const Target& part : target.parts) AddParameter(part);
  }
  void AddParameter(const std::string& name) { used_.insert(name); }

  // `conditional`: inside of an if, which may leave the name as it was.
  void Visit(const Body& body, bool conditional) {
    for (const StmtPtr& stmt : body.statements) Visit(*stmt, conditional);
  }

  std::vector<std::string> hidden() const { return hidden_; }

 private:
  bool IsKnownOutside(const std::string& name) const {
    for (const ScopeNames* scope = parent_; scope != nullptr; scope = scope->parent_) {
      if (scope->used_.contains(name)) return true;
    }
    return false;
  }

  void Store(const std::string& name, bool conditional) {
    if (!used_.insert(name).second || conditional || IsKnownOutside(name)) return;
    hidden_.push_back(name);
  }
  void Store(const Target& target, bool conditional) {
    if (target.kind == Target::Kind::kName) Store(target.name, conditional);
    if (target.kind == Target::Kind::kAttribute) used_.insert(target.name);
    for (const Target& part : target.parts) Store(part, conditional);
  }

  void Load(const ExprPtr& expr) {
    if (expr == nullptr) return;
    if (expr->kind == ExprKind::kName) used_.insert(expr->name);
    for (const ExprPtr& part : expr->parts) Load(part);
    for (const ExprPtr& value : expr->arguments.positional) Load(value);
    for (const auto& [name, value] : expr->arguments.named) Load(value);
    Load(expr->arguments.star);
    Load(expr->arguments.double_star);
  }

  void Visit(const Stmt& stmt, bool conditional) {
    switch (stmt.kind) {
      case StmtKind::kFor:
        return Load(stmt.exprs[0]);
      case StmtKind::kMacro:
        return Store(stmt.macro->name, conditional);
      case StmtKind::kSetBlock:
        return Store(stmt.target, conditional);
      default:
        break;
    }
    for (size_t i = 0; i < stmt.exprs.size(); ++i) {
      Load(stmt.exprs[i]);
      if (stmt.kind == StmtKind::kIf) Visit(stmt.bodies[i], true);
    }
    if (stmt.kind == StmtKind::kIf) Visit(stmt.else_body, true);
    if (stmt.kind == StmtKind::kSet) Store(stmt.target, conditional);
  }

  const ScopeNames* const parent_;
  Names used_;
  std::vector<std::string> hidden_;
};

void FindInScope(Body* body, ScopeNames* names);

void FindInside(Body* body, const ScopeNames& names);

void FindInStatement(Stmt* stmt, const ScopeNames& parent) {
  ScopeNames names(&parent);
  if (stmt->kind == StmtKind::kIf) {
    for (Body& body : stmt->bodies) FindInside(&body, parent);
    return FindInside(&stmt->else_body, parent);
  }
  if (stmt->macro != nullptr) {
    for (const auto& [name, value] : stmt->macro->parameters) names.AddParameter(name);
    for (const char* name : {"caller", "kwargs", "varargs"}) names.AddParameter(name);
    return FindInScope(&stmt->macro->body, &names);
  }
  if (stmt->kind == StmtKind::kFor) {
    names.AddParameter("loop");
    names.AddParameter(stmt->target);
    ScopeNames else_names(&parent);
    FindInScope(&stmt->else_body, &else_names);
  }
  for (const Target& target : stmt->targets) names.AddParameter(target);
  FindInScope(&stmt->body, &names);
}

void FindInside(Body* body, const ScopeNames& names) {
  for (const StmtPtr& stmt : body->statements) FindInStatement(stmt.get(), names);
}

void FindInScope(Body* body, ScopeNames* names) {
  names->Visit(*body, false);
  body->hidden_names = names->hidden();
  FindInside(body, *names);
}

}  // namespace

void FindHiddenNames(Body* template_body) {
  ScopeNames names(nullptr);
  FindInScope(template_body, &names);
}

}  // namespace switchyard::jinja
