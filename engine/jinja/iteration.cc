// Iterators, subscripts and slices.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/operators.h"

namespace switchyard::jinja {
namespace {

// Over everything that has a length and does not change.
class PlaceIterator : public Iterator {
 public:
  PlaceIterator(Value value, int64_t size, Budget* budget)
      : Iterator(value.depth() + 1), value_(std::move(value)), size_(size), budget_(budget) {}
  std::string TypeName() const override { return value_.TypeName() + "_iterator"; }

  absl::StatusOr<std::optional<Value>> Next() override {
    if (at_ >= size_) return std::nullopt;
    RETURN_IF_ERROR(budget_->Spend());
    ASSIGN_OR_RETURN(Value item, At(at_++));
    return item;
  }

 private:
  absl::StatusOr<Value> At(int64_t place) const {
    const auto index = static_cast<size_t>(place);
    if (value_.is_string()) return Value::Str(Text(1, value_.text()[index]));
    if (value_.is_sequence()) return value_.items()[index];
    if (value_.is_dict()) return value_.dict().entries()[index].first;
    if (const auto* range = value_.As<Range>(); range != nullptr) return Value::Int(range->at(place));
    return value_.As<DictView>()->at(index, budget_);
  }

  const Value value_;
  const int64_t size_;
  Budget* const budget_;
  int64_t at_ = 0;
};

// Python's slice.indices, then the places one by one.
struct Places {
  int64_t start, stop, step, count;
};

absl::StatusOr<std::optional<int64_t>> Bound(const Value& value) {
  if (value.is_none()) return std::nullopt;
  if (value.is_integral()) return value.integer();
  return PythonError("slice indices must be integers or None or have an __index__ method");
}

int64_t Clip(int64_t bound, int64_t size, bool backwards) {
  if (bound < 0) bound = bound < -size ? -1 : bound + size;
  const int64_t low = backwards ? -1 : 0;
  return std::clamp(bound, low, backwards ? size - 1 : size);
}

absl::StatusOr<Places> PlacesOf(const Value& start, const Value& stop, const Value& step, int64_t size) {
  ASSIGN_OR_RETURN(const std::optional<int64_t> by, Bound(step));
  ASSIGN_OR_RETURN(const std::optional<int64_t> from, Bound(start));
  ASSIGN_OR_RETURN(const std::optional<int64_t> to, Bound(stop));
  // No sequence is that long.
  const int64_t stride = std::clamp<int64_t>(by.value_or(1), -(int64_t{1} << 40), int64_t{1} << 40);
  if (stride == 0) return PythonError("slice step cannot be zero");
  const bool backwards = stride < 0;
  const int64_t first = from.has_value() ? Clip(*from, size, backwards) : backwards ? size - 1 : 0;
  const int64_t last = to.has_value() ? Clip(*to, size, backwards) : backwards ? -1 : size;
  return Places{first, last, stride, Range(first, last, stride).size()};
}

std::optional<int64_t> PlaceOf(const Value& index, int64_t size) {
  if (!index.is_integral()) return std::nullopt;
  int64_t place = index.integer();
  if (place < 0) place += size;
  if (place < 0 || place >= size) return std::nullopt;
  return place;
}

}  // namespace

bool IsIterable(const Value& value) { return HasLength(value) || value.As<Iterator>() != nullptr; }

absl::StatusOr<std::shared_ptr<Iterator>> Iterate(const Value& value, Budget* budget) {
  if (value.As<Iterator>() != nullptr) return std::static_pointer_cast<Iterator>(value.object_ptr());
  if (!HasLength(value)) return PythonError(absl::StrCat("'", value.TypeName(), "' object is not iterable"));
  RETURN_IF_ERROR(CheckDepth(value.depth()));
  ASSIGN_OR_RETURN(const int64_t size, Length(value));
  return std::make_shared<PlaceIterator>(value, size, budget);
}

absl::StatusOr<std::vector<Value>> Collect(const Value& value, Budget* budget) {
  ASSIGN_OR_RETURN(const std::shared_ptr<Iterator> iterator, Iterate(value, budget));
  std::vector<Value> items;
  while (true) {
    ASSIGN_OR_RETURN(std::optional<Value> item, iterator->Next());
    if (!item.has_value()) return items;
    RETURN_IF_ERROR(budget->Grow(4));
    items.push_back(*std::move(item));
  }
}

absl::StatusOr<std::optional<Value>> Subscript(const Value& value, const Value& index, Budget* budget) {
  RETURN_IF_ERROR(budget->Spend());
  if (value.is_undefined()) return value.UndefinedError();
  if (value.is_dict()) {
    const absl::StatusOr<const Value*> found = value.dict().Find(index, budget);
    if (absl::IsInvalidArgument(found.status())) return std::nullopt;
    RETURN_IF_ERROR(found.status());
    return *found == nullptr ? std::nullopt : std::optional<Value>(**found);
  }
  if (!value.is_string() && !value.is_sequence() && value.As<Range>() == nullptr) return std::nullopt;
  ASSIGN_OR_RETURN(const int64_t size, Length(value));
  const std::optional<int64_t> place = PlaceOf(index, size);
  if (!place.has_value()) return std::nullopt;
  if (value.is_string()) return Value::Str(Text(1, value.text()[static_cast<size_t>(*place)]), value.is_markup());
  if (value.is_sequence()) return value.items()[static_cast<size_t>(*place)];
  return Value::Int(value.As<Range>()->at(*place));
}

absl::StatusOr<Value> Slice(const Value& value, const Value& start, const Value& stop, const Value& step,
                            Budget* budget) {
  if (value.is_undefined()) return value.UndefinedError();
  const auto* range = value.As<Range>();
  if (!value.is_string() && !value.is_sequence() && range == nullptr) {
    return PythonError(absl::StrCat("'", value.TypeName(), "' object cannot be sliced"));
  }
  ASSIGN_OR_RETURN(const int64_t size, Length(value));
  ASSIGN_OR_RETURN(const Places places, PlacesOf(start, stop, step, size));
  if (range != nullptr) {
    return Value::Of(std::shared_ptr<Object>(
        std::make_shared<Range>(range->at(places.start), range->at(places.stop), range->step * places.step)));
  }
  RETURN_IF_ERROR(budget->Grow(places.count));
  const auto place = [&](int64_t i) { return static_cast<size_t>(places.start + i * places.step); };
  if (value.is_string()) {
    Text text;
    for (int64_t i = 0; i < places.count; ++i) text += value.text()[place(i)];
    return Value::Str(std::move(text), value.is_markup());
  }
  std::vector<Value> items;
  for (int64_t i = 0; i < places.count; ++i) items.push_back(value.items()[place(i)]);
  return value.is_tuple() ? Value::Tuple(std::move(items), budget) : Value::List(std::move(items), budget);
}

}  // namespace switchyard::jinja
