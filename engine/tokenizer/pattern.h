// What a Split or Replace of a tokenizer.json looks for: a literal text or a regular expression.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_PATTERN_H_
#define SWITCHYARD_ENGINE_TOKENIZER_PATTERN_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/regex.h"

namespace switchyard {

class JsonField;

class Pattern {
 public:
  // {"String": "..."} or {"Regex": "..."}. INVALID_ARGUMENT: neither, or a bad regular expression.
  static absl::StatusOr<Pattern> Parse(const JsonField& field);
  static Pattern FromLiteral(std::string text);
  static absl::StatusOr<Pattern> FromRegex(const std::string& oniguruma_pattern);

  // Appends all matches, left to right, without overlap. Errors as in Regex::FindAll.
  absl::Status FindAll(std::string_view text, std::vector<Span>* matches) const;

  // Appends `text` to `out` with `replacement` for each match. Also INVALID_ARGUMENT: as CheckGrowth.
  absl::Status ReplaceAll(std::string_view text, std::string_view replacement, size_t max_bytes,
                          std::string* out) const;

  // True if every match is exactly one character that does not depend on its neighbours.
  bool IsOneCharacter() const;

 private:
  std::string literal_;  // not empty, or regex_ is set
  std::optional<Regex> regex_;
};

// For steps that make texts longer: a tokenizer.json may hold dozens that double the text, so each asks before it
// builds. INVALID_ARGUMENT: text_bytes + num_added * added_bytes > max_bytes.
absl::Status CheckGrowth(size_t text_bytes, size_t num_added, size_t added_bytes, size_t max_bytes);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_PATTERN_H_
