#include "server/http/openai_answer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "engine/tokenizer/utf8.h"
#include "server/http/ordered_json.h"

namespace switchyard::http {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kNoProbability = -9999.0;  // as OpenAI has it: JSON knows no infinity

Json FinishReasonJson(v1::FinishReason reason) {
  switch (reason) {
    case v1::FINISH_REASON_STOP:
    case v1::FINISH_REASON_EOS:
      return "stop";
    case v1::FINISH_REASON_LENGTH:
      return "length";
    default:
      return nullptr;  // the others end as errors
  }
}

double Finite(float logprob) { return std::max(static_cast<double>(logprob), kNoProbability); }

std::string Lossy(const std::string& bytes) {
  std::string text;
  LossyUtf8 lossy;
  lossy.Push(bytes, &text);
  lossy.Flush(&text);
  return text;
}

int64_t NumCharacters(const std::string& text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

Json TokenJson(const Tokenizer& tokenizer, int32_t id, float logprob) {
  const std::string bytes = tokenizer.TokenText(id);
  Json values = Json::array();
  for (const char c : bytes) values.push_back(static_cast<unsigned char>(c));
  return {{"token", Lossy(bytes)}, {"logprob", Finite(logprob)}, {"bytes", std::move(values)}};
}

// {"content": [{"token", "logprob", "bytes", "top_logprobs"}]}
template <typename Choice>
Json ChatLogprobs(const Tokenizer& tokenizer, const Choice& choice) {
  Json content = Json::array();
  for (int i = 0; i < choice.details_size(); ++i) {
    Json entry = TokenJson(tokenizer, choice.token_ids(i), choice.details(i).logprob());
    entry["top_logprobs"] = Json::array();
    for (const v1::TopLogprob& top : choice.details(i).top_logprobs()) {
      entry["top_logprobs"].push_back(TokenJson(tokenizer, top.token_id(), top.logprob()));
    }
    content.push_back(std::move(entry));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

// {"tokens": [], "token_logprobs": [], "top_logprobs": [{token: logprob}], "text_offset": []}
template <typename Choice>
Json CompletionLogprobs(const Tokenizer& tokenizer, const Choice& choice, int64_t* text_offset) {
  Json tokens = Json::array();
  Json logprobs = Json::array();
  Json tops = Json::array();
  Json offsets = Json::array();
  for (int i = 0; i < choice.details_size(); ++i) {
    const std::string token = Lossy(tokenizer.TokenText(choice.token_ids(i)));
    offsets.push_back(*text_offset);
    *text_offset += NumCharacters(token);
    tokens.push_back(token);
    logprobs.push_back(Finite(choice.details(i).logprob()));
    Json top = Json::object();
    // Tokens of the same text (halves of characters) share an entry, which is the likeliest one's.
    for (const v1::TopLogprob& entry : choice.details(i).top_logprobs()) {
      if (!top.contains(entry.text())) top[entry.text()] = Finite(entry.logprob());
    }
    tops.push_back(std::move(top));
  }
  return {{"text_offset", std::move(offsets)},
          {"token_logprobs", std::move(logprobs)},
          {"tokens", std::move(tokens)},
          {"top_logprobs", std::move(tops)}};
}

Json ObjectJson(const AnswerFacts& facts, Json choices) {
  const bool is_chat = facts.shape.endpoint == Endpoint::kChat;
  const char* const object = !is_chat             ? "text_completion"
                             : facts.shape.stream ? "chat.completion.chunk"
                                                  : "chat.completion";
  return {{"id", facts.id},
          {"object", object},
          {"created", facts.created},
          {"model", facts.model},
          {"choices", std::move(choices)}};
}

}  // namespace

ChoiceWriter::ChoiceWriter(const AnswerFacts* facts, int32_t first)
    : facts_(facts), first_(first), progress_(static_cast<size_t>(facts->shape.n)) {}

template <typename Choice>
Json ChoiceWriter::Logprobs(const Choice& choice, Progress* progress) const {
  if (!facts_->shape.logprobs) return nullptr;
  if (facts_->shape.endpoint == Endpoint::kChat) return ChatLogprobs(*facts_->tokenizer, choice);
  return CompletionLogprobs(*facts_->tokenizer, choice, &progress->text_offset);
}

Json ChoiceWriter::Begin(int32_t index, v1::FinishReason reason) const {
  return {{"index", first_ + index}, {"finish_reason", FinishReasonJson(reason)}};
}

std::string ChoiceWriter::Events(const v1::GenerateStreamResponse& message) {
  const bool is_chat = facts_->shape.endpoint == Endpoint::kChat;
  std::string events;
  for (const v1::ChoiceDelta& delta : message.choices()) {
    const bool ended = !FinishReasonJson(delta.finish_reason()).is_null();
    const bool has_logprobs = facts_->shape.logprobs && delta.details_size() > 0;
    if (delta.text().empty() && !ended && !has_logprobs) continue;  // it lags behind the tokens
    Progress& progress = progress_[static_cast<size_t>(delta.index())];
    Json choice = Begin(delta.index(), delta.finish_reason());
    choice["logprobs"] = has_logprobs ? Logprobs(delta, &progress) : Json(nullptr);
    if (is_chat) {
      Json content = Json::object();
      if (!progress.has_role) content["role"] = "assistant";
      if (!progress.has_role || !delta.text().empty()) content["content"] = delta.text();
      progress.has_role = true;
      choice["delta"] = std::move(content);
    } else {
      choice["text"] = delta.text();
    }
    Json object = ObjectJson(*facts_, Json::array({std::move(choice)}));
    if (facts_->shape.include_usage) object["usage"] = nullptr;
    events += Event(object);
  }
  return events;
}

std::string ChoiceWriter::Choices(const v1::GenerateResponse& response) {
  std::string choices;
  for (const v1::Choice& one : response.choices()) {
    Json choice = Begin(one.index(), one.finish_reason());
    choice["logprobs"] = Logprobs(one, &progress_[static_cast<size_t>(one.index())]);
    if (facts_->shape.endpoint == Endpoint::kChat) {
      choice["message"] = {{"role", "assistant"}, {"content", one.text()}, {"refusal", nullptr}};
    } else {
      choice["text"] = one.text();
    }
    choices += (choices.empty() ? "" : ",") + ToText(choice);
  }
  return choices;
}

Json UsageJson(const v1::Usage& usage) {
  return {{"prompt_tokens", usage.prompt_tokens()},
          {"completion_tokens", usage.completion_tokens()},
          {"total_tokens", usage.prompt_tokens() + usage.completion_tokens()},
          {"prompt_tokens_details", {{"cached_tokens", usage.cached_prompt_tokens()}}}};
}

std::string AnswerJson(const AnswerFacts& facts, const std::string& choices, const v1::Usage& usage) {
  std::string text = ToText(ObjectJson(facts, Json::array()));
  text.resize(text.size() - 2);  // "choices" comes last: "...[" without "]}"
  return text + choices + "],\"usage\":" + ToText(UsageJson(usage)) + "}";
}

std::string UsageEvent(const AnswerFacts& facts, const v1::Usage& usage) {
  Json object = ObjectJson(facts, Json::array());
  object["usage"] = UsageJson(usage);
  return Event(object);
}

std::string Event(const Json& json) { return "data: " + ToText(json) + "\n\n"; }

}  // namespace switchyard::http
