// + - * / // % ** as Python has them.
#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/operators.h"
#include "engine/jinja/printf.h"
#include "engine/jinja/text.h"

namespace switchyard::jinja {
namespace {

const char* Symbol(Operator op) {
  switch (op) {
    case Operator::kAdd:
      return "+";
    case Operator::kSubtract:
      return "-";
    case Operator::kMultiply:
      return "*";
    case Operator::kDivide:
      return "/";
    case Operator::kFloorDivide:
      return "//";
    case Operator::kModulo:
      return "%";
    case Operator::kPower:
      return "**";
  }
  return "?";
}

absl::Status Overflow() { return PythonError("an integer leaves the range of 64 bits"); }
absl::Status DividedByZero() { return PythonError("division by zero"); }

absl::StatusOr<Value> IntegerPower(int64_t base, int64_t exponent) {
  if (exponent < 0) {
    if (base == 0) return PythonError("0.0 cannot be raised to a negative power");
    return Value::Float(std::pow(static_cast<double>(base), static_cast<double>(exponent)));
  }
  int64_t result = 1;
  while (exponent > 0) {
    if (exponent % 2 == 1 && __builtin_mul_overflow(result, base, &result)) return Overflow();
    exponent /= 2;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) return Overflow();
  }
  return Value::Int(result);
}

int64_t FloorDivide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return a % b != 0 && (a % b < 0) != (b < 0) ? quotient - 1 : quotient;
}

absl::StatusOr<Value> ApplyIntegers(Operator op, int64_t a, int64_t b) {
  int64_t result = 0;
  switch (op) {
    case Operator::kAdd:
      return __builtin_add_overflow(a, b, &result) ? absl::StatusOr<Value>(Overflow()) : Value::Int(result);
    case Operator::kSubtract:
      return __builtin_sub_overflow(a, b, &result) ? absl::StatusOr<Value>(Overflow()) : Value::Int(result);
    case Operator::kMultiply:
      return __builtin_mul_overflow(a, b, &result) ? absl::StatusOr<Value>(Overflow()) : Value::Int(result);
    case Operator::kPower:
      return IntegerPower(a, b);
    default:
      break;
  }
  if (b == 0) return DividedByZero();
  if (op == Operator::kDivide) return Value::Float(static_cast<double>(a) / static_cast<double>(b));
  if (b == -1) {  // INT64_MIN / -1 traps
    if (op == Operator::kModulo) return Value::Int(0);
    return __builtin_sub_overflow(int64_t{0}, a, &result) ? absl::StatusOr<Value>(Overflow()) : Value::Int(result);
  }
  const int64_t quotient = FloorDivide(a, b);
  return Value::Int(op == Operator::kFloorDivide ? quotient : a - quotient * b);
}

struct Division {
  double quotient, remainder;
};

// As CPython's float_divmod: the remainder has the sign of the divisor.
Division DivideFloats(double a, double b) {
  double remainder = std::fmod(a, b);
  double quotient = (a - remainder) / b;
  if (remainder != 0.0) {
    if ((b < 0) != (remainder < 0)) {
      remainder += b;
      quotient -= 1.0;
    }
  } else {
    remainder = std::copysign(0.0, b);
  }
  if (quotient == 0.0) return {std::copysign(0.0, a / b), remainder};
  double floor = std::floor(quotient);
  if (quotient - floor > 0.5) floor += 1.0;
  return {floor, remainder};
}

absl::StatusOr<Value> FloatPower(double a, double b) {
  if (a == 0.0 && b < 0.0) return PythonError("0.0 cannot be raised to a negative power");
  if (a < 0.0 && std::isfinite(a) && std::isfinite(b) && b != std::floor(b)) {
    return PythonError("the power is a complex number, which is not supported");
  }
  const double result = std::pow(a, b);
  if (std::isinf(result) && std::isfinite(a) && std::isfinite(b)) return PythonError("the power is too large");
  return Value::Float(result);
}

absl::StatusOr<Value> ApplyFloats(Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return Value::Float(a + b);
    case Operator::kSubtract:
      return Value::Float(a - b);
    case Operator::kMultiply:
      return Value::Float(a * b);
    case Operator::kPower:
      return FloatPower(a, b);
    default:
      break;
  }
  if (b == 0.0) return DividedByZero();
  if (op == Operator::kDivide) return Value::Float(a / b);
  const Division division = DivideFloats(a, b);
  return Value::Float(op == Operator::kFloorDivide ? division.quotient : division.remainder);
}

// Markup escapes what is added to it.
absl::StatusOr<Value> AddText(const Value& a, const Value& b, Budget* budget) {
  const bool markup = a.is_markup() || b.is_markup();
  const auto part = [&](const Value& value) {
    return markup && !value.is_markup() ? EscapeHtml(value.text()) : value.text();
  };
  RETURN_IF_ERROR(budget->Grow(static_cast<int64_t>(a.text().size() + b.text().size())));
  return Value::Str(part(a) + part(b), markup);
}

absl::StatusOr<Value> Repeat(const Value& value, int64_t count, Budget* budget) {
  ASSIGN_OR_RETURN(const int64_t size, Length(value));
  count = size == 0 ? 0 : std::max<int64_t>(count, 0);
  int64_t total = 0;
  if (__builtin_mul_overflow(size, count, &total)) total = INT64_MAX;
  RETURN_IF_ERROR(budget->Grow(total));
  if (value.is_string()) {
    Text text;
    text.reserve(static_cast<size_t>(total));
    for (int64_t i = 0; i < count; ++i) text += value.text();
    return Value::Str(std::move(text), value.is_markup());
  }
  std::vector<Value> items;
  for (int64_t i = 0; i < count; ++i) items.insert(items.end(), value.items().begin(), value.items().end());
  return value.is_tuple() ? Value::Tuple(std::move(items), budget) : Value::List(std::move(items), budget);
}

absl::StatusOr<Value> Concatenate(const Value& a, const Value& b, Budget* budget) {
  RETURN_IF_ERROR(budget->Grow(static_cast<int64_t>(4 * (a.items().size() + b.items().size()))));
  std::vector<Value> items = a.items();
  items.insert(items.end(), b.items().begin(), b.items().end());
  return a.is_tuple() ? Value::Tuple(std::move(items), budget) : Value::List(std::move(items), budget);
}

bool Repeats(const Value& value) { return value.is_string() || value.is_sequence(); }

}  // namespace

absl::StatusOr<Value> Apply(Operator op, const Value& a, const Value& b, Budget* budget) {
  if (op == Operator::kModulo && a.is_string()) return FormatPercent(a, b, budget);
  if (a.is_undefined()) return a.UndefinedError();
  if (b.is_undefined()) return b.UndefinedError();
  if (a.is_integral() && b.is_integral()) return ApplyIntegers(op, a.integer(), b.integer());
  if (a.is_number() && b.is_number()) return ApplyFloats(op, a.real(), b.real());
  if (op == Operator::kAdd && a.is_string() && b.is_string()) return AddText(a, b, budget);
  if (op == Operator::kAdd && a.is_sequence() && b.is_sequence() && a.is_tuple() == b.is_tuple()) {
    return Concatenate(a, b, budget);
  }
  if (op == Operator::kMultiply && Repeats(a) && b.is_integral()) return Repeat(a, b.integer(), budget);
  if (op == Operator::kMultiply && a.is_integral() && Repeats(b)) return Repeat(b, a.integer(), budget);
  return PythonError(
      absl::StrCat("unsupported operand types for ", Symbol(op), ": '", a.TypeName(), "' and '", b.TypeName(), "'"));
}

absl::StatusOr<Value> Negate(const Value& value) {
  if (value.is_undefined()) return value.UndefinedError();
  if (value.is_float()) return Value::Float(-value.real());
  if (value.is_integral()) return ApplyIntegers(Operator::kSubtract, 0, value.integer());
  return PythonError(absl::StrCat("bad operand type for unary -: '", value.TypeName(), "'"));
}

absl::StatusOr<Value> Plus(const Value& value) {
  if (value.is_undefined()) return value.UndefinedError();
  if (value.is_float()) return value;
  if (value.is_integral()) return Value::Int(value.integer());
  return PythonError(absl::StrCat("bad operand type for unary +: '", value.TypeName(), "'"));
}

absl::StatusOr<int64_t> ToInteger(double value) {
  if (std::isnan(value)) return PythonError("cannot convert float NaN to integer");
  if (std::isinf(value)) return PythonError("cannot convert float infinity to integer");
  if (value >= 0x1p63 || value < -0x1p63) return Overflow();
  return static_cast<int64_t>(value);
}

}  // namespace switchyard::jinja
