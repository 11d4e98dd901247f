// The JSON of POST /v1/completions and /v1/chat/completions to GenerateRequests, which then go the way of all others:
// their ranges are checked by ValidateGenerateRequest, but for that of `n`, which the answer is made by.
//
// What OpenAI's interface has and this server has not is refused by name unless it is off; what only OpenAI's own
// service needs (`user`, `store`, ...) is passed by; what nobody knows is an error, so that a typing mistake shows.
#ifndef SWITCHYARD_SERVER_HTTP_OPENAI_REQUEST_H_
#define SWITCHYARD_SERVER_HTTP_OPENAI_REQUEST_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "switchyard/v1/inference_service.pb.h"

namespace switchyard::http {

inline constexpr int kMaxPrompts = 64;               // of one request
inline constexpr int kDefaultCompletionTokens = 16;  // OpenAI's, of /v1/completions

enum class Endpoint : uint8_t { kCompletions, kChat };

// What the answer looks like.
struct AnswerShape {
  Endpoint endpoint = Endpoint::kCompletions;
  bool stream = false;
  bool include_usage = false;  // of a stream: a last event with the usage
  bool logprobs = false;
  int32_t n = 1;  // choices per prompt, 1 to kMaxChoices; choice i of prompt p is number p * n + i
};

struct OpenAiRequest {
  std::vector<v1::GenerateRequest> prompts;  // alike but for the prompt; at least one
  AnswerShape shape;
};

// INVALID_ARGUMENT: no JSON object, or a field of the wrong kind, or `n` out of its range; names it.
absl::StatusOr<OpenAiRequest> ReadOpenAiRequest(Endpoint endpoint, std::string_view body);

}  // namespace switchyard::http

#endif  // SWITCHYARD_SERVER_HTTP_OPENAI_REQUEST_H_
