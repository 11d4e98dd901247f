// Guards that interpreter.cc and evaluate.cc share.
#ifndef SWITCHYARD_ENGINE_JINJA_INTERPRETER_PARTS_H_
#define SWITCHYARD_ENGINE_JINJA_INTERPRETER_PARTS_H_

#include <memory>
#include <utility>

#include "engine/jinja/interpreter.h"

namespace switchyard::jinja {

// A new scope inside of `parent`, until the end of the block.
class Interpreter::ScopeGuard {
 public:
  ScopeGuard(Interpreter* interpreter, std::shared_ptr<Scope> parent)
      : interpreter_(*interpreter),
        before_(std::exchange(interpreter->scope_, std::make_shared<Scope>(std::move(parent)))) {}
  ~ScopeGuard() { interpreter_.scope_ = std::move(before_); }
  ScopeGuard(const ScopeGuard&) = delete;
  ScopeGuard& operator=(const ScopeGuard&) = delete;

 private:
  Interpreter& interpreter_;
  std::shared_ptr<Scope> before_;
};

// One level of recursion.
class Interpreter::DepthGuard {
 public:
  explicit DepthGuard(Interpreter* interpreter) : interpreter_(*interpreter) { ++interpreter_.depth_; }
  ~DepthGuard() { --interpreter_.depth_; }
  DepthGuard(const DepthGuard&) = delete;
  DepthGuard& operator=(const DepthGuard&) = delete;

  absl::Status status() const {
    if (interpreter_.depth_ <= kMaxCallDepth) return absl::OkStatus();
    return absl::ResourceExhaustedError("calls macros too deep");
  }

 private:
  Interpreter& interpreter_;
};

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_INTERPRETER_PARTS_H_
