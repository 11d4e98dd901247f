#include "engine/tokenizer/normal_form.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "engine/tokenizer/unicode.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

using CodePoints = std::vector<utf8proc_int32_t>;

// Below these no character changes or combines.
bool IsInert(std::string_view text, NormalForm form) {
  if (std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; })) return true;
  if (form.compatible || !form.compose) return false;
  for (size_t pos = 0; pos < text.size();) {
    if (NextCodePoint(text, &pos) >= 0x300) return false;
  }
  return true;
}

void AppendDecomposed(char32_t c, NormalForm form, CodePoints* out) {
  if (c < 0x80 || IsUnknownToNormalizers(c)) {
    out->push_back(static_cast<utf8proc_int32_t>(c));
    return;
  }
  int options = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
  if (form.compatible) options |= UTF8PROC_COMPAT;
  utf8proc_int32_t parts[32];  // the longest decomposition has 18
  const utf8proc_ssize_t size = utf8proc_decompose_char(static_cast<utf8proc_int32_t>(c), parts, 32,
                                                        static_cast<utf8proc_option_t>(options), nullptr);
  if (size < 0 || size > 32) {
    out->push_back(static_cast<utf8proc_int32_t>(c));
  } else {
    out->insert(out->end(), parts, parts + size);
  }
}

int CombiningClass(utf8proc_int32_t c) {
  if (c < 0x300 || IsUnknownToNormalizers(static_cast<char32_t>(c))) return 0;
  return utf8proc_get_property(c)->combining_class;
}

// Sorts each run of marks by combining class, keeping the order within a class.
void SortMarks(CodePoints* code_points) {
  const auto is_starter = [](utf8proc_int32_t c) { return CombiningClass(c) == 0; };
  for (auto run = code_points->begin(); run != code_points->end();) {
    run = std::find_if_not(run, code_points->end(), is_starter);
    const auto end = std::find_if(run, code_points->end(), is_starter);
    if (end - run > 1) {
      std::stable_sort(run, end,
                       [](utf8proc_int32_t a, utf8proc_int32_t b) { return CombiningClass(a) < CombiningClass(b); });
    }
    run = end;
  }
}

// Composes the parts between characters that the reference does not know, since it never composes across those.
void Compose(CodePoints* code_points) {
  const auto is_unknown = [](utf8proc_int32_t c) { return IsUnknownToNormalizers(static_cast<char32_t>(c)); };
  CodePoints composed;
  composed.reserve(code_points->size());
  for (auto part = code_points->begin(); part != code_points->end();) {
    const auto end = std::find_if(part, code_points->end(), is_unknown);
    CodePoints buffer(part, end);
    const utf8proc_ssize_t size =
        utf8proc_normalize_utf32(buffer.data(), static_cast<utf8proc_ssize_t>(buffer.size()),
                                 static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    composed.insert(composed.end(), buffer.begin(), buffer.begin() + size);
    if (end != code_points->end()) composed.push_back(*end);
    part = end == code_points->end() ? end : end + 1;
  }
  code_points->swap(composed);
}

}  // namespace

std::string Normalize(std::string_view text, NormalForm form) {
  if (IsInert(text, form)) return std::string(text);
  CodePoints code_points;
  code_points.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) AppendDecomposed(NextCodePoint(text, &pos), form, &code_points);
  SortMarks(&code_points);
  if (form.compose) Compose(&code_points);
  std::string normalized;
  normalized.reserve(text.size());
  for (const utf8proc_int32_t c : code_points) AppendUtf8(static_cast<char32_t>(c), &normalized);
  return normalized;
}

}  // namespace switchyard
