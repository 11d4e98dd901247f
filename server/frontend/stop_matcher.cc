#include "server/frontend/stop_matcher.h"

#include <algorithm>

namespace switchyard {
namespace {

std::vector<size_t> Borders(const std::string& pattern) {
  std::vector<size_t> border(pattern.size(), 0);
  for (size_t i = 1; i < pattern.size(); ++i) {
    size_t length = border[i - 1];
    while (length > 0 && pattern[i] != pattern[length]) length = border[length - 1];
    border[i] = length + (pattern[i] == pattern[length] ? 1 : 0);
  }
  return border;
}

}  // namespace

StopMatcher::StopMatcher(const std::vector<std::string>& stops, bool include_stop) : include_stop_(include_stop) {
  for (const std::string& stop : stops) automata_.push_back({stop, Borders(stop), 0});
}

const StopMatcher::Automaton* StopMatcher::Advance(char c) {
  const Automaton* found = nullptr;
  for (Automaton& a : automata_) {
    while (a.length > 0 && a.pattern[a.length] != c) a.length = a.border[a.length - 1];
    if (a.pattern[a.length] == c) ++a.length;
    if (a.length == a.pattern.size() && (found == nullptr || a.pattern.size() > found->pattern.size())) found = &a;
  }
  return found;
}

size_t StopMatcher::LongestPartialMatch() const {
  size_t longest = 0;
  for (const Automaton& a : automata_) longest = std::max(longest, a.length);
  return longest;
}

bool StopMatcher::Push(const std::string& text, std::string* out) {
  if (automata_.empty()) {
    *out += text;
    return false;
  }
  for (char c : text) {
    held_ += c;
    const Automaton* found = Advance(c);
    if (found == nullptr) continue;
    matched_ = found->pattern;
    if (!include_stop_) held_.resize(held_.size() - matched_.size());
    Flush(out);
    return true;
  }
  const size_t certain = held_.size() - LongestPartialMatch();
  out->append(held_, 0, certain);
  held_.erase(0, certain);
  return false;
}

void StopMatcher::Flush(std::string* out) {
  *out += held_;
  held_.clear();
}

}  // namespace switchyard
