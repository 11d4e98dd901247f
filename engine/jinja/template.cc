#include "engine/jinja/template.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/ast.h"
#include "engine/jinja/functions.h"
#include "engine/jinja/interpreter.h"
#include "engine/jinja/parser.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard::jinja {

struct Template::Program {
  Body body;
};

Template::Template(std::unique_ptr<const Program> program) : program_(std::move(program)) {}
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;
Template::~Template() = default;

absl::StatusOr<Template> Template::Parse(std::string_view source) {
  if (source.size() > kMaxTemplateBytes) {
    return PythonError(absl::StrCat("has ", source.size(), " bytes; at most ", kMaxTemplateBytes, " are read"));
  }
  if (const size_t at = FindInvalidUtf8(source); at != std::string_view::npos) {
    return PythonError(absl::StrCat("is not valid UTF-8 (byte ", at, ")"));
  }
  ASSIGN_OR_RETURN(Body body, jinja::Parse(FromUtf8(source)));
  return Template(std::make_unique<const Program>(Program{std::move(body)}));
}

absl::StatusOr<std::string> Template::Render(const Variables& variables, const std::tm& now,
                                             const RenderLimits& limits) const {
  absl::flat_hash_map<std::string, Value> context;
  for (const auto& [name, value] : GlobalFunctions()) context[name] = value;
  for (const auto& [name, value] : variables) context[name] = value;
  Budget budget(limits);
  Interpreter interpreter(std::move(context), now, &budget);
  ASSIGN_OR_RETURN(const Text text, interpreter.Run(program_->body));
  if (std::any_of(text.begin(), text.end(), [](char32_t c) { return c >= 0xD800 && c < 0xE000; })) {
    return PythonError("the text has half of a surrogate pair, which UTF-8 cannot say");
  }
  std::string out = ToUtf8(text);
  if (static_cast<int64_t>(out.size()) <= limits.max_output_bytes) return out;
  return absl::ResourceExhaustedError(
      absl::StrCat("the text has ", out.size(), " bytes; at most ", limits.max_output_bytes, " are allowed"));
}

}  // namespace switchyard::jinja
