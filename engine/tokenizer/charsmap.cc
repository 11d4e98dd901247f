#include "engine/tokenizer/charsmap.h"

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

constexpr size_t kMaxUnits = size_t{1} << 20;  // four times the largest published one; bounds the check of a file

absl::Status Invalid(const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat("the character map ", what));
}

uint32_t ReadUnit(std::string_view blob, size_t at) {
  uint32_t unit = 0;
  for (size_t i = 0; i < 4; ++i) unit |= uint32_t{static_cast<uint8_t>(blob[at + i])} << (8 * i);
  return unit;
}

bool IsEndOfKey(uint32_t unit) { return (unit >> 8 & 1) != 0; }
uint32_t Label(uint32_t unit) { return unit & 0x800000ffu; }  // no byte where bit 31 is set
size_t Children(uint32_t unit, size_t place) { return place ^ (size_t{unit >> 10} << ((unit & 0x200u) >> 6)); }
size_t Value(uint32_t unit) { return unit & 0x7fffffffu; }

}  // namespace

absl::StatusOr<Charsmap> Charsmap::Parse(std::string_view blob) {
  if (blob.size() < 8) return Invalid(absl::StrCat("has ", blob.size(), " bytes; it must have at least 8"));
  const uint32_t array_bytes = ReadUnit(blob, 0);
  if (array_bytes % 4 != 0 || array_bytes < 4 || array_bytes > blob.size() - 4 || array_bytes / 4 > kMaxUnits) {
    return Invalid(absl::StrCat("says that its array has ", array_bytes, " bytes; it must be a multiple of 4 up to ",
                                "the ", blob.size() - 4, " that follow, and at most ", 4 * kMaxUnits));
  }
  Charsmap map;
  map.units_.reserve(array_bytes / 4);
  for (size_t at = 4; at < 4 + size_t{array_bytes}; at += 4) map.units_.push_back(ReadUnit(blob, at));
  map.replacements_ = blob.substr(4 + size_t{array_bytes});
  if (const size_t bad = FindInvalidUtf8(map.replacements_); bad != std::string::npos) {
    return Invalid(absl::StrCat("has replacements that are not valid UTF-8 (byte ", bad, ")"));
  }
  RETURN_IF_ERROR(map.CheckReachable());
  return map;
}

// Walks over all keys, so that Find can trust every unit that it comes to.
absl::Status Charsmap::CheckReachable() const {
  std::vector<bool> seen(units_.size());
  std::vector<size_t> open = {Children(units_[0], 0)};
  while (!open.empty()) {
    const size_t parent = open.back();
    open.pop_back();
    for (uint32_t byte = 1; byte < 256; ++byte) {
      const size_t place = parent ^ byte;
      if (place >= units_.size() || seen[place] || Label(units_[place]) != byte) continue;
      seen[place] = true;
      const uint32_t unit = units_[place];
      if (IsEndOfKey(unit) && !Replacement(unit, place).has_value()) {
        return Invalid(absl::StrCat("has a key at unit ", place, " that leads out of it"));
      }
      open.push_back(Children(unit, place));
    }
  }
  return absl::OkStatus();
}

std::optional<std::string_view> Charsmap::Replacement(uint32_t unit, size_t place) const {
  const size_t leaf = Children(unit, place);
  if (leaf >= units_.size()) return std::nullopt;
  const size_t begin = Value(units_[leaf]);
  if (begin > replacements_.size()) return std::nullopt;
  const bool inside_character = begin < replacements_.size() && (static_cast<uint8_t>(replacements_[begin]) >> 6) == 2;
  if (inside_character) return std::nullopt;
  const std::string_view rest = std::string_view(replacements_).substr(begin);
  return rest.substr(0, rest.find('\0'));
}

std::optional<std::string_view> Charsmap::Find(std::string_view text) const {
  size_t children = Children(units_[0], 0);
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    const size_t place = children ^ byte;
    if (byte == 0 || place >= units_.size() || Label(units_[place]) != byte) return std::nullopt;
    const uint32_t unit = units_[place];
    if (IsEndOfKey(unit)) return Replacement(unit, place);
    children = Children(unit, place);
  }
  return std::nullopt;
}

}  // namespace switchyard
