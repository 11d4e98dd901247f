// The model's tokens: text to id and back. Immutable.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_VOCABULARY_H_
#define SWITCHYARD_ENGINE_TOKENIZER_VOCABULARY_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/tokenizer_json.h"

namespace switchyard {

class Vocabulary {
 public:
  // A copy would hold views of the original.
  Vocabulary(const Vocabulary&) = delete;
  Vocabulary& operator=(const Vocabulary&) = delete;
  Vocabulary(Vocabulary&&) = default;
  Vocabulary& operator=(Vocabulary&&) = default;

  // INVALID_ARGUMENT: a token or an id twice.
  static absl::StatusOr<Vocabulary> Create(std::vector<VocabularyEntry> entries);

  std::optional<int32_t> Find(std::string_view token) const;
  const std::string* Text(int32_t id) const;  // nullptr: no token has this id; any id is allowed
  int32_t size() const { return static_cast<int32_t>(index_of_id_.size()); }  // 1 + highest id

 private:
  Vocabulary() = default;

  std::vector<VocabularyEntry> entries_;
  std::unordered_map<std::string_view, int32_t> id_of_text_;  // views of entries_
  std::vector<int32_t> index_of_id_;                          // into entries_; -1: unused id
};

// Ids of the tokens that stand for single bytes, "<0x00>" to "<0xFF>"; -1: the vocabulary has no such token.
std::array<int32_t, 256> ByteTokenIds(const Vocabulary& vocabulary);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_VOCABULARY_H_
