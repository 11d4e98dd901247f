#include "client/commands/command_line.h"

#include <ostream>

namespace switchyard {
namespace {

struct CommonOptions {
  std::string color = "auto";
};

void AddCommonOptions(CLI::App* app, CommonOptions* common, CommandContext* context) {
  app->add_option("--address", context->client.address, "Server, host:port")
      ->envname("SWITCHYARD_ADDRESS")
      ->capture_default_str()
      ->group("Connection");
  app->add_option("--timeout", context->timeout_seconds,
                  "Seconds until a call fails; generate, chat and bench: none, others: 10")
      ->check(CLI::PositiveNumber)
      ->group("Connection");
  app->add_option("--api-key", context->client.api_key, "Token for servers that ask for one")
      ->envname("SWITCHYARD_API_KEY")
      ->group("Connection");
  app->add_flag("--tls", context->client.tls, "Encrypt")->group("Connection");
  app->add_option("--ca-file", context->client.ca_file, "PEM certificates to trust; implies --tls")
      ->group("Connection");
  app->add_option("--cert-file", context->client.cert_file, "PEM certificate of this client")->group("Connection");
  app->add_option("--key-file", context->client.key_file, "PEM key of this client")->group("Connection");
  app->add_option("--max-attempts", context->client.max_attempts, "Tries while the server's queue is full")
      ->check(CLI::Range(1, 5))
      ->capture_default_str()
      ->group("Connection");
  app->add_option("--color", common->color, "auto (terminals, unless NO_COLOR is set), always or never")
      ->check(CLI::IsMember({"auto", "always", "never"}))
      ->group("Output");
}

void AddCommands(CLI::App* app, CommandContext* context) {
  AddGenerateCommand(app, context);
  AddChatCommand(app, context);
  AddExpertsCommand(app, context);
  AddBenchCommand(app, context);
  AddHealthCommand(app, context);
  AddInspectCommand(app, context);
  AddModelCommand(app, context);
  AddServerCommand(app, context);
  AddLoadCommand(app, context);
  AddTokenizeCommand(app, context);
  AddDetokenizeCommand(app, context);
  AddAbortCommand(app, context);
  AddTokenCommand(app, context);
  for (CLI::App* command : app->get_subcommands(nullptr)) {
    command->fallthrough();
    command->footer("`switchyard --help` lists the options for connection and colour; they may stand here too.");
  }
  app->require_subcommand(1);
}

}  // namespace

int RunCommandLine(const std::vector<std::string>& arguments, Console& console) {
  CLI::App app("Talks to a Switchyard server.", "switchyard");
  CommandContext context{.console = console};
  CommonOptions common;
  AddCommonOptions(&app, &common, &context);
  AddCommands(&app, &context);
  try {
    app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  } catch (const CLI::ParseError& error) {
    if (app.get_subcommands().empty() && !app.remaining().empty()) {
      console.err << "There is no command \"" << app.remaining().front() << "\".\n";
    }
    return app.exit(error, console.out, console.err) == 0 ? kExitOk : kExitUsage;
  }
  if (common.color != "auto") console.terminal.color = common.color == "always";
  return context.action();
}

}  // namespace switchyard
