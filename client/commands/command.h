// What the subcommands of `switchyard` share. Each AddXCommand declares one subcommand's options in `app`; parsing
// then leaves what to do in `context.action`.
#ifndef SWITCHYARD_CLIENT_COMMANDS_COMMAND_H_
#define SWITCHYARD_CLIENT_COMMANDS_COMMAND_H_

#include <google/protobuf/message.h>

#include <CLI/CLI.hpp>
#include <functional>
#include <iosfwd>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/commands/interrupt.h"
#include "client/switchyard_client.h"
#include "client/view/terminal.h"

namespace switchyard {

enum ExitCode : int { kExitOk = 0, kExitError = 1, kExitUsage = 2, kExitInterrupted = 130 };

// The outside world of a command; tests pass string streams.
struct Console {
  std::istream& in;
  std::ostream& out;
  std::ostream& err;
  Terminal terminal;  // of `out`
  bool err_is_tty = false;
  Interrupt* interrupt = nullptr;  // may be null
};

struct CommandContext {
  Console& console;
  ClientOptions client = {};
  std::optional<double> timeout_seconds = {};
  std::function<int()> action = {};  // of the subcommand that was named; returns the exit code

  // The options of a call: --timeout, else `default_timeout`.
  CallOptions Call(absl::Duration default_timeout) const;
};

// Prints "switchyard: NOT_FOUND: ..." and, where the cause is likely known, what to do. Returns kExitError.
int PrintError(const CommandContext& context, const absl::Status& status);

// Prints a message as one line of JSON, fields named as in the .proto files. Returns kExitOk.
int PrintJson(const CommandContext& context, const google::protobuf::Message& message);

// The words of a command line as one text; a single "-" is all of the standard input.
std::string TextFrom(const std::vector<std::string>& words, std::istream& in);

// The most that a call which does no model work may take.
inline constexpr absl::Duration kShortTimeout = absl::Seconds(10);

void AddGenerateCommand(CLI::App* app, CommandContext* context);
void AddChatCommand(CLI::App* app, CommandContext* context);
void AddExpertsCommand(CLI::App* app, CommandContext* context);
void AddBenchCommand(CLI::App* app, CommandContext* context);
void AddHealthCommand(CLI::App* app, CommandContext* context);
void AddInspectCommand(CLI::App* app, CommandContext* context);
void AddModelCommand(CLI::App* app, CommandContext* context);
void AddServerCommand(CLI::App* app, CommandContext* context);
void AddLoadCommand(CLI::App* app, CommandContext* context);
void AddTokenizeCommand(CLI::App* app, CommandContext* context);
void AddDetokenizeCommand(CLI::App* app, CommandContext* context);
void AddAbortCommand(CLI::App* app, CommandContext* context);
void AddTokenCommand(CLI::App* app, CommandContext* context);

}  // namespace switchyard

#endif  // SWITCHYARD_CLIENT_COMMANDS_COMMAND_H_
