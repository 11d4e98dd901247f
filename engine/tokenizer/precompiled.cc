#include "engine/tokenizer/precompiled.h"

#include <utf8proc.h>

#include <string>
#include <string_view>
#include <utility>

#include "absl/strings/escaping.h"
#include "engine/base/status_macros.h"
#include "engine/tokenizer/charsmap.h"
#include "engine/tokenizer/pattern.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

// Where the grapheme that begins at `begin` ends: a character with the marks that belong to it.
size_t EndOfGrapheme(std::string_view text, size_t begin) {
  utf8proc_int32_t state = 0;
  size_t end = begin;
  auto before = static_cast<utf8proc_int32_t>(NextCodePoint(text, &end));
  while (end < text.size()) {
    size_t next = end;
    const auto character = static_cast<utf8proc_int32_t>(NextCodePoint(text, &next));
    if (utf8proc_grapheme_break_stateful(before, character, &state)) break;
    before = character;
    end = next;
  }
  return end;
}

class PrecompiledStep : public NormalizerStep {
 public:
  explicit PrecompiledStep(Charsmap map) : map_(std::move(map)) {}

  absl::Status Apply(Piece* piece, size_t max_bytes) const override {
    const std::string text = std::exchange(piece->text, std::string());
    const size_t at_start = std::exchange(piece->at_start, 0);
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = EndOfGrapheme(text, begin);
      Append(std::string_view(text).substr(begin, end - begin), &piece->text);
      RETURN_IF_ERROR(CheckGrowth(piece->text.size(), 0, 0, max_bytes));
      if (begin < at_start) piece->at_start = piece->text.size();
      begin = end;
    }
    // What follows a first character that vanished takes its place.
    if (at_start > 0 && piece->at_start == 0 && !piece->text.empty()) piece->at_start = Utf8Length(piece->text[0]);
    return absl::OkStatus();
  }

 private:
  // As SentencePiece: a key that a short grapheme begins with replaces all of it, marks included.
  void Append(std::string_view grapheme, std::string* out) const {
    constexpr size_t kMaxShort = 5;
    if (grapheme.size() <= kMaxShort) {
      if (const auto replacement = map_.Find(grapheme)) {
        out->append(*replacement);
        return;
      }
    }
    while (!grapheme.empty()) {
      const std::string_view character = grapheme.substr(0, Utf8Length(grapheme[0]));
      out->append(map_.Find(character).value_or(character));
      grapheme.remove_prefix(character.size());
    }
  }

  Charsmap map_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<const NormalizerStep>> MakePrecompiled(const JsonField& field) {
  const JsonField encoded = field.Member("precompiled_charsmap");
  ASSIGN_OR_RETURN(const std::string text, encoded.String());
  std::string blob;
  if (!absl::Base64Unescape(text, &blob)) return encoded.Error("is not base64");
  auto map = Charsmap::Parse(blob);
  if (!map.ok()) return encoded.Error("cannot be read: " + std::string(map.status().message()));
  return std::make_unique<PrecompiledStep>(*std::move(map));
}

}  // namespace switchyard
