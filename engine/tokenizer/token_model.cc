#include "engine/tokenizer/token_model.h"

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace switchyard {

absl::StatusOr<TokenModel> TokenModel::Create(const JsonField& model, TokenizerJson* json) {
  if (!model.IsObject()) return model.Error("must be an object");
  ASSIGN_OR_RETURN(auto type, model.Member("type").StringOr("BPE"));
  if (type == "Unigram") {
    ASSIGN_OR_RETURN(auto unigram, Unigram::Create(model));
    return TokenModel(std::move(unigram));
  }
  if (type != "BPE") {
    return model.Member("type").Error(absl::StrCat("is ", Quote(type), "; supported are BPE, Unigram"));
  }
  ASSIGN_OR_RETURN(auto bpe, Bpe::Create(model, json));
  return TokenModel(std::move(bpe));
}

absl::Status TokenModel::Encode(std::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const {
  if (const Unigram* unigram = std::get_if<Unigram>(&model_)) return unigram->Encode(piece, &scratch->unigram, ids);
  return std::get<Bpe>(model_).Encode(piece, &scratch->bpe, ids);
}

const Vocabulary& TokenModel::vocabulary() const {
  return std::visit([](const auto& model) -> const Vocabulary& { return model.vocabulary(); }, model_);
}

}  // namespace switchyard
