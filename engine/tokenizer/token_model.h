// The model of a tokenizer.json: what turns a piece of text into tokens. BPE or Unigram, by its "type". Immutable.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_TOKEN_MODEL_H_
#define SWITCHYARD_ENGINE_TOKENIZER_TOKEN_MODEL_H_

#include <cstdint>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/bpe.h"
#include "engine/tokenizer/unigram.h"

namespace switchyard {

class TokenModel {
 public:
  struct Scratch {
    Bpe::Scratch bpe;
    Unigram::Scratch unigram;
  };

  // `model` is the "model" member; `json` holds what TokenizerJson took out of it, and is emptied.
  // INVALID_ARGUMENT: another type, or what Bpe::Create and Unigram::Create refuse.
  static absl::StatusOr<TokenModel> Create(const JsonField& model, TokenizerJson* json);

  // As Bpe::Encode and Unigram::Encode.
  absl::Status Encode(std::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const;

  const Vocabulary& vocabulary() const;

 private:
  explicit TokenModel(std::variant<Bpe, Unigram> model) : model_(std::move(model)) {}

  std::variant<Bpe, Unigram> model_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_TOKEN_MODEL_H_
