#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/filters.h"
#include "engine/jinja/printf.h"
#include "engine/jinja/repr.h"
#include "engine/jinja/text.h"
#include "engine/jinja/to_json.h"

namespace switchyard::jinja {
namespace {

using Result = absl::StatusOr<Value>;

// markupsafe.soft_str: text as it is, anything else by str().
Result SoftText(Runtime& runtime, const Value& value) {
  if (value.is_string()) return value;
  ASSIGN_OR_RETURN(Text text, Str(value, runtime.budget()));
  return Value::Str(std::move(text));
}

using Mapping = Text (*)(TextView);
template <Mapping map>
Result MapText(Runtime& runtime, const Value& subject, Arguments arguments) {
  RETURN_IF_ERROR(Bind("filter", {}, 0, std::move(arguments)).status());
  ASSIGN_OR_RETURN(const Value text, SoftText(runtime, subject));
  RETURN_IF_ERROR(runtime.budget()->Grow(static_cast<int64_t>(text.text().size())));
  return Value::Str(map(text.text()), text.is_markup());
}

bool StartsWord(char32_t c) { return c == '-' || c == '(' || c == '{' || c == '[' || c == '<' || IsSpace(c); }

// The filter's own notion of words; str.title has another.
Text TitleFilter(TextView text) {
  Text out;
  for (size_t begin = 0; begin < text.size();) {
    size_t end = begin + 1;
    while (end < text.size() && StartsWord(text[end]) == StartsWord(text[begin])) ++end;
    out += Upper(text.substr(begin, 1));
    out += Lower(text.substr(begin + 1, end - begin - 1));
    begin = end;
  }
  return out;
}

Result Title(Runtime& runtime, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const Value text, MapText<TitleFilter>(runtime, subject, std::move(arguments)));
  return Value::Str(text.text());
}

Result Trim(Runtime& runtime, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("trim", {"chars"}, 0, std::move(arguments)));
  ASSIGN_OR_RETURN(const Value text, SoftText(runtime, subject));
  std::optional<TextView> chars;
  if (bound[0].has_value() && !bound[0]->is_none()) {
    ASSIGN_OR_RETURN(chars, TextArgument(*bound[0]));
  }
  const auto size = static_cast<int64_t>(text.text().size());
  RETURN_IF_ERROR(runtime.budget()->Spend(size / 16 * (chars.has_value() ? static_cast<int64_t>(chars->size()) : 1)));
  RETURN_IF_ERROR(runtime.budget()->Grow(size));
  return Value::Str(Text(Strip(text.text(), chars)), text.is_markup());
}

Result ReplaceFilter(Runtime& runtime, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("replace", {"old", "new", "count"}, 2, std::move(arguments)));
  ASSIGN_OR_RETURN(const Text text, Str(subject, runtime.budget()));
  ASSIGN_OR_RETURN(const Text from, Str(*bound[0], runtime.budget()));
  ASSIGN_OR_RETURN(const Text to, Str(*bound[1], runtime.budget()));
  int64_t count = -1;
  if (bound[2].has_value() && !bound[2]->is_none()) {
    ASSIGN_OR_RETURN(count, IntArgument(*bound[2]));
  }
  ASSIGN_OR_RETURN(Text replaced, Replace(text, from, to, count, runtime.budget()));
  return Value::Str(std::move(replaced));
}

Result Indent(Runtime& runtime, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("indent", {"width", "first", "blank"}, 0, std::move(arguments)));
  if (subject.is_undefined()) return subject.UndefinedError();
  ASSIGN_OR_RETURN(const TextView text, TextArgument(subject));
  Text indention;
  if (bound[0].has_value() && bound[0]->is_string()) {
    indention = bound[0]->text();
  } else {
    ASSIGN_OR_RETURN(const int64_t width, IntArgument(bound[0], 4));
    RETURN_IF_ERROR(runtime.budget()->Grow(std::max<int64_t>(width, 0)));
    indention.assign(static_cast<size_t>(std::max<int64_t>(width, 0)), U' ');
  }
  const bool first = TruthArgument(bound[1], false), blank = TruthArgument(bound[2], false);
  const Text with_end = Text(text) + U'\n';
  const std::vector<TextView> lines = SplitLines(with_end, false);
  RETURN_IF_ERROR(runtime.budget()->Grow(static_cast<int64_t>(with_end.size())));
  Text out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += U'\n';
    const bool indents = i == 0 ? first : blank || !lines[i].empty();
    if (indents) {
      RETURN_IF_ERROR(runtime.budget()->Grow(static_cast<int64_t>(indention.size())));
      out += indention;
    }
    out += lines[i];
  }
  return Value::Str(std::move(out), subject.is_markup());
}

Result Center(Runtime& runtime, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("center", {"width"}, 0, std::move(arguments)));
  ASSIGN_OR_RETURN(const Value text, SoftText(runtime, subject));
  ASSIGN_OR_RETURN(const int64_t width, IntArgument(bound[0], 80));
  ASSIGN_OR_RETURN(Text padded, CenterText(text.text(), width, U' ', runtime.budget()));
  return Value::Str(std::move(padded), text.is_markup());
}

Result Escape(Runtime& runtime, const Value& subject, Arguments arguments) {
  RETURN_IF_ERROR(Bind("escape", {}, 0, std::move(arguments)).status());
  if (subject.is_markup()) return subject;
  ASSIGN_OR_RETURN(const Text text, Str(subject, runtime.budget()));
  RETURN_IF_ERROR(runtime.budget()->Grow(static_cast<int64_t>(5 * text.size())));
  return Value::Str(EscapeHtml(text), true);
}

Result ForceEscape(Runtime& runtime, const Value& subject, Arguments arguments) {
  RETURN_IF_ERROR(Bind("forceescape", {}, 0, std::move(arguments)).status());
  ASSIGN_OR_RETURN(Text text, Str(subject, runtime.budget()));
  return Escape(runtime, Value::Str(std::move(text)), {});
}

Result Safe(Runtime& runtime, const Value& subject, Arguments arguments) {
  RETURN_IF_ERROR(Bind("safe", {}, 0, std::move(arguments)).status());
  ASSIGN_OR_RETURN(Text text, Str(subject, runtime.budget()));
  return Value::Str(std::move(text), true);
}

Result StringFilter(Runtime& runtime, const Value& subject, Arguments arguments) {
  RETURN_IF_ERROR(Bind("string", {}, 0, std::move(arguments)).status());
  return SoftText(runtime, subject);
}

Result Format(Runtime& runtime, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const Value format, SoftText(runtime, subject));
  if (!arguments.positional.empty() && !arguments.named.empty()) {
    return PythonError("can't handle positional and keyword arguments at the same time");
  }
  if (arguments.named.empty()) {
    ASSIGN_OR_RETURN(const Value tuple, Value::Tuple(std::move(arguments.positional), runtime.budget()));
    return FormatPercent(format, tuple, runtime.budget());
  }
  auto dict = std::make_shared<Dict>();
  for (auto& [name, value] : arguments.named) dict->SetText(name, std::move(value));
  return FormatPercent(format, Value::Of(std::shared_ptr<const Dict>(std::move(dict))), runtime.budget());
}

Result WordCount(Runtime& runtime, const Value& subject, Arguments arguments) {
  RETURN_IF_ERROR(Bind("wordcount", {}, 0, std::move(arguments)).status());
  ASSIGN_OR_RETURN(const Value text, SoftText(runtime, subject));
  int64_t count = 0;
  bool in_word = false;
  for (const char32_t c : text.text()) {
    const bool is_word = c == '_' || IsLetter(c) || IsNumeric(c);
    count += is_word && !in_word ? 1 : 0;
    in_word = is_word;
  }
  return Value::Int(count);
}

Result ToJsonFilter(Runtime& runtime, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound,
                   Bind("tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, 0, std::move(arguments)));
  JsonStyle style;
  style.ensure_ascii = TruthArgument(bound[0], false);
  style.sort_keys = TruthArgument(bound[3], false);
  if (bound[1].has_value() && !bound[1]->is_none()) {
    if (bound[1]->is_string()) {
      style.indent = bound[1]->text();
    } else {
      ASSIGN_OR_RETURN(const int64_t width, IntArgument(*bound[1]));
      RETURN_IF_ERROR(runtime.budget()->Grow(std::max<int64_t>(width, 0)));
      style.indent = Text(static_cast<size_t>(std::max<int64_t>(width, 0)), U' ');
    }
    style.item_separator = U",";
  }
  if (bound[2].has_value() && !bound[2]->is_none()) {
    ASSIGN_OR_RETURN(const std::vector<Value> separators, Collect(*bound[2], runtime.budget()));
    if (separators.size() != 2) return PythonError("separators are two strings");
    ASSIGN_OR_RETURN(const TextView item, TextArgument(separators[0]));
    ASSIGN_OR_RETURN(const TextView key, TextArgument(separators[1]));
    style.item_separator = item;
    style.key_separator = key;
  }
  ASSIGN_OR_RETURN(Text json, ToJson(subject, style, runtime.budget()));
  return Value::Str(std::move(json));
}

constexpr Filter kFilters[] = {
    {"capitalize", MapText<Capitalize>},
    {"center", Center},
    {"e", Escape},
    {"escape", Escape},
    {"forceescape", ForceEscape},
    {"format", Format},
    {"indent", Indent},
    {"lower", MapText<Lower>},
    {"replace", ReplaceFilter},
    {"safe", Safe},
    {"string", StringFilter},
    {"title", Title},
    {"tojson", ToJsonFilter},
    {"trim", Trim},
    {"upper", MapText<Upper>},
    {"wordcount", WordCount},
};

}  // namespace

std::span<const Filter> TextFilters() { return kFilters; }

}  // namespace switchyard::jinja
