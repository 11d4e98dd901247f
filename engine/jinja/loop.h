// The variable `loop` of a for loop. Looks ahead only when asked, as the reference does.
#ifndef SWITCHYARD_ENGINE_JINJA_LOOP_H_
#define SWITCHYARD_ENGINE_JINJA_LOOP_H_

#include <memory>
#include <optional>
#include <string>

#include "engine/jinja/value.h"

namespace switchyard::jinja {

class Loop : public Object {
 public:
  // `iterable`: what is looped over; `items` runs over it.
  Loop(Value iterable, std::shared_ptr<Iterator> items)
      : iterable_(std::move(iterable)), items_(std::move(items)), depth_(items_->depth() + 1) {}
  std::string TypeName() const override { return "LoopContext"; }
  int depth() const override { return depth_; }
  absl::StatusOr<std::string> Describe(Budget* budget) override;

  // Goes on to the next item; nullopt at the end.
  absl::StatusOr<std::optional<Value>> Advance();
  // nullopt: a loop has no such attribute. cycle and changed are methods.
  absl::StatusOr<std::optional<Value>> Attribute(const std::string& name, Budget* budget);

  absl::StatusOr<Value> Cycle(const std::vector<Value>& values) const;
  absl::StatusOr<bool> Changed(const std::vector<Value>& values, Budget* budget);

 private:
  absl::StatusOr<std::optional<Value>> Peek();
  absl::StatusOr<int64_t> LengthOf(Budget* budget);

  const Value iterable_;
  std::shared_ptr<Iterator> items_;
  const int depth_;
  int64_t index0_ = -1;
  std::optional<int64_t> length_;
  std::optional<Value> after_, current_, before_;
  std::optional<std::vector<Value>> last_changed_;
};

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_LOOP_H_
