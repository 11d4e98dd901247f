// The escapes in a string of a template, "a\tb\u00e9".
#ifndef SWITCHYARD_ENGINE_JINJA_STRING_LITERAL_H_
#define SWITCHYARD_ENGINE_JINJA_STRING_LITERAL_H_

#include "absl/status/statusor.h"
#include "engine/jinja/value.h"

namespace switchyard::jinja {

// What stands between the quotes, with its escapes replaced as the codec "unicode-escape" does it. INVALID_ARGUMENT: a
// truncated escape, or \N{...}, which is not supported.
absl::StatusOr<Text> ReadEscapes(TextView literal);

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_STRING_LITERAL_H_
