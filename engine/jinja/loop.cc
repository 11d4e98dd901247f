#include "engine/jinja/loop.h"

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/operators.h"

namespace switchyard::jinja {

absl::StatusOr<std::string> Loop::Describe(Budget* budget) {
  ASSIGN_OR_RETURN(const int64_t length, LengthOf(budget));
  return absl::StrCat("<LoopContext ", index0_ + 1, "/", length, ">");
}

absl::StatusOr<std::optional<Value>> Loop::Advance() {
  std::optional<Value> item = std::move(after_);
  after_.reset();
  if (!item.has_value()) {
    ASSIGN_OR_RETURN(item, items_->Next());
  }
  if (!item.has_value()) return item;
  ++index0_;
  before_ = std::move(current_);
  current_ = item;
  return item;
}

absl::StatusOr<std::optional<Value>> Loop::Peek() {
  if (!after_.has_value()) {
    ASSIGN_OR_RETURN(after_, items_->Next());
  }
  return after_;
}

absl::StatusOr<int64_t> Loop::LengthOf(Budget* budget) {
  if (length_.has_value()) return *length_;
  if (HasLength(iterable_)) {
    ASSIGN_OR_RETURN(length_, Length(iterable_));
    return *length_;
  }
  ASSIGN_OR_RETURN(std::vector<Value> rest, Collect(Value::Of(std::static_pointer_cast<Object>(items_)), budget));
  length_ = static_cast<int64_t>(rest.size()) + index0_ + 1 + (after_.has_value() ? 1 : 0);
  ASSIGN_OR_RETURN(const Value list, Value::List(std::move(rest), budget));
  ASSIGN_OR_RETURN(items_, Iterate(list, budget));
  return *length_;
}

absl::StatusOr<std::optional<Value>> Loop::Attribute(const std::string& name, Budget* budget) {
  if (name == "index") return Value::Int(index0_ + 1);
  if (name == "index0") return Value::Int(index0_);
  if (name == "first") return Value::Bool(index0_ == 0);
  if (name == "depth") return Value::Int(1);
  if (name == "depth0") return Value::Int(0);
  if (name == "previtem") {
    if (index0_ == 0 || !before_.has_value()) return Value::Undefined("there is no previous item");
    return before_;
  }
  if (name == "nextitem" || name == "last") {
    ASSIGN_OR_RETURN(std::optional<Value> next, Peek());
    if (name == "last") return Value::Bool(!next.has_value());
    if (!next.has_value()) return Value::Undefined("there is no next item");
    return next;
  }
  if (name != "length" && name != "revindex" && name != "revindex0") return std::nullopt;
  ASSIGN_OR_RETURN(const int64_t length, LengthOf(budget));
  return Value::Int(name == "length" ? length : name == "revindex" ? length - index0_ : length - index0_ - 1);
}

absl::StatusOr<Value> Loop::Cycle(const std::vector<Value>& values) const {
  if (values.empty()) return PythonError("no items for cycling given");
  return values[static_cast<size_t>(index0_) % values.size()];
}

absl::StatusOr<bool> Loop::Changed(const std::vector<Value>& values, Budget* budget) {
  bool same = last_changed_.has_value() && last_changed_->size() == values.size();
  for (size_t i = 0; same && i < values.size(); ++i) {
    ASSIGN_OR_RETURN(same, Equals((*last_changed_)[i], values[i], budget));
  }
  if (!same) last_changed_ = values;
  return !same;
}

}  // namespace switchyard::jinja
