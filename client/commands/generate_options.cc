#include "client/commands/generate_options.h"

#include <utility>

#include "absl/strings/numbers.h"
#include "client/commands/command.h"

namespace switchyard {
namespace {

// "17=-2.5" as {17, -2.5}; nothing when it is not of that form.
std::optional<std::pair<int32_t, float>> ParseBias(const std::string& text) {
  const size_t equals = text.find('=');
  std::pair<int32_t, float> bias;
  if (equals == std::string::npos || !absl::SimpleAtoi(text.substr(0, equals), &bias.first) ||
      !absl::SimpleAtof(text.substr(equals + 1), &bias.second)) {
    return std::nullopt;
  }
  return bias;
}

void DeclarePrompt(CLI::App* command, GenerateOptions* options) {
  command->add_option("prompt", options->words, "Text to continue; - reads the standard input");
  command->add_option("--token-ids", options->token_ids, "Token ids to continue, instead of text: 1,2,3")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->group("Prompt");
  command->add_option("--model", options->model, "Name of the model; default: the served one")->group("Prompt");
  command->add_option("--request-id", options->request_id, "Name of this request, for `abort` and logs")
      ->group("Prompt");
  command->add_option("--priority", options->priority, "Lower runs first, if the server schedules by priority")
      ->group("Prompt");
  command->add_flag("--allow-special-tokens", options->allow_special_tokens, "Read \"</s>\" and the like as tokens")
      ->group("Prompt");
  command->add_flag("--no-add-special-tokens", options->no_add_special_tokens, "Put nothing before the text")
      ->group("Prompt");
  command->add_flag("--no-prefix-reuse", options->no_prefix_reuse, "Compute the whole prompt")->group("Prompt");
}

void DeclareSampling(CLI::App* command, GenerateOptions* options) {
  const auto add = [&](const std::string& name, auto& value, const std::string& description) {
    command->add_option(name, value, description)->group("Sampling (default: the server's)");
  };
  add("--temperature", options->temperature, "0 = always the most likely token");
  add("--top-p", options->top_p, "Keep the smallest set of tokens with this probability");
  add("--top-k", options->top_k, "Keep the k most likely tokens; 0 = all");
  add("--min-p", options->min_p, "Drop tokens below this part of the largest probability");
  add("--repetition-penalty", options->repetition_penalty, "Above 1 discourages tokens already there");
  add("--presence-penalty", options->presence_penalty, "Subtracted once for tokens of the output");
  add("--frequency-penalty", options->frequency_penalty, "Subtracted per occurrence in the output");
  add("--seed", options->seed, "Same request and seed give the same tokens");
  add("-n,--n", options->n, "Number of choices");
  command->add_option("--logit-bias", options->logit_bias, "ID=VALUE, added to the token's logit; repeatable")
      ->check([](const std::string& text) { return ParseBias(text) ? "" : text + " is not ID=VALUE"; })
      ->allow_extra_args(false)
      ->group("Sampling (default: the server's)");
}

void DeclareEnd(CLI::App* command, GenerateOptions* options) {
  command->add_option("--max-tokens", options->max_tokens, "New tokens at most; default: what fits")->group("End");
  command->add_option("--min-tokens", options->min_tokens, "New tokens at least")->group("End");
  command->add_option("--stop", options->stop, "Text that ends the answer; repeatable")
      ->allow_extra_args(false)
      ->group("End");
  command->add_option("--stop-token-ids", options->stop_token_ids, "Tokens that end the answer: 1,2,3")
      ->delimiter(',')
      ->allow_extra_args(false)
      ->group("End");
  command->add_flag("--ignore-eos", options->ignore_eos, "Go on after the end-of-sequence token")->group("End");
  command->add_flag("--include-stop", options->include_stop, "Keep the stop text in the answer")->group("End");
}

void DeclareOutput(CLI::App* command, GenerateOptions* options) {
  command->add_flag("--explain", options->explain, "Colour each token by its first expert and list the experts")
      ->group("Output");
  command->add_option("--explain-layer", options->explain_layer, "MoE layer that colours; default: the last")
      ->check(CLI::NonNegativeNumber)
      ->group("Output");
  command->add_option("--explain-top", options->explain_top, "Experts listed per layer")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group("Output");
  command->add_option("--logprobs", options->logprobs, "List each token's log-probability and so many alternatives")
      ->group("Output");
  command->add_flag("--keep-special-tokens", options->keep_special_tokens, "Write special tokens too")->group("Output");
  command->add_flag("--echo", options->echo, "Print the prompt first")->group("Output");
  command->add_flag("--stats", options->stats, "Print tokens, times and seed to the standard error")->group("Output");
  command->add_flag("--json", options->json, "Wait for the whole answer and print JSON")->group("Output");
}

template <class Value, class Setter>
void SetIfGiven(const std::optional<Value>& value, v1::GenerateRequest* request, Setter setter) {
  if (value) (request->*setter)(*value);
}

void SetSampling(const GenerateOptions& options, v1::GenerateRequest* request) {
  SetIfGiven(options.temperature, request, &v1::GenerateRequest::set_temperature);
  SetIfGiven(options.top_p, request, &v1::GenerateRequest::set_top_p);
  SetIfGiven(options.top_k, request, &v1::GenerateRequest::set_top_k);
  SetIfGiven(options.min_p, request, &v1::GenerateRequest::set_min_p);
  SetIfGiven(options.repetition_penalty, request, &v1::GenerateRequest::set_repetition_penalty);
  SetIfGiven(options.presence_penalty, request, &v1::GenerateRequest::set_presence_penalty);
  SetIfGiven(options.frequency_penalty, request, &v1::GenerateRequest::set_frequency_penalty);
  SetIfGiven(options.seed, request, &v1::GenerateRequest::set_seed);
  SetIfGiven(options.n, request, &v1::GenerateRequest::set_n);
  for (const std::string& text : options.logit_bias) {
    if (const auto bias = ParseBias(text)) (*request->mutable_logit_bias())[bias->first] = bias->second;
  }
}

void SetEnd(const GenerateOptions& options, v1::GenerateRequest* request) {
  SetIfGiven(options.max_tokens, request, &v1::GenerateRequest::set_max_tokens);
  SetIfGiven(options.min_tokens, request, &v1::GenerateRequest::set_min_tokens);
  *request->mutable_stop() = {options.stop.begin(), options.stop.end()};
  *request->mutable_stop_token_ids() = {options.stop_token_ids.begin(), options.stop_token_ids.end()};
  if (options.ignore_eos) request->set_ignore_eos(true);
  if (options.include_stop) request->set_include_stop(true);
}

}  // namespace

void DeclareAnswerOptions(CLI::App* command, GenerateOptions* options) {
  DeclareSampling(command, options);
  DeclareEnd(command, options);
}

void SetAnswerOptions(const GenerateOptions& options, v1::GenerateRequest* request) {
  SetSampling(options, request);
  SetEnd(options, request);
}

void DeclareGenerateOptions(CLI::App* command, GenerateOptions* options) {
  DeclarePrompt(command, options);
  DeclareAnswerOptions(command, options);
  DeclareOutput(command, options);
}

v1::GenerateRequest BuildGenerateRequest(const GenerateOptions& options, std::istream& in) {
  v1::GenerateRequest request;
  if (options.token_ids.empty()) {
    request.set_text(TextFrom(options.words, in));
  } else {
    *request.mutable_token_ids()->mutable_ids() = {options.token_ids.begin(), options.token_ids.end()};
  }
  request.set_model(options.model);
  request.set_request_id(options.request_id);
  SetAnswerOptions(options, &request);
  SetIfGiven(options.logprobs, &request, &v1::GenerateRequest::set_logprobs);
  SetIfGiven(options.priority, &request, &v1::GenerateRequest::set_priority);
  if (options.keep_special_tokens) request.set_skip_special_tokens(false);
  if (options.allow_special_tokens) request.set_allow_special_tokens(true);
  if (options.no_add_special_tokens) request.set_add_special_tokens(false);
  if (options.no_prefix_reuse) request.set_allow_prefix_reuse(false);
  if (options.explain) request.mutable_explain()->set_enabled(true);
  return request;
}

}  // namespace switchyard
