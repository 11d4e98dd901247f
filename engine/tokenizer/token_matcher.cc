#include "engine/tokenizer/token_matcher.h"

#include <algorithm>

namespace switchyard {

TokenMatcher::TokenMatcher(std::vector<std::pair<std::string, int32_t>> texts) : texts_(std::move(texts)) {
  std::erase_if(texts_, [](const auto& text) { return text.first.empty(); });
  std::sort(texts_.begin(), texts_.end());
  const auto same_text = [](const auto& a, const auto& b) { return a.first == b.first; };
  texts_.erase(std::unique(texts_.begin(), texts_.end(), same_text), texts_.end());
  size_t index = 0;
  for (size_t byte = 0; byte < 256; ++byte) {
    while (index < texts_.size() && static_cast<unsigned char>(texts_[index].first[0]) < byte) ++index;
    first_of_byte_[byte] = index;
  }
  first_of_byte_[256] = texts_.size();
}

std::optional<TokenMatcher::Match> TokenMatcher::Find(std::string_view text, size_t from) const {
  if (texts_.empty()) return std::nullopt;
  for (size_t begin = from; begin < text.size(); ++begin) {
    const auto byte = static_cast<unsigned char>(text[begin]);
    if (first_of_byte_[byte] == first_of_byte_[byte + 1u]) continue;
    if (const auto match = FindAt(text, begin)) return match;
  }
  return std::nullopt;
}

// Narrows the sorted texts byte by byte. A text that ends sorts before those that go on.
std::optional<TokenMatcher::Match> TokenMatcher::FindAt(std::string_view text, size_t begin) const {
  const auto first_byte = static_cast<unsigned char>(text[begin]);
  auto low = texts_.begin() + static_cast<std::ptrdiff_t>(first_of_byte_[first_byte]);
  auto high = texts_.begin() + static_cast<std::ptrdiff_t>(first_of_byte_[first_byte + 1u]);
  std::optional<Match> longest;
  for (size_t length = 1; low != high; ++length) {  // all texts in [low, high) agree with the text for `length` bytes
    if (low->first.size() == length) {
      longest = Match{begin, begin + length, low->second};
      ++low;
    }
    if (begin + length == text.size()) break;
    const auto byte = static_cast<unsigned char>(text[begin + length]);
    const auto byte_at = [length](const auto& entry) { return static_cast<unsigned char>(entry.first[length]); };
    low = std::partition_point(low, high, [&](const auto& entry) { return byte_at(entry) < byte; });
    high = std::partition_point(low, high, [&](const auto& entry) { return byte_at(entry) == byte; });
  }
  return longest;
}

}  // namespace switchyard
