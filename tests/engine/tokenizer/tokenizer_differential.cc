// Our side of differential_test.py: answers requests on stdin with replies on stdout, all numbers little-endian.
//
//   'L' u32 size, tokenizer.json        -> u8 ok, u32 size, message        (loads; the requests below use it)
//   'E' u8 flags, u32 size, text        -> u32 count, count x i32 ids      (flags: 1 add special, 2 allow special)
//   'D' u8 skip, u32 count, ids         -> u32 size, text
//
// An Encode that fails answers with the count 0xFFFFFFFF. Every 'D' also runs the ids through an IncrementalDecoder;
// where its text differs or a part of it is not UTF-8, the program says so on stderr and ends with exit code 1.
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/utf8.h"

namespace {

bool ReadBytes(void* target, size_t size) { return std::fread(target, 1, size, stdin) == size; }

template <typename Number>
bool ReadNumber(Number* number) {
  return ReadBytes(number, sizeof(Number));
}

bool ReadText(std::string* text) {
  uint32_t size;
  if (!ReadNumber(&size)) return false;
  text->resize(size);
  return ReadBytes(text->data(), size);
}

void WriteNumber(uint32_t number) { std::fwrite(&number, sizeof(number), 1, stdout); }

void WriteText(const std::string& text) {
  WriteNumber(static_cast<uint32_t>(text.size()));
  std::fwrite(text.data(), 1, text.size(), stdout);
}

bool Load(std::unique_ptr<switchyard::Tokenizer>* tokenizer) {
  std::string json;
  if (!ReadText(&json)) return false;
  auto parsed = switchyard::Tokenizer::Parse(json);
  std::fputc(parsed.ok() ? 1 : 0, stdout);
  WriteText(parsed.ok() ? std::string() : std::string(parsed.status().message()));
  if (parsed.ok()) *tokenizer = *std::move(parsed);
  return true;
}

bool Encode(const switchyard::Tokenizer& tokenizer) {
  uint8_t flags;
  std::string text;
  if (!ReadNumber(&flags) || !ReadText(&text)) return false;
  const auto ids =
      tokenizer.Encode(text, {.add_special_tokens = (flags & 1) != 0, .allow_special_tokens = (flags & 2) != 0});
  if (!ids.ok()) {
    WriteNumber(UINT32_MAX);
    return true;
  }
  WriteNumber(static_cast<uint32_t>(ids->size()));
  std::fwrite(ids->data(), sizeof(int32_t), ids->size(), stdout);
  return true;
}

bool CheckIncremental(const switchyard::Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip,
                      const std::string& expected) {
  switchyard::IncrementalDecoder decoder(tokenizer, skip);
  std::string joined;
  bool whole = true;
  for (const int32_t id : ids) {
    const std::string text = decoder.Push(id);
    whole = whole && switchyard::FindInvalidUtf8(text) == std::string::npos;
    joined += text;
  }
  joined += decoder.Flush();
  if (!whole) std::fprintf(stderr, "incremental decoding split a character of: %s\n", expected.c_str());
  if (joined != expected) std::fprintf(stderr, "incremental: %s\nat once:     %s\n", joined.c_str(), expected.c_str());
  return whole && joined == expected;
}

bool Decode(const switchyard::Tokenizer& tokenizer, bool* consistent) {
  uint8_t skip;
  uint32_t count;
  if (!ReadNumber(&skip) || !ReadNumber(&count)) return false;
  std::vector<int32_t> ids(count);
  if (!ReadBytes(ids.data(), count * sizeof(int32_t))) return false;
  const std::string text = tokenizer.Decode(ids, skip != 0);
  *consistent = CheckIncremental(tokenizer, ids, skip != 0, text) && *consistent;
  WriteText(text);
  return true;
}

}  // namespace

int main() {
  std::unique_ptr<switchyard::Tokenizer> tokenizer;
  bool consistent = true;
  for (int command = std::fgetc(stdin); command != EOF; command = std::fgetc(stdin)) {
    const bool understood = command == 'L'                ? Load(&tokenizer)
                            : command == 'E' && tokenizer ? Encode(*tokenizer)
                            : command == 'D' && tokenizer ? Decode(*tokenizer, &consistent)
                                                          : false;
    if (!understood) {
      std::fprintf(stderr, "bad request\n");
      return 2;
    }
  }
  return consistent ? 0 : 1;
}
