#include "client/view/answer.h"

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/view/terminal.h"

namespace switchyard {
namespace {

// The most wanted expert of a layer, or -1.
int FirstExpert(const v1::TokenDetail& detail, int layer) {
  for (const v1::LayerRouting& routing : detail.routing()) {
    if (routing.layer() == layer && routing.expert_ids_size() > 0) return routing.expert_ids(0);
  }
  return -1;
}

}  // namespace

std::string AnswerView::Add(const v1::GenerateStreamResponse& message) {
  std::string shown;
  for (const v1::ChoiceDelta& delta : message.choices()) {
    Choice& choice = choices_.try_emplace(delta.index(), text_of_token_).first->second;
    choice.token_ids.insert(choice.token_ids.end(), delta.token_ids().begin(), delta.token_ids().end());
    choice.details.insert(choice.details.end(), delta.details().begin(), delta.details().end());
    for (const v1::TokenDetail& detail : delta.details()) tally_.Add(detail);
    (delta.index() == 0 ? shown : choice.held) += Show(&choice, delta);
  }
  return shown;
}

std::string AnswerView::Finish() {
  std::string shown = "\n";
  for (const auto& [index, choice] : choices_) {
    if (index > 0) absl::StrAppend(&shown, "--- choice ", index, "\n", choice.held, "\n");
  }
  if (!style_.logprobs) return shown;
  for (const auto& [index, choice] : choices_) {
    if (choices_.size() > 1) absl::StrAppend(&shown, "--- log-probabilities of choice ", index, "\n");
    shown += ShowLogprobs(choice);
  }
  return shown;
}

std::string AnswerView::Show(Choice* choice, const v1::ChoiceDelta& delta) const {
  if (!style_.explain) return Cleaned(delta.text());
  std::string shown;
  for (const TextPiece& piece :
       choice->aligner.Add({delta.token_ids().begin(), delta.token_ids().end()}, delta.text())) {
    shown += ShowPiece(*choice, piece);
  }
  return shown;
}

std::string AnswerView::ShowPiece(const Choice& choice, const TextPiece& piece) const {
  const auto token = static_cast<size_t>(piece.token);
  const int expert = token < choice.details.size() ? FirstExpert(choice.details[token], style_.explain_layer) : -1;
  if (expert < 0) return Cleaned(piece.text);
  return style_.color ? Paint(Cleaned(piece.text), ExpertColor(expert))
                      : absl::StrCat("[", expert, "]", Cleaned(piece.text));
}

std::string AnswerView::ShowLogprobs(const Choice& choice) const {
  std::string list = absl::StrFormat("%8s  %8s  %-16s  %s\n", "token", "logprob", "text", "most likely");
  for (size_t i = 0; i < choice.token_ids.size() && i < choice.details.size(); ++i) {
    const v1::TokenDetail& detail = choice.details[i];
    absl::StrAppendFormat(&list, "%8d  %8.3f  %-16s ", choice.token_ids[i], detail.logprob(),
                          "\"" + absl::Utf8SafeCEscape(text_of_token_(choice.token_ids[i])) + "\"");
    for (const v1::TopLogprob& top : detail.top_logprobs()) {
      absl::StrAppendFormat(&list, " \"%s\" %.3f", absl::Utf8SafeCEscape(top.text()), top.logprob());
    }
    list += "\n";
  }
  return list;
}

std::string AnswerView::Cleaned(const std::string& text) const { return style_.printable ? MakePrintable(text) : text; }

}  // namespace switchyard
