// The chat template of a model folder: a conversation to the text that the model was trained on.
//
//   chat_template.jinja, else "chat_template" of tokenizer_config.json: a string, or a list of {name, template}, of
//   which "default" is used, and "tool_use" when there are tools. The special tokens (bos_token, eos_token, ...) of
//   tokenizer_config.json are variables of the template.
#ifndef SWITCHYARD_ENGINE_CHAT_CHAT_TEMPLATE_H_
#define SWITCHYARD_ENGINE_CHAT_CHAT_TEMPLATE_H_

#include <ctime>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "engine/jinja/template.h"

namespace switchyard {

// What a template is rendered with, as in apply_chat_template of transformers.
struct ChatInput {
  jinja::Value messages;                          // a list of dicts
  jinja::Value tools = jinja::Value::None();      // a list of dicts, or none
  jinja::Value documents = jinja::Value::None();  // likewise
  bool add_generation_prompt = true;
  jinja::Variables variables = {};  // further ones; they win over special tokens of the same name
  std::tm now = {};                 // local time, for strftime_now
};

// Immutable; Render may run on many threads.
class ChatTemplate {
 public:
  // NOT_FOUND: the folder has no template. INVALID_ARGUMENT, DATA_LOSS: it cannot be read or parsed; names the file.
  static absl::StatusOr<std::unique_ptr<const ChatTemplate>> Load(const std::string& model_dir);

  // The same from the texts of chat_template.jinja and tokenizer_config.json; nullopt: there is no such file.
  static absl::StatusOr<std::unique_ptr<const ChatTemplate>> Parse(const std::optional<std::string>& template_text,
                                                                   const std::optional<std::string>& tokenizer_config);

  // Errors as jinja::Template::Render.
  absl::StatusOr<std::string> Render(const ChatInput& input, const jinja::RenderLimits& limits) const;

 private:
  ChatTemplate(jinja::Template standard, std::optional<jinja::Template> tool_use, jinja::Variables special_tokens);

  const jinja::Template default_;
  const std::optional<jinja::Template> tool_use_;
  const jinja::Variables special_tokens_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CHAT_CHAT_TEMPLATE_H_
