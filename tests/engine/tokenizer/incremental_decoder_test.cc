#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/utf8.h"
#include "tests/engine/tokenizer/tokenizer_samples.h"

namespace switchyard {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;

std::vector<std::string> PushAll(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip = false) {
  IncrementalDecoder decoder(tokenizer, skip);
  std::vector<std::string> parts;
  for (const int32_t id : ids) parts.push_back(decoder.Push(id));
  parts.push_back(decoder.Flush());
  return parts;
}

std::vector<int32_t> ByteIds(const std::string& bytes, int32_t first = 0) {
  std::vector<int32_t> ids;
  for (const char byte : bytes) ids.push_back(first + static_cast<unsigned char>(byte));
  return ids;
}

TEST(IncrementalDecoderTest, HoldsBackACharacterUntilItsLastByte) {
  const auto tokenizer = ParseSample(ByteLevelSample());
  EXPECT_THAT(PushAll(*tokenizer, ByteIds("a😀é!")), ElementsAre("a", "", "", "", "😀", "", "é", "!", ""));
}

TEST(IncrementalDecoderTest, ReplacesWhatCannotBecomeACharacter) {
  const auto tokenizer = ParseSample(ByteLevelSample());
  EXPECT_THAT(PushAll(*tokenizer, ByteIds("\xF0\x9F"
                                          "a\x80\xE4")),
              ElementsAre("", "", "\uFFFDa", "\uFFFD", "", "\uFFFD"));
}

TEST(IncrementalDecoderTest, BytesWaitForTheEndOfTheirRun) {
  // One bad byte spoils a run of byte tokens for the reference, so nothing of the run is certain before its end.
  const auto tokenizer = ParseSample(SentencePieceSample());
  const int32_t a = *tokenizer->TokenToId("a");
  std::vector<int32_t> good = ByteIds("é中", 3);
  good.push_back(a);
  EXPECT_THAT(PushAll(*tokenizer, good), ElementsAre("", "", "", "", "", "é中a", ""));
  EXPECT_THAT(PushAll(*tokenizer, {3 + 0xC3, 3 + 0xA9, 3 + 0x80, a}),
              ElementsAre("", "", "", "\uFFFD\uFFFD\uFFFDa", ""));
  EXPECT_THAT(PushAll(*tokenizer, {a, 3 + 0xE4}), ElementsAre("a", "", "\uFFFD"));
}

TEST(IncrementalDecoderTest, OnlyTheFirstSpaceIsStripped) {
  const auto tokenizer = ParseSample(SentencePieceSample());
  const int32_t hello = *tokenizer->TokenToId("▁hello");
  EXPECT_THAT(PushAll(*tokenizer, {1, hello, hello}, /*skip=*/true), ElementsAre("", "hello", " hello", ""));
  EXPECT_THAT(PushAll(*tokenizer, {1, hello, hello}, /*skip=*/false), ElementsAre("<s>", " hello", " hello", ""));
}

TEST(IncrementalDecoderTest, UnknownIdsContributeNothing) {
  const auto tokenizer = ParseSample(ByteLevelSample());
  EXPECT_THAT(PushAll(*tokenizer, {'a', -1, 299, 1 << 30, INT32_MIN, 'b'}), ElementsAre("a", "", "", "", "", "b", ""));
}

// Decoders of all kinds in odd orders.
std::vector<json> OddDecoders() {
  const json replace = {{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}};
  const json replace_regex = {{"type", "Replace"}, {"pattern", {{"Regex", "l+"}}}, {"content", "L"}};
  const json replace_two = {{"type", "Replace"}, {"pattern", {{"String", "oh"}}}, {"content", "é"}};
  const json bytes = {{"type", "ByteFallback"}};
  const json fuse = {{"type", "Fuse"}};
  const json strip = {{"type", "Strip"}, {"content", "o"}, {"start", 2}, {"stop", 2}};
  const json metaspace = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "always"}};
  const json byte_level = {{"type", "ByteLevel"}};
  std::vector<json> decoders = {nullptr, byte_level, metaspace};
  for (const json& list :
       {json{replace, bytes, fuse, strip}, json{fuse, replace_regex, strip}, json{strip, metaspace, fuse},
        json{bytes, byte_level, replace_two, strip}, json{fuse, bytes, byte_level}, json{fuse, metaspace},
        json{bytes, strip, replace_two, fuse, strip}, json::array()}) {
    decoders.push_back({{"type", "Sequence"}, {"decoders", list}});
  }
  return decoders;
}

TEST(IncrementalDecoderTest, JoinedPartsAreWhatDecodeGives) {
  std::mt19937 random(3);
  for (const json& decoder : OddDecoders()) {
    for (json sample : {ByteLevelSample(), SentencePieceSample()}) {
      sample["decoder"] = decoder;
      const auto tokenizer = ParseSample(sample);
      for (int round = 0; round < 400; ++round) {
        std::vector<int32_t> ids(random() % 20);
        for (int32_t& id : ids)
          id = static_cast<int32_t>(random() % static_cast<uint32_t>(tokenizer->vocab_size() + 2));
        const bool skip = random() % 2 == 0;
        std::string joined;
        for (const std::string& part : PushAll(*tokenizer, ids, skip)) {
          ASSERT_EQ(FindInvalidUtf8(part), std::string::npos);
          joined += part;
        }
        ASSERT_EQ(joined, tokenizer->Decode(ids, skip)) << decoder;
      }
    }
  }
}

}  // namespace
}  // namespace switchyard
