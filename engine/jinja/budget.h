// Counts what a rendering has cost so far. RESOURCE_EXHAUSTED when it is too much.
#ifndef SWITCHYARD_ENGINE_JINJA_BUDGET_H_
#define SWITCHYARD_ENGINE_JINJA_BUDGET_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/jinja/limits.h"

namespace switchyard::jinja {

class Budget {
 public:
  explicit Budget(const RenderLimits& limits) : limits_(limits) {}

  // Work: one step is one operation, or one element or 16 characters of a long one.
  absl::Status Spend(int64_t steps = 1) {
    steps_ += steps;
    if (steps_ <= limits_.max_steps) return absl::OkStatus();
    return absl::ResourceExhaustedError(absl::StrCat("takes more than ", limits_.max_steps, " steps"));
  }

  // Memory: call before so many characters, or elements of a list, are made. Also counts as work.
  absl::Status Grow(int64_t chars) {
    if (chars > limits_.max_allocated_chars - chars_) {
      return absl::ResourceExhaustedError(
          absl::StrCat("makes more than ", limits_.max_allocated_chars, " characters of text"));
    }
    chars_ += chars;
    return Spend(1 + chars / 16);
  }

  const RenderLimits& limits() const { return limits_; }

 private:
  const RenderLimits limits_;
  int64_t steps_ = 0;
  int64_t chars_ = 0;
};

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_BUDGET_H_
