// What the terminal can show, and the pieces that the views are drawn with. All functions are pure except
// DetectTerminal.
#ifndef SWITCHYARD_CLIENT_VIEW_TERMINAL_H_
#define SWITCHYARD_CLIENT_VIEW_TERMINAL_H_

#include <string>

namespace switchyard {

struct Terminal {
  bool is_tty = false;
  bool color = false;  // 256 colours may be used
  int width = 100;     // columns
  int height = 40;     // lines
};

// Looks at an open file. Colour needs a terminal, a TERM other than "dumb" and no NO_COLOR in the environment.
Terminal DetectTerminal(int file_descriptor);

// `text` in one of the terminal's 256 colours.
std::string Paint(const std::string& text, int color);

// The expert's own colour. Every colour has a contrast of at least 3 to black and to white; 16 experts differ, then
// they repeat.
int ExpertColor(int expert);

// Colour of a load: 1 = as much as the mean. Grey is nothing, green about even, red far above.
int HeatColor(double ratio);

// A bar of `width` columns, filled up to `fraction` (0 to 1) in eighths of a column, then spaces.
std::string Bar(double fraction, int width);

// One column: a block as high as `fraction` (0 to 1); above 0 it never vanishes.
std::string Block(double fraction);

// Text of unknown origin made safe for a terminal: control characters except newline and tab become U+FFFD.
std::string MakePrintable(const std::string& text);

}  // namespace switchyard

#endif  // SWITCHYARD_CLIENT_VIEW_TERMINAL_H_
