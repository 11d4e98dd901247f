#include "engine/tokenizer/tokenizer.h"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/model_folder.h"
#include "engine/base/status_macros.h"
#include "engine/tokenizer/added_tokens.h"
#include "engine/tokenizer/normalizer.h"
#include "engine/tokenizer/post_processor.h"
#include "engine/tokenizer/pre_tokenizer.h"
#include "engine/tokenizer/token_model.h"
#include "engine/tokenizer/tokenizer_json.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

absl::Status CheckVersion(const JsonField& version) {
  ASSIGN_OR_RETURN(auto text, version.StringOr("1.0"));
  if (text != "1.0") return version.Error("is " + Quote(text) + "; supported is \"1.0\"");
  return absl::OkStatus();
}

}  // namespace

struct Tokenizer::Parts {
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  TokenModel model;
  AddedTokens added_tokens;
  PostProcessor post_processor;
  Decoder decoder;
};

Tokenizer::Tokenizer(std::unique_ptr<const Parts> parts) : parts_(std::move(parts)) {}
Tokenizer::~Tokenizer() = default;

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Load(const std::string& tokenizer_json_path) {
  const std::filesystem::path path(tokenizer_json_path);
  const std::string folder_path = path.has_parent_path() ? path.parent_path().string() : ".";
  ASSIGN_OR_RETURN(const ModelFolder folder, ModelFolder::Open(folder_path));
  ASSIGN_OR_RETURN(const std::string json, folder.ReadSmallFile(path.filename().string(), kMaxTokenizerJsonBytes));
  return Parse(json);
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::Parse(const std::string& json) {
  try {
    return ParseOrThrow(json);
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("tokenizer.json cannot be read: ", error.what()));
  }
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::ParseOrThrow(const std::string& text) {
  ASSIGN_OR_RETURN(auto json, TokenizerJson::Parse(text));
  const JsonField root = json.Root();
  RETURN_IF_ERROR(CheckVersion(root.Member("version")));
  ASSIGN_OR_RETURN(auto normalizer, Normalizer::Create(root.Member("normalizer")));
  ASSIGN_OR_RETURN(auto pre_tokenizer, PreTokenizer::Create(root.Member("pre_tokenizer")));
  ASSIGN_OR_RETURN(auto model, TokenModel::Create(root.Member("model"), &json));
  ASSIGN_OR_RETURN(auto added_tokens, AddedTokens::Create(root.Member("added_tokens"), model.vocabulary(), normalizer));
  ASSIGN_OR_RETURN(auto post_processor, PostProcessor::Create(root.Member("post_processor")));
  ASSIGN_OR_RETURN(auto decoder, Decoder::Create(root.Member("decoder")));

  std::unique_ptr<Tokenizer> tokenizer(new Tokenizer(
      std::make_unique<const Parts>(Parts{std::move(normalizer), std::move(pre_tokenizer), std::move(model),
                                          std::move(added_tokens), std::move(post_processor), std::move(decoder)})));
  for (const int32_t id : tokenizer->parts_->post_processor.Apply({})) {
    if (tokenizer->TextForDecoder(id, /*skip_special_tokens=*/false) == nullptr) {
      return root.Member("post_processor").Error(absl::StrCat("adds the id ", id, ", which no token has"));
    }
  }
  return tokenizer;
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::Encode(const std::string& text, const EncodeOptions& options) const {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(absl::StrCat("text has ", text.size(), " bytes; the limit is ", kMaxTextBytes));
  }
  if (const size_t bad = FindInvalidUtf8(text); bad != std::string::npos) {
    return absl::InvalidArgumentError(absl::StrCat("text is not valid UTF-8 (byte ", bad, ")"));
  }
  try {
    return EncodeOrThrow(text, options);
  } catch (const std::exception& error) {  // memory
    return absl::InvalidArgumentError(absl::StrCat("text cannot be tokenized: ", error.what()));
  }
}

absl::StatusOr<std::vector<int32_t>> Tokenizer::EncodeOrThrow(const std::string& text,
                                                              const EncodeOptions& options) const {
  std::vector<Piece> pieces;
  RETURN_IF_ERROR(parts_->added_tokens.Extract(text, options.allow_special_tokens, parts_->normalizer, &pieces));
  RETURN_IF_ERROR(parts_->pre_tokenizer.Apply(&pieces));
  std::vector<int32_t> ids;
  TokenModel::Scratch scratch;
  for (const Piece& piece : pieces) {
    if (piece.token >= 0) {
      ids.push_back(piece.token);
    } else
      RETURN_IF_ERROR(parts_->model.Encode(piece.text, &scratch, &ids));
  }
  return options.add_special_tokens ? parts_->post_processor.Apply(ids) : ids;
}

std::string Tokenizer::Decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
  std::string text;
  DecoderStream stream = parts_->decoder.NewStream();
  for (const int32_t id : ids) {
    if (const std::string* token = TextForDecoder(id, skip_special_tokens)) stream.Push(*token, &text);
  }
  stream.Flush(&text);
  return text;
}

int32_t Tokenizer::vocab_size() const { return std::max(parts_->model.vocabulary().size(), parts_->added_tokens.size()); }

std::string Tokenizer::TokenText(int32_t id) const {
  const std::string* token = TextForDecoder(id, /*skip_special_tokens=*/false);
  return token == nullptr ? std::string() : parts_->decoder.TokenText(*token);
}

std::optional<int32_t> Tokenizer::TokenToId(const std::string& token) const {
  if (const AddedToken* added = parts_->added_tokens.Find(token)) return added->id;
  return parts_->model.vocabulary().Find(token);
}

bool Tokenizer::IsSpecial(int32_t id) const {
  const AddedToken* added = parts_->added_tokens.Find(id);
  return added != nullptr && added->special;
}

const std::string* Tokenizer::TextForDecoder(int32_t id, bool skip_special_tokens) const {
  if (const AddedToken* added = parts_->added_tokens.Find(id)) {
    return added->special && skip_special_tokens ? nullptr : &added->normal_content;
  }
  return parts_->model.vocabulary().Text(id);
}

IncrementalDecoder::IncrementalDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(tokenizer),
      skip_special_tokens_(skip_special_tokens),
      stream_(tokenizer.parts_->decoder.NewStream()) {}

std::string IncrementalDecoder::Push(int32_t id) {
  std::string text;
  if (const std::string* token = tokenizer_.TextForDecoder(id, skip_special_tokens_)) stream_.Push(*token, &text);
  return text;
}

std::string IncrementalDecoder::Flush() {
  std::string text;
  stream_.Flush(&text);
  return text;
}

}  // namespace switchyard
