// Template text to statements.
#ifndef SWITCHYARD_ENGINE_JINJA_PARSER_H_
#define SWITCHYARD_ENGINE_JINJA_PARSER_H_

#include "absl/status/statusor.h"
#include "engine/jinja/ast.h"

namespace switchyard::jinja {

// INVALID_ARGUMENT: "line 3: ...", for a syntax error, an unknown filter or test, or a statement that is not supported
// (extends, include, import, block, autoescape).
absl::StatusOr<Body> Parse(TextView source);

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_PARSER_H_
