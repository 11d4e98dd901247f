// Answers of a language model as tensors: text_output BYTES [n], finish_reason BYTES [n] ("stop", "length", "abort",
// "" while it runs), num_output_tokens UINT32 [n], num_input_tokens UINT32 [1].
//
// The answers to a streaming request hold what is new in each, so that their sum is the whole.
#ifndef SWITCHYARD_SERVER_FRONTEND_KSERVE_TEXT_RESPONSE_H_
#define SWITCHYARD_SERVER_FRONTEND_KSERVE_TEXT_RESPONSE_H_

#include <string>
#include <utility>

#include "inference/grpc_service.pb.h"
#include "server/frontend/kserve/text_request.h"
#include "switchyard/v1/inference_service.pb.h"

namespace switchyard::kserve {

// Makes the answers to one request. One caller at a time.
class TextAnswers {
 public:
  explicit TextAnswers(TextReply reply) : reply_(std::move(reply)) {}

  const std::string& id() const { return reply_.id; }
  inference::ModelInferResponse Whole(const v1::GenerateResponse& response) const;
  // In the order of the messages.
  inference::ModelInferResponse Next(const v1::GenerateStreamResponse& message);

 private:
  const TextReply reply_;
  v1::PromptFacts prompt_;  // of the first message
};

}  // namespace switchyard::kserve

#endif  // SWITCHYARD_SERVER_FRONTEND_KSERVE_TEXT_RESPONSE_H_
