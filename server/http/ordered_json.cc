#include "server/http/ordered_json.h"

#include <nlohmann/json.hpp>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/base/status_macros.h"

namespace switchyard::http {
namespace {

using Json = nlohmann::ordered_json;

// The stack holds the objects and arrays that are still open.
class Builder : public JsonVisitor {
 public:
  absl::Status Null() override { return Add(Json(nullptr)); }
  absl::Status Bool(bool value) override { return Add(Json(value)); }
  absl::Status Negative(int64_t value) override { return Add(Json(value)); }
  absl::Status Unsigned(uint64_t value) override { return Add(Json(value)); }
  absl::Status Real(double value) override { return Add(Json(value)); }
  absl::Status String(std::string value) override { return Add(Json(std::move(value))); }
  absl::Status BeginObject() override { return Open(Json::object()); }
  absl::Status BeginArray() override { return Open(Json::array()); }
  absl::Status EndObject() override { return Close(); }
  absl::Status EndArray() override { return Close(); }

  absl::Status Key(std::string key) override {
    if (!open_.back().keys.insert(key).second) {
      return absl::InvalidArgumentError("duplicate key \"" + Printable(key) + "\"");
    }
    // The object is a vector of pairs; its own insert looks through all of them.
    open_.back().container->get_ref<Json::object_t&>().emplace_back(std::move(key), nullptr);
    return absl::OkStatus();
  }

  Json Take() { return std::move(root_); }

 private:
  struct OpenContainer {
    Json* container;
    std::unordered_set<std::string> keys = {};  // of an object
  };

  Json* Place(Json value) {
    if (open_.empty()) return &(root_ = std::move(value));
    Json* const container = open_.back().container;
    if (container->is_object()) {
      return &(container->get_ref<Json::object_t&>().back().second = std::move(value));
    }
    auto& elements = container->get_ref<Json::array_t&>();
    elements.push_back(std::move(value));
    return &elements.back();
  }
  absl::Status Add(Json value) {
    Place(std::move(value));
    return absl::OkStatus();
  }
  absl::Status Open(Json value) {
    open_.push_back({Place(std::move(value))});
    return absl::OkStatus();
  }
  absl::Status Close() {
    open_.pop_back();
    return absl::OkStatus();
  }

  Json root_;
  std::vector<OpenContainer> open_;
};

}  // namespace

absl::StatusOr<Json> ParseOrderedJson(std::string_view text, const JsonLimits& limits, const std::string& what) {
  Builder builder;
  RETURN_IF_ERROR(VisitJson(text, limits, what, &builder));
  return builder.Take();
}

std::string ToText(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace switchyard::http
