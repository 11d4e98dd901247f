// Any bytes as the body of /v1/completions and of /v1/chat/completions: refused with an error that can be shown, or
// requests that the usual checks can judge, whose size is in proportion to the body.
#include <cstddef>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/base/status_macros.h"
#include "engine/tokenizer/utf8.h"
#include "server/frontend/request_validation.h"
#include "server/http/openai_error.h"
#include "server/http/openai_request.h"

namespace switchyard::http {
namespace {

// What a byte of the body may become: an entry of logit_bias is the worst. Several prompts each have a copy of the other
// fields, which are bounded then.
constexpr size_t kBytesPerByte = 64;
constexpr size_t kBytesPerPrompt = 2048, kSharedBytesPerPrompt = 262'144;

void CheckRefusal(const absl::Status& refusal) {
  const AnswerPart answer = ErrorAnswer(refusal, "id");
  CHECK(answer.last && answer.head && answer.head->status >= 400 && answer.head->status < 500);
  CHECK(FindInvalidUtf8(answer.body) == std::string::npos && answer.body.size() < 65'536);
  const auto error = nlohmann::json::parse(answer.body).at("error");
  CHECK(!error.at("message").get<std::string>().empty() && !error.at("type").get<std::string>().empty());
  CHECK(error.at("param").is_null() || !error.at("param").get<std::string>().empty());
}

// What came as JSON is a message that could have come over gRPC.
void CheckMessage(const v1::GenerateRequest& request) {
  const std::string bytes = request.SerializeAsString();
  v1::GenerateRequest again;
  CHECK(again.ParseFromString(bytes) && again.ByteSizeLong() == bytes.size());
  CHECK(request.prompt_case() != v1::GenerateRequest::PROMPT_NOT_SET);
}

RequestLimits Limits() {
  RequestLimits limits;
  limits.served_model_name = "toy";
  limits.vocab_size = 257;
  limits.max_model_len = 1024;
  return limits;
}

void Judge(Endpoint endpoint, const std::string& body) {
  static const RequestLimits limits = Limits();
  const auto read = ReadOpenAiRequest(endpoint, body);
  if (!read.ok()) return CheckRefusal(read.status());
  CHECK(read->shape.endpoint == endpoint && read->shape.n >= 1 && read->shape.n <= kMaxChoices);
  CHECK(!read->prompts.empty() && read->prompts.size() <= (endpoint == Endpoint::kChat ? 1 : kMaxPrompts));
  size_t num_bytes = 0;
  for (const v1::GenerateRequest& prompt : read->prompts) {
    num_bytes += prompt.SpaceUsedLong();
    CheckMessage(prompt);
    const auto spec = ValidateGenerateRequest(prompt, limits);
    if (!spec.ok()) {
      CheckRefusal(spec.status());
      continue;
    }
    CHECK(spec->n == read->shape.n && spec->sampling.num_logprobs >= (read->shape.logprobs ? 0 : -1));
    CHECK(ValidateGenerateRequest(prompt, limits)->max_tokens == spec->max_tokens);
  }
  const size_t per_prompt = kBytesPerPrompt + (read->prompts.size() > 1 ? kSharedBytesPerPrompt : 0);
  CHECK(num_bytes <= kBytesPerByte * body.size() + per_prompt * read->prompts.size());
}

}  // namespace
}  // namespace switchyard::http

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  const std::string body(reinterpret_cast<const char*>(bytes), size);
  switchyard::http::Judge(switchyard::http::Endpoint::kCompletions, body);
  switchyard::http::Judge(switchyard::http::Endpoint::kChat, body);
  return 0;
}
