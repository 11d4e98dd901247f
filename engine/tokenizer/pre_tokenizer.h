// Splits text into the pieces that BPE works on, so that no token crosses from one word to the next.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_PRE_TOKENIZER_H_
#define SWITCHYARD_ENGINE_TOKENIZER_PRE_TOKENIZER_H_

#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/json_field.h"
#include "engine/tokenizer/piece.h"

namespace switchyard {

// One kind of splitting. Immutable.
class PreTokenizerStep {
 public:
  virtual ~PreTokenizerStep() = default;
  // Appends the parts of `piece`. REQUIRES: piece.text is not empty, piece.token is -1.
  virtual absl::Status Split(Piece piece, std::vector<Piece>* out) const = 0;
};

class PreTokenizer {
 public:
  // Reads the "pre_tokenizer" member; null gives one that leaves the pieces whole.
  // INVALID_ARGUMENT: names a type that is not supported, or a bad field.
  static absl::StatusOr<PreTokenizer> Create(const JsonField& field);

  // Splits all pieces that are no tokens yet. INVALID_ARGUMENT: a regular expression gave up.
  absl::Status Apply(std::vector<Piece>* pieces) const;

 private:
  std::vector<std::unique_ptr<const PreTokenizerStep>> steps_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_PRE_TOKENIZER_H_
