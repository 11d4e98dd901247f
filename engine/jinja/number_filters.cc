#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/filters.h"
#include "engine/jinja/numbers.h"

namespace switchyard::jinja {
namespace {

using Result = absl::StatusOr<Value>;

constexpr int64_t kMaxRoundDigits = 100;

Result Absolute(Runtime&, const Value& subject, Arguments arguments) {
  RETURN_IF_ERROR(Bind("abs", {}, 0, std::move(arguments)).status());
  if (subject.is_float()) return Value::Float(std::fabs(subject.real()));
  if (subject.is_integral()) return subject.integer() < 0 ? Negate(subject) : Value::Int(subject.integer());
  return PythonError(absl::StrCat("bad operand type for abs(): '", subject.TypeName(), "'"));
}

// int(float(value)), or the default where that is no number.
absl::StatusOr<Value> ThroughFloat(const Value& subject, const Value& otherwise) {
  double real = 0.0;
  if (subject.is_string()) {
    const std::optional<double> parsed = ParseFloat(subject.text());
    if (!parsed.has_value()) return otherwise;
    real = *parsed;
  } else if (subject.is_number()) {
    real = subject.real();
  } else {
    return otherwise;
  }
  if (!std::isfinite(real)) return otherwise;
  ASSIGN_OR_RETURN(const int64_t integer, ToInteger(real));
  return Value::Int(integer);
}

Result Int(Runtime&, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("int", {"default", "base"}, 0, std::move(arguments)));
  const Value otherwise = bound[0].value_or(Value::Int(0));
  if (subject.is_undefined()) return subject.UndefinedError();
  if (subject.is_integral()) return Value::Int(subject.integer());
  if (subject.is_float()) {
    if (std::isnan(subject.real())) return otherwise;
    ASSIGN_OR_RETURN(const int64_t integer, ToInteger(subject.real()));
    return Value::Int(integer);
  }
  if (subject.is_string()) {
    const Value base = bound[1].value_or(Value::Int(10));
    if (base.is_integral() && (base.integer() == 0 || (base.integer() >= 2 && base.integer() <= 36))) {
      ASSIGN_OR_RETURN(const std::optional<int64_t> parsed, ParseInteger(subject.text(), base.integer()));
      if (parsed.has_value()) return Value::Int(*parsed);
    }
  }
  return ThroughFloat(subject, otherwise);
}

Result Float(Runtime&, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("float", {"default"}, 0, std::move(arguments)));
  if (subject.is_undefined()) return subject.UndefinedError();
  if (subject.is_number()) return Value::Float(subject.real());
  const std::optional<double> parsed = subject.is_string() ? ParseFloat(subject.text()) : std::nullopt;
  return parsed.has_value() ? Value::Float(*parsed) : bound[0].value_or(Value::Float(0.0));
}

// round(value, digits) of a float: half to even in the decimal digits of the exact value.
double RoundFloat(double value, int64_t digits) {
  if (!std::isfinite(value) || value == 0.0 || digits > kMaxRoundDigits) return value;
  if (digits >= 0) {
    char text[512];
    std::snprintf(text, sizeof(text), "%.*f", static_cast<int>(digits), value);
    return std::strtod(text, nullptr);
  }
  if (digits < -kMaxRoundDigits * 4) return std::copysign(0.0, value);
  const double scale = std::pow(10.0, static_cast<double>(-digits));
  return std::nearbyint(value / scale) * scale;
}

absl::StatusOr<Value> RoundInteger(int64_t value, int64_t digits) {
  if (digits >= 0) return Value::Int(value);
  if (digits < -18) return Value::Int(0);
  int64_t scale = 1;
  for (int64_t i = 0; i < -digits; ++i) scale *= 10;
  const int64_t low = value - ((value % scale) + scale) % scale;
  const int64_t rest = value - low;
  const bool up = rest > scale / 2 || (rest == scale / 2 && (low / scale) % 2 != 0);
  int64_t rounded = low;
  if (up && __builtin_add_overflow(low, scale, &rounded)) return PythonError("an integer leaves the range of 64 bits");
  return Value::Int(rounded);
}

// math.ceil or math.floor of value * 10 ** digits, divided again; a float.
absl::StatusOr<Value> RoundTo(const Value& value, const Value& digits, bool up, Budget* budget) {
  ASSIGN_OR_RETURN(const Value scale, Apply(Operator::kPower, Value::Int(10), digits, budget));
  ASSIGN_OR_RETURN(const Value scaled, Apply(Operator::kMultiply, value, scale, budget));
  if (!scaled.is_number()) return PythonError("must be real number");
  Value whole = scaled;
  if (scaled.is_float()) {
    ASSIGN_OR_RETURN(const int64_t integer, ToInteger(up ? std::ceil(scaled.real()) : std::floor(scaled.real())));
    whole = Value::Int(integer);
  }
  return Apply(Operator::kDivide, whole, scale, budget);
}

Result Round(Runtime& runtime, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("round", {"precision", "method"}, 0, std::move(arguments)));
  const Value digits = bound[0].value_or(Value::Int(0));
  const Text method = bound[1].has_value() && bound[1]->is_string() ? bound[1]->text()
                      : bound[1].has_value()                        ? Text()
                                                                    : U"common";
  if (method != U"common" && method != U"ceil" && method != U"floor") {
    return PythonError("method must be common, ceil or floor");
  }
  if (subject.is_undefined()) return subject.UndefinedError();
  if (method != U"common") return RoundTo(subject, digits, method == U"ceil", runtime.budget());
  if (!subject.is_number()) {
    return PythonError(absl::StrCat("type ", subject.TypeName(), " doesn't define __round__ method"));
  }
  if (digits.is_none()) {
    if (!subject.is_float()) return Value::Int(subject.integer());
    ASSIGN_OR_RETURN(const int64_t integer, ToInteger(std::nearbyint(subject.real())));
    return Value::Int(integer);
  }
  ASSIGN_OR_RETURN(const int64_t places, IntArgument(digits));
  return subject.is_float() ? Value::Float(RoundFloat(subject.real(), places))
                            : RoundInteger(subject.integer(), places);
}

constexpr Filter kFilters[] = {{"abs", Absolute}, {"float", Float}, {"int", Int}, {"round", Round}};

}  // namespace

std::span<const Filter> NumberFilters() { return kFilters; }

}  // namespace switchyard::jinja
