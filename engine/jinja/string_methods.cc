#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/methods.h"
#include "engine/jinja/repr.h"
#include "engine/jinja/text.h"

namespace switchyard::jinja {
namespace {

using Result = absl::StatusOr<Value>;

int64_t SizeOf(TextView text) { return static_cast<int64_t>(text.size()); }

Result NewText(Runtime& runtime, TextView text) {
  RETURN_IF_ERROR(runtime.budget()->Grow(SizeOf(text)));
  return Value::Str(Text(text));
}

Result NewList(Runtime& runtime, const std::vector<TextView>& parts) {
  std::vector<Value> items;
  for (const TextView part : parts) {
    ASSIGN_OR_RETURN(Value item, NewText(runtime, part));
    items.push_back(std::move(item));
  }
  return Value::List(std::move(items), runtime.budget());
}

// Work that takes the product of both lengths at worst.
absl::Status SpendProduct(Runtime& runtime, TextView a, TextView b) {
  const __int128 steps = static_cast<__int128>(a.size()) * static_cast<__int128>(b.size()) / 16;
  return runtime.budget()->Spend(static_cast<int64_t>(std::min<__int128>(steps, INT64_MAX / 2)));
}

template <Text (*map)(TextView)>
Result Mapped(Runtime& runtime, const Value& self, Arguments arguments) {
  RETURN_IF_ERROR(Bind("method", {}, 0, std::move(arguments)).status());
  RETURN_IF_ERROR(runtime.budget()->Grow(SizeOf(self.text())));
  return Value::Str(map(self.text()));
}

template <TextView (*strip)(TextView, std::optional<TextView>)>
Result Stripped(Runtime& runtime, const Value& self, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("strip", {""}, 0, std::move(arguments)));
  std::optional<TextView> chars;
  if (bound[0].has_value() && !bound[0]->is_none()) {
    ASSIGN_OR_RETURN(chars, TextArgument(*bound[0]));
    RETURN_IF_ERROR(SpendProduct(runtime, self.text(), *chars));
  }
  return NewText(runtime, strip(self.text(), chars));
}

template <bool from_right>
Result SplitMethod(Runtime& runtime, const Value& self, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("split", {"sep", "maxsplit"}, 0, std::move(arguments)));
  ASSIGN_OR_RETURN(const int64_t limit, IntArgument(bound[1], -1));
  RETURN_IF_ERROR(runtime.budget()->Spend(SizeOf(self.text()) / 16));
  if (!bound[0].has_value() || bound[0]->is_none()) {
    return NewList(runtime, from_right ? SplitOnSpaceFromRight(self.text(), limit) : SplitOnSpace(self.text(), limit));
  }
  ASSIGN_OR_RETURN(const TextView separator, TextArgument(*bound[0]));
  if (separator.empty()) return PythonError("empty separator");
  if (!from_right) return NewList(runtime, Split(self.text(), separator, limit));
  RETURN_IF_ERROR(SpendProduct(runtime, self.text(), separator));
  return NewList(runtime, SplitFromRight(self.text(), separator, limit));
}

Result SplitLinesMethod(Runtime& runtime, const Value& self, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("splitlines", {"keepends"}, 0, std::move(arguments)));
  return NewList(runtime, SplitLines(self.text(), TruthArgument(bound[0], false)));
}

template <bool from_right>
Result Partition(Runtime& runtime, const Value& self, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("partition", {""}, 1, std::move(arguments)));
  ASSIGN_OR_RETURN(const TextView separator, TextArgument(*bound[0]));
  if (separator.empty()) return PythonError("empty separator");
  const TextView text = self.text();
  if (from_right) RETURN_IF_ERROR(SpendProduct(runtime, text, separator));
  const size_t at = from_right ? text.rfind(separator) : FindText(text, separator);
  std::vector<TextView> parts = {text.substr(0, at), separator, {}};
  if (at != TextView::npos) {
    parts[2] = text.substr(at + separator.size());
  } else if (from_right) {
    parts = {{}, {}, text};
  } else {
    parts = {text, {}, {}};
  }
  ASSIGN_OR_RETURN(const Value list, NewList(runtime, parts));
  return Value::Tuple(list.items(), runtime.budget());
}

// The part of the text between optional bounds, as in str.find(sub, start, end). nullopt: start is behind the end.
struct Part {
  TextView text;
  int64_t start = 0;
};
absl::StatusOr<std::optional<Part>> PartOf(TextView text, const std::optional<Value>& start,
                                           const std::optional<Value>& stop) {
  const int64_t size = SizeOf(text);
  const auto bound = [size](const std::optional<Value>& value, int64_t otherwise) -> absl::StatusOr<int64_t> {
    if (!value.has_value() || value->is_none()) return otherwise;
    ASSIGN_OR_RETURN(const int64_t place, IntArgument(*value));
    return place < 0 ? std::max<int64_t>(place + size, 0) : place;
  };
  ASSIGN_OR_RETURN(const int64_t from, bound(start, 0));
  ASSIGN_OR_RETURN(int64_t to, bound(stop, size));
  to = std::min(to, size);
  if (from > to) return std::nullopt;
  return Part{text.substr(static_cast<size_t>(from), static_cast<size_t>(to - from)), from};
}

template <bool at_end>
bool HasAffix(TextView text, TextView affix) {
  return at_end ? text.ends_with(affix) : text.starts_with(affix);
}

template <bool at_end>
Result HasAffixMethod(Runtime& runtime, const Value& self, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("startswith", {"", "", ""}, 1, std::move(arguments)));
  const Value& affixes = *bound[0];
  if (!affixes.is_tuple() && !affixes.is_string()) {
    return PythonError("startswith and endswith want a string or a tuple of strings");
  }
  ASSIGN_OR_RETURN(const std::optional<Part> part, PartOf(self.text(), bound[1], bound[2]));
  const std::vector<Value> all = affixes.is_tuple() ? affixes.items() : std::vector<Value>{affixes};
  for (const Value& affix : all) {
    ASSIGN_OR_RETURN(const TextView text, TextArgument(affix));
    RETURN_IF_ERROR(runtime.budget()->Spend(1 + SizeOf(text) / 16));
    if (part.has_value() && HasAffix<at_end>(part->text, text)) return Value::Bool(true);
  }
  return Value::Bool(false);
}

template <bool at_end>
Result RemoveAffix(Runtime& runtime, const Value& self, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("removeprefix", {""}, 1, std::move(arguments)));
  ASSIGN_OR_RETURN(const TextView affix, TextArgument(*bound[0]));
  TextView text = self.text();
  if (HasAffix<at_end>(text, affix)) text = text.substr(at_end ? 0 : affix.size(), text.size() - affix.size());
  return NewText(runtime, text);
}

template <bool from_right, bool must_exist>
Result Find(Runtime& runtime, const Value& self, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("find", {"", "", ""}, 1, std::move(arguments)));
  ASSIGN_OR_RETURN(const TextView sub, TextArgument(*bound[0]));
  ASSIGN_OR_RETURN(const std::optional<Part> part, PartOf(self.text(), bound[1], bound[2]));
  size_t at = TextView::npos;
  if (part.has_value()) {
    RETURN_IF_ERROR(runtime.budget()->Spend(SizeOf(part->text) / 16));
    if (from_right) RETURN_IF_ERROR(SpendProduct(runtime, part->text, sub));
    at = from_right ? part->text.rfind(sub) : FindText(part->text, sub);
  }
  if (at != TextView::npos) return Value::Int(part->start + static_cast<int64_t>(at));
  return must_exist ? Result(PythonError("substring not found")) : Value::Int(-1);
}

Result Count(Runtime& runtime, const Value& self, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("count", {"", "", ""}, 1, std::move(arguments)));
  ASSIGN_OR_RETURN(const TextView sub, TextArgument(*bound[0]));
  ASSIGN_OR_RETURN(const std::optional<Part> part, PartOf(self.text(), bound[1], bound[2]));
  if (!part.has_value()) return Value::Int(0);
  RETURN_IF_ERROR(runtime.budget()->Spend(SizeOf(part->text) / 16));
  return Value::Int(CountOf(part->text, sub));
}

Result ReplaceMethod(Runtime& runtime, const Value& self, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("replace", {"", "", ""}, 2, std::move(arguments)));
  ASSIGN_OR_RETURN(const TextView from, TextArgument(*bound[0]));
  ASSIGN_OR_RETURN(const TextView to, TextArgument(*bound[1]));
  ASSIGN_OR_RETURN(const int64_t limit, IntArgument(bound[2], -1));
  ASSIGN_OR_RETURN(Text replaced, Replace(self.text(), from, to, limit, runtime.budget()));
  return Value::Str(std::move(replaced));
}

Result JoinMethod(Runtime& runtime, const Value& self, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("join", {""}, 1, std::move(arguments)));
  ASSIGN_OR_RETURN(const std::vector<Value> items, Collect(*bound[0], runtime.budget()));
  Text out;
  for (size_t i = 0; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(const TextView part, TextArgument(items[i]));
    RETURN_IF_ERROR(runtime.budget()->Grow(SizeOf(self.text()) + SizeOf(part)));
    if (i > 0) out += self.text();
    out += part;
  }
  return Value::Str(std::move(out));
}

enum class Side { kLeft, kCenter, kRight };
template <Side side>
Result Justify(Runtime& runtime, const Value& self, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("center", {"", ""}, 1, std::move(arguments)));
  ASSIGN_OR_RETURN(const int64_t width, IntArgument(*bound[0]));
  const Value filler = bound[1].value_or(Value::Str(U" "));
  ASSIGN_OR_RETURN(const TextView fill, TextArgument(filler));
  if (fill.size() != 1) return PythonError("The fill character must be exactly one character long");
  if (side == Side::kCenter) {
    ASSIGN_OR_RETURN(Text text, CenterText(self.text(), width, fill[0], runtime.budget()));
    return Value::Str(std::move(text));
  }
  const int64_t pad = std::max<int64_t>(0, width - SizeOf(self.text()));
  RETURN_IF_ERROR(runtime.budget()->Grow(pad + SizeOf(self.text())));
  const Text padding(static_cast<size_t>(pad), fill[0]);
  return Value::Str(side == Side::kLeft ? self.text() + padding : padding + self.text());
}

Result ZeroFill(Runtime& runtime, const Value& self, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("zfill", {""}, 1, std::move(arguments)));
  ASSIGN_OR_RETURN(const int64_t width, IntArgument(*bound[0]));
  const int64_t pad = std::max<int64_t>(0, width - SizeOf(self.text()));
  RETURN_IF_ERROR(runtime.budget()->Grow(pad + SizeOf(self.text())));
  Text text = self.text();
  const bool has_sign = !text.empty() && (text[0] == '+' || text[0] == '-');
  text.insert(has_sign ? 1 : 0, static_cast<size_t>(pad), U'0');
  return Value::Str(std::move(text));
}

// All characters are so, and there is one.
template <bool (*is_so)(char32_t)>
Result AllAre(Runtime& runtime, const Value& self, Arguments arguments) {
  RETURN_IF_ERROR(Bind("method", {}, 0, std::move(arguments)).status());
  RETURN_IF_ERROR(runtime.budget()->Spend(SizeOf(self.text()) / 16));
  return Value::Bool(!self.text().empty() && std::all_of(self.text().begin(), self.text().end(), is_so));
}

bool IsAlphanumeric(char32_t c) { return IsLetter(c) || IsNumeric(c); }
bool IsAscii(char32_t c) { return c < 0x80; }

// isascii and isprintable hold for empty text, too.
template <bool (*is_so)(char32_t)>
Result NoneIsNot(Runtime& runtime, const Value& self, Arguments arguments) {
  if (self.text().empty()) return Value::Bool(true);
  return AllAre<is_so>(runtime, self, std::move(arguments));
}

template <bool (*is_case)(char32_t), bool (*is_other)(char32_t)>
Result HasCase(Runtime& runtime, const Value& self, Arguments arguments) {
  RETURN_IF_ERROR(Bind("method", {}, 0, std::move(arguments)).status());
  RETURN_IF_ERROR(runtime.budget()->Spend(SizeOf(self.text()) / 16));
  const Text& text = self.text();
  return Value::Bool(std::any_of(text.begin(), text.end(), is_case) &&
                     std::none_of(text.begin(), text.end(), is_other));
}

Result IsTitle(Runtime& runtime, const Value& self, Arguments arguments) {
  RETURN_IF_ERROR(Bind("istitle", {}, 0, std::move(arguments)).status());
  RETURN_IF_ERROR(runtime.budget()->Spend(SizeOf(self.text()) / 16));
  bool in_word = false, found = false;
  for (const char32_t c : self.text()) {
    if (IsCased(c)) {
      if (IsLowerCase(c) != in_word) return Value::Bool(false);
      found = true;
    }
    in_word = IsCased(c);
  }
  return Value::Bool(found);
}

constexpr Method kMethods[] = {
    {"capitalize", Mapped<Capitalize>},
    {"center", Justify<Side::kCenter>},
    {"count", Count},
    {"endswith", HasAffixMethod<true>},
    {"find", Find<false, false>},
    {"index", Find<false, true>},
    {"isalnum", AllAre<IsAlphanumeric>},
    {"isalpha", AllAre<IsLetter>},
    {"isascii", NoneIsNot<IsAscii>},
    {"isdecimal", AllAre<IsDecimal>},
    {"isdigit", AllAre<IsDecimal>},
    {"islower", HasCase<IsLowerCase, IsUpperCase>},
    {"isnumeric", AllAre<IsNumeric>},
    {"isprintable", NoneIsNot<IsPrintable>},
    {"isspace", AllAre<IsSpace>},
    {"istitle", IsTitle},
    {"isupper", HasCase<IsUpperCase, IsLowerCase>},
    {"join", JoinMethod},
    {"ljust", Justify<Side::kLeft>},
    {"lower", Mapped<Lower>},
    {"lstrip", Stripped<StripLeft>},
    {"partition", Partition<false>},
    {"removeprefix", RemoveAffix<false>},
    {"removesuffix", RemoveAffix<true>},
    {"replace", ReplaceMethod},
    {"rfind", Find<true, false>},
    {"rindex", Find<true, true>},
    {"rjust", Justify<Side::kRight>},
    {"rpartition", Partition<true>},
    {"rsplit", SplitMethod<true>},
    {"rstrip", Stripped<StripRight>},
    {"split", SplitMethod<false>},
    {"splitlines", SplitLinesMethod},
    {"startswith", HasAffixMethod<false>},
    {"strip", Stripped<Strip>},
    {"swapcase", Mapped<SwapCase>},
    {"title", Mapped<TitleCase>},
    {"upper", Mapped<Upper>},
    {"zfill", ZeroFill},
};

}  // namespace

std::span<const Method> StringMethods() { return kMethods; }

}  // namespace switchyard::jinja
