// A client that remembers what it was told, and can answer with a verdict at a chosen token.
#ifndef SWITCHYARD_TESTS_SERVER_SCHEDULER_RECORDING_SINK_H_
#define SWITCHYARD_TESTS_SERVER_SCHEDULER_RECORDING_SINK_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "server/scheduler/request.h"

namespace switchyard {

class RecordingSink : public TokenSink {
 public:
  SinkVerdict OnToken(const SampledToken& token, bool is_stop_token) override {
    tokens.push_back(token.token);
    stop_flags.push_back(is_stop_token);
    return tokens.size() == verdict_at ? verdict : SinkVerdict::kContinue;
  }
  void OnFinished(const FinishedEvent& event) override {
    ++num_finished;
    finished = event;
  }

  size_t verdict_at = 0;  // 1: the first token
  SinkVerdict verdict = SinkVerdict::kStop;

  std::vector<int32_t> tokens;
  std::vector<bool> stop_flags;
  int num_finished = 0;
  FinishedEvent finished;
};

inline std::unique_ptr<Request> MakeRequest(uint64_t id, std::vector<int32_t> prompt, int32_t max_tokens,
                                            std::shared_ptr<TokenSink> sink) {
  auto request = std::make_unique<Request>();
  request->id = id;
  request->prompt_tokens = std::move(prompt);
  request->max_tokens = max_tokens;
  request->sink = std::move(sink);
  return request;
}

}  // namespace switchyard

#endif  // SWITCHYARD_TESTS_SERVER_SCHEDULER_RECORDING_SINK_H_
