#include "tests/engine/tokenizer/tokenizer_samples.h"

#include <cstdio>
#include <utility>
#include <vector>

#include "engine/base/status_macros.h"
#include "engine/tokenizer/byte_level.h"

namespace switchyard {
namespace {

using nlohmann::json;

std::string ByteLevel(const std::string& bytes) {
  std::string text;
  AppendByteLevel(bytes, &text);
  return text;
}

json BosTemplate(const std::string& name, int id) {
  return {
      {"type", "TemplateProcessing"},
      {"single", {{{"SpecialToken", {{"id", name}, {"type_id", 0}}}}, {{"Sequence", {{"id", "A"}, {"type_id", 0}}}}}},
      {"pair", json::array()},
      {"special_tokens", {{name, {{"id", name}, {"ids", {id}}, {"tokens", {name}}}}}}};
}

void AddMerges(const std::vector<std::pair<std::string, std::string>>& merges, json* model) {
  for (const auto& [left, right] : merges) {
    const std::string joined = left + right;
    if (!(*model)["vocab"].contains(joined)) (*model)["vocab"][joined] = (*model)["vocab"].size();
    (*model)["merges"].push_back({left, right});
  }
}

}  // namespace

json AddedTokenJson(int id, const std::string& content, bool special) {
  return {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
          {"rstrip", false}, {"normalized", false}, {"special", special}};
}

json ByteLevelSample() {
  json model = {{"type", "BPE"}, {"vocab", json::object()}, {"merges", json::array()}};
  for (int byte = 0; byte < 256; ++byte) model["vocab"][ByteLevel(std::string(1, static_cast<char>(byte)))] = byte;
  const std::string accent = ByteLevel("é");  // two bytes, two characters of the alphabet
  const std::string emoji = ByteLevel("😀");   // four
  const std::string space = ByteLevel(" ");
  AddMerges({{"h", "e"},
             {"l", "l"},
             {"he", "ll"},
             {"hell", "o"},
             {space, "w"},
             {accent.substr(0, 2), accent.substr(2)},
             {emoji.substr(0, 2), emoji.substr(2, 2)},
             {"a", "a"},
             {"aa", "aa"},
             {"aaaa", "aaaa"}},
            &model);
  return {{"version", "1.0"},
          {"truncation", {{"max_length", 1}}},  // to be ignored
          {"padding", nullptr},
          {"added_tokens",
           {AddedTokenJson(300, "<|bos|>", true), AddedTokenJson(301, "<|im_end|>", true),
            AddedTokenJson(302, "<think>", false)}},
          {"normalizer", nullptr},
          {"pre_tokenizer",
           {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
          {"post_processor", BosTemplate("<|bos|>", 300)},
          {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}}},
          {"model", model}};
}

json SentencePieceSample() {
  json model = {{"type", "BPE"},         {"unk_token", "<unk>"},    {"fuse_unk", true},
                {"byte_fallback", true}, {"vocab", json::object()}, {"merges", json::array()}};
  json& vocab = model["vocab"];
  for (const char* token : {"<unk>", "<s>", "</s>"}) vocab[token] = vocab.size();
  for (int byte = 0; byte < 256; ++byte) {
    char token[8];
    std::snprintf(token, sizeof(token), "<0x%02X>", byte);
    vocab[token] = 3 + byte;
  }
  for (const char* token : {"▁", "a", "b", "c", "d", "e", "h", "l", "o", "r", "w"}) vocab[token] = vocab.size();
  AddMerges({{"h", "e"}, {"l", "l"}, {"he", "ll"}, {"hell", "o"}, {"▁", "hello"}, {"▁", "w"}, {"o", "r"}}, &model);
  return {{"added_tokens",
           {AddedTokenJson(0, "<unk>", true), AddedTokenJson(1, "<s>", true), AddedTokenJson(2, "</s>", true)}},
          {"normalizer",
           {{"type", "Sequence"},
            {"normalizers",
             {{{"type", "Prepend"}, {"prepend", "▁"}},
              {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "▁"}}}}}},
          {"pre_tokenizer", nullptr},
          {"post_processor", BosTemplate("<s>", 1)},
          {"decoder",
           {{"type", "Sequence"},
            {"decoders",
             {{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
              {{"type", "ByteFallback"}},
              {{"type", "Fuse"}},
              {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}}},
          {"model", model}};
}

std::unique_ptr<Tokenizer> ParseSample(const json& document) {
  auto tokenizer = Tokenizer::Parse(document.dump());
  if (!tokenizer.ok()) std::fprintf(stderr, "%s\n", std::string(tokenizer.status().message()).c_str());
  CHECK(tokenizer.ok());
  return *std::move(tokenizer);
}

}  // namespace switchyard
