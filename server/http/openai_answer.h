// Generated choices as the JSON of OpenAI's interface: whole, or as the events of a stream.
#ifndef SWITCHYARD_SERVER_HTTP_OPENAI_ANSWER_H_
#define SWITCHYARD_SERVER_HTTP_OPENAI_ANSWER_H_

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "server/http/openai_request.h"
#include "switchyard/v1/inference_service.pb.h"

namespace switchyard::http {

// What all objects of one answer begin with.
struct AnswerFacts {
  AnswerShape shape;
  std::string id;       // "chatcmpl-..." or "cmpl-..."
  int64_t created = 0;  // seconds since the Unix epoch
  std::string model;
  const Tokenizer* tokenizer = nullptr;
};

// The choices of one prompt. Not thread-safe.
class ChoiceWriter {
 public:
  // `facts` outlives the writer. `first`: the number of its first choice.
  ChoiceWriter(const AnswerFacts* facts, int32_t first);

  // Of a stream: an event "data: {...}\n\n" per choice that has something new; may be "".
  std::string Events(const v1::GenerateStreamResponse& message);
  // The entries of "choices" as text, with commas between them.
  std::string Choices(const v1::GenerateResponse& response);

 private:
  struct Progress {
    bool has_role = false;    // the first event of a chat choice says who speaks
    int64_t text_offset = 0;  // characters of the tokens so far
  };

  template <typename Choice>
  nlohmann::ordered_json Logprobs(const Choice& choice, Progress* progress) const;
  nlohmann::ordered_json Begin(int32_t index, v1::FinishReason reason) const;

  const AnswerFacts* const facts_;
  const int32_t first_;
  std::vector<Progress> progress_;
};

nlohmann::ordered_json UsageJson(const v1::Usage& usage);
// The whole answer that is no stream. `choices`: as ChoiceWriter::Choices has them.
std::string AnswerJson(const AnswerFacts& facts, const std::string& choices, const v1::Usage& usage);
// The last event of a stream that asked for it.
std::string UsageEvent(const AnswerFacts& facts, const v1::Usage& usage);
std::string Event(const nlohmann::ordered_json& json);
inline constexpr char kDoneEvent[] = "data: [DONE]\n\n";

}  // namespace switchyard::http

#endif  // SWITCHYARD_SERVER_HTTP_OPENAI_ANSWER_H_
