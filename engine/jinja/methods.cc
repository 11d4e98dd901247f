#include "engine/jinja/methods.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/loop.h"

namespace switchyard::jinja {
namespace {

using Result = absl::StatusOr<Value>;

Result DictGet(Runtime& runtime, const Value& self, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("get", {"", ""}, 1, std::move(arguments)));
  ASSIGN_OR_RETURN(const Value* found, self.dict().Find(*bound[0], runtime.budget()));
  return found != nullptr ? *found : bound[1].value_or(Value::None());
}

template <DictView::Part part>
Result View(Runtime&, const Value& self, Arguments arguments) {
  RETURN_IF_ERROR(Bind("items", {}, 0, std::move(arguments)).status());
  RETURN_IF_ERROR(CheckDepth(self.depth() + 1));
  return Value::Of(std::shared_ptr<Object>(std::make_shared<DictView>(self.dict_ptr(), part)));
}

Result Copy(Runtime&, const Value& self, Arguments arguments) {
  RETURN_IF_ERROR(Bind("copy", {}, 0, std::move(arguments)).status());
  return self;
}

constexpr Method kDictMethods[] = {
    {"copy", Copy},
    {"get", DictGet},
    {"items", View<DictView::Part::kItems>},
    {"keys", View<DictView::Part::kKeys>},
    {"values", View<DictView::Part::kValues>},
};

Result SequenceCount(Runtime& runtime, const Value& self, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("count", {""}, 1, std::move(arguments)));
  int64_t count = 0;
  for (const Value& item : self.items()) {
    ASSIGN_OR_RETURN(const bool equal, Equals(item, *bound[0], runtime.budget()));
    count += equal ? 1 : 0;
  }
  return Value::Int(count);
}

Result SequenceIndex(Runtime& runtime, const Value& self, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("index", {"", "", ""}, 1, std::move(arguments)));
  const auto size = static_cast<int64_t>(self.items().size());
  ASSIGN_OR_RETURN(int64_t start, IntArgument(bound[1], 0));
  ASSIGN_OR_RETURN(int64_t stop, IntArgument(bound[2], size));
  if (start < 0) start = std::max<int64_t>(start + size, 0);
  if (stop < 0) stop += size;
  for (int64_t i = start; i < std::min(stop, size); ++i) {
    ASSIGN_OR_RETURN(const bool equal, Equals(self.items()[static_cast<size_t>(i)], *bound[0], runtime.budget()));
    if (equal) return Value::Int(i);
  }
  return PythonError("the value is not in the list");
}

// The method of the list with the same items.
template <Result (*method)(Runtime&, const Value&, Arguments)>
Result OfRange(Runtime& runtime, const Value& self, Arguments arguments) {
  if (arguments.positional.size() > 1) return PythonError("takes exactly one argument");
  ASSIGN_OR_RETURN(std::vector<Value> items, Collect(self, runtime.budget()));
  ASSIGN_OR_RETURN(const Value list, Value::List(std::move(items), runtime.budget()));
  return method(runtime, list, std::move(arguments));
}

constexpr Method kRangeMethods[] = {{"count", OfRange<SequenceCount>}, {"index", OfRange<SequenceIndex>}};
constexpr Method kListMethods[] = {{"copy", Copy}, {"count", SequenceCount}, {"index", SequenceIndex}};
constexpr Method kTupleMethods[] = {{"count", SequenceCount}, {"index", SequenceIndex}};

Result LoopCycle(Runtime&, const Value& self, Arguments arguments) {
  if (!arguments.named.empty()) return PythonError("cycle() takes no keyword arguments");
  return self.As<Loop>()->Cycle(arguments.positional);
}

Result LoopChanged(Runtime& runtime, const Value& self, Arguments arguments) {
  if (!arguments.named.empty()) return PythonError("changed() takes no keyword arguments");
  ASSIGN_OR_RETURN(const bool changed, self.As<Loop>()->Changed(arguments.positional, runtime.budget()));
  return Value::Bool(changed);
}

constexpr Method kLoopMethods[] = {{"changed", LoopChanged}, {"cycle", LoopCycle}};

constexpr const char* kChangingDict[] = {"clear", "pop", "popitem", "setdefault", "update"};
constexpr const char* kChangingList[] = {"append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"};
// Of Python, but not here.
constexpr const char* kOtherString[] = {"casefold",   "encode",       "expandtabs", "format",
                                        "format_map", "isidentifier", "maketrans",  "translate"};
constexpr const char* kOtherDict[] = {"fromkeys"};

struct MethodsOfType {
  std::span<const Method> safe;
  std::span<const char* const> changing;
  std::span<const char* const> others;
};

MethodsOfType MethodsOf(const Value& object) {
  if (object.is_string()) return {StringMethods(), {}, kOtherString};
  if (object.is_dict()) return {kDictMethods, kChangingDict, kOtherDict};
  if (object.is_list()) return {kListMethods, kChangingList, {}};
  if (object.is_tuple()) return {kTupleMethods, {}, {}};
  if (object.As<Range>() != nullptr) return {kRangeMethods, {}, {}};
  if (object.As<Loop>() != nullptr) return {kLoopMethods, {}, {}};
  return {};
}

const Method* FindMethod(std::span<const Method> methods, const std::string& name) {
  const auto found =
      std::find_if(methods.begin(), methods.end(), [&](const Method& method) { return name == method.name; });
  return found == methods.end() ? nullptr : &*found;
}

bool Has(std::span<const char* const> names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// What methods of markup answer is markup, too.
Result Mark(const Value& value, Budget* budget) {
  if (value.is_string()) return Value::Str(value.text(), true);
  if (!value.is_sequence()) return value;
  std::vector<Value> items;
  for (const Value& item : value.items()) items.push_back(item.is_string() ? Value::Str(item.text(), true) : item);
  return value.is_list() ? Value::List(std::move(items), budget) : Value::Tuple(std::move(items), budget);
}

class BoundMethod : public Function {
 public:
  BoundMethod(Value self, const Method* method, std::string name)
      : self_(std::move(self)), method_(method), name_(std::move(name)) {}
  std::string TypeName() const override { return "builtin_function_or_method"; }
  int depth() const override { return self_.depth() + 1; }

  Result Call(Runtime& runtime, Arguments arguments) override {
    RETURN_IF_ERROR(runtime.budget()->Spend());
    if (method_ == nullptr) {
      return PythonError(absl::StrCat("the method ", name_, " of '", self_.TypeName(), "' is not supported"));
    }
    ASSIGN_OR_RETURN(Value value, method_->call(runtime, self_, std::move(arguments)));
    if (!self_.is_markup()) return value;
    return Mark(value, runtime.budget());
  }

 private:
  const Value self_;
  const Method* const method_;
  const std::string name_;
};

}  // namespace

MethodKind MethodKindOf(const Value& object, const std::string& name) {
  const MethodsOfType methods = MethodsOf(object);
  if (Has(methods.changing, name)) return MethodKind::kChangesObject;
  const bool safe = FindMethod(methods.safe, name) != nullptr || Has(methods.others, name);
  return safe ? MethodKind::kSafe : MethodKind::kNone;
}

Value BindMethod(const Value& object, const std::string& name) {
  return Value::Of(
      std::shared_ptr<Object>(std::make_shared<BoundMethod>(object, FindMethod(MethodsOf(object).safe, name), name)));
}

}  // namespace switchyard::jinja
