// Turns the messages of a streamed answer into what the terminal shows.
//
//   with colour     each token in the colour of its most wanted expert in one layer
//   without         [3]Once[5] upon[3] a        the expert's id before each token
//
// Choice 0 is returned as it comes; the others are kept until the end.
#ifndef SWITCHYARD_CLIENT_VIEW_ANSWER_H_
#define SWITCHYARD_CLIENT_VIEW_ANSWER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "client/view/routing_tally.h"
#include "client/view/token_text.h"
#include "switchyard/v1/inference_service.pb.h"

namespace switchyard {

struct AnswerStyle {
  bool printable = false;  // replace control characters
  bool explain = false;    // mark tokens by expert
  bool color = false;
  int explain_layer = -1;  // layer index
  bool logprobs = false;   // list the tokens at the end
};

class AnswerView {
 public:
  // `text_of_token` gives the text of a token decoded alone; it is only called when one is needed.
  AnswerView(const AnswerStyle& style, std::function<std::string(int32_t)> text_of_token)
      : style_(style), text_of_token_(std::move(text_of_token)) {}

  // Takes the next message; returns what to print now.
  std::string Add(const v1::GenerateStreamResponse& message);

  // What to print after the last message: a newline, the other choices, the log-probabilities.
  std::string Finish();

  // Of all choices.
  const RoutingTally& tally() const { return tally_; }

 private:
  struct Choice {
    explicit Choice(std::function<std::string(int32_t)> text_of_token) : aligner(std::move(text_of_token)) {}
    TokenTextAligner aligner;
    std::vector<int32_t> token_ids;
    std::vector<v1::TokenDetail> details;
    std::string held;  // text of choices other than 0
  };

  std::string Show(Choice* choice, const v1::ChoiceDelta& delta) const;
  std::string ShowPiece(const Choice& choice, const TextPiece& piece) const;
  std::string ShowLogprobs(const Choice& choice) const;
  std::string Cleaned(const std::string& text) const;

  const AnswerStyle style_;
  const std::function<std::string(int32_t)> text_of_token_;
  std::map<int, Choice> choices_;
  RoutingTally tally_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_CLIENT_VIEW_ANSWER_H_
