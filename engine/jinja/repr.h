// Values as text: Python's str() and repr().
#ifndef SWITCHYARD_ENGINE_JINJA_REPR_H_
#define SWITCHYARD_ENGINE_JINJA_REPR_H_

#include "engine/jinja/value.h"

namespace switchyard::jinja {

// str(value): undefined is empty, True, None, 1.0, ['a'], ...
absl::StatusOr<Text> Str(const Value& value, Budget* budget);
absl::StatusOr<Text> Repr(const Value& value, Budget* budget);

// 'it\'s', with the quotes that Python chooses.
Text ReprText(TextView text);
// The shortest digits that read back as `value`: "0.1", "1e+16", "inf".
std::string FormatFloat(double value);

// For messages: the repr of a name or text, at most 64 characters of it, in UTF-8.
std::string Quoted(TextView text);
std::string Quoted(const std::string& utf8);

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_REPR_H_
