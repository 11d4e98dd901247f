// switchyard tokenize, detokenize, abort.
#include <memory>
#include <ostream>

#include "absl/strings/escaping.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/commands/command.h"

namespace switchyard {
namespace {

struct TokenizeOptions {
  std::vector<std::string> words;
  bool no_add_special_tokens = false;
  bool allow_special_tokens = false;
  bool pieces = false;
  bool json = false;
};

struct DetokenizeOptions {
  std::vector<int32_t> token_ids;
  bool keep_special_tokens = false;
  bool json = false;
};

// A line per token with its text when decoded alone.
int PrintPieces(const CommandContext& context, Client* client, const v1::TokenizeResponse& tokens) {
  for (const int32_t id : tokens.token_ids()) {
    v1::DetokenizeRequest request;
    request.add_token_ids(id);
    request.set_skip_special_tokens(false);
    const auto text = client->Detokenize(request, context.Call(kShortTimeout));
    if (!text.ok()) return PrintError(context, text.status());
    context.console.out << absl::StrFormat("%8d  \"%s\"\n", id, absl::Utf8SafeCEscape(text->text()));
  }
  return kExitOk;
}

int RunTokenize(const CommandContext& context, const TokenizeOptions& options) {
  const auto client = Client::Create(context.client);
  if (!client.ok()) return PrintError(context, client.status());
  v1::TokenizeRequest request;
  request.set_text(TextFrom(options.words, context.console.in));
  if (options.no_add_special_tokens) request.set_add_special_tokens(false);
  if (options.allow_special_tokens) request.set_allow_special_tokens(true);
  const auto tokens = (*client)->Tokenize(request, context.Call(kShortTimeout));
  if (!tokens.ok()) return PrintError(context, tokens.status());
  if (options.json) return PrintJson(context, *tokens);
  if (options.pieces) return PrintPieces(context, client->get(), *tokens);
  context.console.out << absl::StrJoin(tokens->token_ids(), " ") << "\n";
  return kExitOk;
}

int RunDetokenize(const CommandContext& context, const DetokenizeOptions& options) {
  const auto client = Client::Create(context.client);
  if (!client.ok()) return PrintError(context, client.status());
  v1::DetokenizeRequest request;
  *request.mutable_token_ids() = {options.token_ids.begin(), options.token_ids.end()};
  if (options.keep_special_tokens) request.set_skip_special_tokens(false);
  const auto text = (*client)->Detokenize(request, context.Call(kShortTimeout));
  if (!text.ok()) return PrintError(context, text.status());
  if (options.json) return PrintJson(context, *text);
  context.console.out << (context.console.terminal.is_tty ? MakePrintable(text->text()) : text->text()) << "\n";
  return kExitOk;
}

int RunAbort(const CommandContext& context, const std::string& request_id) {
  const auto client = Client::Create(context.client);
  if (!client.ok()) return PrintError(context, client.status());
  v1::AbortRequest request;
  request.set_request_id(request_id);
  const auto response = (*client)->Abort(request, context.Call(kShortTimeout));
  if (!response.ok()) return PrintError(context, response.status());
  context.console.out << "aborted " << response->aborted() << "\n";
  return kExitOk;
}

}  // namespace

void AddTokenizeCommand(CLI::App* app, CommandContext* context) {
  CLI::App* command = app->add_subcommand("tokenize", "Turn text into token ids");
  auto options = std::make_shared<TokenizeOptions>();
  command->add_option("text", options->words, "Text, or - for the standard input")->required();
  command->add_flag("--no-add-special-tokens", options->no_add_special_tokens, "Put nothing before the text");
  command->add_flag("--allow-special-tokens", options->allow_special_tokens, "Read \"</s>\" and the like as tokens");
  command->add_flag("--pieces", options->pieces, "One line per token, with its text");
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([context, options] { context->action = [=] { return RunTokenize(*context, *options); }; });
}

void AddDetokenizeCommand(CLI::App* app, CommandContext* context) {
  CLI::App* command = app->add_subcommand("detokenize", "Turn token ids into text");
  auto options = std::make_shared<DetokenizeOptions>();
  command->add_option("token_ids", options->token_ids, "Token ids")->required();
  command->add_flag("--keep-special-tokens", options->keep_special_tokens, "Write special tokens too");
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([context, options] { context->action = [=] { return RunDetokenize(*context, *options); }; });
}

void AddAbortCommand(CLI::App* app, CommandContext* context) {
  CLI::App* command = app->add_subcommand("abort", "End a running or waiting request");
  auto request_id = std::make_shared<std::string>();
  command->add_option("request_id", *request_id, "Id that the caller gave, or got in the first message")->required();
  command->callback([context, request_id] { context->action = [=] { return RunAbort(*context, *request_id); }; });
}

}  // namespace switchyard
