#include "engine/tokenizer/added_tokens.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/tokenizer/unicode.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

// Bound the cost of looking for a token at each place.
constexpr size_t kMaxContentBytes = 512;
constexpr size_t kMaxNormalContentBytes = 4096;

size_t StartOfLastCharacter(std::string_view text) {
  size_t pos = text.size() - 1;
  while ((static_cast<unsigned char>(text[pos]) & 0xC0) == 0x80) --pos;
  return pos;
}

bool EndsWithWord(std::string_view text) {
  if (text.empty()) return false;
  size_t pos = StartOfLastCharacter(text);
  return IsWordChar(NextCodePoint(text, &pos));
}

bool StartsWithWord(std::string_view text) {
  size_t pos = 0;
  return !text.empty() && IsWordChar(NextCodePoint(text, &pos));
}

bool IsWholeWord(std::string_view text, const TokenMatcher::Match& match) {
  return !EndsWithWord(text.substr(0, match.begin)) && !StartsWithWord(text.substr(match.end));
}

// Where the whitespace that ends at `end` begins, but not before `limit`.
size_t SkipSpacesBack(std::string_view text, size_t limit, size_t end) {
  while (end > limit) {
    const size_t start = StartOfLastCharacter(text.substr(0, end));
    size_t pos = start;
    if (!IsWhitespace(NextCodePoint(text, &pos))) break;
    end = start;
  }
  return std::max(end, limit);
}

// Remembers where the last run of whitespace ended, so that many tokens inside one run cost no more than one.
class SpaceSkipper {
 public:
  explicit SpaceSkipper(std::string_view text) : text_(text) {}
  size_t EndOfSpaces(size_t begin) {
    if (run_begin_ <= begin && begin < run_end_) return run_end_;
    run_begin_ = run_end_ = begin;
    for (size_t pos = begin; pos < text_.size() && IsWhitespace(NextCodePoint(text_, &pos));) run_end_ = pos;
    return run_end_;
  }

 private:
  std::string_view text_;
  size_t run_begin_ = 0;
  size_t run_end_ = 0;
};

Piece Slice(const Piece& piece, size_t begin, size_t end) {
  const size_t at_start = piece.at_start > begin ? std::min(piece.at_start, end) - begin : 0;
  return {piece.text.substr(begin, end - begin), at_start, -1};
}

absl::StatusOr<AddedToken> ParseToken(const JsonField& field) {
  AddedToken token;
  if (!field.IsObject()) return field.Error("must be an object");
  ASSIGN_OR_RETURN(auto id, field.Member("id").Int(0, kMaxTokenId));
  ASSIGN_OR_RETURN(auto content, field.Member("content").String());
  token.id = id;
  token.content = std::move(content);
  if (token.content.size() > kMaxContentBytes) {
    return field.Member("content").Error(
        absl::StrCat("has ", token.content.size(), " bytes; the limit is ", kMaxContentBytes));
  }
  token.normalized = true;
  const std::pair<const char*, bool*> flags[] = {{"single_word", &token.single_word},
                                                 {"lstrip", &token.lstrip},
                                                 {"rstrip", &token.rstrip},
                                                 {"normalized", &token.normalized},
                                                 {"special", &token.special}};
  for (const auto& [key, target] : flags) {
    ASSIGN_OR_RETURN(auto value, field.Member(key).BoolOr(*target));
    *target = value;
  }
  return token;
}

// A token of the model may be listed again, with its own id; any other token needs an id of its own.
absl::Status CheckAgainst(const Vocabulary& vocabulary, const AddedToken& token, const JsonField& field) {
  const std::optional<int32_t> known = vocabulary.Find(token.content);
  if (known && *known != token.id) {
    return field.Member("id").Error(
        absl::StrCat("is ", token.id, ", but model.vocab gives ", Quote(token.content), " the id ", *known));
  }
  const std::string* owner = vocabulary.Text(token.id);
  if (!known && owner != nullptr) {
    return field.Member("id").Error(absl::StrCat("is ", token.id, ", which belongs to ", Quote(*owner)));
  }
  return absl::OkStatus();
}

std::vector<std::pair<std::string, int32_t>> TextsToMatch(const std::map<int32_t, AddedToken>& tokens,
                                                          bool normalized) {
  std::vector<std::pair<std::string, int32_t>> texts;
  for (const auto& [id, token] : tokens) {
    if (token.normalized == normalized) texts.emplace_back(token.normal_content, id);
  }
  return texts;
}

}  // namespace

AddedTokens::AddedTokens(std::map<int32_t, AddedToken> by_id)
    : by_id_(std::move(by_id)), raw_(TextsToMatch(by_id_, false)), normalized_(TextsToMatch(by_id_, true)) {
  for (const auto& [id, token] : by_id_) by_content_.emplace(token.content, id);
}

absl::StatusOr<AddedTokens> AddedTokens::Create(const JsonField& field, const Vocabulary& vocabulary,
                                                const Normalizer& normalizer) {
  if (!field.IsNull() && !field.IsArray()) return field.Error("must be a list");
  std::map<int32_t, AddedToken> tokens;
  std::unordered_map<std::string, int32_t> seen;
  for (size_t i = 0; i < field.Size(); ++i) {
    ASSIGN_OR_RETURN(auto token, ParseToken(field.Element(i)));
    if (token.content.empty()) continue;  // the reference ignores these
    RETURN_IF_ERROR(CheckAgainst(vocabulary, token, field.Element(i)));
    if (!seen.emplace(token.content, token.id).second) {
      return field.Element(i).Error(absl::StrCat("has the content ", Quote(token.content), " a second time"));
    }
    Piece normal{token.content, 0, -1};
    if (token.normalized) {
      const absl::Status status = normalizer.Apply(&normal);
      if (!status.ok()) {
        return field.Element(i).Member("content").Error(
            absl::StrCat("cannot be normalized: ", std::string(status.message())));
      }
    }
    if (normal.text.size() > kMaxNormalContentBytes) {
      return field.Element(i).Member("content").Error(absl::StrCat(
          "has ", normal.text.size(), " bytes when normalized; the limit is ", kMaxNormalContentBytes));
    }
    token.normal_content = normal.text;
    const int32_t id = token.id;
    if (!tokens.emplace(id, std::move(token)).second) {
      return field.Element(i).Error(absl::StrCat("has the id ", id, " a second time"));
    }
  }
  return AddedTokens(std::move(tokens));
}

const AddedToken* AddedTokens::Find(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &found->second;
}

const AddedToken* AddedTokens::Find(const std::string& content) const {
  const auto found = by_content_.find(content);
  return found == by_content_.end() ? nullptr : Find(found->second);
}

absl::Status AddedTokens::Extract(const std::string& text, bool match_special, const Normalizer& normalizer,
                                  std::vector<Piece>* pieces) const {
  if (text.empty()) return absl::OkStatus();
  const size_t first_character = Utf8Length(text[0]);
  std::vector<Piece> raw_pieces;
  Cut({text, first_character, -1}, raw_, match_special, &raw_pieces);
  for (Piece& piece : raw_pieces) {
    if (piece.token >= 0) {
      pieces->push_back(std::move(piece));
      continue;
    }
    RETURN_IF_ERROR(normalizer.Apply(&piece));
    Cut(piece, normalized_, match_special, pieces);
  }
  return absl::OkStatus();
}

void AddedTokens::Cut(const Piece& piece, const TokenMatcher& matcher, bool match_special,
                      std::vector<Piece>* pieces) const {
  const std::string_view text = piece.text;
  SpaceSkipper spaces(text);
  size_t done = 0;  // rstrip may carry this beyond the next match: that one then still counts
  for (auto match = matcher.Find(text, 0); match; match = matcher.Find(text, match->end)) {
    const AddedToken& token = by_id_.at(match->id);
    if (token.special && !match_special) continue;
    if (token.single_word && !IsWholeWord(text, *match)) continue;
    const size_t begin = token.lstrip ? SkipSpacesBack(text, done, match->begin) : match->begin;
    if (done < begin) pieces->push_back(Slice(piece, done, begin));
    pieces->push_back({"", 0, token.id});
    done = token.rstrip ? spaces.EndOfSpaces(match->end) : match->end;
  }
  if (done < text.size()) pieces->push_back(Slice(piece, done, text.size()));
}

}  // namespace switchyard
