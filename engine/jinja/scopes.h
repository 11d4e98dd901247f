// Which names are undefined where a body begins.
//
// jinja2 compiles each scope (the template, a loop's body, a macro, ...) to a Python function's local variables. A name
// that a scope sets, without having read it before and without a scope around it that uses it, is local from the start:
// what runs before the assignment - a macro or an inner loop - sees it as undefined, even where the caller of the
// template gave it a value:
//
//   {% macro greet() %}{{ name }}{% endmacro %}{{ greet() }}{% set name = "x" %}{{ greet() }}   with name = "y": "x"
#ifndef SWITCHYARD_ENGINE_JINJA_SCOPES_H_
#define SWITCHYARD_ENGINE_JINJA_SCOPES_H_

#include "engine/jinja/ast.h"

namespace switchyard::jinja {

// Sets hidden_names in `template_body` and all scopes below it.
void FindHiddenNames(Body* template_body);

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_SCOPES_H_
