#include "server/frontend/request_validation.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdio>
#include <limits>

#include "engine/base/status_macros.h"
#include "server/frontend/chat_prompt.h"
#include "server/frontend/errors.h"

namespace switchyard {
namespace {

constexpr size_t kMaxViolations = 16;
constexpr float kSmallestTemperature = 1e-3f;  // below it logits / temperature can overflow

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%g", value);
  return text;
}

std::string Indexed(const char* field, int64_t index) { return std::string(field) + "[" + std::to_string(index) + "]"; }

// Collects violations; each check returns whether it passed.
class Checker {
 public:
  bool Fail(const std::string& field, const std::string& description) {
    if (violations_.size() < kMaxViolations) violations_.push_back({field, description});
    return false;
  }

  bool Integer(const std::string& field, int64_t value, int64_t low, int64_t high) {
    if (value >= low && value <= high) return true;
    return Fail(field, field + " is " + std::to_string(value) + "; use a whole number from " + WithCommas(low) +
                           " to " + WithCommas(high));
  }

  bool Float(const std::string& field, float value, float low, float high, bool low_excluded = false) {
    const std::string advice = "; use a value " + std::string(low_excluded ? "above " : "from ") + Number(low) +
                               (low_excluded ? ", at most " : " to ") + Number(high);
    if (!std::isfinite(value)) return Fail(field, field + " is not a finite number" + advice);
    if (std::fpclassify(value) == FP_SUBNORMAL) return Fail(field, field + " is a denormal number" + advice);
    const bool in_range = (low_excluded ? value > low : value >= low) && value <= high;
    return in_range || Fail(field, field + " is " + Number(value) + advice);
  }

  bool TokenId(const std::string& field, int64_t id, int32_t vocab_size) {
    if (id >= 0 && id < vocab_size) return true;
    return Fail(field, field + " is token " + std::to_string(id) + ", but this model has tokens 0 to " +
                           WithCommas(vocab_size - 1));
  }

  absl::Status status() const { return violations_.empty() ? absl::OkStatus() : InvalidRequest(violations_); }

 private:
  std::vector<FieldViolation> violations_;
};

// -0.0 means 0.
float Positive(float value) { return value == 0.0f ? 0.0f : value; }

void CheckPrompt(const v1::GenerateRequest& request, const RequestLimits& limits, Checker* checker) {
  if (request.has_text()) {
    const int64_t bytes = static_cast<int64_t>(request.text().size());
    if (bytes == 0) checker->Fail("text", "prompt is empty; give text, token_ids or chat");
    const absl::Status fits = CheckTextBytes("prompt", bytes, limits);
    if (!fits.ok()) checker->Fail("text", std::string(fits.message()));
  } else if (request.has_token_ids() && request.token_ids().ids_size() > 0) {
    const auto& ids = request.token_ids().ids();
    if (ids.size() >= limits.max_model_len) {
      checker->Fail("token_ids.ids", "prompt has " + WithCommas(ids.size()) + " tokens; this server accepts at most " +
                                         WithCommas(limits.max_model_len) + " including max_tokens");
      return;
    }
    for (int i = 0; i < ids.size(); ++i) {
      if (!checker->TokenId(Indexed("token_ids.ids", i), ids[i], limits.vocab_size)) break;
    }
  } else if (request.has_chat()) {
    for (const FieldViolation& violation : CheckChatPrompt(request.chat(), limits.max_prompt_bytes())) {
      checker->Fail(violation.field, violation.description);
    }
  } else {
    checker->Fail(request.has_token_ids() ? "token_ids.ids" : "prompt",
                  "prompt is empty; give text, token_ids or chat");
  }
}

void ReadSampling(const v1::GenerateRequest& request, const RequestLimits& limits, Checker* checker,
                  GenerationSpec* spec) {
  SamplingParams& sampling = spec->sampling;
  const SamplingDefaults& defaults = limits.defaults;
  sampling.temperature = defaults.temperature.value_or(sampling.temperature);
  sampling.top_p = defaults.top_p.value_or(sampling.top_p);
  sampling.top_k = defaults.top_k.value_or(sampling.top_k);
  sampling.repetition_penalty = defaults.repetition_penalty.value_or(sampling.repetition_penalty);
  if (request.has_temperature() && checker->Float("temperature", request.temperature(), 0.0f, 2.0f)) {
    sampling.temperature = Positive(request.temperature());
    if (sampling.temperature > 0.0f && sampling.temperature < kSmallestTemperature) {
      checker->Fail("temperature",
                    "temperature is " + Number(sampling.temperature) + "; use 0 for greedy, or 0.001 to 2");
    }
  }
  if (request.has_top_p() && checker->Float("top_p", request.top_p(), 0.0f, 1.0f, true))
    sampling.top_p = request.top_p();
  if (request.has_top_k() && checker->Integer("top_k", request.top_k(), 0, 1'000'000)) {
    sampling.top_k = std::min(request.top_k(), limits.vocab_size);
  }
  if (request.has_min_p() && checker->Float("min_p", request.min_p(), 0.0f, 1.0f)) {
    sampling.min_p = Positive(request.min_p());
  }
  if (request.has_repetition_penalty() &&
      checker->Float("repetition_penalty", request.repetition_penalty(), static_cast<float>(kMinRepetitionPenalty),
                     static_cast<float>(kMaxRepetitionPenalty))) {
    sampling.repetition_penalty = request.repetition_penalty();
  }
  if (request.has_presence_penalty() && checker->Float("presence_penalty", request.presence_penalty(), -2.0f, 2.0f)) {
    sampling.presence_penalty = Positive(request.presence_penalty());
  }
  if (request.has_frequency_penalty() &&
      checker->Float("frequency_penalty", request.frequency_penalty(), -2.0f, 2.0f)) {
    sampling.frequency_penalty = Positive(request.frequency_penalty());
  }
  if (request.has_seed()) spec->seed = request.seed();
}

void ReadLogitBias(const v1::GenerateRequest& request, const RequestLimits& limits, Checker* checker,
                   SamplingParams* sampling) {
  const auto& entries = request.logit_bias();
  if (entries.size() > kMaxLogitBias) {
    checker->Fail("logit_bias", "logit_bias has " + WithCommas(static_cast<int64_t>(entries.size())) +
                                    " entries; use at most " + WithCommas(kMaxLogitBias));
    return;
  }
  for (const auto& [id, bias] : entries) {
    const std::string field = Indexed("logit_bias", id);
    if (checker->TokenId(field, id, limits.vocab_size) && checker->Float(field, bias, -100.0f, 100.0f)) {
      sampling->logit_bias.emplace_back(id, Positive(bias));
    }
  }
  std::sort(sampling->logit_bias.begin(), sampling->logit_bias.end());
}

void ReadStops(const v1::GenerateRequest& request, const RequestLimits& limits, Checker* checker,
               GenerationSpec* spec) {
  if (request.stop_size() > kMaxStopStrings) {
    checker->Fail("stop", "stop has " + WithCommas(request.stop_size()) + " strings; use at most " +
                              std::to_string(kMaxStopStrings));
  }
  for (int i = 0; i < std::min(request.stop_size(), kMaxStopStrings); ++i) {
    const std::string& stop = request.stop(i);
    spec->stop.push_back(stop);
    if (!stop.empty() && stop.size() <= kMaxStopBytes) continue;
    const std::string field = Indexed("stop", i);
    checker->Fail(
        field, field +
                   (stop.empty() ? " is empty" : " has " + WithCommas(static_cast<int64_t>(stop.size())) + " bytes") +
                   "; use 1 to " + std::to_string(kMaxStopBytes) + " bytes");
  }

  if (request.stop_token_ids_size() > kMaxStopTokenIds) {
    checker->Fail("stop_token_ids", "stop_token_ids has " + WithCommas(request.stop_token_ids_size()) +
                                        " entries; use at most " + std::to_string(kMaxStopTokenIds));
  }
  std::vector<int32_t>& ids = spec->sampling.stop_token_ids;
  for (int i = 0; i < std::min(request.stop_token_ids_size(), kMaxStopTokenIds); ++i) {
    checker->TokenId(Indexed("stop_token_ids", i), request.stop_token_ids(i), limits.vocab_size);
    ids.push_back(request.stop_token_ids(i));
  }
  if (!request.ignore_eos()) spec->eos_token_ids = limits.eos_token_ids;
  ids.insert(ids.end(), spec->eos_token_ids.begin(), spec->eos_token_ids.end());
  std::sort(ids.begin(), ids.end());
  ids.erase(std::unique(ids.begin(), ids.end()), ids.end());
}

void ReadLengths(const v1::GenerateRequest& request, const RequestLimits& limits, Checker* checker,
                 GenerationSpec* spec) {
  if (request.has_max_tokens() && checker->Integer("max_tokens", request.max_tokens(), 1, limits.max_model_len)) {
    spec->max_tokens = request.max_tokens();
  }
  if (!request.has_min_tokens() || !checker->Integer("min_tokens", request.min_tokens(), 0, limits.max_model_len))
    return;
  spec->sampling.min_tokens = request.min_tokens();
  if (spec->max_tokens > 0 && request.min_tokens() > spec->max_tokens) {
    checker->Fail("min_tokens", "min_tokens is " + std::to_string(request.min_tokens()) + ", but max_tokens is " +
                                    std::to_string(spec->max_tokens) + "; use at most max_tokens");
  }
}

void ReadOutput(const v1::GenerateRequest& request, const RequestLimits& limits, Checker* checker,
                GenerationSpec* spec) {
  if (request.has_n() && checker->Integer("n", request.n(), 1, kMaxChoices)) spec->n = request.n();
  if (request.has_logprobs() && checker->Integer("logprobs", request.logprobs(), 0, kMaxLogprobs)) {
    spec->sampling.num_logprobs = request.logprobs();
  }
  if (request.has_priority() && checker->Integer("priority", request.priority(), -kMaxPriority, kMaxPriority)) {
    spec->priority = request.priority();
  }
  spec->include_stop = request.include_stop();
  spec->skip_special_tokens = !request.has_skip_special_tokens() || request.skip_special_tokens();
  // A template writes special tokens itself.
  const bool is_chat = request.has_chat();
  spec->allow_special_tokens = request.has_allow_special_tokens() ? request.allow_special_tokens() : is_chat;
  spec->add_special_tokens = request.has_add_special_tokens() ? request.add_special_tokens() : !is_chat;
  if (is_chat) spec->prompt_field = "chat";
  spec->allow_prefix_reuse = !request.has_allow_prefix_reuse() || request.allow_prefix_reuse();
  spec->explain = request.explain().enabled();
  auto positions = MoeLayerPositions("explain.layers", request.explain().layers(), limits.moe_layers);
  if (!positions.ok()) {
    checker->Fail("explain.layers", std::string(positions.status().message()));
  } else if (spec->explain) {
    spec->explain_layers = *std::move(positions);
  }
}

}  // namespace

absl::StatusOr<GenerationSpec> ValidateGenerateRequest(const v1::GenerateRequest& request,
                                                       const RequestLimits& limits) {
  RETURN_IF_ERROR(CheckModelName(request.model(), limits));
  GenerationSpec spec;
  Checker checker;
  CheckPrompt(request, limits, &checker);
  if (!request.request_id().empty() && !IsValidRequestId(request.request_id())) {
    checker.Fail("request_id", "request_id has " + WithCommas(static_cast<int64_t>(request.request_id().size())) +
                                   " bytes or unusual characters; use at most 128 of A-Z a-z 0-9 . _ : -");
  }
  ReadLengths(request, limits, &checker, &spec);
  ReadSampling(request, limits, &checker, &spec);
  ReadLogitBias(request, limits, &checker, &spec.sampling);
  ReadStops(request, limits, &checker, &spec);
  ReadOutput(request, limits, &checker, &spec);
  RETURN_IF_ERROR(checker.status());
  return spec;
}

absl::Status FitPrompt(int64_t num_prompt_tokens, const RequestLimits& limits, GenerationSpec* spec) {
  if (num_prompt_tokens == 0) return InvalidRequest(spec->prompt_field, "prompt is empty; it has no tokens");
  const int64_t room = limits.max_model_len - num_prompt_tokens;
  if (room < 1) {
    return InvalidRequest(spec->prompt_field, "prompt has " + WithCommas(num_prompt_tokens) +
                                                  " tokens; this server accepts at most " +
                                                  WithCommas(limits.max_model_len) + " including max_tokens");
  }
  if (spec->max_tokens > room) {
    return InvalidRequest("max_tokens", "max_tokens is " + std::to_string(spec->max_tokens) + ", but prompt " +
                                            std::to_string(num_prompt_tokens) + " + max_tokens exceed the model's " +
                                            std::to_string(limits.max_model_len) + "; use at most " +
                                            std::to_string(room));
  }
  if (spec->max_tokens == 0) spec->max_tokens = static_cast<int32_t>(room);
  if (spec->sampling.min_tokens > spec->max_tokens) {
    return InvalidRequest("min_tokens", "min_tokens is " + std::to_string(spec->sampling.min_tokens) + ", but only " +
                                            std::to_string(room) + " tokens fit after the prompt");
  }
  return absl::OkStatus();
}

absl::Status CheckModelName(const std::string& name, const RequestLimits& limits) {
  if (name.empty() || name == limits.served_model_name) return absl::OkStatus();
  return ModelNotFound(name, limits.served_model_name);
}

absl::Status CheckTextBytes(const std::string& field, int64_t num_bytes, const RequestLimits& limits) {
  if (num_bytes <= limits.max_prompt_bytes()) return absl::OkStatus();
  return InvalidRequest("text", field + " has " + WithCommas(num_bytes) + " bytes; this server accepts at most " +
                                    WithCommas(limits.max_prompt_bytes()) + ", " +
                                    std::to_string(kMaxPromptBytesPerToken) + " for each token of context");
}

absl::Status CheckTokenIds(const std::string& field, const ProtoIds& ids, const RequestLimits& limits) {
  Checker checker;
  for (int i = 0; i < ids.size(); ++i) {
    if (!checker.TokenId(Indexed(field.c_str(), i), ids[i], limits.vocab_size)) break;
  }
  return checker.status();
}

absl::StatusOr<std::vector<int32_t>> MoeLayerPositions(const std::string& field, const ProtoIds& layers,
                                                       const std::vector<int32_t>& moe_layers) {
  if (layers.size() > static_cast<int>(moe_layers.size())) {
    return InvalidRequest(field, field + " has " + WithCommas(layers.size()) + " entries; this model has " +
                                     std::to_string(moe_layers.size()) + " MoE layers");
  }
  std::vector<bool> wanted(moe_layers.size(), layers.empty());
  for (int i = 0; i < layers.size(); ++i) {
    const auto found = std::find(moe_layers.begin(), moe_layers.end(), layers[i]);
    if (found == moe_layers.end()) {
      return InvalidRequest(field, Indexed(field.c_str(), i) + " is layer " + std::to_string(layers[i]) +
                                       ", which is no MoE layer of this model, or one of its encoder");
    }
    wanted[static_cast<size_t>(found - moe_layers.begin())] = true;
  }
  std::vector<int32_t> positions;
  for (size_t i = 0; i < moe_layers.size(); ++i) {
    if (wanted[i]) positions.push_back(static_cast<int32_t>(i));
  }
  return positions;
}

bool IsValidRequestId(const std::string& id) {
  return !id.empty() && id.size() <= kMaxRequestIdBytes && std::all_of(id.begin(), id.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '.' || c == '_' || c == ':' || c == '-';
  });
}

uint64_t SeedOfChoice(uint64_t seed, int32_t index) {
  if (index == 0) return seed;
  // SplitMix64 (Steele, Lea, Flood 2014): neighbouring inputs give unrelated outputs.
  uint64_t z = seed + 0x9e3779b97f4a7c15u * static_cast<uint64_t>(index);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

std::string WithCommas(int64_t value) {
  std::string digits = std::to_string(value);
  const size_t first = value < 0 ? 1 : 0;
  for (size_t at = digits.size(); at > first + 3;) digits.insert(at -= 3, ",");
  return digits;
}

}  // namespace switchyard
