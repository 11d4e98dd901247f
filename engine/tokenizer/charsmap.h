// SentencePiece's precompiled character map: which characters, or short runs of them, a normalizer replaces by what.
//
// The blob is a double array over the bytes of the keys, then the replacements, each ended by a NUL:
//
//   u32 size of the array in bytes | units u32 | "a\0ss\0..."
//
// A unit says whether a key ends there (bit 8), the byte that leads to it (bits 0-7, bit 31 clear) and where its
// children are (bits 10-31, shifted left by 8 where bit 9 is set, exclusive or its place). The child of a place p for
// byte c is at p ^ c; a key that ends at p has its value, where its replacement begins, in unit p.
// Source: darts-clone, https://github.com/s-yata/darts-clone; behaviour: the reference tokenizer.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_CHARSMAP_H_
#define SWITCHYARD_ENGINE_TOKENIZER_CHARSMAP_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard {

// Immutable.
class Charsmap {
 public:
  // Reads the decoded blob, which is not trusted. INVALID_ARGUMENT: says what is wrong: too short, an array of more
  // than 2^20 units, replacements that are not UTF-8, a key that leads out of the blob or into a character.
  static absl::StatusOr<Charsmap> Parse(std::string_view blob);

  // What the shortest key that `text` begins with is replaced by; nothing: it begins with none. No key holds a NUL.
  std::optional<std::string_view> Find(std::string_view text) const;

 private:
  Charsmap() = default;
  absl::Status CheckReachable() const;
  // The replacement of the key that ends at `unit`, which stands at `place`; nothing: it leads out of the blob.
  std::optional<std::string_view> Replacement(uint32_t unit, size_t place) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_CHARSMAP_H_
