#include "server/frontend/kserve/text_request.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <utility>

#include "engine/base/status_macros.h"
#include "engine/tokenizer/utf8.h"
#include "server/frontend/errors.h"
#include "server/frontend/kserve/envelope.h"
#include "server/frontend/kserve/sampling_parameters.h"
#include "server/frontend/kserve/tensor.h"
#include "server/frontend/request_validation.h"

namespace switchyard::kserve {
namespace {

struct OutputFacts {
  TextOutput output;
  std::string_view name;
  DataType type;
  std::string_view flag;  // the input that asks for it; "": always there
};
constexpr OutputFacts kOutputs[] = {
    {TextOutput::kText, "text_output", DataType::kBytes, ""},
    {TextOutput::kFinishReason, "finish_reason", DataType::kBytes, "return_finish_reason"},
    {TextOutput::kNumInputTokens, "num_input_tokens", DataType::kUint32, "return_num_input_tokens"},
    {TextOutput::kNumOutputTokens, "num_output_tokens", DataType::kUint32, "return_num_output_tokens"},
};

// What is read from the tensors before it is known how it goes together.
struct TextInputs {
  bool has_prompt = false;
  bool exclude_prompt = true;
  bool has_sampling_json = false;
  std::vector<TextOutput> asked_for = {TextOutput::kText};
};

absl::Status ReadPrompt(const Tensor& tensor, v1::GenerateRequest* request) {
  ASSIGN_OR_RETURN(const std::string_view text, ReadText(tensor));
  if (text.empty()) return TensorError(tensor, "contents", "is empty; give the text to continue");
  const size_t invalid = FindInvalidUtf8(text);
  if (invalid != std::string::npos) {
    return TensorError(tensor, "contents", "is not valid UTF-8 (byte " + std::to_string(invalid) + ")");
  }
  request->set_text(std::string(text));
  return absl::OkStatus();
}

absl::Status ReadTensor(const Tensor& tensor, SamplingParameters* sampling, TextInputs* inputs, TextRequest* out) {
  const std::string& name = tensor.name();
  if (name == "text_input") {
    inputs->has_prompt = true;
    return ReadPrompt(tensor, &out->generate);
  }
  if (name == "stream") {
    ASSIGN_OR_RETURN(out->stream, ReadBool(tensor));
    return absl::OkStatus();
  }
  if (name == "exclude_input_in_output") {
    ASSIGN_OR_RETURN(inputs->exclude_prompt, ReadBool(tensor));
    return absl::OkStatus();
  }
  if (name == "sampling_parameters") {
    inputs->has_sampling_json = true;
    ASSIGN_OR_RETURN(const std::string_view json, ReadText(tensor));
    return sampling->AddJson(json);
  }
  for (const OutputFacts& facts : kOutputs) {
    if (facts.flag.empty() || facts.flag != name) continue;
    ASSIGN_OR_RETURN(const bool asked_for, ReadBool(tensor));
    if (asked_for) inputs->asked_for.push_back(facts.output);
    return absl::OkStatus();
  }
  for (const SamplingTensor& kind : kSamplingTensors) {
    if (kind.name == name) return sampling->AddTensor(kind, tensor);
  }
  return TensorError(tensor, "name", "is unknown; ModelMetadata lists the inputs of this model");
}

absl::Status SetPriority(int64_t priority, v1::GenerateRequest* request) {
  if (priority < std::numeric_limits<int32_t>::min() || priority > std::numeric_limits<int32_t>::max()) {
    return InvalidRequest("parameters.priority", "parameter \"priority\" is " + std::to_string(priority) + "; use -" +
                                                     WithCommas(kMaxPriority) + " to " + WithCommas(kMaxPriority));
  }
  request->set_priority(static_cast<int32_t>(priority));
  return absl::OkStatus();
}

void Describe(std::string_view name, DataType type, int64_t size,
              inference::ModelMetadataResponse::TensorMetadata* tensor) {
  tensor->set_name(std::string(name));
  tensor->set_datatype(std::string(DataTypeName(type)));
  tensor->add_shape(size);
}

}  // namespace

absl::StatusOr<TextRequest> ReadTextRequest(const inference::ModelInferRequest& request, int64_t max_message_bytes) {
  TextRequest out;
  ASSIGN_OR_RETURN(Envelope envelope, ReadEnvelope(request));
  ASSIGN_OR_RETURN(const std::vector<Tensor> tensors, ReadTensors(request));
  out.generate.set_model(request.model_name());
  out.timeout = envelope.timeout;
  if (IsValidRequestId(envelope.id)) out.generate.set_request_id(envelope.id);
  if (envelope.priority) RETURN_IF_ERROR(SetPriority(*envelope.priority, &out.generate));

  TextInputs inputs;
  SamplingParameters sampling(&out.generate);
  for (const Tensor& tensor : tensors) RETURN_IF_ERROR(ReadTensor(tensor, &sampling, &inputs, &out));
  if (!inputs.has_prompt)
    return InvalidRequest("inputs", "tensor \"text_input\" is missing; give the text to continue");
  // Triton's clients send the same values both ways; the tensor counts.
  if (!inputs.has_sampling_json) {
    for (const auto& [name, parameter] : envelope.parameters) {
      RETURN_IF_ERROR(sampling.AddParameter(name, *parameter));
    }
  }
  if (!inputs.exclude_prompt && out.stream) {
    return InvalidRequest("inputs",
                          "tensor \"exclude_input_in_output\" is false, but a stream holds new text only; "
                          "leave one of them out");
  }

  std::vector<std::string> names;
  for (const OutputFacts& facts : kOutputs) names.emplace_back(facts.name);
  ASSIGN_OR_RETURN(const std::vector<size_t> wanted, ReadOutputs(request, names));
  out.reply.outputs = std::move(inputs.asked_for);
  if (!wanted.empty()) out.reply.outputs.clear();
  for (const size_t position : wanted) out.reply.outputs.push_back(kOutputs[position].output);
  out.reply.id = std::move(envelope.id);
  out.reply.n = out.generate.has_n() ? out.generate.n() : 1;
  if (inputs.exclude_prompt) return out;
  out.reply.prefix = out.generate.text();
  const auto prompt_bytes = static_cast<int64_t>(out.reply.prefix.size());
  if (prompt_bytes * out.reply.n > max_message_bytes) {
    return InvalidRequest("inputs", "tensor \"exclude_input_in_output\" is false, and " + WithCommas(out.reply.n) +
                                        " times the prompt of " + WithCommas(prompt_bytes) +
                                        " bytes is more than the " + WithCommas(max_message_bytes) +
                                        " bytes of a message; leave it out or use a smaller n");
  }
  return out;
}

void DescribeTextTensors(inference::ModelMetadataResponse* metadata) {
  Describe("text_input", DataType::kBytes, 1, metadata->add_inputs());
  Describe("stream", DataType::kBool, 1, metadata->add_inputs());
  Describe("sampling_parameters", DataType::kBytes, 1, metadata->add_inputs());
  Describe("exclude_input_in_output", DataType::kBool, 1, metadata->add_inputs());
  for (const OutputFacts& facts : kOutputs) {
    if (!facts.flag.empty()) Describe(facts.flag, DataType::kBool, 1, metadata->add_inputs());
    Describe(facts.name, facts.type, facts.output == TextOutput::kNumInputTokens ? 1 : -1, metadata->add_outputs());
  }
  for (const SamplingTensor& kind : kSamplingTensors) Describe(kind.name, kind.type, kind.size, metadata->add_inputs());
}

}  // namespace switchyard::kserve
