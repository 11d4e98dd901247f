// Files that are wrong on purpose: each must be refused as INVALID_ARGUMENT with a message that says what and where.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "tests/engine/tokenizer/tokenizer_samples.h"

namespace switchyard {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

void ExpectRefused(const std::string& text, const std::string& reason) {
  const auto tokenizer = Tokenizer::Parse(text);
  ASSERT_FALSE(tokenizer.ok()) << reason;
  EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr("tokenizer.json: "));
  EXPECT_THAT(std::string(tokenizer.status().message()), HasSubstr(reason));
  EXPECT_LT(tokenizer.status().message().size(), 600u);
}

struct BadText {
  std::string text;
  std::string reason;
};

TEST(TokenizerJsonTest, RefusesTextsThatAreNoGoodJson) {
  const std::string good = ByteLevelSample().dump();
  const std::vector<BadText> cases = {
      {"", "not valid JSON"},
      {"{", "not valid JSON at byte"},
      {"[]", "the document must be an object"},
      {"17", "the document must be an object"},
      {"null", "the document must be an object"},
      {"{\"model\": 1e999}", "number out of range"},
      {"{} x", "not valid JSON at byte"},
      {good + "{}", "not valid JSON at byte"},
      {good.substr(0, good.size() - 1), "not valid JSON at byte"},
      {"\xEF\xBB\xBF{}", "byte order mark"},
      {std::string("{}\0", 3), "NUL at byte 2"},
      {"{\"a\": \"\xFF\"}", "not valid JSON at byte"},
      {"{\"a\": \"\\ud800\"}", "not valid JSON at byte"},
      {std::string(1'000'000, '['), "nested deeper than 64"},
      {"{\"a\": 1, \"a\": 2}", "duplicate key \"a\""},
      {"{\"model\": {\"type\": \"BPE\", \"type\": \"BPE\"}}", "duplicate key \"type\""},
      {"{\"model\": {\"vocab\": {}, \"vocab\": {}}}", "duplicate key \"vocab\""},
      {"{\"model\": {\"vocab\": {\"a\": 0, \"a\": 1}, \"merges\": []}}", "model.vocab has the key \"a\" twice"},
      {"{\"model\": {\"vocab\": {\"a\": -1}, \"merges\": []}}", "model.vocab gives \"a\" an id"},
      {"{\"model\": {\"vocab\": {\"a\": 16777217}, \"merges\": []}}", "model.vocab gives \"a\" an id"},
      {"{\"model\": {\"vocab\": {\"a\": 99999999999999999999}, \"merges\": []}}", "model.vocab gives \"a\" an id"},
      {"{\"model\": {\"vocab\": {\"a\": 1.5}, \"merges\": []}}", "model.vocab gives \"a\" an id"},
      {"{\"model\": {\"vocab\": {\"a\": \"1\"}, \"merges\": []}}", "model.vocab gives \"a\" an id"},
      {"{\"model\": {\"vocab\": {\"a\": {}}, \"merges\": []}}", "model.vocab gives \"a\" an id"},
      {"{\"model\": {\"vocab\": {\"a\": []}, \"merges\": []}}", "model.vocab gives \"a\" an id"},
      {"{\"model\": {\"vocab\": {\"a\": 3, \"b\": 3}, \"merges\": []}}", "gives the id 3 to \"a\" and to \"b\""},
      {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [\"a\"]}}", "model.merges[0] is not a pair"},
      {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [\"a a a\"]}}", "model.merges[0] is not a pair"},
      {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [[\"a\"]]}}", "model.merges[0] is not a pair"},
      {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [[\"a\", \"a\", \"a\"]]}}", "model.merges[0] is not a pair"},
      {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [[\"a\", 1]]}}", "model.merges[0] is not a pair"},
      {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [[[\"a\", \"a\"]]]}}", "model.merges[0] is not a pair"},
      {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [null]}}", "model.merges[0] is not a pair"},
      {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [[\"a\", \"a\"]]}}", "model.merges[0] needs the token \"aa\""},
      {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [\"a b\"]}}", "model.merges[0] needs the token \"b\""},
      {"{\"model\": {\"vocab\": {\"a\": 0}, \"merges\": [\"b a\"]}}", "model.merges[0] needs the token \"b\""},
      {"{\"model\": {\"vocab\": {\"a\": 0}}}", "model.merges must be a list"},
      {"{\"model\": {\"merges\": []}}", "model.vocab must be an object"},
      {"{\"model\": {\"vocab\": {}, \"type\": \"WordPiece\"}}",
       "model.type is \"WordPiece\"; supported are BPE, Unigram"},
      {"{\"model\": []}", "model must be an object"},
      {"{}", "model must be an object"},
  };
  for (const BadText& bad : cases) ExpectRefused(bad.text, bad.reason);
}

struct BadChange {
  std::function<void(json*)> change;
  std::string reason;
};

json Sequence(const char* key, const json& part) { return {{"type", "Sequence"}, {key, {part}}}; }

TEST(TokenizerJsonTest, RefusesDocumentsThatMakeNoTokenizer) {
  const std::vector<BadChange> cases = {
      {[](json* j) { (*j)["version"] = "2.0"; }, "version is \"2.0\""},
      {[](json* j) { (*j)["version"] = 1; }, "version must be a string"},
      {[](json* j) { (*j)["model"]["type"] = "WordPiece"; }, "model.type is \"WordPiece\""},
      {[](json* j) { (*j)["model"]["dropout"] = 0.1; }, "model.dropout must be null or 0"},
      {[](json* j) { (*j)["model"]["fuse_unk"] = "yes"; }, "model.fuse_unk must be true or false"},
      {[](json* j) { (*j)["model"]["unk_token"] = 3; }, "model.unk_token must be a string"},
      {[](json* j) { (*j)["model"]["continuing_subword_prefix"] = "##"; }, "lacks the continuing_subword_prefix"},

      {[](json* j) {
         (*j)["normalizer"] = {{"type", "Nmt"}};
       },
       "normalizer.type is \"Nmt\"; supported are"},
      {[](json* j) {
         (*j)["normalizer"] = {{"type", "BertNormalizer"}};
       },
       "normalizer.type is \"BertNormalizer\""},
      {[](json* j) { (*j)["normalizer"] = "NFC"; }, "normalizer must be an object"},
      {[](json* j) { (*j)["normalizer"] = json::object(); }, "normalizer.type must be a string"},
      {[](json* j) {
         (*j)["normalizer"] = {{"type", "Sequence"}};
       },
       "normalizer.normalizers must be a list"},
      {[](json* j) {
         (*j)["normalizer"] = Sequence("normalizers", {{"type", "Nmt"}});
       },
       "normalizer.normalizers[0].type is \"Nmt\""},
      {[](json* j) {
         (*j)["normalizer"] = {{"type", "Replace"}, {"pattern", {{"Regex", "("}}}, {"content", ""}};
       },
       "normalizer.pattern.Regex is no usable regular expression: unclosed group"},
      {[](json* j) {
         (*j)["normalizer"] = {{"type", "Replace"}, {"pattern", "x"}, {"content", ""}};
       },
       "normalizer.pattern must be"},
      {[](json* j) {
         (*j)["normalizer"] = {{"type", "Replace"}, {"pattern", {{"String", "x"}}}};
       },
       "normalizer.content must be a string"},
      {[](json* j) {
         (*j)["normalizer"] = {{"type", "Strip"}, {"strip_left", 1}};
       },
       "normalizer.strip_left must be true or false"},

      {[](json* j) {
         (*j)["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
       },
       "pre_tokenizer.type is \"BertPreTokenizer\""},
      {[](json* j) { (*j)["pre_tokenizer"]["add_prefix_space"] = nullptr; }, "pre_tokenizer.add_prefix_space must be"},
      {[](json* j) {
         (*j)["pre_tokenizer"] = {
             {"type", "Split"}, {"pattern", {{"String", "x"}}}, {"behavior", "Keep"}, {"invert", false}};
       },
       "pre_tokenizer.behavior is \"Keep\"; supported are"},
      {[](json* j) {
         (*j)["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "\\p{Nope}"}}}, {"behavior", "Removed"}};
       },
       "pre_tokenizer.pattern.Regex is no usable regular expression: unknown property"},
      {[](json* j) {
         (*j)["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "__"}};
       },
       "pre_tokenizer.replacement must be one character"},
      {[](json* j) {
         (*j)["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "_"}, {"prepend_scheme", "last"}};
       },
       "pre_tokenizer.prepend_scheme is \"last\""},
      {[](json* j) {
         (*j)["pre_tokenizer"] = {{"type", "Digits"}};
       },
       "pre_tokenizer.individual_digits must be"},

      {[](json* j) {
         (*j)["decoder"] = {{"type", "CTC"}};
       },
       "decoder.type is \"CTC\"; supported are"},
      {[](json* j) {
         (*j)["decoder"] = Sequence("decoders", Sequence("decoders", {{"type", "WordPiece"}}));
       },
       "decoder.decoders[0].decoders[0].type is \"WordPiece\""},
      {[](json* j) {
         (*j)["decoder"] = {{"type", "Strip"}, {"content", " "}, {"start", -1}, {"stop", 0}};
       },
       "decoder.start is -1; it must be an integer"},

      {[](json* j) { (*j)["added_tokens"] = "x"; }, "added_tokens must be a list"},
      {[](json* j) { (*j)["added_tokens"][0] = 1; }, "added_tokens[0] must be an object"},
      {[](json* j) { (*j)["added_tokens"][0]["id"] = -1; }, "added_tokens[0].id is -1"},
      {[](json* j) { (*j)["added_tokens"][0]["id"] = 1 << 25; }, "added_tokens[0].id is 33554432"},
      {[](json* j) { (*j)["added_tokens"][0]["id"] = "1"; }, "added_tokens[0].id must be an integer"},
      {[](json* j) { (*j)["added_tokens"][0]["id"] = 65; }, "added_tokens[0].id is 65, which belongs to \"A\""},
      {[](json* j) { (*j)["added_tokens"][1]["id"] = 300; }, "added_tokens[1] has the id 300 a second time"},
      {[](json* j) { (*j)["added_tokens"][1]["content"] = "<|bos|>"; },
       "added_tokens[1] has the content \"<|bos|>\" a second time"},
      {[](json* j) { (*j)["added_tokens"][1]["content"] = "a"; },
       "added_tokens[1].id is 301, but model.vocab gives \"a\" the id 97"},
      {[](json* j) { (*j)["added_tokens"][2]["content"] = std::string(5000, 'x'); },
       "added_tokens[2].content has 5000 bytes"},
      {[](json* j) { (*j)["added_tokens"][2]["special"] = "no"; }, "added_tokens[2].special must be true or false"},

      {[](json* j) {
         (*j)["post_processor"] = {{"type", "Other"}};
       },
       "post_processor.type is \"Other\""},
      {[](json* j) { (*j)["post_processor"]["single"] = json::array(); },
       "post_processor.single must hold the Sequence A once"},
      {[](json* j) { (*j)["post_processor"]["single"][1]["Sequence"]["id"] = "B"; },
       "post_processor.single[1].Sequence.id must be A"},
      {[](json* j) { (*j)["post_processor"]["special_tokens"] = json::object(); },
       "post_processor.special_tokens.<|bos|>.ids must be a list"},
      {[](json* j) { (*j)["post_processor"]["special_tokens"]["<|bos|>"]["ids"] = {299}; },
       "post_processor adds the id 299, which no token has"},
      {[](json* j) {
         (*j)["post_processor"] = {{"type", "BertProcessing"}, {"cls", {"x"}}, {"sep", {"y", 1}}};
       },
       "post_processor.cls must be [token, id]"},
  };
  for (const BadChange& bad : cases) {
    json sample = ByteLevelSample();
    bad.change(&sample);
    ExpectRefused(sample.dump(), bad.reason);
  }
}

TEST(TokenizerJsonTest, RefusesMoreThan64Mebibytes) {
  ExpectRefused(std::string((size_t{64} << 20) + 1, ' '), "67108865 bytes");
}

// `count` steps that each make two of every "a".
json Doublings(const char* list_key, int count) {
  const json step = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}};
  return {{"type", "Sequence"}, {list_key, std::vector<json>(static_cast<size_t>(count), step)}};
}

TEST(TokenizerJsonTest, RefusesNormalizersThatBlowUpAnAddedToken) {
  json sample = ByteLevelSample();
  sample["normalizer"] = Doublings("normalizers", 40);
  sample["added_tokens"].push_back({{"id", 1000}, {"content", "<a>"}, {"normalized", true}});
  ExpectRefused(sample.dump(), "content cannot be normalized: a step of the tokenizer adds");
  sample["normalizer"] = Doublings("normalizers", 5);
  sample["added_tokens"].back()["content"] = std::string(200, 'a');
  ExpectRefused(sample.dump(), "content has 6400 bytes when normalized; the limit is 4096");
}

TEST(TokenizerJsonTest, RefusesTextsThatTheNormalizerBlowsUp) {
  json sample = ByteLevelSample();
  sample["added_tokens"] = json::array();
  sample["post_processor"] = nullptr;
  for (const json& last : {json{{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}},
                           json{{"type", "Prepend"}, {"prepend", std::string(100'000, 'x')}}}) {
    sample["normalizer"] = Doublings("normalizers", 12);
    for (int i = 0; i < 20; ++i) sample["normalizer"]["normalizers"].push_back(last);
    const auto ids = ParseSample(sample)->Encode("ab", {});
    EXPECT_EQ(ids.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(ids.status().message()), HasSubstr("the limit is 4160"));
  }
}

TEST(TokenizerJsonTest, ADecoderThatBlowsUpATokenStops) {
  json sample = ByteLevelSample();
  sample["decoder"] = Doublings("decoders", 26);
  const auto tokenizer = ParseSample(sample);
  const auto ids = tokenizer->Encode("a", {.add_special_tokens = false});
  ASSERT_TRUE(ids.ok());
  EXPECT_LE(tokenizer->Decode(*ids, false).size(), size_t{16} << 20);
}

TEST(TokenizerJsonTest, RefusesMoreThan64Parts) {
  json sample = ByteLevelSample();
  sample["decoder"] = Doublings("decoders", 64);
  EXPECT_NE(ParseSample(sample), nullptr);
  sample["decoder"] = Doublings("decoders", 65);
  ExpectRefused(sample.dump(), "decoder has more than 64 parts");
}

TEST(TokenizerJsonTest, AcceptsBothSpellingsOfMerges) {
  json sample = ByteLevelSample();
  for (json& merge : sample["model"]["merges"]) merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  sample["model"]["merges"].insert(sample["model"]["merges"].begin(), "#version: 0.2");
  EXPECT_EQ(*ParseSample(sample)->Encode("hello", {}), *ParseSample(ByteLevelSample())->Encode("hello", {}));
}

TEST(TokenizerJsonTest, EveryTruncationIsRefused) {
  const std::string good = SentencePieceSample().dump();
  for (size_t size = 0; size < good.size(); size += 7) {
    EXPECT_FALSE(Tokenizer::Parse(good.substr(0, size)).ok()) << size;
  }
}

TEST(TokenizerJsonTest, DamagedBytesNeverCrash) {
  std::mt19937 random(11);
  for (const json& sample : {ByteLevelSample(), SentencePieceSample()}) {
    const std::string good = sample.dump();
    for (int round = 0; round < 300; ++round) {
      std::string bad = good;
      for (uint32_t i = 1 + random() % 3; i > 0; --i) bad[random() % bad.size()] = static_cast<char>(random());
      const auto tokenizer = Tokenizer::Parse(bad);
      if (!tokenizer.ok()) {
        EXPECT_EQ(tokenizer.status().code(), absl::StatusCode::kInvalidArgument);
        continue;
      }
      const auto ids = (*tokenizer)->Encode("hello wörld 😀", {});
      if (ids.ok()) (*tokenizer)->Decode(*ids, false);
    }
  }
}

}  // namespace
}  // namespace switchyard
