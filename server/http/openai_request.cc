#include "server/http/openai_request.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "engine/base/status_macros.h"
#include "server/frontend/errors.h"
#include "server/frontend/request_validation.h"
#include "server/frontend/sampling_fields.h"
#include "server/http/chat_request.h"
#include "server/http/ordered_json.h"
#include "server/http/prompt_list.h"

namespace switchyard::http {
namespace {

using Json = nlohmann::ordered_json;

JsonLimits LimitsOfBody() { return {.max_bytes = size_t{1} << 30, .max_depth = 40, .max_values = size_t{1} << 20}; }

// What is known of a request while its fields are read, in any order.
struct Draft {
  v1::GenerateRequest request;  // all but the prompt
  v1::ChatPrompt chat;
  AnswerShape shape;
  const Json* prompt = nullptr;
  bool has_messages = false;
  bool uses_tools = true;
  std::optional<int32_t> max_completion_tokens;
  std::optional<int32_t> top_logprobs;
  Json template_variables = Json::object();
};

absl::Status Wrong(const std::string& field, const std::string& problem) {
  return InvalidRequest(field, field + " " + problem);
}

// A field as the readers of the sampling parameters want it.
struct Plain {
  Plain(const std::string& name, const Json& ordered) : value(ordered), named{name, value} {}
  const nlohmann::json value;
  const NamedJson named;
};

using Reader = absl::Status (*)(const std::string& name, const Json& value, Draft* draft);

absl::Status ReadModel(const std::string& name, const Json& value, Draft* draft) {
  if (!value.is_string()) return Wrong(name, "is no text");
  draft->request.set_model(value.get<std::string>());
  return absl::OkStatus();
}

absl::Status ReadStream(const std::string& name, const Json& value, Draft* draft) {
  ASSIGN_OR_RETURN(draft->shape.stream, ReadFlag(Plain(name, value).named));
  return absl::OkStatus();
}

absl::Status ReadStreamOptions(const std::string& name, const Json& value, Draft* draft) {
  if (!value.is_object()) return Wrong(name, "is no object");
  for (const auto& [key, option] : value.get_ref<const Json::object_t&>()) {
    const std::string field = name + "." + Printable(key);
    if (key == "include_usage") {
      ASSIGN_OR_RETURN(draft->shape.include_usage, ReadFlag(Plain(field, option).named));
    } else if (key != "include_obfuscation" || option != false) {
      return Wrong(field, "is not known here; use include_usage");
    }
  }
  return absl::OkStatus();
}

absl::Status ReadPriority(const std::string& name, const Json& value, Draft* draft) {
  ASSIGN_OR_RETURN(const int32_t priority, ReadInt32(Plain(name, value).named));
  draft->request.set_priority(priority);
  return absl::OkStatus();
}

absl::Status ReadAddSpecialTokens(const std::string& name, const Json& value, Draft* draft) {
  ASSIGN_OR_RETURN(const bool add, ReadFlag(Plain(name, value).named));
  draft->request.set_add_special_tokens(add);
  return absl::OkStatus();
}

// ------------------------------------------------------------------------------------------- /v1/completions alone

absl::Status ReadPrompt(const std::string&, const Json& value, Draft* draft) {
  draft->prompt = &value;
  return absl::OkStatus();
}

absl::Status ReadNumLogprobs(const std::string& name, const Json& value, Draft* draft) {
  ASSIGN_OR_RETURN(const int32_t logprobs, ReadInt32(Plain(name, value).named));
  draft->request.set_logprobs(logprobs);
  draft->shape.logprobs = true;
  return absl::OkStatus();
}

// -------------------------------------------------------------------------------------- /v1/chat/completions alone

absl::Status ReadChatMessages(const std::string&, const Json& value, Draft* draft) {
  draft->has_messages = true;
  return ReadMessages(value, &draft->chat);
}

absl::Status ReadTools(const std::string& name, const Json& value, Draft* draft) {
  return ReadObjects(name, value, draft->chat.mutable_tools());
}

absl::Status ReadToolChoice(const std::string& name, const Json& value, Draft* draft) {
  if (value != "auto" && value != "none") {
    return Wrong(name,
                 "asks for a certain call, but this server leaves the answer to the model; use \"auto\" or \"none\"");
  }
  draft->uses_tools = value == "auto";
  return absl::OkStatus();
}

absl::Status ReadDocuments(const std::string& name, const Json& value, Draft* draft) {
  return ReadObjects(name, value, draft->chat.mutable_documents());
}

absl::Status ReadTemplateVariables(const std::string& name, const Json& value, Draft* draft) {
  if (!value.is_object()) return Wrong(name, "is no object");
  for (const auto& [key, variable] : value.get_ref<const Json::object_t&>()) {
    draft->template_variables.get_ref<Json::object_t&>().emplace_back(key, variable);
  }
  return absl::OkStatus();
}

absl::Status ReadGenerationPrompt(const std::string& name, const Json& value, Draft* draft) {
  ASSIGN_OR_RETURN(const bool add, ReadFlag(Plain(name, value).named));
  draft->chat.set_add_generation_prompt(add);
  return absl::OkStatus();
}

absl::Status ReadWantsLogprobs(const std::string& name, const Json& value, Draft* draft) {
  ASSIGN_OR_RETURN(draft->shape.logprobs, ReadFlag(Plain(name, value).named));
  return absl::OkStatus();
}

absl::Status ReadTopLogprobs(const std::string& name, const Json& value, Draft* draft) {
  ASSIGN_OR_RETURN(draft->top_logprobs, ReadInt32(Plain(name, value).named));
  return absl::OkStatus();
}

absl::Status ReadMaxCompletionTokens(const std::string& name, const Json& value, Draft* draft) {
  ASSIGN_OR_RETURN(draft->max_completion_tokens, ReadInt32(Plain(name, value).named));
  return absl::OkStatus();
}

// ------------------------------------------------------------------------------------------------------- all fields

using Fields = std::pair<std::string_view, Reader>;
constexpr Fields kFieldsOfBoth[] = {
    {"model", ReadModel},
    {"stream", ReadStream},
    {"stream_options", ReadStreamOptions},
    {"priority", ReadPriority},
    {"add_special_tokens", ReadAddSpecialTokens},
};
constexpr Fields kCompletionFields[] = {{"prompt", ReadPrompt}, {"logprobs", ReadNumLogprobs}};
constexpr Fields kChatFields[] = {
    {"messages", ReadChatMessages},
    {"tools", ReadTools},
    {"tool_choice", ReadToolChoice},
    {"documents", ReadDocuments},
    {"chat_template_kwargs", ReadTemplateVariables},
    {"add_generation_prompt", ReadGenerationPrompt},
    {"logprobs", ReadWantsLogprobs},
    {"top_logprobs", ReadTopLogprobs},
    {"max_completion_tokens", ReadMaxCompletionTokens},
};

// They matter to OpenAI's own service, and change no answer here.
constexpr std::string_view kPassedBy[] = {"user",
                                          "metadata",
                                          "store",
                                          "service_tier",
                                          "safety_identifier",
                                          "prompt_cache_key",
                                          "prompt_cache_retention",
                                          "parallel_tool_calls"};

// Served only as this value, which is what they are when they are off.
constexpr std::pair<std::string_view, std::string_view> kOnlyOff[] = {
    {"echo", "false"},
    {"best_of", "1"},
    {"suffix", "\"\""},
    {"use_beam_search", "false"},
    {"continue_final_message", "false"},
    {"modalities", "[\"text\"]"},
    {"response_format", "{\"type\":\"text\"}"},
};

template <typename Table>
auto Find(const Table& table, std::string_view name) -> decltype(&*std::begin(table)) {
  const auto found =
      std::find_if(std::begin(table), std::end(table), [name](const auto& entry) { return entry.first == name; });
  return found == std::end(table) ? nullptr : &*found;
}

std::vector<Fields> FieldsOf(Endpoint endpoint) {
  std::vector<Fields> fields(std::begin(kFieldsOfBoth), std::end(kFieldsOfBoth));
  if (endpoint == Endpoint::kChat) {
    fields.insert(fields.end(), std::begin(kChatFields), std::end(kChatFields));
  } else {
    fields.insert(fields.end(), std::begin(kCompletionFields), std::end(kCompletionFields));
  }
  return fields;
}

absl::Status ReadField(const std::vector<Fields>& fields, const std::string& name, const Json& value, Draft* draft) {
  if (value.is_null()) return absl::OkStatus();
  if (const Fields* field = Find(fields, name)) return field->second(name, value, draft);
  if (IsSamplingField(name)) return SetSamplingField(name, name, Plain(name, value).value, &draft->request);
  if (std::find(std::begin(kPassedBy), std::end(kPassedBy), name) != std::end(kPassedBy)) return absl::OkStatus();
  const auto* const off = Find(kOnlyOff, name);
  const std::string shown = Printable(name);
  if (off == nullptr) return Wrong(shown, "is no field that this server knows");
  if (ToText(value) == off->second) return absl::OkStatus();
  return Wrong(shown, "is not supported; leave it out, or use " + std::string(off->second));
}

// ---------------------------------------------------------------------------------------------------------- the end

// Checked here, too: the answer has a place per choice before the request is validated.
absl::Status SetNumChoices(Draft* draft) {
  if (!draft->request.has_n()) return absl::OkStatus();
  const int32_t n = draft->request.n();
  if (n < 1 || n > kMaxChoices) {
    return Wrong("n", "is " + std::to_string(n) + "; use a whole number from 1 to " + std::to_string(kMaxChoices));
  }
  draft->shape.n = n;
  return absl::OkStatus();
}

absl::StatusOr<OpenAiRequest> FinishCompletion(Draft draft) {
  if (draft.prompt == nullptr) return Wrong("prompt", "is missing");
  if (!draft.request.has_max_tokens()) draft.request.set_max_tokens(kDefaultCompletionTokens);
  ASSIGN_OR_RETURN(auto prompts, ReadPrompts(*draft.prompt, draft.request));
  return OpenAiRequest{std::move(prompts), draft.shape};
}

absl::StatusOr<OpenAiRequest> FinishChat(Draft draft) {
  if (!draft.has_messages) return Wrong("messages", "is missing");
  if (draft.top_logprobs && !draft.shape.logprobs) return Wrong("top_logprobs", "is set, but logprobs is not true");
  if (draft.shape.logprobs) draft.request.set_logprobs(draft.top_logprobs.value_or(0));
  if (draft.max_completion_tokens) {
    if (draft.request.has_max_tokens() && draft.request.max_tokens() != *draft.max_completion_tokens) {
      return Wrong("max_completion_tokens", "and max_tokens differ; leave one of them out");
    }
    draft.request.set_max_tokens(*draft.max_completion_tokens);
  }
  if (!draft.uses_tools) draft.chat.clear_tools();
  if (!draft.template_variables.empty()) draft.chat.set_template_kwargs(ToText(draft.template_variables));
  *draft.request.mutable_chat() = std::move(draft.chat);
  OpenAiRequest request;
  request.prompts.push_back(std::move(draft.request));
  request.shape = draft.shape;
  return request;
}

}  // namespace

absl::StatusOr<OpenAiRequest> ReadOpenAiRequest(Endpoint endpoint, std::string_view body) {
  const auto json = ParseOrderedJson(body, LimitsOfBody(), "the body");
  if (!json.ok()) return InvalidRequest("body", std::string(json.status().message()));
  if (!json->is_object()) return InvalidRequest("body", "the body is no JSON object");
  Draft draft;
  draft.shape.endpoint = endpoint;
  const std::vector<Fields> fields = FieldsOf(endpoint);
  for (const auto& [name, value] : json->get_ref<const Json::object_t&>()) {
    RETURN_IF_ERROR(ReadField(fields, name, value, &draft));
  }
  if (draft.shape.include_usage && !draft.shape.stream) {
    return Wrong("stream_options", "is set, but stream is not true");
  }
  RETURN_IF_ERROR(SetNumChoices(&draft));
  return endpoint == Endpoint::kChat ? FinishChat(std::move(draft)) : FinishCompletion(std::move(draft));
}

}  // namespace switchyard::http
