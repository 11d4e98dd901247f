#include "engine/tokenizer/vocabulary.h"

#include <algorithm>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace switchyard {

absl::StatusOr<Vocabulary> Vocabulary::Create(std::vector<VocabularyEntry> entries) {
  Vocabulary vocabulary;
  vocabulary.entries_ = std::move(entries);
  int32_t max_id = -1;
  for (const VocabularyEntry& entry : vocabulary.entries_) max_id = std::max(max_id, entry.id);
  vocabulary.index_of_id_.assign(static_cast<size_t>(max_id) + 1, -1);
  vocabulary.id_of_text_.reserve(vocabulary.entries_.size());
  for (size_t i = 0; i < vocabulary.entries_.size(); ++i) {
    const VocabularyEntry& entry = vocabulary.entries_[i];
    if (!vocabulary.id_of_text_.emplace(entry.token, entry.id).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("tokenizer.json: model.vocab has the key ", Quote(entry.token), " twice"));
    }
    int32_t& index = vocabulary.index_of_id_[static_cast<size_t>(entry.id)];
    if (index >= 0) {
      return absl::InvalidArgumentError(absl::StrCat("tokenizer.json: model.vocab gives the id ", entry.id, " to ",
                                                     Quote(vocabulary.entries_[static_cast<size_t>(index)].token),
                                                     " and to ", Quote(entry.token)));
    }
    index = static_cast<int32_t>(i);
  }
  return vocabulary;
}

std::optional<int32_t> Vocabulary::Find(std::string_view token) const {
  const auto found = id_of_text_.find(token);
  if (found == id_of_text_.end()) return std::nullopt;
  return found->second;
}

const std::string* Vocabulary::Text(int32_t id) const {
  if (id < 0 || id >= size() || index_of_id_[static_cast<size_t>(id)] < 0) return nullptr;
  return &entries_[static_cast<size_t>(index_of_id_[static_cast<size_t>(id)])].token;
}

std::array<int32_t, 256> ByteTokenIds(const Vocabulary& vocabulary) {
  constexpr char kHex[] = "0123456789ABCDEF";
  std::array<int32_t, 256> ids;
  for (size_t byte = 0; byte < ids.size(); ++byte) {
    ids[byte] = vocabulary.Find(std::string("<0x") + kHex[byte / 16] + kHex[byte % 16] + ">").value_or(-1);
  }
  return ids;
}

}  // namespace switchyard
