#include "client/view/token_text.h"

namespace switchyard {

std::vector<TextPiece> TokenTextAligner::Add(const std::vector<int32_t>& token_ids, const std::string& text) {
  for (const int32_t id : token_ids) waiting_.push_back({num_tokens_++, id});
  if (text.empty()) return {};
  if (waiting_.empty()) return {{num_tokens_ == 0 ? 0 : num_tokens_ - 1, text}};  // the end of a lagging text

  // Tokens are found in the text from left to right. What lies between two finds belongs to the first token that was
  // not found there (half a character has no text of its own), else to the token after it (a space that some
  // tokenizers drop when they decode one token alone).
  std::vector<TextPiece> pieces;
  size_t end = 0;       // of the text that is given away
  size_t num_done = 0;  // of waiting_
  for (size_t i = 0; i < waiting_.size() && waiting_.size() > 1 && end < text.size(); ++i) {
    const std::string own = text_of_token_(waiting_[i].id);
    const size_t found = own.empty() ? std::string::npos : text.find(own, end);
    if (found == std::string::npos) continue;
    size_t begin = end;
    if (found > end && num_done < i) {
      pieces.push_back({waiting_[num_done].token, text.substr(end, found - end)});
      begin = found;
    }
    end = found + own.size();
    pieces.push_back({waiting_[i].token, text.substr(begin, end - begin)});
    num_done = i + 1;
  }
  if (end < text.size() && num_done < waiting_.size()) {
    pieces.push_back({waiting_[num_done++].token, text.substr(end)});
  } else if (end < text.size()) {
    pieces.back().text += text.substr(end);
  }
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(num_done));
  return pieces;
}

}  // namespace switchyard
