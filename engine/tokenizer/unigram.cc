#include "engine/tokenizer/unigram.h"

#include <algorithm>
#include <limits>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

constexpr double kUnknownPenalty = 10.0;  // an unknown character scores so much less than the worst token
constexpr double kMaxScore = 1e9;         // so that no sum overflows

absl::StatusOr<std::pair<Vocabulary, std::vector<double>>> ReadVocabulary(const JsonField& vocab) {
  if (!vocab.IsArray()) return vocab.Error("must be a list");
  std::vector<VocabularyEntry> entries;
  std::vector<double> scores;
  for (size_t i = 0; i < vocab.Size(); ++i) {
    const JsonField entry = vocab.Element(i);
    if (!entry.IsArray() || entry.Size() != 2) return entry.Error("must be a pair of a token and its score");
    ASSIGN_OR_RETURN(auto token, entry.Element(0).String());
    ASSIGN_OR_RETURN(const double score, entry.Element(1).Real(-kMaxScore, kMaxScore));
    entries.push_back({std::move(token), static_cast<int32_t>(i)});
    scores.push_back(score);
  }
  ASSIGN_OR_RETURN(auto vocabulary, Vocabulary::Create(std::move(entries)));
  return std::pair(std::move(vocabulary), std::move(scores));
}

}  // namespace

Unigram::Unigram(Vocabulary vocabulary, ByteTrie trie, std::vector<double> scores)
    : vocabulary_(std::move(vocabulary)),
      trie_(std::move(trie)),
      scores_(std::move(scores)),
      byte_ids_(ByteTokenIds(vocabulary_)) {
  if (!scores_.empty()) unk_score_ = *std::min_element(scores_.begin(), scores_.end()) - kUnknownPenalty;
}

absl::StatusOr<Unigram> Unigram::Create(const JsonField& model) {
  for (const char* key : {"nbest_size", "alpha"}) {
    if (!model.Member(key).IsNull()) return model.Member(key).Error("must be null: sampling is for training");
  }
  ASSIGN_OR_RETURN(auto read, ReadVocabulary(model.Member("vocab")));
  auto& [vocabulary, scores] = read;
  ASSIGN_OR_RETURN(auto trie, ByteTrie::Create(vocabulary));
  Unigram unigram(std::move(vocabulary), std::move(trie), std::move(scores));
  const JsonField unk_id = model.Member("unk_id");
  if (!unk_id.IsNull()) {
    if (unigram.vocabulary_.size() == 0) return unk_id.Error("names a token of an empty vocabulary");
    ASSIGN_OR_RETURN(unigram.unk_id_, unk_id.Int(0, unigram.vocabulary_.size() - 1));
  }
  ASSIGN_OR_RETURN(unigram.byte_fallback_, model.Member("byte_fallback").BoolOr(false));
  return unigram;
}

absl::Status Unigram::FindBestPath(std::string_view piece, std::vector<Scratch::Node>* nodes) const {
  nodes->assign(piece.size() + 1, {});
  const auto offer = [nodes](size_t end, double score, int32_t id, size_t begin) {
    Scratch::Node& node = (*nodes)[end];
    if (node.begin < 0 || score > node.score) node = {score, id, static_cast<int32_t>(begin)};
  };
  for (size_t begin = 0; begin < piece.size();) {
    const double before = (*nodes)[begin].score;
    const size_t character = Utf8Length(piece[begin]);
    bool known = false;
    trie_.ForEachPrefix(piece.substr(begin), [&](size_t length, int32_t id) {
      offer(begin + length, before + scores_[static_cast<size_t>(id)], id, begin);
      known = known || length == character;
    });
    if (!known) {
      if (unk_id_ < 0) {
        return absl::InvalidArgumentError(
            "text has a character that the tokenizer does not know, and its model has no unk_id");
      }
      offer(begin + character, before + unk_score_, unk_id_, begin);
    }
    begin += character;
  }
  return absl::OkStatus();
}

// As in the reference, the text decides: a run of unknown characters may happen to spell a token.
void Unigram::AppendToken(std::string_view token, std::vector<int32_t>* ids) const {
  if (const auto id = vocabulary_.Find(token)) {
    ids->push_back(*id);
    return;
  }
  const auto id_of = [this](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
  if (byte_fallback_ && std::all_of(token.begin(), token.end(), [&](char byte) { return id_of(byte) >= 0; })) {
    for (const char byte : token) ids->push_back(id_of(byte));
    return;
  }
  ids->push_back(unk_id_);
}

absl::Status Unigram::Encode(std::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const {
  if (piece.empty()) return absl::OkStatus();
  RETURN_IF_ERROR(FindBestPath(piece, &scratch->nodes));
  auto& path = scratch->path;
  path.clear();
  bool after_unknown = false;
  for (int32_t end = static_cast<int32_t>(piece.size()); end > 0;) {
    const Scratch::Node& node = scratch->nodes[static_cast<size_t>(end)];
    const bool unknown = node.id == unk_id_;
    if (unknown && after_unknown) {
      path.back().first = node.begin;
    } else {
      path.emplace_back(node.begin, end);
    }
    after_unknown = unknown;
    end = node.begin;
  }
  for (auto token = path.rbegin(); token != path.rend(); ++token) {
    const auto [begin, end] = *token;
    AppendToken(piece.substr(static_cast<size_t>(begin), static_cast<size_t>(end - begin)), ids);
  }
  return absl::OkStatus();
}

}  // namespace switchyard
