// A Jinja template, of the part of the language that chat templates use, with the output of Python's jinja2 as Hugging
// Face's transformers sets it up: ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True) with loop
// controls, generation blocks, tojson without HTML escapes, raise_exception and strftime_now.
//
//   Template::Parse("{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{% endfor %}")
//
// Both the text and the variables are untrusted: see limits.h. README.md lists what differs from the reference.
#ifndef SWITCHYARD_ENGINE_JINJA_TEMPLATE_H_
#define SWITCHYARD_ENGINE_JINJA_TEMPLATE_H_

#include <ctime>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/jinja/limits.h"
#include "engine/jinja/value.h"

namespace switchyard::jinja {

using Variables = std::vector<std::pair<std::string, Value>>;

// Immutable; Render may run on many threads.
class Template {
 public:
  // INVALID_ARGUMENT: not UTF-8, above kMaxTemplateBytes, or "line 3: ..." for what cannot be parsed.
  static absl::StatusOr<Template> Parse(std::string_view source);
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;
  ~Template();

  // The text, in UTF-8. A name that is there twice has its last value. `now`: what strftime_now shows.
  // ABORTED: the template called raise_exception; the message is its argument, and whose text that is, is not known.
  // RESOURCE_EXHAUSTED: "line 3: ..." over one of `limits`. INVALID_ARGUMENT: "line 3: ..." any other error.
  absl::StatusOr<std::string> Render(const Variables& variables, const std::tm& now,
                                     const RenderLimits& limits = {}) const;

 private:
  struct Program;
  explicit Template(std::unique_ptr<const Program> program);
  std::unique_ptr<const Program> program_;
};

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_TEMPLATE_H_
