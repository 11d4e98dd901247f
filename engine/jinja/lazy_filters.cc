// Filters that answer with an iterator, which does its work when it is asked for items, and only once: so a list made
// of one is empty the second time, and errors come late, as in the reference.
#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/attribute_path.h"
#include "engine/jinja/filters.h"
#include "engine/jinja/predicates.h"
#include "engine/jinja/repr.h"

namespace switchyard::jinja {
namespace {

using Result = absl::StatusOr<Value>;
using Item = absl::StatusOr<std::optional<Value>>;

Result MakeObject(std::shared_ptr<Iterator> iterator) {
  RETURN_IF_ERROR(CheckDepth(iterator->depth()));
  return Value::Of(std::shared_ptr<Object>(std::move(iterator)));
}

// What `make` answers when it is first asked, one by one.
class LateList : public Iterator {
 public:
  using Make = std::function<absl::StatusOr<std::vector<Value>>()>;
  LateList(int depth, Make make) : Iterator(depth), make_(std::move(make)) {}

  Item Next() override {
    if (make_) {
      const Make make = std::exchange(make_, nullptr);
      ASSIGN_OR_RETURN(items_, make());
    }
    if (at_ == items_.size()) return std::nullopt;
    return std::optional<Value>(items_[at_++]);
  }

 private:
  Make make_;
  std::vector<Value> items_;
  size_t at_ = 0;
};

// One item for each of the subject's, or none.
class Transformed : public Iterator {
 public:
  using Apply = std::function<Item(const Value&)>;
  // `prepare` is called before the first item.
  Transformed(Runtime& runtime, Value subject, std::function<absl::StatusOr<Apply>()> prepare)
      : Iterator(subject.depth() + 1), runtime_(runtime), subject_(std::move(subject)), prepare_(std::move(prepare)) {}

  Item Next() override {
    RETURN_IF_ERROR(Start());
    while (items_ != nullptr) {
      ASSIGN_OR_RETURN(const std::optional<Value> item, items_->Next());
      if (!item.has_value()) break;
      ASSIGN_OR_RETURN(std::optional<Value> out, apply_(*item));
      if (out.has_value()) return out;
    }
    items_ = nullptr;
    return std::nullopt;
  }

 private:
  absl::Status Start() {
    if (started_) return absl::OkStatus();
    started_ = true;
    if (!IsTrue(subject_)) return absl::OkStatus();
    ASSIGN_OR_RETURN(apply_, prepare_());
    ASSIGN_OR_RETURN(items_, Iterate(subject_, runtime_.budget()));
    return absl::OkStatus();
  }

  Runtime& runtime_;
  const Value subject_;
  const std::function<absl::StatusOr<Apply>()> prepare_;
  bool started_ = false;
  Apply apply_;
  std::shared_ptr<Iterator> items_;
};

absl::StatusOr<std::string> NameArgument(const Value& name, const char* kind) {
  if (name.is_undefined()) return name.UndefinedError();
  if (!name.is_string()) return PythonError(absl::StrCat("No ", kind, " of that name."));
  return ToUtf8(name.text());
}

absl::StatusOr<Transformed::Apply> MapAttribute(Runtime& runtime, const Arguments& arguments) {
  Value attribute, otherwise = Value::None();
  for (const auto& [name, value] : arguments.named) {
    if (name == "attribute") {
      attribute = value;
    } else if (name == "default") {
      otherwise = value;
    } else {
      return PythonError(absl::StrCat("Unexpected keyword argument ", Quoted(name)));
    }
  }
  const AttributePath path(attribute);
  return [&runtime, path, otherwise](const Value& item) -> Item {
    ASSIGN_OR_RETURN(Value found, path.Get(runtime, item, otherwise));
    return std::optional<Value>(std::move(found));
  };
}

absl::StatusOr<Transformed::Apply> MapFilter(Runtime& runtime, Arguments arguments) {
  if (arguments.positional.empty()) {
    for (const auto& [name, value] : arguments.named) {
      if (name == "attribute") return MapAttribute(runtime, arguments);
    }
    return PythonError("map requires a filter argument");
  }
  const Value filter = arguments.positional.front();
  arguments.positional.erase(arguments.positional.begin());
  return [&runtime, filter, arguments](const Value& item) -> Item {
    ASSIGN_OR_RETURN(const std::string name, NameArgument(filter, "filter"));
    ASSIGN_OR_RETURN(Value mapped, CallFilter(runtime, name, item, arguments));
    return std::optional<Value>(std::move(mapped));
  };
}

Result Map(Runtime& runtime, const Value& subject, Arguments arguments) {
  return MakeObject(std::make_shared<Transformed>(
      runtime, subject, [&runtime, arguments = std::move(arguments)] { return MapFilter(runtime, arguments); }));
}

absl::StatusOr<Transformed::Apply> Selection(Runtime& runtime, Arguments arguments, bool keeps, bool by_attribute) {
  AttributePath path(Value::None());
  auto& positional = arguments.positional;
  if (by_attribute) {
    if (positional.empty()) return PythonError("Missing parameter for attribute name");
    path = AttributePath(positional.front());
    positional.erase(positional.begin());
  }
  std::optional<Value> test;
  if (!positional.empty()) {
    test = positional.front();
    positional.erase(positional.begin());
  }
  return [&runtime, path, test, arguments, keeps](const Value& item) -> Item {
    ASSIGN_OR_RETURN(const Value subject, path.Get(runtime, item));
    bool holds = false;
    if (test.has_value()) {
      ASSIGN_OR_RETURN(const std::string name, NameArgument(*test, "test"));
      ASSIGN_OR_RETURN(holds, CallPredicate(runtime, name, subject, arguments));
    } else {
      holds = IsTrue(subject);
    }
    return holds == keeps ? std::optional<Value>(item) : std::nullopt;
  };
}

template <bool keeps, bool by_attribute>
Result Select(Runtime& runtime, const Value& subject, Arguments arguments) {
  return MakeObject(std::make_shared<Transformed>(runtime, subject, [&runtime, arguments = std::move(arguments)] {
    return Selection(runtime, arguments, keeps, by_attribute);
  }));
}

Result Items(Runtime& runtime, const Value& subject, Arguments arguments) {
  RETURN_IF_ERROR(Bind("items", {}, 0, std::move(arguments)).status());
  return MakeObject(std::make_shared<LateList>(
      subject.depth() + 1, [budget = runtime.budget(), subject]() -> absl::StatusOr<std::vector<Value>> {
        if (subject.is_undefined()) return std::vector<Value>();
        if (!subject.is_dict()) return PythonError("Can only get item pairs from a mapping.");
        const auto view = std::make_shared<DictView>(subject.dict_ptr(), DictView::Part::kItems);
        return Collect(Value::Of(std::shared_ptr<Object>(view)), budget);
      }));
}

absl::StatusOr<std::vector<Value>> UniqueItems(Runtime& runtime, const Value& subject, const AttributePath& path,
                                               bool case_sensitive) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, Collect(subject, runtime.budget()));
  std::vector<Value> unique;
  Dict seen;
  for (const Value& item : items) {
    ASSIGN_OR_RETURN(Value key, path.Get(runtime, item));
    if (!case_sensitive) key = IgnoreCase(key);
    ASSIGN_OR_RETURN(const Value* found, seen.Find(key, runtime.budget()));
    if (found != nullptr) continue;
    RETURN_IF_ERROR(seen.Set(std::move(key), Value::None(), runtime.budget()));
    unique.push_back(item);
  }
  return unique;
}

Result Unique(Runtime& runtime, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound,
                   Bind("unique", {"case_sensitive", "attribute"}, 0, std::move(arguments)));
  const AttributePath path(bound[1].value_or(Value::None()));
  const bool case_sensitive = TruthArgument(bound[0], false);
  return MakeObject(std::make_shared<LateList>(subject.depth() + 1, [&runtime, subject, path, case_sensitive] {
    return UniqueItems(runtime, subject, path, case_sensitive);
  }));
}

absl::StatusOr<std::vector<Value>> Batches(Budget* budget, const Value& subject, int64_t size,
                                           const std::optional<Value>& fill) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, Collect(subject, budget));
  std::vector<Value> batches;
  std::vector<Value> batch;
  const auto flush = [&]() -> absl::Status {
    ASSIGN_OR_RETURN(Value list, Value::List(std::exchange(batch, {}), budget));
    batches.push_back(std::move(list));
    return absl::OkStatus();
  };
  for (size_t i = 0; i < items.size(); ++i) {
    if (static_cast<int64_t>(batch.size()) == size) RETURN_IF_ERROR(flush());
    batch.push_back(items[i]);
  }
  if (batch.empty()) return batches;
  if (fill.has_value() && !fill->is_none() && static_cast<int64_t>(batch.size()) < size) {
    RETURN_IF_ERROR(budget->Grow(4 * size));
    batch.resize(static_cast<size_t>(size), *fill);
  }
  RETURN_IF_ERROR(flush());
  return batches;
}

Result Batch(Runtime& runtime, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("batch", {"linecount", "fill_with"}, 1, std::move(arguments)));
  ASSIGN_OR_RETURN(const int64_t size, IntArgument(*bound[0]));
  const std::optional<Value> fill = bound[1];
  return MakeObject(std::make_shared<LateList>(subject.depth() + 2, [budget = runtime.budget(), subject, size, fill] {
    return Batches(budget, subject, size, fill);
  }));
}

absl::StatusOr<std::vector<Value>> Slices(Budget* budget, const Value& subject, int64_t count,
                                          const std::optional<Value>& fill) {
  ASSIGN_OR_RETURN(const std::vector<Value> items, Collect(subject, budget));
  if (count == 0) return PythonError("integer division or modulo by zero");
  if (count < 0) return std::vector<Value>();
  RETURN_IF_ERROR(budget->Grow(8 * std::min<int64_t>(count, int64_t{1} << 40)));
  const size_t slices = static_cast<size_t>(count), size = items.size() / slices, num_longer = items.size() % slices;
  std::vector<Value> out;
  size_t at = 0;
  for (size_t i = 0; i < slices; ++i) {
    const size_t end = at + size + (i < num_longer ? 1 : 0);
    std::vector<Value> slice(items.begin() + static_cast<std::ptrdiff_t>(at),
                             items.begin() + static_cast<std::ptrdiff_t>(end));
    if (fill.has_value() && !fill->is_none() && i >= num_longer) slice.push_back(*fill);
    at = end;
    ASSIGN_OR_RETURN(Value list, Value::List(std::move(slice), budget));
    out.push_back(std::move(list));
  }
  return out;
}

Result SliceFilter(Runtime& runtime, const Value& subject, Arguments arguments) {
  ASSIGN_OR_RETURN(const BoundArguments bound, Bind("slice", {"slices", "fill_with"}, 1, std::move(arguments)));
  const std::optional<Value> fill = bound[1];
  return MakeObject(std::make_shared<LateList>(
      subject.depth() + 2,
      [budget = runtime.budget(), subject, count = *bound[0], fill]() -> absl::StatusOr<std::vector<Value>> {
        ASSIGN_OR_RETURN(const int64_t slices, IntArgument(count));
        return Slices(budget, subject, slices, fill);
      }));
}

Result Reverse(Runtime& runtime, const Value& subject, Arguments arguments) {
  RETURN_IF_ERROR(Bind("reverse", {}, 0, std::move(arguments)).status());
  if (subject.is_string()) {
    RETURN_IF_ERROR(runtime.budget()->Grow(static_cast<int64_t>(subject.text().size())));
    return Value::Str(Text(subject.text().rbegin(), subject.text().rend()), subject.is_markup());
  }
  if (!IsIterable(subject)) return PythonError("argument must be iterable");
  ASSIGN_OR_RETURN(std::vector<Value> items, Collect(subject, runtime.budget()));
  std::reverse(items.begin(), items.end());
  if (!HasLength(subject)) return Value::List(std::move(items), runtime.budget());
  return MakeObject(std::make_shared<LateList>(
      subject.depth() + 1, [items = std::move(items)]() -> absl::StatusOr<std::vector<Value>> { return items; }));
}

constexpr Filter kFilters[] = {
    {"batch", Batch},
    {"items", Items},
    {"map", Map},
    {"reject", Select<false, false>},
    {"rejectattr", Select<false, true>},
    {"reverse", Reverse},
    {"select", Select<true, false>},
    {"selectattr", Select<true, true>},
    {"slice", SliceFilter},
    {"unique", Unique},
};

}  // namespace

std::span<const Filter> LazyFilters() { return kFilters; }

}  // namespace switchyard::jinja
