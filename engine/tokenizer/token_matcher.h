// Finds the leftmost, then longest, of many fixed texts.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_TOKEN_MATCHER_H_
#define SWITCHYARD_ENGINE_TOKENIZER_TOKEN_MATCHER_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace switchyard {

// Immutable. Cost: O(text + candidates × length of the longest text).
class TokenMatcher {
 public:
  struct Match {
    size_t begin;
    size_t end;
    int32_t id;
  };

  // Pairs of text and id. Empty texts are left out; of the same text twice the lowest id stays.
  explicit TokenMatcher(std::vector<std::pair<std::string, int32_t>> texts);

  // The first match that begins at or behind `from`.
  std::optional<Match> Find(std::string_view text, size_t from) const;

 private:
  std::optional<Match> FindAt(std::string_view text, size_t begin) const;

  std::vector<std::pair<std::string, int32_t>> texts_;  // sorted by text
  std::array<size_t, 257> first_of_byte_;               // texts_ that start with byte b: [b], up to [b + 1]
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_TOKEN_MATCHER_H_
