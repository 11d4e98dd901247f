// Truth, hashes, equality, order and membership.
#include <cmath>
#include <functional>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/operators.h"
#include "engine/jinja/repr.h"
#include "engine/jinja/text.h"

namespace switchyard::jinja {
namespace {

// -1, 0, 1, or nullopt with a nan. Exact, also where an integer has more digits than a double.
std::optional<int> CompareNumbers(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) {
    return a.integer() < b.integer() ? -1 : a.integer() > b.integer() ? 1 : 0;
  }
  if (a.is_float() && b.is_float()) {
    if (std::isnan(a.real()) || std::isnan(b.real())) return std::nullopt;
    return a.real() < b.real() ? -1 : a.real() > b.real() ? 1 : 0;
  }
  if (a.is_float()) {
    const std::optional<int> reversed = CompareNumbers(b, a);
    return reversed.has_value() ? std::optional<int>(-*reversed) : std::nullopt;
  }
  const double real = b.real();
  if (std::isnan(real)) return std::nullopt;
  if (real >= 0x1p63) return -1;
  if (real < -0x1p63) return 1;
  const double floor = std::floor(real);
  const int64_t whole = static_cast<int64_t>(floor);
  if (a.integer() != whole) return a.integer() < whole ? -1 : 1;
  return real > floor ? -1 : 0;
}

absl::StatusOr<bool> EqualItems(const std::vector<Value>& a, const std::vector<Value>& b, Budget* budget) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].IsSame(b[i])) continue;
    ASSIGN_OR_RETURN(const bool equal, Equals(a[i], b[i], budget));
    if (!equal) return false;
  }
  return true;
}

absl::StatusOr<bool> EqualDicts(const Dict& a, const Dict& b, Budget* budget) {
  if (a.size() != b.size()) return false;
  for (const auto& [key, value] : a.entries()) {
    ASSIGN_OR_RETURN(const Value* other, b.Find(key, budget));
    if (other == nullptr) return false;
    ASSIGN_OR_RETURN(const bool equal, Equals(value, *other, budget));
    if (!equal) return false;
  }
  return true;
}

bool EqualRanges(const Range& a, const Range& b) {
  const int64_t size = a.size();
  if (size != b.size()) return false;
  return size == 0 || (a.start == b.start && (size == 1 || a.step == b.step));
}

absl::Status NoOrder(const Value& a, const Value& b, const char* op) {
  if (a.is_undefined()) return a.UndefinedError();
  if (b.is_undefined()) return b.UndefinedError();
  return PythonError(
      absl::StrCat("'", op, "' not supported between instances of '", a.TypeName(), "' and '", b.TypeName(), "'"));
}

absl::StatusOr<bool> CompareLess(const Value& a, const Value& b, bool or_equal, Budget* budget);

absl::StatusOr<bool> CompareItems(const std::vector<Value>& a, const std::vector<Value>& b, bool or_equal,
                                  Budget* budget) {
  for (size_t i = 0; i < a.size() && i < b.size(); ++i) {
    ASSIGN_OR_RETURN(const bool equal, Equals(a[i], b[i], budget));
    if (!equal) return CompareLess(a[i], b[i], or_equal, budget);
  }
  return or_equal ? a.size() <= b.size() : a.size() < b.size();
}

absl::StatusOr<bool> CompareLess(const Value& a, const Value& b, bool or_equal, Budget* budget) {
  RETURN_IF_ERROR(budget->Spend());
  if (a.is_number() && b.is_number()) {
    const std::optional<int> order = CompareNumbers(a, b);
    return order.has_value() && (*order < 0 || (or_equal && *order == 0));
  }
  if (a.is_string() && b.is_string()) {
    RETURN_IF_ERROR(budget->Spend(static_cast<int64_t>(std::min(a.text().size(), b.text().size()) / 16)));
    return or_equal ? a.text() <= b.text() : a.text() < b.text();
  }
  if (a.is_sequence() && b.is_sequence() && a.is_tuple() == b.is_tuple()) {
    return CompareItems(a.items(), b.items(), or_equal, budget);
  }
  return NoOrder(a, b, or_equal ? "<=" : "<");
}

}  // namespace

bool IsTrue(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (value.is_number()) return value.is_float() ? value.real() != 0.0 : value.integer() != 0;
  return HasLength(value) ? Length(value).value() > 0 : true;
}

bool HasLength(const Value& value) {
  return value.is_undefined() || value.is_string() || value.is_sequence() || value.is_dict() ||
         value.As<Range>() != nullptr || value.As<DictView>() != nullptr;
}

absl::StatusOr<int64_t> Length(const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.is_string()) return static_cast<int64_t>(value.text().size());
  if (value.is_sequence()) return static_cast<int64_t>(value.items().size());
  if (value.is_dict()) return static_cast<int64_t>(value.dict().size());
  if (const auto* range = value.As<Range>(); range != nullptr) return range->size();
  if (const auto* view = value.As<DictView>(); view != nullptr) return static_cast<int64_t>(view->dict->size());
  return PythonError(absl::StrCat("object of type '", value.TypeName(), "' has no len()"));
}

size_t HashText(TextView text) {
  // Seeded per process: keys come from outside.
  return absl::HashOf(std::string_view(reinterpret_cast<const char*>(text.data()), text.size() * sizeof(char32_t)));
}

absl::StatusOr<size_t> Hash(const Value& value, Budget* budget) {
  RETURN_IF_ERROR(budget->Spend(value.is_string() ? 1 + static_cast<int64_t>(value.text().size() / 16) : 1));
  if (value.is_string()) return HashText(value.text());
  if (value.is_float() && value.real() != std::floor(value.real())) return std::hash<double>()(value.real());
  if (value.is_float() && std::abs(value.real()) >= 0x1p63) return std::hash<double>()(value.real());
  if (value.is_number()) {
    return std::hash<int64_t>()(value.is_float() ? static_cast<int64_t>(value.real()) : value.integer());
  }
  if (value.is_undefined() || value.is_none()) return size_t{value.is_none() ? 1u : 2u};
  if (value.is_object()) return std::hash<const void*>()(&value.object());
  if (!value.is_tuple()) return PythonError(absl::StrCat("unhashable type: '", value.TypeName(), "'"));
  size_t hash = value.items().size();
  for (const Value& item : value.items()) {
    ASSIGN_OR_RETURN(const size_t part, Hash(item, budget));
    hash = hash * 1000003 ^ part;
  }
  return hash;
}

absl::StatusOr<bool> Equals(const Value& a, const Value& b, Budget* budget) {
  RETURN_IF_ERROR(budget->Spend());
  if (a.is_number() && b.is_number()) {
    const std::optional<int> order = CompareNumbers(a, b);
    return order.has_value() && *order == 0;
  }
  if (a.is_string() && b.is_string()) {
    RETURN_IF_ERROR(budget->Spend(static_cast<int64_t>(std::min(a.text().size(), b.text().size()) / 16)));
    return a.text() == b.text();
  }
  if (a.is_sequence() && b.is_sequence()) {
    if (a.is_tuple() != b.is_tuple()) return false;
    return EqualItems(a.items(), b.items(), budget);
  }
  if (a.is_dict() && b.is_dict()) return EqualDicts(a.dict(), b.dict(), budget);
  const auto *range_a = a.As<Range>(), *range_b = b.As<Range>();
  if (range_a != nullptr && range_b != nullptr) return EqualRanges(*range_a, *range_b);
  return a.IsSame(b);
}

absl::StatusOr<bool> Less(const Value& a, const Value& b, Budget* budget) { return CompareLess(a, b, false, budget); }

absl::StatusOr<bool> LessOrEqual(const Value& a, const Value& b, Budget* budget) {
  return CompareLess(a, b, true, budget);
}

absl::StatusOr<bool> Contains(const Value& whole, const Value& part, Budget* budget) {
  if (whole.is_string()) {
    if (!part.is_string()) {
      return PythonError(absl::StrCat("'in <string>' requires string as left operand, not ", part.TypeName()));
    }
    RETURN_IF_ERROR(budget->Spend(static_cast<int64_t>(whole.text().size() / 16)));
    return FindText(whole.text(), part.text()) != TextView::npos;
  }
  if (whole.is_dict()) {
    ASSIGN_OR_RETURN(const Value* found, whole.dict().Find(part, budget));
    return found != nullptr;
  }
  if (!IsIterable(whole)) {
    return PythonError(absl::StrCat("argument of type '", whole.TypeName(), "' is not iterable"));
  }
  ASSIGN_OR_RETURN(const std::shared_ptr<Iterator> items, Iterate(whole, budget));
  while (true) {
    ASSIGN_OR_RETURN(const std::optional<Value> item, items->Next());
    if (!item.has_value()) return false;
    ASSIGN_OR_RETURN(const bool equal, Equals(*item, part, budget));
    if (equal) return true;
  }
}

}  // namespace switchyard::jinja
