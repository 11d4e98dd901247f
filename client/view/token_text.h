// Which token wrote which part of a streamed text.
//
// A message carries new text and new tokens, but not which belongs to which: text lags behind while a character is
// incomplete or might become a stop string, and one message may carry several tokens.
//
//   tokens  [Once] [ upon]   text "Once"          pieces: 0 "Once"                        [ upon] waits
//   tokens  [ a]             text " upon a"       pieces: 1 " upon", 2 " a"
#ifndef SWITCHYARD_CLIENT_VIEW_TOKEN_TEXT_H_
#define SWITCHYARD_CLIENT_VIEW_TOKEN_TEXT_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace switchyard {

// A part of the text and the number of the token (counted from 0) that wrote it.
struct TextPiece {
  int64_t token = 0;
  std::string text;
};

// For one choice of one request. The pieces' texts, put together, are always the text that came in.
class TokenTextAligner {
 public:
  // Gives the text of a token decoded alone. Only called when several tokens share a text.
  explicit TokenTextAligner(std::function<std::string(int32_t)> text_of_token)
      : text_of_token_(std::move(text_of_token)) {}

  // Takes what one message added; returns the pieces of its text in order.
  std::vector<TextPiece> Add(const std::vector<int32_t>& token_ids, const std::string& text);

 private:
  struct Waiting {
    int64_t token;
    int32_t id;
  };

  std::function<std::string(int32_t)> text_of_token_;
  std::vector<Waiting> waiting_;  // tokens without text so far
  int64_t num_tokens_ = 0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_CLIENT_VIEW_TOKEN_TEXT_H_
