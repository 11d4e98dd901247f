// The parts of a chat request that make up its prompt: messages, tools, documents.
#ifndef SWITCHYARD_SERVER_HTTP_CHAT_REQUEST_H_
#define SWITCHYARD_SERVER_HTTP_CHAT_REQUEST_H_

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "absl/status/status.h"
#include "switchyard/v1/inference_service.pb.h"

namespace switchyard::http {

// Each is INVALID_ARGUMENT with the path of what is wrong, such as "messages[2].content[0].type".

// `content` is text, a list of parts of text (joined by line ends), or null. What is not of OpenAI's interface
// ("reasoning_content") goes to the template as it is.
absl::Status ReadMessages(const nlohmann::ordered_json& value, v1::ChatPrompt* chat);
// A list of objects, each as it came. Null: none.
absl::Status ReadObjects(const std::string& field, const nlohmann::ordered_json& value,
                         google::protobuf::RepeatedPtrField<std::string>* texts);

}  // namespace switchyard::http

#endif  // SWITCHYARD_SERVER_HTTP_CHAT_REQUEST_H_
