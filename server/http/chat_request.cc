#include "server/http/chat_request.h"

#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "engine/base/json.h"
#include "engine/base/status_macros.h"
#include "server/frontend/chat_prompt.h"
#include "server/frontend/errors.h"
#include "server/frontend/request_validation.h"
#include "server/http/ordered_json.h"

namespace switchyard::http {
namespace {

using Json = nlohmann::ordered_json;

absl::Status Wrong(const std::string& field, const std::string& problem) {
  return InvalidRequest(field, field + " " + problem);
}

std::string At(const std::string& field, size_t index) { return field + "[" + std::to_string(index) + "]"; }

// Counted before they become messages, which take many times the bytes.
absl::Status CheckList(const std::string& field, const Json& value, size_t max) {
  if (!value.is_array()) return Wrong(field, "is no list");
  if (value.size() <= max) return absl::OkStatus();
  return Wrong(field, "has " + WithCommas(static_cast<int64_t>(value.size())) + " entries; use at most " +
                          WithCommas(static_cast<int64_t>(max)));
}

absl::StatusOr<std::string> ReadText(const std::string& field, const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  return Wrong(field, "is no text");
}

absl::StatusOr<std::string> ReadPart(const std::string& field, const Json& part) {
  if (!part.is_object() || !part.contains("type")) return Wrong(field, "is no object with a type");
  const Json& type = part["type"];
  if (type != "text") {
    return Wrong(field + ".type",
                 "is " + (type.is_string() ? "\"" + Printable(type.get<std::string>(), 32) + "\"" : "no text") +
                     "; this server takes parts of type \"text\" alone");
  }
  if (!part.contains("text")) return Wrong(field + ".text", "is missing");
  return ReadText(field + ".text", part["text"]);
}

absl::StatusOr<std::string> ReadContent(const std::string& field, const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return Wrong(field, "is neither text nor a list of parts");
  std::string text;
  for (size_t i = 0; i < value.size(); ++i) {
    ASSIGN_OR_RETURN(const std::string part, ReadPart(At(field, i), value[i]));
    text += (i == 0 ? "" : "\n") + part;
  }
  return text;
}

absl::Status ReadToolCall(const std::string& field, const Json& value, v1::ToolCall* call) {
  if (!value.is_object() || !value.contains("function") || !value["function"].is_object()) {
    return Wrong(field, "is no object with a function");
  }
  if (value.contains("id") && !value["id"].is_null()) {
    ASSIGN_OR_RETURN(*call->mutable_id(), ReadText(field + ".id", value["id"]));
  }
  const Json& function = value["function"];
  if (!function.contains("name")) return Wrong(field + ".function.name", "is missing");
  ASSIGN_OR_RETURN(*call->mutable_name(), ReadText(field + ".function.name", function["name"]));
  if (!function.contains("arguments")) return absl::OkStatus();
  // JSON inside a text, as OpenAI has it; some callers put the object there.
  const Json& arguments = function["arguments"];
  const bool is_text = arguments.is_string();
  if (is_text && arguments.get_ref<const std::string&>().empty()) return absl::OkStatus();
  call->set_arguments_json(is_text ? arguments.get<std::string>() : ToText(arguments));
  return absl::OkStatus();
}

absl::Status ReadMember(const std::string& field, const std::string& name, const Json& value, v1::ChatMessage* message,
                        Json* others) {
  if (name == "role") {
    ASSIGN_OR_RETURN(*message->mutable_role(), ReadText(field, value));
  } else if (value.is_null()) {
    return absl::OkStatus();
  } else if (name == "content") {
    ASSIGN_OR_RETURN(*message->mutable_content(), ReadContent(field, value));
  } else if (name == "name") {
    ASSIGN_OR_RETURN(*message->mutable_name(), ReadText(field, value));
  } else if (name == "tool_call_id") {
    ASSIGN_OR_RETURN(*message->mutable_tool_call_id(), ReadText(field, value));
  } else if (name == "tool_calls") {
    RETURN_IF_ERROR(CheckList(field, value, kMaxToolCalls));
    for (size_t i = 0; i < value.size(); ++i) {
      RETURN_IF_ERROR(ReadToolCall(At(field, i), value[i], message->add_tool_calls()));
    }
  } else if (name == "audio" || name == "function_call") {
    return Wrong(field, "is not supported");
  } else {
    others->get_ref<Json::object_t&>().emplace_back(name, value);
  }
  return absl::OkStatus();
}

absl::Status ReadMessage(const std::string& field, const Json& value, v1::ChatMessage* message) {
  if (!value.is_object()) return Wrong(field, "is no object");
  if (!value.contains("role")) return Wrong(field + ".role", "is missing");
  Json others = Json::object();
  for (const auto& [name, member] : value.get_ref<const Json::object_t&>()) {
    RETURN_IF_ERROR(ReadMember(field + "." + Printable(name), name, member, message, &others));
  }
  if (!others.empty()) message->set_extra_fields(ToText(others));
  return absl::OkStatus();
}

}  // namespace

absl::Status ReadMessages(const Json& value, v1::ChatPrompt* chat) {
  RETURN_IF_ERROR(CheckList("messages", value, kMaxChatMessages));
  for (size_t i = 0; i < value.size(); ++i) {
    RETURN_IF_ERROR(ReadMessage(At("messages", i), value[i], chat->add_messages()));
  }
  return absl::OkStatus();
}

absl::Status ReadObjects(const std::string& field, const Json& value,
                         google::protobuf::RepeatedPtrField<std::string>* texts) {
  if (value.is_null()) return absl::OkStatus();
  RETURN_IF_ERROR(CheckList(field, value, kMaxChatTools));
  for (size_t i = 0; i < value.size(); ++i) {
    if (!value[i].is_object()) return Wrong(At(field, i), "is no object");
    texts->Add(ToText(value[i]));
  }
  return absl::OkStatus();
}

}  // namespace switchyard::http
