#include "server/frontend/kserve/text_response.h"

#include <vector>

#include "server/frontend/kserve/envelope.h"

namespace switchyard::kserve {
namespace {

// One element of each output.
struct ChoiceText {
  std::string text;
  std::string finish_reason;
  uint32_t num_tokens = 0;
};

std::string FinishReasonText(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_UNSPECIFIED:
      return "";
    case v1::FINISH_REASON_STOP:
    case v1::FINISH_REASON_EOS:
      return "stop";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    default:
      return "abort";
  }
}

void AppendRaw(uint32_t value, std::string* raw) { raw->append(reinterpret_cast<const char*>(&value), sizeof(value)); }

void AppendRaw(const std::string& text, std::string* raw) {
  AppendRaw(static_cast<uint32_t>(text.size()), raw);
  *raw += text;
}

// Adds an empty output; returns its bytes.
std::string* AddOutput(const std::string& name, const std::string& datatype, size_t size,
                       inference::ModelInferResponse* response) {
  auto* output = response->add_outputs();
  output->set_name(name);
  output->set_datatype(datatype);
  output->add_shape(static_cast<int64_t>(size));
  return response->add_raw_output_contents();
}

void AddOutput(TextOutput output, const std::vector<ChoiceText>& choices, const v1::PromptFacts& prompt,
               inference::ModelInferResponse* response) {
  switch (output) {
    case TextOutput::kText: {
      std::string* raw = AddOutput("text_output", "BYTES", choices.size(), response);
      for (const ChoiceText& choice : choices) AppendRaw(choice.text, raw);
      break;
    }
    case TextOutput::kFinishReason: {
      std::string* raw = AddOutput("finish_reason", "BYTES", choices.size(), response);
      for (const ChoiceText& choice : choices) AppendRaw(choice.finish_reason, raw);
      break;
    }
    case TextOutput::kNumInputTokens:
      AppendRaw(static_cast<uint32_t>(prompt.prompt_tokens()), AddOutput("num_input_tokens", "UINT32", 1, response));
      break;
    case TextOutput::kNumOutputTokens: {
      std::string* raw = AddOutput("num_output_tokens", "UINT32", choices.size(), response);
      for (const ChoiceText& choice : choices) AppendRaw(choice.num_tokens, raw);
      break;
    }
  }
}

// `Choice` and `ChoiceDelta` have the same fields.
template <typename Choices>
inference::ModelInferResponse MakeResponse(const TextReply& reply, const v1::PromptFacts& prompt,
                                           const Choices& choices) {
  std::vector<ChoiceText> texts(static_cast<size_t>(reply.n));
  for (const auto& choice : choices) {
    texts[static_cast<size_t>(choice.index())] = {reply.prefix + choice.text(),
                                                  FinishReasonText(choice.finish_reason()),
                                                  static_cast<uint32_t>(choice.token_ids_size())};
  }
  inference::ModelInferResponse response;
  response.set_model_name(prompt.model());
  response.set_model_version(kModelVersion);
  response.set_id(reply.id);
  for (const TextOutput output : reply.outputs) AddOutput(output, texts, prompt, &response);
  return response;
}

}  // namespace

inference::ModelInferResponse TextAnswers::Whole(const v1::GenerateResponse& response) const {
  return MakeResponse(reply_, response.prompt(), response.choices());
}

inference::ModelInferResponse TextAnswers::Next(const v1::GenerateStreamResponse& message) {
  if (message.has_prompt()) prompt_ = message.prompt();
  return MakeResponse(reply_, prompt_, message.choices());
}

}  // namespace switchyard::kserve
