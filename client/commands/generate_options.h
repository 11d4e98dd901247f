// The options of `switchyard generate` and the request that they make.
#ifndef SWITCHYARD_CLIENT_COMMANDS_GENERATE_OPTIONS_H_
#define SWITCHYARD_CLIENT_COMMANDS_GENERATE_OPTIONS_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>
#include <vector>

#include "switchyard/v1/inference_service.pb.h"

namespace switchyard {

// An option that was not given stays absent in the request, so that the server's default holds.
struct GenerateOptions {
  std::vector<std::string> words;
  std::vector<int32_t> token_ids;
  std::string model;
  std::string request_id;

  std::optional<int32_t> max_tokens, min_tokens, top_k, n, logprobs, priority;
  std::optional<float> temperature, top_p, min_p, repetition_penalty, presence_penalty, frequency_penalty;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  std::vector<int32_t> stop_token_ids;
  std::vector<std::string> logit_bias;  // "ID=VALUE"
  bool ignore_eos = false;
  bool include_stop = false;
  bool keep_special_tokens = false;
  bool allow_special_tokens = false;
  bool no_add_special_tokens = false;
  bool no_prefix_reuse = false;

  bool explain = false;
  int explain_layer = -1;  // whose experts colour the text; -1 = the last MoE layer
  int explain_top = 8;     // rows of the table per layer
  bool echo = false;
  bool stats = false;
  bool json = false;
};

// Declares those of sampling and of the end of an answer in `command`, and sets them in a request.
void DeclareAnswerOptions(CLI::App* command, GenerateOptions* options);
void SetAnswerOptions(const GenerateOptions& options, v1::GenerateRequest* request);

// Declares the options in `command`. Wrong values end as usage errors.
void DeclareGenerateOptions(CLI::App* command, GenerateOptions* options);

// Reads `in` when the prompt is "-".
v1::GenerateRequest BuildGenerateRequest(const GenerateOptions& options, std::istream& in);

}  // namespace switchyard

#endif  // SWITCHYARD_CLIENT_COMMANDS_GENERATE_OPTIONS_H_
