// Text to token ids and back, as a Hugging Face `tokenizer.json` describes it. Gives the same ids and the same text as
// the reference implementation (the `tokenizers` package); tests/engine/tokenizer/differential_test.py compares them.
//
//   "Hello <|im_end|>"
//     added tokens    cut out            "Hello "            <|im_end|>
//     normalizer      NFC, replace ...   "Hello "
//     pre-tokenizer   split into words   "Hello" | "Ġ"
//     model           BPE or Unigram     9707   | 220        151645
//     post-processor  BOS, EOS           9707 220 151645
//
// Reads models of type BPE: byte-level (GPT-2, Llama 3, Qwen, DeepSeek, gpt-oss, ...) and SentencePiece-like with byte
// fallback (Mixtral, Phi-3.5, ...); and Unigram (T5, Switch). The "truncation" and "padding" sections are ignored.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_TOKENIZER_H_
#define SWITCHYARD_ENGINE_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/tokenizer/decoder.h"

namespace switchyard {

struct EncodeOptions {
  bool add_special_tokens = true;     // run the post-processor (BOS/EOS templates)
  bool allow_special_tokens = false;  // text that spells a special token becomes its id; otherwise it is plain text
};

// Immutable after Load; all const methods are thread-safe.
class Tokenizer {
 public:
  // NOT_FOUND: no such file. INVALID_ARGUMENT: not a regular file, a link out of the model's folder, or anything that
  // Parse refuses. DATA_LOSS: reading failed.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& tokenizer_json_path);

  // The file is not trusted: INVALID_ARGUMENT names what is wrong and where, for a document that is too big or too deep
  // or no JSON, a part that is not supported, merges of missing tokens, ids twice or out of range, bad expressions.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Parse(const std::string& json);

  ~Tokenizer();

  // Costs O(n log n) at most for n bytes in one word; about 8 MB/s of prose on one core.
  // INVALID_ARGUMENT: "text is not valid UTF-8 (byte 17)", text above 256 MiB, a character unknown to a vocabulary
  // without its unk_token, a regular expression of the file that gives up.
  absl::StatusOr<std::vector<int32_t>> Encode(const std::string& text, const EncodeOptions& options) const;

  // Always valid UTF-8: bytes that form no character come out as U+FFFD. Ids that do not exist contribute nothing.
  std::string Decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  int32_t vocab_size() const;  // 1 + highest id, added tokens included

  // The bytes that this token alone stands for, to show beside a log-probability; may be part of a character.
  // Empty if the id does not exist.
  std::string TokenText(int32_t id) const;

  std::optional<int32_t> TokenToId(const std::string& token) const;  // as spelled in the vocabulary: "Ġthe"
  bool IsSpecial(int32_t id) const;

 private:
  friend class IncrementalDecoder;
  struct Parts;
  explicit Tokenizer(std::unique_ptr<const Parts> parts);
  static absl::StatusOr<std::unique_ptr<Tokenizer>> ParseOrThrow(const std::string& json);
  absl::StatusOr<std::vector<int32_t>> EncodeOrThrow(const std::string& text, const EncodeOptions& options) const;
  // What the decoder gets for `id`; nullptr: no such token, or a special one to be skipped.
  const std::string* TextForDecoder(int32_t id, bool skip_special_tokens) const;

  std::unique_ptr<const Parts> parts_;
};

// Turns a growing list of ids into text without ever giving out half a character. One per sequence; not thread-safe.
// The concatenation of all Push and one Flush equals Tokenizer::Decode of all ids.
class IncrementalDecoder {
 public:
  // `tokenizer` must outlive this.
  IncrementalDecoder(const Tokenizer& tokenizer, bool skip_special_tokens);

  std::string Push(int32_t id);  // the text that became certain; often empty
  std::string Flush();  // the rest, at the end (incomplete characters as U+FFFD). Call once, then no more Push.

 private:
  const Tokenizer& tokenizer_;
  bool skip_special_tokens_;
  DecoderStream stream_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_TOKENIZER_H_
