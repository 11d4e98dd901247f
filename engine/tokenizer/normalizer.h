// Rewrites text before it is split: normal forms, replacements, case.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_NORMALIZER_H_
#define SWITCHYARD_ENGINE_TOKENIZER_NORMALIZER_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/json_field.h"
#include "engine/tokenizer/piece.h"

namespace switchyard {

// One kind of rewriting. Immutable.
class NormalizerStep {
 public:
  virtual ~NormalizerStep() = default;
  // Rewrites piece->text and keeps piece->at_start true.
  // INVALID_ARGUMENT: a regular expression gave up, or the text would become longer than `max_bytes`.
  virtual absl::Status Apply(Piece* piece, size_t max_bytes) const = 0;
};

class Normalizer {
 public:
  // Reads the "normalizer" member; null gives one that changes nothing.
  // INVALID_ARGUMENT: names a type that is not supported, or a bad field.
  static absl::StatusOr<Normalizer> Create(const JsonField& field);

  // INVALID_ARGUMENT: a regular expression gave up, or the text becomes more than 32 times as long.
  absl::Status Apply(Piece* piece) const;

 private:
  std::vector<std::unique_ptr<const NormalizerStep>> steps_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_NORMALIZER_H_
