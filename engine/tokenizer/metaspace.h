// SentencePiece's way to write spaces: as a visible character, and one in front of the text.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_METASPACE_H_
#define SWITCHYARD_ENGINE_TOKENIZER_METASPACE_H_

#include <string>

#include "absl/status/statusor.h"
#include "engine/tokenizer/json_field.h"

namespace switchyard {

struct Metaspace {
  enum class Prepend { kNever, kFirst, kAlways };

  // The same object describes the pre-tokenizer and the decoder. INVALID_ARGUMENT: a bad field.
  static absl::StatusOr<Metaspace> Parse(const JsonField& field);

  std::string replacement;  // one character, usually "▁"
  Prepend prepend = Prepend::kAlways;
  bool split = true;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_METASPACE_H_
