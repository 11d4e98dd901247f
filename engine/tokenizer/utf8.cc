#include "engine/tokenizer/utf8.h"

#include <cstdint>
#include <cstring>

namespace switchyard {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// What the bytes at a position are: `length` bytes that form one character, or an ill-formed part of `length` bytes, or
// (truncated) a good start of a character that the end of the text cuts off.
struct Sequence {
  size_t length;
  bool well_formed;
  bool truncated;
};

bool IsContinuation(unsigned char byte) { return (byte & 0xC0) == 0x80; }

// The second byte decides overlong forms, surrogates and the upper end (table 3-7 of the Unicode standard).
bool IsSecondByte(unsigned char lead, unsigned char second) {
  switch (lead) {
    case 0xE0:
      return second >= 0xA0 && second <= 0xBF;
    case 0xED:
      return second >= 0x80 && second <= 0x9F;
    case 0xF0:
      return second >= 0x90 && second <= 0xBF;
    case 0xF4:
      return second >= 0x80 && second <= 0x8F;
    default:
      return IsContinuation(second);
  }
}

Sequence ReadSequence(std::string_view text, size_t pos) {
  const auto lead = static_cast<unsigned char>(text[pos]);
  if (lead < 0x80) return {1, true, false};
  if (lead < 0xC2 || lead > 0xF4) return {1, false, false};
  const size_t length = Utf8Length(text[pos]);
  for (size_t i = 1; i < length; ++i) {
    if (pos + i == text.size()) return {i, false, true};
    const auto byte = static_cast<unsigned char>(text[pos + i]);
    const bool fits = i == 1 ? IsSecondByte(lead, byte) : IsContinuation(byte);
    if (!fits) return {i, false, false};
  }
  return {length, true, false};
}

// Returns the end of the run of ASCII bytes that starts at `pos`, eight bytes at a time.
size_t SkipAscii(std::string_view text, size_t pos) {
  uint64_t word;
  while (pos + sizeof(word) <= text.size()) {
    std::memcpy(&word, text.data() + pos, sizeof(word));
    if (word & 0x8080808080808080u) break;
    pos += sizeof(word);
  }
  while (pos < text.size() && static_cast<unsigned char>(text[pos]) < 0x80) ++pos;
  return pos;
}

}  // namespace

size_t FindInvalidUtf8(std::string_view text) {
  for (size_t pos = SkipAscii(text, 0); pos < text.size(); pos = SkipAscii(text, pos)) {
    const Sequence sequence = ReadSequence(text, pos);
    if (!sequence.well_formed) return pos;
    pos += sequence.length;
  }
  return std::string_view::npos;
}

char32_t NextCodePoint(std::string_view text, size_t* pos) {
  const auto lead = static_cast<unsigned char>(text[*pos]);
  const size_t length = Utf8Length(text[*pos]);
  char32_t code_point = length == 1 ? lead : lead & (0xFF >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    code_point = (code_point << 6) | (static_cast<unsigned char>(text[*pos + i]) & 0x3F);
  }
  *pos += length;
  return code_point;
}

void AppendUtf8(char32_t code_point, std::string* out) {
  if (code_point < 0x80) {
    out->push_back(static_cast<char>(code_point));
    return;
  }
  const int continuation_bytes = code_point < 0x800 ? 1 : code_point < 0x10000 ? 2 : 3;
  const int lead_mark = continuation_bytes == 1 ? 0xC0 : continuation_bytes == 2 ? 0xE0 : 0xF0;
  out->push_back(static_cast<char>(lead_mark | (code_point >> (6 * continuation_bytes))));
  for (int i = continuation_bytes - 1; i >= 0; --i) {
    out->push_back(static_cast<char>(0x80 | ((code_point >> (6 * i)) & 0x3F)));
  }
}

void LossyUtf8::Push(std::string_view bytes, std::string* out) {
  std::string joined;
  std::string_view text = bytes;
  if (!pending_.empty()) {
    joined = pending_ + std::string(bytes);
    text = joined;
    pending_.clear();
  }
  for (size_t pos = 0; pos < text.size();) {
    const Sequence sequence = ReadSequence(text, pos);
    if (sequence.truncated) {
      pending_ = std::string(text.substr(pos));
      return;
    }
    out->append(sequence.well_formed ? text.substr(pos, sequence.length) : kReplacement);
    pos += sequence.length;
  }
}

void LossyUtf8::Flush(std::string* out) {
  if (!pending_.empty()) out->append(kReplacement);
  pending_.clear();
}

}  // namespace switchyard
