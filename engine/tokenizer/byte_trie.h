// Finds every token that begins at a place of a text. Immutable.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_BYTE_TRIE_H_
#define SWITCHYARD_ENGINE_TOKENIZER_BYTE_TRIE_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/vocabulary.h"

namespace switchyard {

class ByteTrie {
 public:
  // All tokens of the vocabulary but the empty one.
  // INVALID_ARGUMENT: a token of more than 1,024 bytes (a lookup costs as many steps), or more than 2^24 nodes.
  static absl::StatusOr<ByteTrie> Create(const Vocabulary& vocabulary);

  // visit(length, id) for every token that `text` begins with, shortest first.
  template <typename Visit>
  void ForEachPrefix(std::string_view text, const Visit& visit) const {
    int32_t node = 0;
    for (size_t i = 0; i < text.size(); ++i) {
      node = Child(node, static_cast<uint8_t>(text[i]));
      if (node < 0) return;
      if (nodes_[static_cast<size_t>(node)].token >= 0) visit(i + 1, nodes_[static_cast<size_t>(node)].token);
    }
  }

 private:
  struct Node {
    int32_t first_child = 0;  // children lie side by side, by rising byte
    int32_t token = -1;       // that ends here; -1: none
    uint16_t num_children = 0;
    uint8_t byte = 0;         // that leads here
  };
  int32_t Child(int32_t node, uint8_t byte) const;  // -1: none

  std::vector<Node> nodes_;  // the root first
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_BYTE_TRIE_H_
