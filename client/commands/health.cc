// switchyard health: exit code 0 only when SERVING.
#include <memory>
#include <ostream>

#include "client/commands/command.h"

namespace switchyard {
namespace {

struct HealthOptions {
  std::string service;
  double wait_seconds = 0;
  bool watch = false;
};

int PrintHealth(const CommandContext& context, Health health) {
  context.console.out << HealthName(health) << std::endl;
  return health == Health::kServing ? kExitOk : kExitError;
}

int Watch(const CommandContext& context, Client* client, const HealthOptions& options) {
  const auto stream = client->WatchHealth(options.service, context.Call(absl::InfiniteDuration()));
  const InterruptScope scope(context.console.interrupt, [&] { stream->Cancel(); });
  Health health = Health::kUnknown;
  int exit_code = kExitError;
  while (stream->Next(&health)) exit_code = PrintHealth(context, health);
  const absl::Status status = stream->Finish();
  return absl::IsCancelled(status) ? exit_code : PrintError(context, status);
}

int RunHealth(const CommandContext& context, const HealthOptions& options) {
  const auto client = Client::Create(context.client);
  if (!client.ok()) return PrintError(context, client.status());
  if (options.watch) return Watch(context, client->get(), options);
  if (options.wait_seconds > 0) {
    const absl::Status status = (*client)->WaitUntilServing(options.service, absl::Seconds(options.wait_seconds));
    return status.ok() ? PrintHealth(context, Health::kServing) : PrintError(context, status);
  }
  const auto health = (*client)->CheckHealth(options.service, context.Call(kShortTimeout));
  return health.ok() ? PrintHealth(context, *health) : PrintError(context, health.status());
}

}  // namespace

void AddHealthCommand(CLI::App* app, CommandContext* context) {
  CLI::App* command = app->add_subcommand("health", "Ask whether the server is SERVING; exit code 0 only if it is");
  auto options = std::make_shared<HealthOptions>();
  command->add_option("--service", options->service, "Full name of a service; default: the whole server");
  command->add_option("--wait", options->wait_seconds, "Wait up to so many seconds for SERVING")
      ->check(CLI::NonNegativeNumber);
  command->add_flag("--watch", options->watch, "Print each change until interrupted");
  command->callback([context, options] { context->action = [=] { return RunHealth(*context, *options); }; });
}

}  // namespace switchyard
