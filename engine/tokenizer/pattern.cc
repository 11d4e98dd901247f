#include "engine/tokenizer/pattern.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/tokenizer/json_field.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {

absl::StatusOr<Pattern> Pattern::Parse(const JsonField& field) {
  if (const JsonField literal = field.Member("String"); !literal.IsNull()) {
    ASSIGN_OR_RETURN(auto text, literal.String());
    return FromLiteral(std::move(text));
  }
  const JsonField expression = field.Member("Regex");
  if (expression.IsNull()) return field.Error("must be {\"String\": ...} or {\"Regex\": ...}");
  ASSIGN_OR_RETURN(auto text, expression.String());
  auto pattern = FromRegex(text);
  if (!pattern.ok())
    return expression.Error(absl::StrCat("is no usable regular expression: ", std::string(pattern.status().message())));
  return pattern;
}

absl::StatusOr<Pattern> Pattern::FromRegex(const std::string& oniguruma_pattern) {
  ASSIGN_OR_RETURN(auto regex, Regex::Compile(oniguruma_pattern));
  Pattern pattern;
  pattern.regex_ = std::move(regex);
  return pattern;
}

Pattern Pattern::FromLiteral(std::string text) {
  Pattern pattern;
  if (text.empty()) pattern.regex_ = *Regex::Compile("");  // matches between all characters, like the reference's
  pattern.literal_ = std::move(text);
  return pattern;
}

absl::Status Pattern::FindAll(std::string_view text, std::vector<Span>* matches) const {
  if (regex_) return regex_->FindAll(text, matches);
  for (size_t pos = text.find(literal_); pos != std::string_view::npos;
       pos = text.find(literal_, pos + literal_.size())) {
    matches->push_back({pos, pos + literal_.size()});
  }
  return absl::OkStatus();
}

absl::Status Pattern::ReplaceAll(std::string_view text, std::string_view replacement, size_t max_bytes,
                                 std::string* out) const {
  if (text.empty()) return absl::OkStatus();  // the reference does not look for empty matches in an empty text
  std::vector<Span> matches;
  RETURN_IF_ERROR(FindAll(text, &matches));
  RETURN_IF_ERROR(CheckGrowth(text.size(), matches.size(), replacement.size(), max_bytes));
  size_t copied = 0;
  for (const Span& match : matches) {
    out->append(text, copied, match.begin - copied);
    out->append(replacement);
    copied = match.end;
  }
  out->append(text, copied, text.size() - copied);
  return absl::OkStatus();
}

bool Pattern::IsOneCharacter() const { return !regex_ && Utf8Length(literal_[0]) == literal_.size(); }

absl::Status CheckGrowth(size_t text_bytes, size_t num_added, size_t added_bytes, size_t max_bytes) {
  // Divides, because the product may overflow.
  const bool fits =
      text_bytes <= max_bytes && (num_added == 0 || added_bytes <= (max_bytes - text_bytes) / num_added);
  if (fits) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("a step of the tokenizer adds ", num_added, " times ", added_bytes,
                                                 " bytes to a text of ", text_bytes, "; the limit is ", max_bytes));
}

}  // namespace switchyard
