// Cuts a text at matches, and what becomes of the matches.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_SPLITTING_H_
#define SWITCHYARD_ENGINE_TOKENIZER_SPLITTING_H_

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/json_field.h"
#include "engine/tokenizer/piece.h"
#include "engine/tokenizer/regex.h"

namespace switchyard {

// With '-' as the match, "the-final--countdown" becomes
enum class SplitBehavior {
  kRemoved,             // the | final | countdown
  kIsolated,            // the | - | final | - | - | countdown
  kMergedWithPrevious,  // the- | final- | - | countdown
  kMergedWithNext,      // the | -final | - | -countdown
  kContiguous,          // the | - | final | -- | countdown
};

// INVALID_ARGUMENT: no such behavior.
absl::StatusOr<SplitBehavior> ParseSplitBehavior(const JsonField& field);

// Appends the parts of `piece` that are not empty. With `invert` the text between the matches plays the match.
// REQUIRES: matches in order, without overlap.
void SplitAt(const Piece& piece, const std::vector<Span>& matches, SplitBehavior behavior, bool invert,
             std::vector<Piece>* out);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_SPLITTING_H_
