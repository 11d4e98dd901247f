#include "engine/jinja/filters.h"

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "engine/jinja/repr.h"

namespace switchyard::jinja {
namespace {

const Filter* FindFilter(const std::string& name) {
  static const auto& filters = *[] {
    auto* all = new absl::flat_hash_map<std::string, const Filter*>();
    for (const auto part : {TextFilters(), NumberFilters(), SequenceFilters(), LazyFilters()}) {
      for (const Filter& filter : part) all->emplace(filter.name, &filter);
    }
    return all;
  }();
  const auto found = filters.find(name);
  return found == filters.end() ? nullptr : found->second;
}

}  // namespace

bool IsFilter(const std::string& name) { return FindFilter(name) != nullptr; }

absl::StatusOr<Value> CallFilter(Runtime& runtime, const std::string& name, const Value& subject, Arguments arguments) {
  const Filter* filter = FindFilter(name);
  if (filter == nullptr) return PythonError(absl::StrCat("No filter named ", Quoted(name), "."));
  return filter->apply(runtime, subject, std::move(arguments));
}

}  // namespace switchyard::jinja
