// Small tokenizer.json documents for tests, to be changed at will before they are parsed.
#ifndef SWITCHYARD_TESTS_ENGINE_TOKENIZER_TOKENIZER_SAMPLES_H_
#define SWITCHYARD_TESTS_ENGINE_TOKENIZER_TOKENIZER_SAMPLES_H_

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/tokenizer/tokenizer.h"

namespace switchyard {

// Byte-level, like GPT-2 and its heirs: 256 bytes with the ids 0 to 255 in order of their values, some merges, chat
// tokens from 300 on:
//   300 <|bos|> (special, added by the template)   301 <|im_end|> (special)   302 <think> (not special)
nlohmann::json ByteLevelSample();

// SentencePiece-like, as Mixtral: <unk> 0, <s> 1, </s> 2, <0x00> 3 ... <0xFF> 258, then "▁", letters and a few words.
nlohmann::json SentencePieceSample();

// REQUIRES: the document is good.
std::unique_ptr<Tokenizer> ParseSample(const nlohmann::json& json);

// {"id": ..., "content": ..., "special": ..., all flags false}
nlohmann::json AddedTokenJson(int id, const std::string& content, bool special);

}  // namespace switchyard

#endif  // SWITCHYARD_TESTS_ENGINE_TOKENIZER_TOKENIZER_SAMPLES_H_
