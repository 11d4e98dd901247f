// Turns tokens back into text, one token at a time.
//
// A decoder is a chain of steps, and a token goes through all of them:
//
//   "▁caf" "<0xC3>" "<0xA9>"  -Replace ▁->  " caf" ...  -ByteFallback->  " caf" "é"  -Fuse->  " café"  -Strip->  "café"
//
// Some steps must wait: ByteFallback for the end of a run of bytes (one bad byte spoils the whole run), ByteLevel for
// the end of a character, Strip for what may be the end of the text. Decoding at once is the same stream run to its
// end, so text that was given out never changes later.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_DECODER_H_
#define SWITCHYARD_ENGINE_TOKENIZER_DECODER_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/json_field.h"

namespace switchyard {

// One step at work on one stream of tokens. Behind a step that joins all tokens into one (Fuse, ByteLevel), "a token"
// is the next part of that one.
class DecoderStep {
 public:
  virtual ~DecoderStep() = default;
  // Takes a token and appends what became certain.
  virtual void Push(std::string_view token, std::vector<std::string>* out) = 0;
  // The tokens ended.
  virtual void Flush(std::vector<std::string>* out) { (void)out; }
};

class DecoderStream {
 public:
  explicit DecoderStream(std::vector<std::unique_ptr<DecoderStep>> steps) : steps_(std::move(steps)) {}
  void Push(std::string_view token, std::string* text);  // appends whole characters only
  void Flush(std::string* text);

 private:
  void RunFrom(size_t step, std::vector<std::string> tokens, std::string* text);
  std::vector<std::unique_ptr<DecoderStep>> steps_;
};

// Immutable. Streams refer to the Decoder and must not outlive it.
class Decoder {
 public:
  // Reads the "decoder" member; null gives one that puts a space between tokens.
  // INVALID_ARGUMENT: names a type that is not supported, or a bad field.
  static absl::StatusOr<Decoder> Create(const JsonField& field);

  DecoderStream NewStream() const;

  // The bytes that `token` alone stands for; may be a part of a character.
  std::string TokenText(const std::string& token) const;

  // How to make one step and what it makes of a token alone.
  struct StepKind {
    // `joined`: an earlier step joins all tokens into one.
    std::function<std::unique_ptr<DecoderStep>(bool joined)> make;
    std::function<std::string(const std::string& token, bool joined)> text_of;
    bool joins = false;
  };

 private:
  std::vector<StepKind> kinds_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_DECODER_H_
