#include "engine/jinja/predicates.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/filters.h"
#include "engine/jinja/loop.h"
#include "engine/jinja/repr.h"
#include "engine/jinja/text.h"

namespace switchyard::jinja {
namespace {

using Result = absl::StatusOr<bool>;

template <bool (*holds)(const Value&)>
Result Plain(Runtime&, const Value& subject, Arguments arguments) {
  RETURN_IF_ERROR(Bind("test", {}, 0, std::move(arguments)).status());
  return holds(subject);
}

bool IsDefined(const Value& value) { return !value.is_undefined(); }
bool IsUndefined(const Value& value) { return value.is_undefined(); }
bool IsNone(const Value& value) { return value.is_none(); }
bool IsBoolean(const Value& value) { return value.is_bool(); }
bool IsTrueItself(const Value& value) { return value.is_bool() && value.boolean(); }
bool IsFalseItself(const Value& value) { return value.is_bool() && !value.boolean(); }
bool IsInteger(const Value& value) { return value.is_int(); }
bool IsFloat(const Value& value) { return value.is_float(); }
bool IsNumber(const Value& value) { return value.is_number(); }
bool IsString(const Value& value) { return value.is_string(); }
bool IsMapping(const Value& value) { return value.is_dict(); }
bool IsSequence(const Value& value) { return HasLength(value) && value.As<DictView>() == nullptr; }
bool IsIterableValue(const Value& value) { return IsIterable(value) || value.As<Loop>() != nullptr; }
bool IsCallable(const Value& value) { return value.As<Function>() != nullptr || value.is_undefined(); }
bool IsEscaped(const Value& value) { return value.is_markup(); }

template <bool (*is_case)(char32_t), bool (*is_other)(char32_t)>
Result HasCase(Runtime& runtime, const Value& subject, Arguments arguments) {
  RETURN_IF_ERROR(Bind("test", {}, 0, std::move(arguments)).status());
  ASSIGN_OR_RETURN(const Text text, Str(subject, runtime.budget()));
  return std::any_of(text.begin(), text.end(), is_case) && std::none_of(text.begin(), text.end(), is_other);
}

// subject % number == remainder
Result HasRemainder(Runtime& runtime, const Value& subject, const Value& number, int64_t remainder) {
  ASSIGN_OR_RETURN(const Value rest, Apply(Operator::kModulo, subject, number, runtime.budget()));
  return Equals(rest, Value::Int(remainder), runtime.budget());
}

template <int64_t remainder>
Result Parity(Runtime& runtime, const Value& subject, Arguments arguments) {
  RETURN_IF_ERROR(Bind("test", {}, 0, std::move(arguments)).status());
  return HasRemainder(runtime, subject, Value::Int(2), remainder);
}

Result DivisibleBy(Runtime& runtime, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("divisibleby", {"num"}, 1, std::move(arguments)));
  return HasRemainder(runtime, subject, *bound[0], 0);
}

using Relation = Result (*)(const Value&, const Value&, Budget*);
template <Relation relation, bool swapped, bool negated>
Result Compared(Runtime& runtime, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("test", {""}, 1, std::move(arguments)));
  ASSIGN_OR_RETURN(const bool holds, swapped ? relation(*bound[0], subject, runtime.budget())
                                             : relation(subject, *bound[0], runtime.budget()));
  return holds != negated;
}

Result In(Runtime& runtime, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("in", {"seq"}, 1, std::move(arguments)));
  return Contains(*bound[0], subject, runtime.budget());
}

Result SameAs(Runtime&, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("sameas", {"other"}, 1, std::move(arguments)));
  return subject.IsSame(*bound[0]);
}

Result IsFilterName(Runtime& runtime, const Value& subject, Arguments arguments) {
  RETURN_IF_ERROR(Bind("filter", {}, 0, std::move(arguments)).status());
  RETURN_IF_ERROR(Hash(subject, runtime.budget()).status());
  return subject.is_string() && IsFilter(ToUtf8(subject.text()));
}

Result IsTestName(Runtime& runtime, const Value& subject, Arguments arguments) {
  RETURN_IF_ERROR(Bind("test", {}, 0, std::move(arguments)).status());
  RETURN_IF_ERROR(Hash(subject, runtime.budget()).status());
  return subject.is_string() && IsPredicate(ToUtf8(subject.text()));
}

struct Predicate {
  const char* name;
  Result (*holds)(Runtime& runtime, const Value& subject, Arguments arguments);
};

constexpr Predicate kPredicates[] = {
    {"!=", Compared<Equals, false, true>},
    {"<", Compared<Less, false, false>},
    {"<=", Compared<LessOrEqual, false, false>},
    {"==", Compared<Equals, false, false>},
    {">", Compared<Less, true, false>},
    {">=", Compared<LessOrEqual, true, false>},
    {"boolean", Plain<IsBoolean>},
    {"callable", Plain<IsCallable>},
    {"defined", Plain<IsDefined>},
    {"divisibleby", DivisibleBy},
    {"eq", Compared<Equals, false, false>},
    {"equalto", Compared<Equals, false, false>},
    {"escaped", Plain<IsEscaped>},
    {"even", Parity<0>},
    {"false", Plain<IsFalseItself>},
    {"filter", IsFilterName},
    {"float", Plain<IsFloat>},
    {"ge", Compared<LessOrEqual, true, false>},
    {"greaterthan", Compared<Less, true, false>},
    {"gt", Compared<Less, true, false>},
    {"in", In},
    {"integer", Plain<IsInteger>},
    {"iterable", Plain<IsIterableValue>},
    {"le", Compared<LessOrEqual, false, false>},
    {"lessthan", Compared<Less, false, false>},
    {"lower", HasCase<IsLowerCase, IsUpperCase>},
    {"lt", Compared<Less, false, false>},
    {"mapping", Plain<IsMapping>},
    {"ne", Compared<Equals, false, true>},
    {"none", Plain<IsNone>},
    {"number", Plain<IsNumber>},
    {"odd", Parity<1>},
    {"sameas", SameAs},
    {"sequence", Plain<IsSequence>},
    {"string", Plain<IsString>},
    {"test", IsTestName},
    {"true", Plain<IsTrueItself>},
    {"undefined", Plain<IsUndefined>},
    {"upper", HasCase<IsUpperCase, IsLowerCase>},
};

const Predicate* Find(const std::string& name) {
  const auto* found = std::find_if(std::begin(kPredicates), std::end(kPredicates),
                                   [&](const Predicate& predicate) { return name == predicate.name; });
  return found == std::end(kPredicates) ? nullptr : found;
}

}  // namespace

bool IsPredicate(const std::string& name) { return Find(name) != nullptr; }

absl::StatusOr<bool> CallPredicate(Runtime& runtime, const std::string& name, const Value& subject,
                                   Arguments arguments) {
  const Predicate* predicate = Find(name);
  if (predicate == nullptr) return PythonError(absl::StrCat("No test named ", Quoted(name), "."));
  return predicate->holds(runtime, subject, std::move(arguments));
}

}  // namespace switchyard::jinja
