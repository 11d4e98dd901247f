#include "client/view/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace switchyard {
namespace {

// Of the 59 colours of the 6x6x6 cube with a relative luminance of 0.12 to 0.29: neighbours in this list are far
// apart in OKLab.
constexpr std::array<int, 16> kExpertColors = {160, 27, 28, 136, 201, 30, 166, 135, 127, 33, 64, 198, 95, 103, 133, 67};

constexpr int kEighths = 8;
constexpr std::array<const char*, kEighths + 1> kLeftBlocks = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉", "█"};
constexpr std::array<const char*, kEighths + 1> kLowerBlocks = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};

bool IsUnsafe(unsigned char c) { return (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f; }

}  // namespace

Terminal DetectTerminal(int file_descriptor) {
  Terminal terminal;
  terminal.is_tty = isatty(file_descriptor) != 0;
  const char* term = std::getenv("TERM");
  const char* no_color = std::getenv("NO_COLOR");
  terminal.color = terminal.is_tty && term != nullptr && std::strcmp(term, "dumb") != 0 &&
                   (no_color == nullptr || *no_color == '\0');
  winsize size{};
  if (ioctl(file_descriptor, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0) {
    terminal.width = size.ws_col;
    terminal.height = size.ws_row;
  }
  return terminal;
}

std::string Paint(const std::string& text, int color) {
  return absl::StrCat("\x1b[38;5;", color, "m", text, "\x1b[0m");
}

int ExpertColor(int expert) { return kExpertColors[static_cast<size_t>(expert) % kExpertColors.size()]; }

int HeatColor(double ratio) {
  if (ratio <= 0) return 102;    // grey
  if (ratio < 0.5) return 67;    // pale blue
  if (ratio < 0.8) return 31;    // blue
  if (ratio < 1.25) return 28;   // green
  if (ratio < 1.75) return 136;  // amber
  if (ratio < 2.5) return 166;   // orange
  return 160;                    // red
}

std::string Bar(double fraction, int width) {
  int eighths = static_cast<int>(std::lround(std::clamp(fraction, 0.0, 1.0) * width * kEighths));
  std::string bar;
  for (int column = 0; column < width; ++column) {
    bar += kLeftBlocks[static_cast<size_t>(std::min(eighths, kEighths))];
    eighths = std::max(eighths - kEighths, 0);
  }
  return bar;
}

std::string Block(double fraction) {
  if (fraction <= 0) return kLowerBlocks[0];
  const long height = std::lround(std::min(fraction, 1.0) * kEighths);
  return kLowerBlocks[static_cast<size_t>(std::max(height, 1L))];
}

std::string MakePrintable(const std::string& text) {
  std::string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    // C1 controls are two bytes in UTF-8: C2 80 to C2 9F.
    const bool is_c1 = c == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (is_c1) ++i;
    if (is_c1 || IsUnsafe(c)) {
      result += "\xef\xbf\xbd";
    } else {
      result += static_cast<char>(c);
    }
  }
  return result;
}

}  // namespace switchyard
