// A conversation of a request to the text that the model reads.
//
//   ChatPrompt --CheckChatPrompt (cheap, any thread)--> RenderChatPrompt (text worker) --> text --> tokenizer
//
// Rendering runs a template of the model folder over what the client sent: bounded, but up to two seconds.
#ifndef SWITCHYARD_SERVER_FRONTEND_CHAT_PROMPT_H_
#define SWITCHYARD_SERVER_FRONTEND_CHAT_PROMPT_H_

#include <ctime>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/chat/chat_template.h"
#include "server/frontend/errors.h"
#include "switchyard/v1/inference_service.pb.h"

namespace switchyard {

inline constexpr int kMaxChatMessages = 1024;
inline constexpr int kMaxChatTools = 128;
inline constexpr int kMaxChatDocuments = 128;
inline constexpr int kMaxToolCalls = 64;
inline constexpr int kMaxRoleBytes = 64;

// What is wrong with the counts and sizes; the JSON in it is read by RenderChatPrompt. `max_bytes`: of all of it.
std::vector<FieldViolation> CheckChatPrompt(const v1::ChatPrompt& chat, int64_t max_bytes);

// `max_bytes`: of the text. INVALID_ARGUMENT: JSON that is wrong, messages that the template refuses (with its message)
// or fails on, a text that is too long.
absl::StatusOr<std::string> RenderChatPrompt(const ChatTemplate& chat_template, const v1::ChatPrompt& chat,
                                             const std::tm& now, int64_t max_bytes);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_CHAT_PROMPT_H_
