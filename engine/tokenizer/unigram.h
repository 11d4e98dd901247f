// Unigram: of all ways to write a piece of text as tokens, the one whose scores add up to the most (Viterbi).
//
//   "ab" with a -1.0, b -1.5, ab -2.0      ab (-2.0) beats a b (-2.5)
//
// A character that no token stands for alone counts as unknown, with a score below every other; unknown characters in a
// row are one token, or their bytes where the file asks for byte fallback and has tokens for all of them.
//
// Cost: for each character as many steps as the longest token that begins there has bytes.
// Source: Kudo 2018, https://arxiv.org/abs/1804.10959; behaviour: the reference tokenizer.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_UNIGRAM_H_
#define SWITCHYARD_ENGINE_TOKENIZER_UNIGRAM_H_

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/byte_trie.h"
#include "engine/tokenizer/json_field.h"
#include "engine/tokenizer/vocabulary.h"

namespace switchyard {

// Immutable; Encode may run on many threads, each with its own Scratch.
class Unigram {
 public:
  // Working memory, to be reused from piece to piece.
  struct Scratch {
    struct Node {  // the best way to write the text up to here
      double score = 0.0;
      int32_t id = 0;       // of its last token
      int32_t begin = -1;   // where that begins; -1: no way leads here
    };
    std::vector<Node> nodes;
    std::vector<std::pair<int32_t, int32_t>> path;  // (begin, end) of each token, last first
  };

  // `model` is the "model" member. INVALID_ARGUMENT: names a bad field, a token that is given twice or too long, an
  // unk_id that is no token, sampling ("nbest_size", "alpha").
  static absl::StatusOr<Unigram> Create(const JsonField& model);

  // Appends the ids of `piece`. REQUIRES: valid UTF-8, below 2^31 bytes.
  // INVALID_ARGUMENT: a character is unknown and the file has no unk_id.
  absl::Status Encode(std::string_view piece, Scratch* scratch, std::vector<int32_t>* ids) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  Unigram(Vocabulary vocabulary, ByteTrie trie, std::vector<double> scores);

  absl::Status FindBestPath(std::string_view piece, std::vector<Scratch::Node>* nodes) const;
  void AppendToken(std::string_view token, std::vector<int32_t>* ids) const;

  Vocabulary vocabulary_;
  ByteTrie trie_;
  std::vector<double> scores_;  // by id
  double unk_score_ = 0.0;
  int32_t unk_id_ = -1;         // -1: none
  bool byte_fallback_ = false;
  std::array<int32_t, 256> byte_ids_;  // of "<0x00>" .. "<0xFF>"; -1: none
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_UNIGRAM_H_
