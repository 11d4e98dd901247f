// libFuzzer target: a template from outside, rendered with variables from outside.
//
// The input is a template, a zero byte, and a JSON object. Nothing may crash, hang or take more than its budget.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <string>

#include "engine/jinja/from_json.h"
#include "engine/jinja/template.h"
#include "engine/tokenizer/utf8.h"

namespace {

constexpr switchyard::jinja::RenderLimits kLimits = {
    .max_steps = 100'000, .max_allocated_chars = 1 << 20, .max_output_bytes = 1 << 16};
constexpr char kVariables[] =
    R"({"s": "Hello, <Wörld> 😀\n", "i": 7, "f": -2.5, "b": true, "n": null, "l": [3, "a", [1], {"k": 1}],
        "d": {"a": 1, "b": {"c": "x"}}, "messages": [{"role": "user", "content": "hi"}, {"role": "tool"}]})";

void Check(bool holds) {
  if (!holds) std::abort();
}

switchyard::jinja::Variables ReadVariables(const std::string& json) {
  constexpr switchyard::JsonLimits kJson = {.max_bytes = 1 << 16, .max_depth = 32, .max_values = 1000};
  auto document = switchyard::jinja::FromJson(json, kJson, "fuzz");
  if (!document.ok() || !document->is_dict()) document = switchyard::jinja::FromJson(kVariables, {}, "fuzz");
  switchyard::jinja::Variables variables;
  for (const auto& [key, value] : document->dict().entries()) {
    variables.emplace_back(switchyard::jinja::ToUtf8(key.text()), value);
  }
  return variables;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string input(reinterpret_cast<const char*>(data), size);
  const size_t end = std::min(input.find('\0'), input.size());
  const auto parsed = switchyard::jinja::Template::Parse(input.substr(0, end));
  if (!parsed.ok()) {
    Check(absl::IsInvalidArgument(parsed.status()) && !parsed.status().message().empty());
    return 0;
  }
  const auto text = parsed->Render(ReadVariables(input.substr(std::min(end + 1, size))), std::tm{}, kLimits);
  if (text.ok()) {
    Check(switchyard::FindInvalidUtf8(*text) == std::string::npos);
    Check(text->size() <= static_cast<size_t>(kLimits.max_output_bytes));
  } else {
    Check(absl::IsInvalidArgument(text.status()) || absl::IsResourceExhausted(text.status()) ||
          absl::IsAborted(text.status()));
  }
  return 0;
}
