#include "engine/tokenizer/byte_trie.h"

#include <algorithm>
#include <deque>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace switchyard {
namespace {

constexpr size_t kMaxTokenBytes = 1024;
constexpr size_t kMaxNodes = size_t{1} << 24;

using Tokens = std::vector<std::pair<std::string_view, int32_t>>;

// Tokens [first, last) share their first `depth` bytes, which lead to `node`.
struct Range {
  size_t first;
  size_t last;
  size_t depth;
  size_t node;
};

}  // namespace

absl::StatusOr<ByteTrie> ByteTrie::Create(const Vocabulary& vocabulary) {
  Tokens tokens;
  for (int32_t id = 0; id < vocabulary.size(); ++id) {
    const std::string* const text = vocabulary.Text(id);
    if (text == nullptr || text->empty()) continue;
    if (text->size() > kMaxTokenBytes) {
      return absl::InvalidArgumentError(absl::StrCat("tokenizer.json: model.vocab[", id, "] has ", text->size(),
                                                     " bytes; at most ", kMaxTokenBytes, " are possible"));
    }
    tokens.emplace_back(*text, id);
  }
  std::sort(tokens.begin(), tokens.end());

  ByteTrie trie;
  trie.nodes_.emplace_back();
  std::deque<Range> open = {{0, tokens.size(), 0, 0}};
  while (!open.empty()) {
    auto [first, last, depth, node] = open.front();
    open.pop_front();
    if (first < last && tokens[first].first.size() == depth) trie.nodes_[node].token = tokens[first++].second;
    trie.nodes_[node].first_child = static_cast<int32_t>(trie.nodes_.size());
    while (first < last) {
      const auto byte = static_cast<uint8_t>(tokens[first].first[depth]);
      size_t end = first;
      while (end < last && static_cast<uint8_t>(tokens[end].first[depth]) == byte) ++end;
      open.push_back({first, end, depth + 1, trie.nodes_.size()});
      trie.nodes_.push_back({.byte = byte});
      ++trie.nodes_[node].num_children;
      first = end;
    }
    if (trie.nodes_.size() > kMaxNodes) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer.json: the tokens of model.vocab make more than ", kMaxNodes, " nodes"));
    }
  }
  return trie;
}

int32_t ByteTrie::Child(int32_t node, uint8_t byte) const {
  const Node& parent = nodes_[static_cast<size_t>(node)];
  const auto begin = nodes_.begin() + parent.first_child;
  const auto end = begin + parent.num_children;
  const auto found =
      std::lower_bound(begin, end, byte, [](const Node& child, uint8_t value) { return child.byte < value; });
  return found == end || found->byte != byte ? -1 : static_cast<int32_t>(found - nodes_.begin());
}

}  // namespace switchyard
