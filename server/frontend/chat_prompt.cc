#include "server/frontend/chat_prompt.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "engine/base/status_macros.h"
#include "engine/jinja/from_json.h"
#include "server/frontend/request_validation.h"

namespace switchyard {
namespace {

using jinja::Dict;
using jinja::Value;

constexpr size_t kMaxMessageBytes = 512;  // of the template's own words in an error

JsonLimits LimitsOfJson() { return {.max_bytes = size_t{8} << 20, .max_depth = 32, .max_values = 200'000}; }

std::string Indexed(const std::string& field, int index) { return field + "[" + std::to_string(index) + "]"; }

void CheckCount(const std::string& field, int count, int max, std::vector<FieldViolation>* violations) {
  if (count <= max) return;
  violations->push_back({field, field + " has " + WithCommas(count) + " entries; use at most " + WithCommas(max)});
}

absl::Status AtField(const std::string& field, const absl::Status& status) {
  return InvalidRequest(field, std::string(status.message()));
}

absl::StatusOr<Value> ReadJson(const std::string& field, const std::string& text) {
  absl::StatusOr<Value> value = jinja::FromJson(text, LimitsOfJson(), field);
  return value.ok() ? std::move(value) : AtField(field, value.status());
}

absl::StatusOr<Value> ReadObject(const std::string& field, const std::string& text) {
  ASSIGN_OR_RETURN(Value value, ReadJson(field, text));
  if (!value.is_dict()) return InvalidRequest(field, field + " is no JSON object");
  return value;
}

Value ToValue(std::shared_ptr<Dict> dict) { return Value::Of(std::shared_ptr<const Dict>(std::move(dict))); }

absl::StatusOr<Value> ToList(std::vector<Value> items) {
  jinja::Budget budget({});
  return Value::List(std::move(items), &budget);
}

absl::StatusOr<Value> ReadToolCall(const std::string& field, const v1::ToolCall& call) {
  Value arguments = ToValue(std::make_shared<Dict>());
  if (call.has_arguments_text()) arguments = Value::Utf8(call.arguments_text());
  if (call.has_arguments_json()) {
    ASSIGN_OR_RETURN(arguments, ReadJson(field + ".arguments_json", call.arguments_json()));
  }
  auto function = std::make_shared<Dict>();
  function->SetText("name", Value::Utf8(call.name()));
  function->SetText("arguments", std::move(arguments));
  auto value = std::make_shared<Dict>();
  if (!call.id().empty()) value->SetText("id", Value::Utf8(call.id()));
  value->SetText("type", Value::Utf8("function"));
  value->SetText("function", ToValue(std::move(function)));
  return ToValue(std::move(value));
}

absl::StatusOr<Value> ReadMessage(const std::string& field, const v1::ChatMessage& message) {
  auto value = std::make_shared<Dict>();
  value->SetText("role", Value::Utf8(message.role()));
  value->SetText("content", message.has_content() ? Value::Utf8(message.content()) : Value::None());
  if (!message.name().empty()) value->SetText("name", Value::Utf8(message.name()));
  std::vector<Value> calls;
  for (int i = 0; i < message.tool_calls_size(); ++i) {
    ASSIGN_OR_RETURN(Value call, ReadToolCall(Indexed(field + ".tool_calls", i), message.tool_calls(i)));
    calls.push_back(std::move(call));
  }
  if (!calls.empty()) {
    ASSIGN_OR_RETURN(Value list, ToList(std::move(calls)));
    value->SetText("tool_calls", std::move(list));
  }
  if (!message.tool_call_id().empty()) value->SetText("tool_call_id", Value::Utf8(message.tool_call_id()));
  if (!message.extra_fields().empty()) {
    ASSIGN_OR_RETURN(const Value extra, ReadObject(field + ".extra_fields", message.extra_fields()));
    for (const auto& [key, member] : extra.dict().entries()) value->SetText(jinja::ToUtf8(key.text()), member);
  }
  return ToValue(std::move(value));
}

// None if there are none.
absl::StatusOr<Value> ReadObjects(const std::string& field,
                                  const google::protobuf::RepeatedPtrField<std::string>& texts) {
  if (texts.empty()) return Value::None();
  std::vector<Value> objects;
  for (int i = 0; i < texts.size(); ++i) {
    ASSIGN_OR_RETURN(Value object, ReadObject(Indexed(field, i), texts[i]));
    objects.push_back(std::move(object));
  }
  return ToList(std::move(objects));
}

absl::StatusOr<jinja::Variables> ReadVariables(const std::string& text) {
  jinja::Variables variables;
  if (text.empty()) return variables;
  const std::string field = "chat.template_kwargs";
  ASSIGN_OR_RETURN(const Value object, ReadObject(field, text));
  for (const auto& [key, value] : object.dict().entries()) {
    const std::string name = jinja::ToUtf8(key.text());
    for (const char* reserved : {"messages", "tools", "documents", "add_generation_prompt"}) {
      if (name == reserved) return InvalidRequest(field, field + " has \"" + name + "\", which is a field of its own");
    }
    variables.emplace_back(name, value);
  }
  return variables;
}

absl::StatusOr<ChatInput> ReadChat(const v1::ChatPrompt& chat) {
  ChatInput input;
  std::vector<Value> messages;
  for (int i = 0; i < chat.messages_size(); ++i) {
    ASSIGN_OR_RETURN(Value message, ReadMessage(Indexed("chat.messages", i), chat.messages(i)));
    messages.push_back(std::move(message));
  }
  ASSIGN_OR_RETURN(input.messages, ToList(std::move(messages)));
  ASSIGN_OR_RETURN(input.tools, ReadObjects("chat.tools", chat.tools()));
  ASSIGN_OR_RETURN(input.documents, ReadObjects("chat.documents", chat.documents()));
  ASSIGN_OR_RETURN(input.variables, ReadVariables(chat.template_kwargs()));
  input.add_generation_prompt = !chat.has_add_generation_prompt() || chat.add_generation_prompt();
  return input;
}

// One line of bounded length.
std::string OneLine(const std::string& text) {
  size_t size = std::min(text.size(), kMaxMessageBytes);
  while (size > 0 && size < text.size() && (static_cast<unsigned char>(text[size]) & 0xC0) == 0x80) --size;
  std::string line = text.substr(0, size);
  for (char& c : line) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  }
  return size < text.size() ? line + "..." : line;
}

}  // namespace

std::vector<FieldViolation> CheckChatPrompt(const v1::ChatPrompt& chat, int64_t max_bytes) {
  std::vector<FieldViolation> violations;
  if (chat.messages().empty()) violations.push_back({"chat.messages", "chat.messages is empty; give at least one"});
  CheckCount("chat.messages", chat.messages_size(), kMaxChatMessages, &violations);
  CheckCount("chat.tools", chat.tools_size(), kMaxChatTools, &violations);
  CheckCount("chat.documents", chat.documents_size(), kMaxChatDocuments, &violations);
  const auto bytes = static_cast<int64_t>(chat.ByteSizeLong());
  if (bytes > max_bytes) {
    violations.push_back({"chat", "chat has " + WithCommas(bytes) + " bytes; this server accepts at most " +
                                      WithCommas(max_bytes) + ", " + std::to_string(kMaxPromptBytesPerToken) +
                                      " for each token of context"});
  }
  for (int i = 0; i < chat.messages_size() && violations.empty(); ++i) {
    const std::string field = Indexed("chat.messages", i);
    const auto size = static_cast<int64_t>(chat.messages(i).role().size());
    if (size == 0 || size > kMaxRoleBytes) {
      violations.push_back({field + ".role", field + ".role has " + WithCommas(size) + " bytes; use 1 to " +
                                                 std::to_string(kMaxRoleBytes)});
    }
    CheckCount(field + ".tool_calls", chat.messages(i).tool_calls_size(), kMaxToolCalls, &violations);
  }
  return violations;
}

absl::StatusOr<std::string> RenderChatPrompt(const ChatTemplate& chat_template, const v1::ChatPrompt& chat,
                                             const std::tm& now, int64_t max_bytes) {
  ASSIGN_OR_RETURN(ChatInput input, ReadChat(chat));
  input.now = now;
  jinja::RenderLimits limits;
  limits.max_output_bytes = max_bytes;
  limits.max_allocated_chars = std::max(limits.max_allocated_chars, 10 * max_bytes);
  const absl::StatusOr<std::string> text = chat_template.Render(input, limits);
  if (text.ok()) return text;
  const std::string message = OneLine(std::string(text.status().message()));
  return InvalidRequest("chat.messages", absl::IsAborted(text.status())
                                             ? "the chat template refuses the messages: " + message
                                             : "the chat template cannot render the messages: " + message);
}

}  // namespace switchyard
