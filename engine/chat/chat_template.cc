#include "engine/chat/chat_template.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/model_folder.h"
#include "engine/base/status_macros.h"
#include "engine/jinja/from_json.h"

namespace switchyard {
namespace {

using jinja::Value;
using jinja::Variables;

constexpr char kTemplateFile[] = "chat_template.jinja";
constexpr char kConfigFile[] = "tokenizer_config.json";
// The configuration lists all added tokens; some models have thousands.
constexpr JsonLimits kLimits = {.max_bytes = size_t{32} << 20, .max_depth = 32, .max_values = 2'000'000};
constexpr const char* kSpecialTokens[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                          "pad_token", "cls_token", "mask_token"};

absl::Status Invalid(const std::string& message) { return absl::InvalidArgumentError(message); }

absl::StatusOr<std::optional<std::string>> ReadOptional(const ModelFolder& folder, const char* name, size_t max_bytes) {
  absl::StatusOr<std::string> text = folder.ReadSmallFile(name, max_bytes);
  if (absl::IsNotFound(text.status())) return std::nullopt;
  RETURN_IF_ERROR(text.status());
  return *std::move(text);
}

absl::StatusOr<jinja::Template> ParseNamed(const std::string& what, const std::string& source) {
  absl::StatusOr<jinja::Template> parsed = jinja::Template::Parse(source);
  if (parsed.ok()) return parsed;
  return absl::Status(parsed.status().code(), absl::StrCat(what, ": ", parsed.status().message()));
}

const Value* Member(const Value& dict, std::string_view key) {
  return dict.is_dict() ? dict.dict().FindText(jinja::FromUtf8(key)) : nullptr;
}

// A token is written as its text, or as an object with a "content".
std::optional<Value> TokenText(const Value& token) {
  if (token.is_string()) return token;
  const Value* content = Member(token, "content");
  return content != nullptr && content->is_string() ? std::optional<Value>(*content) : std::nullopt;
}

absl::StatusOr<Variables> SpecialTokens(const Value& config) {
  Variables tokens;
  for (const char* name : kSpecialTokens) {
    const Value* token = Member(config, name);
    const std::optional<Value> text = token == nullptr ? std::nullopt : TokenText(*token);
    if (text.has_value()) tokens.emplace_back(name, *text);
  }
  const Value* more = Member(config, "additional_special_tokens");
  if (more == nullptr || !more->is_list()) return tokens;
  std::vector<Value> texts;
  for (const Value& token : more->items()) {
    if (const std::optional<Value> text = TokenText(token); text.has_value()) texts.push_back(*text);
  }
  if (texts.empty()) return tokens;
  jinja::Budget budget({});
  ASSIGN_OR_RETURN(Value list, Value::List(std::move(texts), &budget));
  tokens.emplace_back("additional_special_tokens", std::move(list));
  return tokens;
}

struct Sources {
  std::optional<std::string> standard, tool_use;
};

// The templates of tokenizer_config.json.
absl::StatusOr<Sources> FindSources(const Value& config) {
  Sources sources;
  const Value* entry = Member(config, "chat_template");
  if (entry == nullptr || entry->is_none()) return sources;
  if (entry->is_string()) {
    sources.standard = jinja::ToUtf8(entry->text());
    return sources;
  }
  if (!entry->is_list()) return Invalid(absl::StrCat(kConfigFile, ": chat_template is neither a string nor a list"));
  for (const Value& named : entry->items()) {
    const Value *name = Member(named, "name"), *source = Member(named, "template");
    if (name == nullptr || source == nullptr || !name->is_string() || !source->is_string()) {
      return Invalid(absl::StrCat(kConfigFile, ": an entry of chat_template has no name or no template"));
    }
    if (name->text() == U"default") sources.standard = jinja::ToUtf8(source->text());
    if (name->text() == U"tool_use") sources.tool_use = jinja::ToUtf8(source->text());
  }
  if (!sources.standard.has_value()) return Invalid(absl::StrCat(kConfigFile, ": chat_template has no \"default\""));
  return sources;
}

}  // namespace

ChatTemplate::ChatTemplate(jinja::Template standard, std::optional<jinja::Template> tool_use, Variables special_tokens)
    : default_(std::move(standard)), tool_use_(std::move(tool_use)), special_tokens_(std::move(special_tokens)) {}

absl::StatusOr<std::unique_ptr<const ChatTemplate>> ChatTemplate::Load(const std::string& model_dir) {
  ASSIGN_OR_RETURN(const ModelFolder folder, ModelFolder::Open(model_dir));
  ASSIGN_OR_RETURN(const std::optional<std::string> text,
                   ReadOptional(folder, kTemplateFile, jinja::kMaxTemplateBytes));
  ASSIGN_OR_RETURN(const std::optional<std::string> config, ReadOptional(folder, kConfigFile, kLimits.max_bytes));
  return Parse(text, config);
}

absl::StatusOr<std::unique_ptr<const ChatTemplate>> ChatTemplate::Parse(
    const std::optional<std::string>& template_text, const std::optional<std::string>& tokenizer_config) {
  Value config = Value::None();
  if (tokenizer_config.has_value()) {
    ASSIGN_OR_RETURN(config, jinja::FromJson(*tokenizer_config, kLimits, kConfigFile));
  }
  Sources sources{template_text, std::nullopt};
  const std::string what = template_text.has_value() ? kTemplateFile : absl::StrCat(kConfigFile, ": chat_template");
  if (!template_text.has_value()) {
    ASSIGN_OR_RETURN(sources, FindSources(config));
  }
  if (!sources.standard.has_value()) return absl::NotFoundError("the model has no chat template");
  ASSIGN_OR_RETURN(jinja::Template standard, ParseNamed(what, *sources.standard));
  std::optional<jinja::Template> tool_use;
  if (sources.tool_use.has_value()) {
    ASSIGN_OR_RETURN(tool_use, ParseNamed(what, *sources.tool_use));
  }
  ASSIGN_OR_RETURN(Variables tokens, SpecialTokens(config));
  return std::unique_ptr<const ChatTemplate>(
      new ChatTemplate(std::move(standard), std::move(tool_use), std::move(tokens)));
}

absl::StatusOr<std::string> ChatTemplate::Render(const ChatInput& input, const jinja::RenderLimits& limits) const {
  Variables variables = special_tokens_;
  variables.insert(variables.end(), input.variables.begin(), input.variables.end());
  variables.emplace_back("messages", input.messages);
  variables.emplace_back("tools", input.tools);
  variables.emplace_back("documents", input.documents);
  variables.emplace_back("add_generation_prompt", Value::Bool(input.add_generation_prompt));
  const bool has_tools = !input.tools.is_none();
  const jinja::Template& chosen = has_tools && tool_use_.has_value() ? *tool_use_ : default_;
  return chosen.Render(variables, input.now, limits);
}

}  // namespace switchyard
