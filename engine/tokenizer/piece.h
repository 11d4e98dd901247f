// A part of the text on its way through the tokenizer.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_PIECE_H_
#define SWITCHYARD_ENGINE_TOKENIZER_PIECE_H_

#include <cstddef>
#include <cstdint>
#include <string>

namespace switchyard {

inline constexpr size_t kMaxTextBytes = size_t{256} << 20;

struct Piece {
  std::string text;
  // How many bytes at the beginning of `text` stem from the first character of the whole input. Metaspace with
  // prepend_scheme "first" marks only a piece where this is not 0. Normalizers carry it along.
  size_t at_start = 0;
  int32_t token = -1;  // an added token found in the text: goes through unchanged
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_PIECE_H_
