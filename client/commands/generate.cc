// switchyard generate: streams an answer, and on request shows which experts wrote it.
#include <google/protobuf/repeated_field.h>

#include <algorithm>
#include <map>
#include <memory>
#include <ostream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/commands/command.h"
#include "client/commands/generate_options.h"
#include "client/view/answer.h"

namespace switchyard {
namespace {

// Asks the server for the text of single tokens, each once.
class TokenTexts {
 public:
  TokenTexts(const CommandContext& context, Client* client) : context_(context), client_(client) {}

  std::string Get(int32_t id) {
    const auto [entry, is_new] = texts_.try_emplace(id);
    if (is_new) {
      v1::DetokenizeRequest request;
      request.add_token_ids(id);
      request.set_skip_special_tokens(false);
      const auto text = client_->Detokenize(request, context_.Call(kShortTimeout));
      if (text.ok()) entry->second = text->text();  // else the view does without
    }
    return entry->second;
  }

 private:
  const CommandContext& context_;
  Client* const client_;
  std::map<int32_t, std::string> texts_;
};

// The layer that colours: the one asked for, else the model's last. INVALID_ARGUMENT: not a MoE layer.
absl::StatusOr<int> ExplainLayer(const v1::Model& model, int asked) {
  if (model.moe_layers().empty()) return absl::FailedPreconditionError("the served model has no MoE layers");
  if (asked < 0) return *model.moe_layers().rbegin();
  if (std::count(model.moe_layers().begin(), model.moe_layers().end(), asked) > 0) return asked;
  return absl::InvalidArgumentError(absl::StrCat("--explain-layer is ", asked, "; the model's MoE layers are ",
                                                 absl::StrJoin(model.moe_layers(), ", ")));
}

std::string Stats(const v1::PromptFacts& prompt, const v1::Usage& usage, absl::Duration elapsed,
                  const std::string& ends) {
  const double seconds = absl::ToDoubleSeconds(elapsed);
  return absl::StrFormat(
      "%d prompt + %d new tokens in %.3f s (%.1f tokens/s), queue %.3f s, prefill %.3f s, %s, seed %d\n",
      usage.prompt_tokens(), usage.completion_tokens(), seconds,
      seconds > 0 ? usage.completion_tokens() / seconds : 0.0, usage.queue_seconds(), usage.prefill_seconds(), ends,
      prompt.seed());
}

// One run of the command.
class Generation {
 public:
  Generation(const CommandContext& context, const GenerateOptions& options, std::unique_ptr<Client> client)
      : context_(context), options_(options), client_(std::move(client)), texts_(context, client_.get()) {}

  int Run() {
    const v1::GenerateRequest request = BuildGenerateRequest(options_, context_.console.in);
    if (options_.json) return PrintWhole(request);
    if (options_.explain) {
      if (absl::Status status = ReadModel(); !status.ok()) return PrintError(context_, status);
    }
    if (options_.echo) context_.console.out << request.text() << std::flush;
    return PrintStream(request);
  }

 private:
  CallOptions Call() const { return context_.Call(absl::InfiniteDuration()); }

  int PrintWhole(const v1::GenerateRequest& request) {
    const auto response = client_->Generate(request, Call());
    return response.ok() ? PrintJson(context_, *response) : PrintError(context_, response.status());
  }

  absl::Status ReadModel() {
    const auto model = client_->GetModel(context_.Call(kShortTimeout));
    if (!model.ok()) return model.status();
    model_ = *model;
    const absl::StatusOr<int> layer = ExplainLayer(model_, options_.explain_layer);
    if (!layer.ok()) return layer.status();
    explain_layer_ = *layer;
    return absl::OkStatus();
  }

  AnswerStyle Style() const {
    const Terminal& terminal = context_.console.terminal;
    return {.printable = terminal.is_tty,
            .explain = options_.explain,
            .color = terminal.color,
            .explain_layer = explain_layer_,
            .logprobs = options_.logprobs.has_value()};
  }

  int PrintStream(const v1::GenerateRequest& request) {
    AnswerView view(Style(), [this](int32_t id) { return texts_.Get(id); });
    const absl::Time start = absl::Now();
    const auto stream = client_->GenerateStream(request, Call());
    absl::Status status;
    {
      const InterruptScope scope(context_.console.interrupt, [&] { stream->Cancel(); });
      v1::GenerateStreamResponse message;
      while (stream->Next(&message)) {
        context_.console.out << view.Add(message) << std::flush;
        Remember(message);
      }
      status = stream->Finish();
    }
    if (received_) context_.console.out << view.Finish() << std::flush;
    if (!status.ok()) return PrintStreamError(status);
    if (options_.explain) PrintExperts(view.tally());
    if (options_.stats) context_.console.err << Stats(prompt_, usage_, absl::Now() - start, absl::StrJoin(ends_, " "));
    return kExitOk;
  }

  void Remember(const v1::GenerateStreamResponse& message) {
    received_ = true;
    if (message.has_prompt()) prompt_ = message.prompt();
    if (message.has_usage()) usage_ = message.usage();
    for (const v1::ChoiceDelta& delta : message.choices()) {
      if (delta.finish_reason() == v1::FINISH_REASON_UNSPECIFIED) continue;
      ends_.push_back(v1::FinishReason_Name(delta.finish_reason()).substr(sizeof("FINISH_REASON_") - 1));
    }
  }

  int PrintStreamError(const absl::Status& status) const {
    const Interrupt* interrupt = context_.console.interrupt;
    if (interrupt != nullptr && interrupt->happened()) return kExitInterrupted;
    return PrintError(context_, status);
  }

  void PrintExperts(const RoutingTally& tally) const {
    context_.console.out << "\n"
                         << RenderExpertTable(tally, {.color = context_.console.terminal.color,
                                                      .colored_layer = explain_layer_,
                                                      .max_experts = options_.explain_top,
                                                      .num_experts = model_.num_experts(),
                                                      .top_k = model_.top_k()});
  }

  const CommandContext& context_;
  const GenerateOptions& options_;
  const std::unique_ptr<Client> client_;
  TokenTexts texts_;
  v1::Model model_;         // with --explain
  int explain_layer_ = -1;  // with --explain
  bool received_ = false;
  v1::PromptFacts prompt_;
  v1::Usage usage_;
  std::vector<std::string> ends_;  // finish reasons
};

int RunGenerate(const CommandContext& context, const GenerateOptions& options) {
  auto client = Client::Create(context.client);
  if (!client.ok()) return PrintError(context, client.status());
  return Generation(context, options, *std::move(client)).Run();
}

}  // namespace

void AddGenerateCommand(CLI::App* app, CommandContext* context) {
  CLI::App* command = app->add_subcommand("generate", "Continue a text and print the answer as it comes");
  auto options = std::make_shared<GenerateOptions>();
  DeclareGenerateOptions(command, options.get());
  command->callback([context, options] {
    if (options->words.empty() == options->token_ids.empty()) {
      throw CLI::ValidationError("prompt", "give either words (or - for the standard input) or --token-ids");
    }
    context->action = [=] { return RunGenerate(*context, *options); };
  });
}

}  // namespace switchyard
