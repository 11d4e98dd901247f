#include "engine/jinja/from_json.h"

#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace switchyard::jinja {
namespace {

class Builder : public JsonVisitor {
 public:
  explicit Builder(size_t max_values)
      : budget_({.max_steps = Bound(max_values), .max_allocated_chars = Bound(max_values)}) {}

  absl::Status Null() override { return Add(Value::None()); }
  absl::Status Bool(bool value) override { return Add(Value::Bool(value)); }
  absl::Status Negative(int64_t value) override { return Add(Value::Int(value)); }
  absl::Status Real(double value) override { return Add(Value::Float(value)); }
  absl::Status String(std::string value) override { return Add(Value::Utf8(value)); }
  absl::Status Unsigned(uint64_t value) override {
    if (value > static_cast<uint64_t>(INT64_MAX)) return PythonError("has an integer beyond 64 bits");
    return Add(Value::Int(static_cast<int64_t>(value)));
  }
  absl::Status BeginArray() override {
    open_.push_back({});
    return absl::OkStatus();
  }
  absl::Status BeginObject() override {
    open_.push_back({.dict = std::make_shared<Dict>()});
    return absl::OkStatus();
  }
  absl::Status Key(std::string key) override {
    if (open_.back().dict->FindText(FromUtf8(key)) != nullptr) {
      return PythonError(absl::StrCat("duplicate key \"", Printable(key), "\""));
    }
    open_.back().key = std::move(key);
    return absl::OkStatus();
  }
  absl::Status EndArray() override {
    std::vector<Value> items = std::move(open_.back().items);
    open_.pop_back();
    ASSIGN_OR_RETURN(Value list, Value::List(std::move(items), &budget_));
    return Add(std::move(list));
  }
  absl::Status EndObject() override {
    std::shared_ptr<const Dict> dict = std::move(open_.back().dict);
    open_.pop_back();
    RETURN_IF_ERROR(CheckDepth(dict->depth()));
    return Add(Value::Of(std::move(dict)));
  }

  Value Take() { return std::move(root_); }

 private:
  struct Open {
    std::shared_ptr<Dict> dict = nullptr;  // null: a list
    std::string key = {};
    std::vector<Value> items = {};
  };

  // Enough for all that the parser lets through.
  static int64_t Bound(size_t max_values) { return 64 + 64 * static_cast<int64_t>(max_values); }

  absl::Status Add(Value value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (open_.back().dict != nullptr) {
      open_.back().dict->SetText(open_.back().key, std::move(value));
    } else {
      open_.back().items.push_back(std::move(value));
    }
    return absl::OkStatus();
  }

  Budget budget_;
  Value root_;
  std::vector<Open> open_;
};

}  // namespace

absl::StatusOr<Value> FromJson(std::string_view text, const JsonLimits& limits, const std::string& what) {
  Builder builder(limits.max_values);
  RETURN_IF_ERROR(VisitJson(text, limits, what, &builder));
  return builder.Take();
}

}  // namespace switchyard::jinja
