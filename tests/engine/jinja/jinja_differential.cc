// Our side of differential_test.py: answers requests on stdin with replies on stdout, all numbers little-endian.
//
//   u32 size, template; u32 size, variables as a JSON object   ->   u8 outcome, u32 size, text
//
// Outcome 0: the text of the template. 1: refused when parsed, 2: when rendered, with the message. The time that
// strftime_now shows is 2024-02-29 13:05:09, a Thursday.
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <string>

#include "engine/jinja/from_json.h"
#include "engine/jinja/template.h"

namespace {

using switchyard::jinja::Variables;

std::tm LeapDay() {
  std::tm now{};
  now.tm_year = 124;
  now.tm_mon = 1;
  now.tm_mday = 29;
  now.tm_hour = 13;
  now.tm_min = 5;
  now.tm_sec = 9;
  now.tm_wday = 4;
  now.tm_yday = 59;
  return now;
}

bool ReadText(std::string* text) {
  uint32_t size;
  if (std::fread(&size, sizeof(size), 1, stdin) != 1) return false;
  text->resize(size);
  return std::fread(text->data(), 1, size, stdin) == size;
}

void Reply(int outcome, const std::string& text) {
  const auto size = static_cast<uint32_t>(text.size());
  std::fputc(outcome, stdout);
  std::fwrite(&size, sizeof(size), 1, stdout);
  std::fwrite(text.data(), 1, size, stdout);
  std::fflush(stdout);
}

void Answer(const std::string& source, const std::string& json) {
  const auto document = switchyard::jinja::FromJson(json, {}, "variables");
  if (!document.ok()) return Reply(3, std::string(document.status().message()));
  Variables variables;
  for (const auto& [key, value] : document->dict().entries()) {
    variables.emplace_back(switchyard::jinja::ToUtf8(key.text()), value);
  }
  const auto parsed = switchyard::jinja::Template::Parse(source);
  if (!parsed.ok()) return Reply(1, std::string(parsed.status().message()));
  const auto text = parsed->Render(variables, LeapDay());
  if (!text.ok()) return Reply(2, std::string(text.status().message()));
  Reply(0, *text);
}

}  // namespace

int main() {
  std::string source, variables;
  while (ReadText(&source) && ReadText(&variables)) Answer(source, variables);
  return 0;
}
