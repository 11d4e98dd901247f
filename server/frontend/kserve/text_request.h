// A ModelInferRequest for a language model, as the GenerateRequest that it means.
//
//   text_input, sampling_parameters, max_tokens, ... --ReadTextRequest--> v1::GenerateRequest + TextReply
//
// The GenerateRequest goes the way of all of them; TextReply is what its answers look like as tensors. Pure functions.
#ifndef SWITCHYARD_SERVER_FRONTEND_KSERVE_TEXT_REQUEST_H_
#define SWITCHYARD_SERVER_FRONTEND_KSERVE_TEXT_REQUEST_H_

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "inference/grpc_service.pb.h"
#include "switchyard/v1/inference_service.pb.h"

namespace switchyard::kserve {

enum class TextOutput : uint8_t { kText, kFinishReason, kNumInputTokens, kNumOutputTokens };

// What goes into the answers to one request.
struct TextReply {
  std::string id;
  std::string prefix;  // before the text of each choice: the prompt, where it was asked for
  int32_t n = 1;       // choices: elements of each output but num_input_tokens
  std::vector<TextOutput> outputs;
};

struct TextRequest {
  v1::GenerateRequest generate;
  bool stream = false;  // one answer per step instead of one in all
  std::optional<std::chrono::microseconds> timeout;
  TextReply reply;
};

// INVALID_ARGUMENT: the first thing that is wrong, with its place in the request. NOT_FOUND: another version. The name
// of the model, and ranges, are for the checks of the GenerateRequest. `max_message_bytes` bounds the prompts in an
// answer.
absl::StatusOr<TextRequest> ReadTextRequest(const inference::ModelInferRequest& request, int64_t max_message_bytes);

// Adds the tensors that ReadTextRequest knows, and those that answers are made of.
void DescribeTextTensors(inference::ModelMetadataResponse* metadata);

}  // namespace switchyard::kserve

#endif  // SWITCHYARD_SERVER_FRONTEND_KSERVE_TEXT_REQUEST_H_
