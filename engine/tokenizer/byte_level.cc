#include "engine/tokenizer/byte_level.h"

#include <array>

#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

constexpr char32_t kAlphabetEnd = 0x144;  // 0x100 + 68

struct Alphabet {
  std::array<std::string, 256> characters;
  std::array<int, kAlphabetEnd> bytes;  // of a code point; -1: not of the alphabet
};

Alphabet MakeAlphabet() {
  Alphabet alphabet;
  alphabet.bytes.fill(-1);
  char32_t next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
    const char32_t c = printable ? static_cast<char32_t>(byte) : next++;
    AppendUtf8(c, &alphabet.characters[static_cast<size_t>(byte)]);
    alphabet.bytes[c] = byte;
  }
  return alphabet;
}

const Alphabet& TheAlphabet() {
  static const Alphabet alphabet = MakeAlphabet();
  return alphabet;
}

}  // namespace

void AppendByteLevel(std::string_view bytes, std::string* out) {
  const Alphabet& alphabet = TheAlphabet();
  for (const char byte : bytes) out->append(alphabet.characters[static_cast<unsigned char>(byte)]);
}

std::optional<std::string> BytesOfByteLevel(std::string_view token) {
  const Alphabet& alphabet = TheAlphabet();
  std::string bytes;
  bytes.reserve(token.size());
  for (size_t pos = 0; pos < token.size();) {
    const char32_t c = NextCodePoint(token, &pos);
    if (c >= kAlphabetEnd || alphabet.bytes[c] < 0) return std::nullopt;
    bytes.push_back(static_cast<char>(alphabet.bytes[c]));
  }
  return bytes;
}

}  // namespace switchyard
