// The program `switchyard`: generates, watches experts and measures from the command line.
#include <unistd.h>

#include <iostream>
#include <string>
#include <vector>

#include "client/commands/command_line.h"

int main(int argc, char** argv) {
  switchyard::Interrupt interrupt;
  switchyard::Console console{.in = std::cin,
                              .out = std::cout,
                              .err = std::cerr,
                              .terminal = switchyard::DetectTerminal(STDOUT_FILENO),
                              .err_is_tty = isatty(STDERR_FILENO) != 0,
                              .interrupt = &interrupt};
  return switchyard::RunCommandLine(std::vector<std::string>(argv + 1, argv + argc), console);
}
