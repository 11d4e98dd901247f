#include "engine/tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>

#include "absl/hash/hash.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

constexpr uint64_t kEmptyPair = std::numeric_limits<uint64_t>::max();

// Up to this many characters a scan for the best pair is cheaper than keeping a heap.
constexpr size_t kMaxShort = 48;

uint64_t PackPair(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

absl::Status MissingToken(size_t merge, const std::string& token) {
  return absl::InvalidArgumentError(absl::StrCat("tokenizer.json: model.merges[", merge, "] needs the token ",
                                                 Quote(token), ", which model.vocab lacks"));
}

}  // namespace

MergeTable::MergeTable(size_t num_merges) {
  slots_.assign(std::bit_ceil(std::max<size_t>(num_merges * 2, 8)), {kEmptyPair, {kNoRank, -1}});
}

size_t MergeTable::SlotOf(uint64_t pair) const {
  // Abseil's hash has a seed of its own in each process: a file cannot choose ids that all fall into one place.
  const size_t mask = slots_.size() - 1;
  size_t slot = absl::HashOf(pair) & mask;
  while (slots_[slot].pair != pair && slots_[slot].pair != kEmptyPair) slot = (slot + 1) & mask;
  return slot;
}

void MergeTable::Set(int32_t left, int32_t right, Merge merge) {
  const uint64_t pair = PackPair(left, right);
  slots_[SlotOf(pair)] = {pair, merge};
}

MergeTable::Merge MergeTable::Find(int32_t left, int32_t right) const {
  return slots_[SlotOf(PackPair(left, right))].merge;
}

absl::StatusOr<Bpe> Bpe::Create(const JsonField& model, TokenizerJson* json) {
  if (!model.Member("vocab").IsObject()) return model.Member("vocab").Error("must be an object");
  if (!model.Member("merges").IsArray()) return model.Member("merges").Error("must be a list");

  ASSIGN_OR_RETURN(auto vocabulary, Vocabulary::Create(std::move(json->vocab)));
  Bpe bpe(std::move(vocabulary));
  RETURN_IF_ERROR(bpe.ReadOptions(model));
  RETURN_IF_ERROR(bpe.ReadMerges(json->merges));
  json->merges = {};
  bpe.FindSingleCharacters();
  return bpe;
}

absl::Status Bpe::ReadOptions(const JsonField& model) {
  const JsonField dropout = model.Member("dropout");
  if (!dropout.IsNull() && !dropout.IsZero()) return dropout.Error("must be null or 0: dropout is for training");
  const auto read_bool = [&model](const char* key, bool* target) {
    auto value = model.Member(key).BoolOr(false);
    if (value.ok()) *target = *value;
    return value.status();
  };
  const auto read_text = [&model](const char* key, std::string* target) {
    auto value = model.Member(key).StringOr("");
    if (value.ok()) *target = *std::move(value);
    return value.status();
  };
  has_unk_token_ = !model.Member("unk_token").IsNull();
  for (const absl::Status& status :
       {read_bool("fuse_unk", &fuse_unk_), read_bool("byte_fallback", &byte_fallback_),
        read_bool("ignore_merges", &ignore_merges_), read_text("unk_token", &unk_token_),
        read_text("continuing_subword_prefix", &prefix_), read_text("end_of_word_suffix", &suffix_)}) {
    if (!status.ok()) return status;
  }
  if (has_unk_token_) unk_id_ = vocabulary_.Find(unk_token_);
  return absl::OkStatus();
}

absl::Status Bpe::ReadMerges(const std::vector<std::pair<std::string, std::string>>& merges) {
  merges_ = MergeTable(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    const auto left_id = vocabulary_.Find(left);
    if (!left_id) return MissingToken(rank, left);
    const auto right_id = vocabulary_.Find(right);
    if (!right_id) return MissingToken(rank, right);
    if (right.size() < prefix_.size()) {
      return absl::InvalidArgumentError(absl::StrCat("tokenizer.json: model.merges[", rank,
                                                     "] lacks the continuing_subword_prefix in ", Quote(right)));
    }
    const std::string joined = left + right.substr(prefix_.size());
    const auto joined_id = vocabulary_.Find(joined);
    if (!joined_id) return MissingToken(rank, joined);
    merges_.Set(*left_id, *right_id, {static_cast<uint32_t>(rank), *joined_id});
  }
  return absl::OkStatus();
}

void Bpe::FindSingleCharacters() {
  byte_ids_ = ByteTokenIds(vocabulary_);
  for (char32_t c = 0; c < kNumDirect; ++c) {
    std::string text;
    AppendUtf8(c, &text);
    direct_ids_[c] = vocabulary_.Find(text).value_or(-1);
  }
}

int32_t Bpe::CharacterId(std::string_view character, bool first, bool last) const {
  const bool plain = (first || prefix_.empty()) && (!last || suffix_.empty());
  if (!plain) {
    return vocabulary_.Find((first ? "" : prefix_) + std::string(character) + (last ? suffix_ : "")).value_or(-1);
  }
  size_t pos = 0;
  const char32_t code_point = NextCodePoint(character, &pos);
  return code_point < kNumDirect ? direct_ids_[code_point] : vocabulary_.Find(character).value_or(-1);
}

// A character becomes bytes only if the vocabulary has all of them. Prefix and suffix count as part of the character.
bool Bpe::AppendBytes(std::string_view character, bool last, std::vector<int32_t>* ids) const {
  const std::string suffixed = last && !suffix_.empty() ? std::string(character) + suffix_ : std::string(character);
  const auto id_of = [this](char byte) { return byte_ids_[static_cast<unsigned char>(byte)]; };
  if (!std::all_of(suffixed.begin(), suffixed.end(), [&](char byte) { return id_of(byte) >= 0; })) return false;
  for (const char byte : suffixed) ids->push_back(id_of(byte));
  return true;
}

absl::Status Bpe::SplitIntoCharacters(std::string_view piece, std::vector<int32_t>* ids) const {
  bool pending_unk = false;  // an unknown character waits: with fuse_unk the next one may join it
  for (size_t pos = 0; pos < piece.size();) {
    const size_t length = Utf8Length(piece[pos]);
    const std::string_view character = piece.substr(pos, length);
    const bool first = pos == 0;
    const bool last = pos + length == piece.size();
    pos += length;
    if (const int32_t id = CharacterId(character, first, last); id >= 0) {
      if (pending_unk) ids->push_back(*unk_id_);
      pending_unk = false;
      ids->push_back(id);
      continue;
    }
    // As in the reference, bytes overtake an unknown character that waits.
    if (byte_fallback_ && AppendBytes(first ? std::string(character) : prefix_ + std::string(character), last, ids))
      continue;
    if (!has_unk_token_) continue;  // without unk_token an unknown character vanishes
    if (!unk_id_) {
      return absl::InvalidArgumentError(
          absl::StrCat("text has a character that the tokenizer does not know, and its unk_token ", Quote(unk_token_),
                       " is not in its vocabulary"));
    }
    if (pending_unk && !fuse_unk_) ids->push_back(*unk_id_);
    pending_unk = true;
  }
  if (pending_unk) ids->push_back(*unk_id_);
  return absl::OkStatus();
}

absl::Status Bpe::Encode(std::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const {
  if (ignore_merges_) {
    if (const auto id = vocabulary_.Find(piece)) {
      ids->push_back(*id);
      return absl::OkStatus();
    }
  }
  scratch->ids.clear();
  RETURN_IF_ERROR(SplitIntoCharacters(piece, &scratch->ids));
  if (scratch->ids.size() <= kMaxShort) {
    MergeShort(scratch);
  } else {
    MergeLong(scratch);
  }
  ids->insert(ids->end(), scratch->ids.begin(), scratch->ids.end());
  return absl::OkStatus();
}

// Looks at all pairs for each merge: O(n^2), but n is small and everything stays in the cache.
void Bpe::MergeShort(Scratch* scratch) const {
  std::vector<int32_t>& ids = scratch->ids;
  std::vector<uint32_t>& ranks = scratch->ranks;  // ranks[i]: of the pair (ids[i], ids[i + 1])
  if (ids.size() < 2) return;
  const auto rank_at = [&](size_t i) {
    return i + 1 < ids.size() ? merges_.Find(ids[i], ids[i + 1]).rank : MergeTable::kNoRank;
  };
  ranks.clear();
  for (size_t i = 0; i < ids.size(); ++i) ranks.push_back(rank_at(i));
  while (true) {
    const auto best = std::min_element(ranks.begin(), ranks.end());
    if (*best == MergeTable::kNoRank) return;
    const auto i = static_cast<size_t>(best - ranks.begin());
    ids[i] = merges_.Find(ids[i], ids[i + 1]).id;
    ids.erase(ids.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    ranks.erase(best + 1);
    ranks[i] = rank_at(i);
    if (i > 0) ranks[i - 1] = rank_at(i - 1);
  }
}

// A heap of (rank, position) over a linked list. Entries are not taken out when their pair changes; an entry whose rank
// is not that of the pair now at its position is out of date.
void Bpe::MergeLong(Scratch* scratch) const {
  std::vector<Scratch::Symbol>& symbols = scratch->symbols;
  std::vector<uint64_t>& heap = scratch->heap;
  const auto size = static_cast<int32_t>(scratch->ids.size());
  symbols.resize(scratch->ids.size());
  heap.clear();
  const auto symbol = [&symbols](int32_t i) -> Scratch::Symbol& { return symbols[static_cast<size_t>(i)]; };
  const auto candidate = [&](int32_t left, int32_t right) -> std::optional<uint64_t> {
    const uint32_t rank = merges_.Find(symbol(left).id, symbol(right).id).rank;
    if (rank == MergeTable::kNoRank) return std::nullopt;
    return (static_cast<uint64_t>(rank) << 32) | static_cast<uint32_t>(left);
  };
  const auto push = [&](int32_t left, int32_t right) {
    if (left < 0 || right >= size) return;
    if (const auto entry = candidate(left, right)) {
      heap.push_back(*entry);
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    }
  };

  for (int32_t i = 0; i < size; ++i) symbol(i) = {scratch->ids[static_cast<size_t>(i)], i - 1, i + 1};
  for (int32_t i = 0; i + 1 < size; ++i) {
    if (const auto entry = candidate(i, i + 1)) heap.push_back(*entry);
  }
  std::make_heap(heap.begin(), heap.end(), std::greater<>());

  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), std::greater<>());
    const auto rank = static_cast<uint32_t>(heap.back() >> 32);
    const auto left = static_cast<int32_t>(heap.back() & UINT32_MAX);
    heap.pop_back();
    Scratch::Symbol& merged = symbol(left);
    const int32_t right = merged.next;
    if (merged.id < 0 || right >= size) continue;
    const MergeTable::Merge merge = merges_.Find(merged.id, symbol(right).id);
    if (merge.rank != rank) continue;
    merged.id = merge.id;
    merged.next = symbol(right).next;
    symbol(right).id = -1;
    if (merged.next < size) symbol(merged.next).previous = left;
    push(merged.previous, left);
    push(left, merged.next);
  }

  scratch->ids.clear();
  for (int32_t i = 0; i < size; i = symbol(i).next) scratch->ids.push_back(symbol(i).id);
}

}  // namespace switchyard
