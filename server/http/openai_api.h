// What is behind each path of OpenAI's interface, and who may ask.
//
//   GET /v1/models, GET /v1/models/{id}, POST /v1/completions, POST /v1/chat/completions
#ifndef SWITCHYARD_SERVER_HTTP_OPENAI_API_H_
#define SWITCHYARD_SERVER_HTTP_OPENAI_API_H_

#include <memory>
#include <optional>
#include <string>

#include "server/access/credential_files.h"
#include "server/frontend/frontend_parts.h"
#include "server/http/answer.h"
#include "server/http/exchange.h"

namespace switchyard::http {

// Thread-safe.
class OpenAiApi {
 public:
  // Both outlive it.
  OpenAiApi(FrontendParts* parts, const CredentialFiles* credentials) : parts_(parts), credentials_(credentials) {}

  // Why a request is refused before its body is read; the token first, so that nobody learns more without one.
  std::optional<AnswerPart> Refusal(const RequestHead& head) const;

  // Answers through `sink`. Null: the whole answer was sent before it returns. REQUIRES: no Refusal.
  std::shared_ptr<Exchange> Run(const RequestHead& head, std::string body, std::shared_ptr<AnswerSink> sink) const;

  // The answer to what is wrong, counted.
  AnswerPart Refuse(const absl::Status& status, const std::string& request_id) const;

 private:
  absl::StatusOr<std::string> Models(const std::string& path) const;

  FrontendParts* const parts_;
  const CredentialFiles* const credentials_;
};

}  // namespace switchyard::http

#endif  // SWITCHYARD_SERVER_HTTP_OPENAI_API_H_
