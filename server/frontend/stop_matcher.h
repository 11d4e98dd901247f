// Finds stop strings in text that arrives in pieces, and holds back only what may still become one.
//
//   stops {"\n\n", "END"}:  Push("line\n") -> "line"   Push("next E") -> "\nnext "   Push("ND more") -> match "END"
//
// The match that ends first wins; among those that end at the same byte, the longest. The result does not depend on how
// the text is cut into pieces. One Knuth-Morris-Pratt automaton per string: linear in the text, whatever it is.
#ifndef SWITCHYARD_SERVER_FRONTEND_STOP_MATCHER_H_
#define SWITCHYARD_SERVER_FRONTEND_STOP_MATCHER_H_

#include <string>
#include <vector>

namespace switchyard {

class StopMatcher {
 public:
  // REQUIRES: no empty string. `include_stop`: the matched string belongs to the text.
  StopMatcher(const std::vector<std::string>& stops, bool include_stop);

  // Appends to *out what is certainly not part of a stop string. True: a stop string was found; what follows it is
  // dropped, and nothing may be pushed any more.
  bool Push(const std::string& text, std::string* out);
  // No more text comes: appends what was held back.
  void Flush(std::string* out);

  // The stop string that was found, or "".
  const std::string& matched() const { return matched_; }

 private:
  struct Automaton {
    std::string pattern;
    std::vector<size_t> border;  // border[i]: longest proper prefix of pattern[0..i] that is its suffix too
    size_t length = 0;           // how many bytes of the pattern the text ends with
  };
  // Longest stop string that ends with `c`, or null.
  const Automaton* Advance(char c);
  size_t LongestPartialMatch() const;

  const bool include_stop_;
  std::vector<Automaton> automata_;
  std::string held_;
  std::string matched_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_STOP_MATCHER_H_
