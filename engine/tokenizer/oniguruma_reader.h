// Reads the smallest parts of an Oniguruma pattern: characters, escapes and names of sets. Part of oniguruma.cc.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_ONIGURUMA_READER_H_
#define SWITCHYARD_ENGINE_TOKENIZER_ONIGURUMA_READER_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "engine/tokenizer/oniguruma_names.h"

namespace switchyard {

// A place in a pattern. The first failure stays; readers then return nullopt. The pattern must outlive this.
class OnigurumaReader {
 public:
  explicit OnigurumaReader(const std::string& pattern) : in_(pattern) {}

  const absl::Status& status() const { return status_; }
  bool ok() const { return status_.ok(); }
  bool AtEnd() const { return pos_ >= in_.size(); }
  bool At(char c, size_t ahead = 0) const { return pos_ + ahead < in_.size() && in_[pos_ + ahead] == c; }
  bool AtText(std::string_view text) const { return std::string_view(in_).substr(pos_, text.size()) == text; }
  bool AtDigit(size_t ahead = 0) const;
  bool AtSetEscape(size_t ahead = 0) const;                        // \s, \p{..} and the like
  char Peek(size_t ahead = 0) const { return in_[pos_ + ahead]; }  // REQUIRES: inside of the pattern

  // The text up to `end`, which is skipped too. nullopt: it does not come any more; nothing is read.
  std::optional<std::string> ReadUntil(std::string_view end);
  void Skip(size_t count) { pos_ += count; }
  size_t place() const { return pos_; }
  void GoBack(size_t place) { pos_ = place; }
  void Fail(const std::string& what);  // INVALID_ARGUMENT "<what> at byte <place>"

  char32_t ReadCharacter();                                       // REQUIRES: not AtEnd
  std::optional<int> ReadNumber();                                // decimal digits, at most 100000; nullopt: none here
  std::optional<CharacterSet> ReadEscapedSet(bool inside_class);  // nullopt: another escape, nothing is read
  std::optional<char32_t> ReadEscapedLiteral();                   // \n, \x41, \u00e9, \. ... REQUIRES: at a backslash

 private:
  std::optional<CharacterSet> ReadProperty();
  std::optional<char32_t> CheckedCodePoint(uint32_t value);
  std::optional<char32_t> ReadHex(int min_digits, int max_digits);
  std::optional<char32_t> ReadHexInBraces();
  std::optional<char32_t> ReadOctal();

  const std::string& in_;
  size_t pos_ = 0;
  absl::Status status_;
};

// How PCRE2 spells a character, inside and outside of a class.
std::string OnigurumaLiteral(char32_t c);
// [...] or [^...]
std::string OnigurumaBracket(const CharacterSet& set);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_ONIGURUMA_READER_H_
