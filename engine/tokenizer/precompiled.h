// The normalizer "Precompiled": SentencePiece's character map, applied as the reference does.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_PRECOMPILED_H_
#define SWITCHYARD_ENGINE_TOKENIZER_PRECOMPILED_H_

#include <memory>

#include "absl/status/statusor.h"
#include "engine/tokenizer/json_field.h"
#include "engine/tokenizer/normalizer.h"

namespace switchyard {

// Reads {"type": "Precompiled", "precompiled_charsmap": base64}. INVALID_ARGUMENT: as Charsmap::Parse, or no base64.
absl::StatusOr<std::unique_ptr<const NormalizerStep>> MakePrecompiled(const JsonField& field);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_PRECOMPILED_H_
