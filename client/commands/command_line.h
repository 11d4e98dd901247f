// The program `switchyard` as a function.
#ifndef SWITCHYARD_CLIENT_COMMANDS_COMMAND_LINE_H_
#define SWITCHYARD_CLIENT_COMMANDS_COMMAND_LINE_H_

#include <string>
#include <vector>

#include "client/commands/command.h"

namespace switchyard {

// Runs the command that `arguments` (without the program's name) ask for. Returns the exit code: 0 done, 1 the server
// answered an error or is not there, 2 the arguments are wrong, 130 interrupted.
int RunCommandLine(const std::vector<std::string>& arguments, Console& console);

}  // namespace switchyard

#endif  // SWITCHYARD_CLIENT_COMMANDS_COMMAND_LINE_H_
