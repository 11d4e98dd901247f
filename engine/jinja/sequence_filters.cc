// Filters over sequences that answer at once; those that answer bit by bit are in lazy_filters.cc.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/attribute_path.h"
#include "engine/jinja/filters.h"
#include "engine/jinja/ordering.h"
#include "engine/jinja/repr.h"
#include "engine/jinja/text.h"

namespace switchyard::jinja {
namespace {

using Result = absl::StatusOr<Value>;

Result Default(Runtime&, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("default", {"default_value", "boolean"}, 0, std::move(arguments)));
  const bool replaces = subject.is_undefined() || (TruthArgument(bound[1], false) && !IsTrue(subject));
  return replaces ? bound[0].value_or(Value::Str({})) : subject;
}

Result LengthFilter(Runtime&, const Value& subject, Arguments arguments) {
  RETURN_IF_ERROR(Bind("length", {}, 0, std::move(arguments)).status());
  ASSIGN_OR_RETURN(const int64_t length, Length(subject));
  return Value::Int(length);
}

Result ListFilter(Runtime& runtime, const Value& subject, Arguments arguments) {
  RETURN_IF_ERROR(Bind("list", {}, 0, std::move(arguments)).status());
  ASSIGN_OR_RETURN(std::vector<Value> items, Collect(subject, runtime.budget()));
  return Value::List(std::move(items), runtime.budget());
}

Result First(Runtime& runtime, const Value& subject, Arguments arguments) {
  RETURN_IF_ERROR(Bind("first", {}, 0, std::move(arguments)).status());
  ASSIGN_OR_RETURN(const std::shared_ptr<Iterator> items, Iterate(subject, runtime.budget()));
  ASSIGN_OR_RETURN(std::optional<Value> item, items->Next());
  return item.value_or(Value::Undefined("No first item, sequence was empty."));
}

Result Last(Runtime& runtime, const Value& subject, Arguments arguments) {
  RETURN_IF_ERROR(Bind("last", {}, 0, std::move(arguments)).status());
  if (!HasLength(subject)) return PythonError(absl::StrCat("'", subject.TypeName(), "' object is not reversible"));
  ASSIGN_OR_RETURN(const int64_t length, Length(subject));
  if (length == 0) return Value::Undefined("No last item, sequence was empty.");
  if (!subject.is_dict() && subject.As<DictView>() == nullptr) {
    ASSIGN_OR_RETURN(std::optional<Value> item, Subscript(subject, Value::Int(-1), runtime.budget()));
    return *std::move(item);
  }
  ASSIGN_OR_RETURN(std::vector<Value> items, Collect(subject, runtime.budget()));
  return std::move(items.back());
}

Result Join(Runtime& runtime, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("join", {"d", "attribute"}, 0, std::move(arguments)));
  const AttributePath path(bound[1].value_or(Value::None()));
  ASSIGN_OR_RETURN(const Text separator, Str(bound[0].value_or(Value::Str({})), runtime.budget()));
  ASSIGN_OR_RETURN(const std::shared_ptr<Iterator> items, Iterate(subject, runtime.budget()));
  Text out;
  for (bool first = true;; first = false) {
    ASSIGN_OR_RETURN(std::optional<Value> item, items->Next());
    if (!item.has_value()) return Value::Str(std::move(out));
    ASSIGN_OR_RETURN(const Value part, path.Get(runtime, *std::move(item)));
    ASSIGN_OR_RETURN(const Text text, Str(part, runtime.budget()));
    RETURN_IF_ERROR(runtime.budget()->Grow(static_cast<int64_t>(separator.size())));
    if (!first) out += separator;
    out += text;
  }
}

// Places of `items` in the order of their keys.
Result Sorted(Runtime& runtime, std::vector<Value> items, const std::vector<Value>& keys, bool reverse) {
  ASSIGN_OR_RETURN(const std::vector<size_t> order, SortedOrder(keys, reverse, runtime.budget()));
  std::vector<Value> sorted;
  for (const size_t place : order) sorted.push_back(items[place]);
  return Value::List(std::move(sorted), runtime.budget());
}

Result Sort(Runtime& runtime, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound,
                   Bind("sort", {"reverse", "case_sensitive", "attribute"}, 0, std::move(arguments)));
  const bool case_sensitive = TruthArgument(bound[1], false);
  std::vector<AttributePath> paths;
  if (bound[2].has_value() && bound[2]->is_string()) {
    for (const TextView part : Split(bound[2]->text(), U",", -1)) paths.emplace_back(Value::Str(Text(part)));
  } else {
    paths.emplace_back(bound[2].value_or(Value::None()));
  }
  ASSIGN_OR_RETURN(std::vector<Value> items, Collect(subject, runtime.budget()));
  std::vector<Value> keys;
  for (const Value& item : items) {
    std::vector<Value> key;
    for (const AttributePath& path : paths) {
      ASSIGN_OR_RETURN(const Value part, path.Get(runtime, item));
      key.push_back(case_sensitive ? part : IgnoreCase(part));
    }
    ASSIGN_OR_RETURN(Value list, Value::List(std::move(key), runtime.budget()));
    keys.push_back(std::move(list));
  }
  return Sorted(runtime, std::move(items), keys, TruthArgument(bound[0], false));
}

Result DictSort(Runtime& runtime, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound,
                   Bind("dictsort", {"case_sensitive", "by", "reverse"}, 0, std::move(arguments)));
  const bool by_value = bound[1].has_value() && bound[1]->is_string() && bound[1]->text() == U"value";
  const bool by_key = !bound[1].has_value() || (bound[1]->is_string() && bound[1]->text() == U"key");
  if (!by_value && !by_key) return PythonError("You can only sort by either \"key\" or \"value\"");
  if (subject.is_undefined()) return subject.UndefinedError();
  if (!subject.is_dict())
    return PythonError(absl::StrCat("'", subject.TypeName(), "' object has no attribute 'items'"));
  std::vector<Value> items, keys;
  for (const auto& [key, value] : subject.dict().entries()) {
    const Value& part = by_value ? value : key;
    keys.push_back(TruthArgument(bound[0], false) ? part : IgnoreCase(part));
    ASSIGN_OR_RETURN(Value item, Value::Tuple({key, value}, runtime.budget()));
    items.push_back(std::move(item));
  }
  return Sorted(runtime, std::move(items), keys, TruthArgument(bound[2], false));
}

template <bool wants_max>
Result Extreme(Runtime& runtime, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("min", {"case_sensitive", "attribute"}, 0, std::move(arguments)));
  const AttributePath path(bound[1].value_or(Value::None()));
  ASSIGN_OR_RETURN(const std::vector<Value> items, Collect(subject, runtime.budget()));
  Value best = Value::Undefined("No aggregated item, sequence was empty."), best_key;
  for (size_t i = 0; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(Value key, path.Get(runtime, items[i]));
    if (!TruthArgument(bound[0], false)) key = IgnoreCase(key);
    if (i > 0) {
      ASSIGN_OR_RETURN(const bool better,
                       wants_max ? Less(best_key, key, runtime.budget()) : Less(key, best_key, runtime.budget()));
      if (!better) continue;
    }
    best = items[i];
    best_key = std::move(key);
  }
  return best;
}

Result Sum(Runtime& runtime, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("sum", {"attribute", "start"}, 0, std::move(arguments)));
  const AttributePath path(bound[0].value_or(Value::None()));
  Value sum = bound[1].value_or(Value::Int(0));
  if (sum.is_string()) return PythonError("sum() can't sum strings [use ''.join(seq) instead]");
  ASSIGN_OR_RETURN(const std::vector<Value> items, Collect(subject, runtime.budget()));
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(const Value part, path.Get(runtime, item));
    ASSIGN_OR_RETURN(sum, Apply(Operator::kAdd, sum, part, runtime.budget()));
  }
  return sum;
}

Result Attr(Runtime& runtime, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("attr", {"name"}, 1, std::move(arguments)));
  ASSIGN_OR_RETURN(const TextView name, TextArgument(*bound[0]));
  ASSIGN_OR_RETURN(const std::optional<Value> found, FindAttribute(runtime, subject, ToUtf8(name)));
  return found.value_or(Value::Undefined(absl::StrCat("no attribute ", Quoted(name))));
}

constexpr Filter kFilters[] = {
    {"attr", Attr},           {"count", LengthFilter},
    {"d", Default},           {"default", Default},
    {"dictsort", DictSort},   {"first", First},
    {"join", Join},           {"last", Last},
    {"length", LengthFilter}, {"list", ListFilter},
    {"max", Extreme<true>},   {"min", Extreme<false>},
    {"sort", Sort},           {"sum", Sum},
};

}  // namespace

std::span<const Filter> SequenceFilters() { return kFilters; }

}  // namespace switchyard::jinja
