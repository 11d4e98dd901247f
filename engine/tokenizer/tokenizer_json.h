// Reads the text of a tokenizer.json, which comes from outside and is not trusted.
//
// The two big members, model.vocab and model.merges, go straight into vectors (a document tree of 500,000 merges would
// cost ten times the file); the rest becomes a small document tree.
//
// Refused, each with INVALID_ARGUMENT: more than 64 MiB, a byte order mark, anything but one JSON value, nesting above
// 64, a key twice in one object (in vocab: found by Vocabulary), more than 2,000,000 tokens, merges or other values.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_TOKENIZER_JSON_H_
#define SWITCHYARD_ENGINE_TOKENIZER_TOKENIZER_JSON_H_

#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/json_field.h"

namespace switchyard {

inline constexpr size_t kMaxTokenizerJsonBytes = size_t{64} << 20;
inline constexpr int32_t kMaxTokenId = 1 << 24;

struct VocabularyEntry {
  std::string token;
  int32_t id;  // 0 to kMaxTokenId
};

class TokenizerJson {
 public:
  static absl::StatusOr<TokenizerJson> Parse(const std::string& json);

  TokenizerJson(TokenizerJson&&) noexcept;
  ~TokenizerJson();

  std::vector<VocabularyEntry> vocab;
  std::vector<std::pair<std::string, std::string>> merges;  // rank = index

  // The document, without the content of model.vocab and model.merges (each an empty value of its type).
  JsonField Root() const;

 private:
  TokenizerJson();
  std::unique_ptr<nlohmann::json> rest_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_TOKENIZER_JSON_H_
