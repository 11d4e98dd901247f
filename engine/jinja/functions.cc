#include "engine/jinja/functions.h"

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/repr.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard::jinja {
namespace {

using Result = absl::StatusOr<Value>;

constexpr size_t kMaxTimeFormat = 256;

class Builtin : public Function {
 public:
  using Body = Result (*)(Runtime&, Arguments);
  explicit Builtin(Body body) : body_(body) {}
  Result Call(Runtime& runtime, Arguments arguments) override { return body_(runtime, std::move(arguments)); }

 private:
  const Body body_;
};

Value MakeFunction(Builtin::Body body) { return Value::Of(std::shared_ptr<Object>(std::make_shared<Builtin>(body))); }

Result MakeRange(Runtime&, Arguments arguments) {
  const size_t count = arguments.positional.size();
  if (count == 0 || count > 3 || !arguments.named.empty()) return PythonError("range expected 1 to 3 arguments");
  int64_t bounds[3] = {0, 0, 1};
  for (size_t i = 0; i < count; ++i) {
    if (arguments.positional[i].is_undefined()) return arguments.positional[i].UndefinedError();
    ASSIGN_OR_RETURN(bounds[count == 1 ? 1 : i], IntArgument(arguments.positional[i]));
  }
  if (bounds[2] == 0) return PythonError("range() arg 3 must not be zero");
  // No list is longer, and so nothing below overflows.
  constexpr int64_t kLimit = int64_t{1} << 61;
  for (const int64_t bound : bounds) {
    if (bound < -kLimit || bound > kLimit) return PythonError("an integer is too large for range()");
  }
  auto range = std::make_shared<Range>(bounds[0], bounds[1], bounds[2]);
  if (range->size() > kMaxRangeLength) {
    return PythonError(
        absl::StrCat("Range too big. The sandbox blocks ranges larger than MAX_RANGE (", kMaxRangeLength, ")."));
  }
  return Value::Of(std::shared_ptr<Object>(std::move(range)));
}

absl::Status AddPairs(Runtime& runtime, const Value& pairs, Dict* dict) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, Collect(pairs, runtime.budget()));
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(std::vector<Value> pair, Collect(item, runtime.budget()));
    if (pair.size() != 2) return PythonError("dictionary update sequence elements must have 2 items");
    RETURN_IF_ERROR(dict->Set(std::move(pair[0]), std::move(pair[1]), runtime.budget()));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Dict>> BuildDict(Runtime& runtime, Arguments arguments) {
  if (arguments.positional.size() > 1) return PythonError("dict expected at most 1 argument");
  auto dict = std::make_shared<Dict>();
  for (const Value& source : arguments.positional) {
    if (source.is_dict()) {
      for (const auto& [key, value] : source.dict().entries()) RETURN_IF_ERROR(dict->Set(key, value, runtime.budget()));
    } else {
      RETURN_IF_ERROR(AddPairs(runtime, source, dict.get()));
    }
  }
  for (auto& [name, value] : arguments.named) {
    RETURN_IF_ERROR(dict->Set(Value::Utf8(name), std::move(value), runtime.budget()));
  }
  return dict;
}

Result MakeDict(Runtime& runtime, Arguments arguments) {
  ASSIGN_OR_RETURN(std::shared_ptr<Dict> dict, BuildDict(runtime, std::move(arguments)));
  return Value::Of(std::shared_ptr<const Dict>(std::move(dict)));
}

Result MakeNamespace(Runtime& runtime, Arguments arguments) {
  ASSIGN_OR_RETURN(const std::shared_ptr<Dict> dict, BuildDict(runtime, std::move(arguments)));
  auto names = std::make_shared<Namespace>();
  RETURN_IF_ERROR(runtime.budget()->Grow(static_cast<int64_t>(64 + 8 * dict->size())));
  for (const auto& [key, value] : dict->entries()) {
    if (!key.is_string()) return PythonError("attributes of a namespace have names");
    names->attributes.emplace_back(ToUtf8(key.text()), value);
  }
  runtime.Track(names);
  return Value::Of(std::shared_ptr<Object>(std::move(names)));
}

// Empty the first time, the separator from then on.
class Joiner : public Function {
 public:
  explicit Joiner(Value separator) : separator_(std::move(separator)) {}
  std::string TypeName() const override { return "Joiner"; }
  int depth() const override { return separator_.depth() + 1; }
  Result Call(Runtime&, Arguments arguments) override {
    RETURN_IF_ERROR(Bind("joiner", {}, 0, std::move(arguments)).status());
    return std::exchange(used_, true) ? separator_ : Value::Str({});
  }

 private:
  const Value separator_;
  bool used_ = false;
};

Result MakeJoiner(Runtime&, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("joiner", {"sep"}, 0, std::move(arguments)));
  auto joiner = std::make_shared<Joiner>(bound[0].value_or(Value::Str(U", ")));
  RETURN_IF_ERROR(CheckDepth(joiner->depth()));
  return Value::Of(std::shared_ptr<Object>(std::move(joiner)));
}

Result RaiseException(Runtime& runtime, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("raise_exception", {"message"}, 1, std::move(arguments)));
  ASSIGN_OR_RETURN(const Text message, Str(*bound[0], runtime.budget()));
  return absl::AbortedError(ToUtf8(message));
}

Result FormatNow(Runtime& runtime, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("strftime_now", {"format"}, 1, std::move(arguments)));
  ASSIGN_OR_RETURN(const TextView text, TextArgument(*bound[0]));
  const std::string format = ToUtf8(text);
  if (format.size() > kMaxTimeFormat || format.find('\0') != std::string::npos) {
    return PythonError(absl::StrCat("a time format has more than ", kMaxTimeFormat, " bytes, or a zero byte"));
  }
  char buffer[4096];
  const size_t size = std::strftime(buffer, sizeof(buffer), format.c_str(), &runtime.now());
  const std::string_view formatted(buffer, size);
  if (FindInvalidUtf8(formatted) != std::string_view::npos) return PythonError("the time is not valid UTF-8");
  return Value::Utf8(formatted);
}

}  // namespace

const std::vector<std::pair<std::string, Value>>& GlobalFunctions() {
  static const auto& functions = *new std::vector<std::pair<std::string, Value>>{
      {"dict", MakeFunction(MakeDict)},           {"joiner", MakeFunction(MakeJoiner)},
      {"namespace", MakeFunction(MakeNamespace)}, {"raise_exception", MakeFunction(RaiseException)},
      {"range", MakeFunction(MakeRange)},         {"strftime_now", MakeFunction(FormatNow)},
  };
  return functions;
}

}  // namespace switchyard::jinja
