// Byte pair encoding: splits a piece of text into characters and joins neighbours, best-ranked merge first, leftmost
// first among equals, until no merge applies.
//
//   merges: 0 "l o", 1 "lo w", 2 "e r"       l o w e r -> lo w e r -> low e r -> low er
//
// Cost: O(n log n) for n characters in one piece, so a megabyte without a break is fine.
// Source: Sennrich et al. 2016, https://arxiv.org/abs/1508.07909; behaviour: the reference tokenizer.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_BPE_H_
#define SWITCHYARD_ENGINE_TOKENIZER_BPE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/tokenizer_json.h"
#include "engine/tokenizer/vocabulary.h"

namespace switchyard {

// Pair of token ids -> what they merge to. Open addressing, at most half full, so that a miss costs one or two probes.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank;  // lower merges first
    int32_t id;
  };
  static constexpr uint32_t kNoRank = UINT32_MAX;

  explicit MergeTable(size_t num_merges);
  void Set(int32_t left, int32_t right, Merge merge);  // a pair given twice keeps the last
  Merge Find(int32_t left, int32_t right) const;       // rank kNoRank: they do not merge

 private:
  struct Slot {
    uint64_t pair;
    Merge merge;
  };
  size_t SlotOf(uint64_t pair) const;
  std::vector<Slot> slots_;
};

// Immutable; Encode may run on many threads, each with its own Scratch.
class Bpe {
 public:
  // Working memory, to be reused from piece to piece.
  struct Scratch {
    struct Symbol {
      int32_t id;
      int32_t previous;
      int32_t next;
    };
    std::vector<int32_t> ids;
    std::vector<Symbol> symbols;
    std::vector<uint32_t> ranks;
    std::vector<uint64_t> heap;
  };

  // `model` is the "model" member; the content of its vocab and merges comes in `json`, which is emptied.
  // INVALID_ARGUMENT: dropout, a merge of or to a token that is missing, twice the same token or id.
  static absl::StatusOr<Bpe> Create(const JsonField& model, TokenizerJson* json);

  // Appends the ids of `piece`. REQUIRES: valid UTF-8, below 2^31 bytes.
  // INVALID_ARGUMENT: a character is unknown and the unk_token is too.
  absl::Status Encode(std::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  explicit Bpe(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)), merges_(0) {}
  absl::Status ReadOptions(const JsonField& model);
  absl::Status ReadMerges(const std::vector<std::pair<std::string, std::string>>& merges);
  void FindSingleCharacters();

  int32_t CharacterId(std::string_view character, bool first, bool last) const;  // -1: unknown
  bool AppendBytes(std::string_view character, bool last, std::vector<int32_t>* ids) const;
  absl::Status SplitIntoCharacters(std::string_view piece, std::vector<int32_t>* ids) const;
  void MergeShort(Scratch* scratch) const;
  void MergeLong(Scratch* scratch) const;

  Vocabulary vocabulary_;
  MergeTable merges_;
  std::string prefix_;  // continuing_subword_prefix: stands before every character but the first
  std::string suffix_;  // end_of_word_suffix: stands behind the last character
  std::string unk_token_;
  bool has_unk_token_ = false;
  bool fuse_unk_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
  std::optional<int32_t> unk_id_;
  std::array<int32_t, 256> byte_ids_;            // of "<0x00>" .. "<0xFF>"; -1: none
  static constexpr char32_t kNumDirect = 0x300;  // covers ASCII and the byte-level alphabet
  std::array<int32_t, kNumDirect> direct_ids_;   // of single characters; -1: none
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_BPE_H_
