// Tokens beside the model's vocabulary ("<|im_start|>", "<think>"): found in the text before anything else is done to
// it, and never split.
//
// First those with normalized = false are cut out of the raw text; then the text between them is normalized and those
// with normalized = true, normalized the same way, are cut out of that.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_ADDED_TOKENS_H_
#define SWITCHYARD_ENGINE_TOKENIZER_ADDED_TOKENS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/json_field.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/piece.h"
#include "engine/tokenizer/token_matcher.h"
#include "engine/tokenizer/vocabulary.h"

namespace switchyard {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  std::string normal_content;  // as the normalizer leaves it; the decoder gets this
  bool single_word = false;    // not inside of a word
  bool lstrip = false;         // swallows whitespace on its left
  bool rstrip = false;
  bool normalized = false;
  bool special = false;  // a control token: text that spells it matches only on request
};

// Immutable.
class AddedTokens {
 public:
  // Reads the "added_tokens" member. INVALID_ARGUMENT: a bad field, an id or a content twice, an id that belongs to
  // another token of the vocabulary, content above 512 bytes.
  static absl::StatusOr<AddedTokens> Create(const JsonField& field, const Vocabulary& vocabulary,
                                            const Normalizer& normalizer);

  // Appends the normalized pieces of `text` and, between them, the tokens found. Without `match_special`, a special
  // token is plain text, though it still hides tokens inside its own spelling, as in the reference.
  absl::Status Extract(const std::string& text, bool match_special, const Normalizer& normalizer,
                       std::vector<Piece>* pieces) const;

  const AddedToken* Find(int32_t id) const;
  const AddedToken* Find(const std::string& content) const;
  int32_t size() const { return by_id_.empty() ? 0 : by_id_.rbegin()->first + 1; }  // 1 + highest id

 private:
  explicit AddedTokens(std::map<int32_t, AddedToken> by_id);
  void Cut(const Piece& piece, const TokenMatcher& matcher, bool match_special, std::vector<Piece>* pieces) const;

  std::map<int32_t, AddedToken> by_id_;
  std::unordered_map<std::string, int32_t> by_content_;
  TokenMatcher raw_;
  TokenMatcher normalized_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_ADDED_TOKENS_H_
