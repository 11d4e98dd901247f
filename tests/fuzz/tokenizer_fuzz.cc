// libFuzzer target: a tokenizer.json from outside, then text through it.
//
// The input is a JSON document, a zero byte, and a text. Nothing may crash, hang or be inconsistent: a tokenizer that
// loads must encode the text (or say why not) and decode the same ids to the same text at once and id by id.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/utf8.h"

namespace {

void Check(bool holds) {
  if (!holds) std::abort();
}

void CheckRoundTrip(const switchyard::Tokenizer& tokenizer, const std::string& text, bool special) {
  const auto ids = tokenizer.Encode(text, {.add_special_tokens = special, .allow_special_tokens = special});
  if (!ids.ok()) return;
  for (const int32_t id : *ids) Check(id >= 0 && id < tokenizer.vocab_size());
  const std::string at_once = tokenizer.Decode(*ids, special);
  Check(switchyard::FindInvalidUtf8(at_once) == std::string::npos);
  switchyard::IncrementalDecoder decoder(tokenizer, special);
  std::string joined;
  for (const int32_t id : *ids) {
    joined += decoder.Push(id);
    tokenizer.TokenText(id);
  }
  Check(joined + decoder.Flush() == at_once);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string input(reinterpret_cast<const char*>(data), size);
  const size_t end = input.find('\0');
  const auto tokenizer = switchyard::Tokenizer::Parse(input.substr(0, end));
  if (!tokenizer.ok()) {
    Check(tokenizer.status().code() == absl::StatusCode::kInvalidArgument);
    Check(!tokenizer.status().message().empty());
    return 0;
  }
  const std::string text = end == std::string::npos ? std::string("Hello, world 123") : input.substr(end + 1);
  CheckRoundTrip(**tokenizer, text, /*special=*/false);
  CheckRoundTrip(**tokenizer, text, /*special=*/true);
  return 0;
}
