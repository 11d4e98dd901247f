#include "engine/jinja/attribute_path.h"

#include <algorithm>

#include "engine/base/status_macros.h"
#include "engine/jinja/numbers.h"
#include "engine/jinja/text.h"

namespace switchyard::jinja {

AttributePath::AttributePath(const Value& attribute) {
  if (attribute.is_none()) return;
  if (!attribute.is_string()) {
    parts_.push_back(attribute);
    return;
  }
  for (const TextView part : Split(attribute.text(), U".", -1)) {
    const bool is_number = !part.empty() && std::all_of(part.begin(), part.end(), IsDecimal);
    const absl::StatusOr<std::optional<int64_t>> index = ParseInteger(part, 10);
    parts_.push_back(is_number && index.ok() && index->has_value() ? Value::Int(**index) : Value::Str(Text(part)));
  }
}

absl::StatusOr<Value> AttributePath::Get(Runtime& runtime, Value item, const Value& otherwise) const {
  for (const Value& part : parts_) {
    ASSIGN_OR_RETURN(item, GetItem(runtime, item, part));
    if (item.is_undefined() && !otherwise.is_none()) item = otherwise;
  }
  return item;
}

Value IgnoreCase(const Value& value) {
  return value.is_string() ? Value::Str(Lower(value.text()), value.is_markup()) : value;
}

}  // namespace switchyard::jinja
