// switchyard chat: a conversation, one line a turn, through the model's chat template.
#include <istream>
#include <memory>
#include <ostream>

#include "client/commands/command.h"
#include "client/commands/generate_options.h"
#include "client/view/answer.h"

namespace switchyard {
namespace {

struct ChatOptions {
  GenerateOptions answer;  // sampling, and the end of each answer
  std::string system;
  std::string template_kwargs;
};

class Conversation {
 public:
  Conversation(const CommandContext& context, const ChatOptions& options, std::unique_ptr<Client> client)
      : context_(context), options_(options), client_(std::move(client)) {}

  int Run() {
    const auto model = client_->GetModel(context_.Call(kShortTimeout));
    if (!model.ok()) return PrintError(context_, model.status());
    if (!model->has_chat_template()) {
      return PrintError(
          context_, absl::FailedPreconditionError("the served model has no chat template; use `switchyard generate`"));
    }
    SetAnswerOptions(options_.answer, &request_);
    request_.mutable_chat()->set_template_kwargs(options_.template_kwargs);
    if (!options_.system.empty()) Say("system", options_.system);
    if (!options_.answer.words.empty()) return Turn(TextFrom(options_.answer.words, context_.console.in));
    return TalkUntilEnd();
  }

 private:
  void Say(const std::string& role, const std::string& content) {
    v1::ChatMessage* message = request_.mutable_chat()->add_messages();
    message->set_role(role);
    message->set_content(content);
  }

  int TalkUntilEnd() {
    std::string line;
    while (true) {
      if (context_.console.terminal.is_tty) context_.console.out << "> " << std::flush;
      if (!std::getline(context_.console.in, line)) return kExitOk;
      if (line.empty()) continue;
      if (const int code = Turn(line); code != kExitOk) return code;
    }
  }

  int Turn(const std::string& said) {
    Say("user", said);
    AnswerView view({.printable = context_.console.terminal.is_tty}, [](int32_t) { return std::string(); });
    std::string answer;
    const auto stream = client_->GenerateStream(request_, context_.Call(absl::InfiniteDuration()));
    absl::Status status;
    {
      const InterruptScope scope(context_.console.interrupt, [&] { stream->Cancel(); });
      v1::GenerateStreamResponse message;
      while (stream->Next(&message)) {
        context_.console.out << view.Add(message) << std::flush;
        for (const v1::ChoiceDelta& delta : message.choices()) {
          if (delta.index() == 0) answer += delta.text();
        }
      }
      status = stream->Finish();
    }
    context_.console.out << view.Finish() << std::flush;
    const Interrupt* interrupt = context_.console.interrupt;
    if (interrupt != nullptr && interrupt->happened()) return kExitInterrupted;
    if (!status.ok()) return PrintError(context_, status);
    Say("assistant", answer);
    return kExitOk;
  }

  const CommandContext& context_;
  const ChatOptions& options_;
  const std::unique_ptr<Client> client_;
  v1::GenerateRequest request_;  // with the conversation so far
};

int RunChat(const CommandContext& context, const ChatOptions& options) {
  auto client = Client::Create(context.client);
  if (!client.ok()) return PrintError(context, client.status());
  return Conversation(context, options, *std::move(client)).Run();
}

}  // namespace

void AddChatCommand(CLI::App* app, CommandContext* context) {
  CLI::App* command = app->add_subcommand("chat", "Talk to a model that has a chat template");
  auto options = std::make_shared<ChatOptions>();
  command->add_option("message", options->answer.words,
                      "One message to answer; default: a line of the input is a turn");
  command->add_option("--system", options->system, "What the conversation begins with");
  command->add_option("--template-kwargs", options->template_kwargs,
                      "JSON object of further variables of the template: '{\"enable_thinking\": false}'");
  DeclareAnswerOptions(command, &options->answer);
  command->callback([context, options] { context->action = [=] { return RunChat(*context, *options); }; });
}

}  // namespace switchyard
