#include "server/byte_tokenizer.h"

#include <cstdio>

namespace switchyard {
namespace {

// Byte-level vocabularies spell each byte as a printable character: itself where it is one, else one from U+0100 on.
int SpelledAs(int byte) {
  int next = 0x100;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    const int spelled = printable ? b : next++;
    if (b == byte) return spelled;
  }
  return byte;
}

}  // namespace

std::string ByteTokenizerJson() {
  std::string vocab;
  for (int byte = 0; byte < 256; ++byte) {
    char entry[32];
    std::snprintf(entry, sizeof(entry), "%s\"\\u%04x\":%d", byte == 0 ? "" : ",", SpelledAs(byte), byte);
    vocab += entry;
  }
  return R"({"version":"1.0","truncation":null,"padding":null,)"
         R"("added_tokens":[{"id":256,"content":"</s>","single_word":false,"lstrip":false,"rstrip":false,)"
         R"("normalized":false,"special":true}],"normalizer":null,)"
         R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},)"
         R"("post_processor":null,)"
         R"("decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},)"
         R"("model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,)"
         R"("end_of_word_suffix":null,"fuse_unk":false,"byte_fallback":false,"vocab":{)" +
         vocab + R"(},"merges":[]}})";
}

}  // namespace switchyard
