// Checks a request field by field and turns it into what the scheduler wants. Pure functions: no clock, no gRPC, no
// tokenizer; the same request gives the same answer everywhere.
//
//   GenerateRequest --ValidateGenerateRequest--> GenerationSpec --tokenize--> FitPrompt --> Request (one per choice)
//
// Every violation is found, up to 16, and each says field, value class, limit and what to do. INVALID_ARGUMENT for
// what no retry cures, NOT_FOUND for the wrong model.
#ifndef SWITCHYARD_SERVER_FRONTEND_REQUEST_VALIDATION_H_
#define SWITCHYARD_SERVER_FRONTEND_REQUEST_VALIDATION_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/engine.h"
#include "engine/sampling_params.h"
#include "switchyard/v1/inference_service.pb.h"

namespace switchyard {

inline constexpr int kMaxChoices = 16;
inline constexpr int kMaxStopStrings = 16;
inline constexpr int kMaxStopBytes = 256;
inline constexpr int kMaxStopTokenIds = 64;
inline constexpr int kMaxLogitBias = 1024;
inline constexpr int kMaxRequestIdBytes = 128;
inline constexpr int kMaxPriority = 1000;
// What one level of priority is worth in waiting, under the priority policy: so little that the least urgent request
// waits behind the most urgent newcomers for half of what it may take in all, and never starves.
inline std::chrono::nanoseconds PriorityStep(double max_request_seconds) {
  const std::chrono::duration<double> step(max_request_seconds / (4 * kMaxPriority));
  return std::min<std::chrono::nanoseconds>(std::chrono::seconds(10),
                                            std::chrono::duration_cast<std::chrono::nanoseconds>(step));
}
inline constexpr int kMaxPromptBytesPerToken = 16;  // of context: longer texts cannot fit and are not tokenized

using ProtoIds = google::protobuf::RepeatedField<int32_t>;

// What requests are checked against. Fixed once the model is loaded.
struct RequestLimits {
  std::string served_model_name;
  int32_t vocab_size = 0;
  int32_t max_model_len = 0;
  std::vector<int32_t> eos_token_ids;
  std::vector<int32_t> moe_layers;  // that tokens of the answer pass through
  int32_t decoder_start_token_id = -1;  // of an encoder-decoder, whose encoder reads the prompt; -1: a decoder alone
  SamplingDefaults defaults;

  int64_t max_prompt_bytes() const { return int64_t{max_model_len} * kMaxPromptBytesPerToken; }
};

// A checked request, apart from its prompt.
struct GenerationSpec {
  SamplingParams sampling;  // with all stop token ids; the seed is set by SeedOfChoice
  std::optional<uint64_t> seed;
  std::vector<int32_t> eos_token_ids;  // empty with ignore_eos
  int32_t max_tokens = 0;              // 0: what fits
  int32_t n = 1;
  int32_t priority = 0;
  std::vector<std::string> stop;
  bool include_stop = false;
  bool skip_special_tokens = true;
  bool allow_special_tokens = false;
  bool add_special_tokens = true;
  std::string prompt_field = "text";  // which field the prompt came in
  bool allow_prefix_reuse = true;
  bool explain = false;
  std::vector<int32_t> explain_layers;  // positions in RequestLimits::moe_layers, ascending; set when `explain`
};

absl::StatusOr<GenerationSpec> ValidateGenerateRequest(const v1::GenerateRequest& request, const RequestLimits& limits);

// Checks the tokenized prompt and sets spec->max_tokens where the caller left it open.
absl::Status FitPrompt(int64_t num_prompt_tokens, const RequestLimits& limits, GenerationSpec* spec);

absl::Status CheckModelName(const std::string& name, const RequestLimits& limits);
// `field` names the text in the message.
absl::Status CheckTextBytes(const std::string& field, int64_t num_bytes, const RequestLimits& limits);
absl::Status CheckTokenIds(const std::string& field, const ProtoIds& ids, const RequestLimits& limits);
// The positions in `moe_layers` of `layers`; all of them when `layers` is empty.
absl::StatusOr<std::vector<int32_t>> MoeLayerPositions(const std::string& field, const ProtoIds& layers,
                                                       const std::vector<int32_t>& moe_layers);

bool IsValidRequestId(const std::string& id);

// Choice 0 draws with `seed` itself, the others with seeds derived from it.
uint64_t SeedOfChoice(uint64_t seed, int32_t index);

// 4096 -> "4,096".
std::string WithCommas(int64_t value);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_REQUEST_VALIDATION_H_
