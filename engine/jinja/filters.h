// The filters of a template: value | name(arguments).
//
// Those of jinja2 except filesizeformat, groupby, pprint, random, striptags, truncate, urlencode, urlize, wordwrap and
// xmlattr; tojson is the one of Hugging Face's transformers, which does not escape HTML.
#ifndef SWITCHYARD_ENGINE_JINJA_FILTERS_H_
#define SWITCHYARD_ENGINE_JINJA_FILTERS_H_

#include <span>
#include <string>

#include "engine/jinja/runtime.h"

namespace switchyard::jinja {

struct Filter {
  const char* name;
  absl::StatusOr<Value> (*apply)(Runtime& runtime, const Value& subject, Arguments arguments);
};

bool IsFilter(const std::string& name);
// INVALID_ARGUMENT: no such filter, or what it says.
absl::StatusOr<Value> CallFilter(Runtime& runtime, const std::string& name, const Value& subject, Arguments arguments);

// Where they come from.
std::span<const Filter> TextFilters();
std::span<const Filter> NumberFilters();
std::span<const Filter> SequenceFilters();
std::span<const Filter> LazyFilters();

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_FILTERS_H_
