#include "engine/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/tokenizer/normal_form.h"
#include "engine/tokenizer/pattern.h"
#include "engine/tokenizer/precompiled.h"
#include "engine/tokenizer/unicode.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

using StepOrStatus = absl::StatusOr<std::unique_ptr<const NormalizerStep>>;

// Number of characters in valid UTF-8.
size_t CountCharacters(std::string_view text) {
  size_t count = 0;
  for (size_t pos = 0; pos < text.size(); pos += Utf8Length(text[pos])) ++count;
  return count;
}

// Length in bytes of the first `count` characters, or of all.
size_t BytesOfCharacters(std::string_view text, size_t count) {
  size_t pos = 0;
  for (; count > 0 && pos < text.size(); --count) pos += Utf8Length(text[pos]);
  return pos;
}

class NormalFormStep : public NormalizerStep {
 public:
  explicit NormalFormStep(NormalForm form) : form_(form) {}
  absl::Status Apply(Piece* piece, size_t /*max_bytes*/) const override {
    const size_t characters_at_start = CountCharacters(Normalize(piece->text.substr(0, piece->at_start), form_));
    piece->text = Normalize(piece->text, form_);
    piece->at_start = BytesOfCharacters(piece->text, characters_at_start);
    return absl::OkStatus();
  }

 private:
  NormalForm form_;
};

class PrependStep : public NormalizerStep {
 public:
  explicit PrependStep(std::string prefix) : prefix_(std::move(prefix)) {}
  absl::Status Apply(Piece* piece, size_t max_bytes) const override {
    if (piece->text.empty()) return absl::OkStatus();
    RETURN_IF_ERROR(CheckGrowth(piece->text.size(), 1, prefix_.size(), max_bytes));
    piece->text.insert(0, prefix_);
    if (piece->at_start > 0) piece->at_start += prefix_.size();
    return absl::OkStatus();
  }

 private:
  std::string prefix_;
};

class ReplaceStep : public NormalizerStep {
 public:
  ReplaceStep(Pattern pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  absl::Status Apply(Piece* piece, size_t max_bytes) const override {
    if (piece->text.empty()) return absl::OkStatus();
    std::vector<Span> matches;
    RETURN_IF_ERROR(pattern_.FindAll(piece->text, &matches));
    if (matches.empty()) return absl::OkStatus();
    RETURN_IF_ERROR(CheckGrowth(piece->text.size(), matches.size(), content_.size(), max_bytes));
    const std::string text = std::move(piece->text);
    const size_t old_at_start = piece->at_start;
    piece->text.clear();
    piece->at_start = 0;
    size_t copied = 0;
    // Replaced text counts as stemming from the last character of what it replaces.
    const auto append = [piece](std::string_view part, size_t num_at_start) {
      if (piece->at_start == piece->text.size()) piece->at_start += num_at_start;
      piece->text.append(part);
    };
    const auto copy_until = [&](size_t end) {
      append(std::string_view(text).substr(copied, end - copied),
             std::min(std::max(old_at_start, copied), end) - copied);
    };
    for (const Span& match : matches) {
      copy_until(match.begin);
      append(content_, old_at_start > 0 && match.end <= old_at_start ? content_.size() : 0);
      copied = match.end;
    }
    copy_until(text.size());
    return absl::OkStatus();
  }

 private:
  Pattern pattern_;
  std::string content_;
};

// Rewrites each character on its own.
class PerCharacterStep : public NormalizerStep {
 public:
  absl::Status Apply(Piece* piece, size_t /*max_bytes*/) const override {
    std::string rewritten;
    rewritten.reserve(piece->text.size());
    size_t at_start = 0;
    for (size_t pos = 0; pos < piece->text.size();) {
      Rewrite(NextCodePoint(piece->text, &pos), &rewritten);
      if (pos <= piece->at_start) at_start = rewritten.size();
    }
    piece->text = std::move(rewritten);
    piece->at_start = at_start;
    return absl::OkStatus();
  }

 private:
  virtual void Rewrite(char32_t c, std::string* out) const = 0;
};

class LowercaseStep : public PerCharacterStep {
  void Rewrite(char32_t c, std::string* out) const override {
    if (c == 0x130) {  // the only character whose lower case is two characters
      out->append("i\xCC\x87");
    } else {
      AppendUtf8(static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))), out);
    }
  }
};

class StripAccentsStep : public PerCharacterStep {
  void Rewrite(char32_t c, std::string* out) const override {
    if (!IsCombiningMark(c)) AppendUtf8(c, out);
  }
};

class StripStep : public NormalizerStep {
 public:
  StripStep(bool left, bool right) : left_(left), right_(right) {}
  absl::Status Apply(Piece* piece, size_t /*max_bytes*/) const override {
    const std::string& text = piece->text;
    size_t begin = 0;
    size_t end = text.size();
    size_t last_kept = 0;  // behind the last character that is no space
    bool leading = true;
    for (size_t pos = 0; pos < text.size();) {
      const bool space = IsWhitespace(NextCodePoint(text, &pos));
      if (!space) last_kept = pos;
      leading = leading && space;
      if (leading) begin = pos;
    }
    if (!left_) begin = 0;
    if (right_) end = std::max(begin, last_kept);
    piece->text = text.substr(begin, end - begin);
    piece->at_start = std::min(piece->at_start - std::min(piece->at_start, begin), piece->text.size());
    return absl::OkStatus();
  }

 private:
  bool left_;
  bool right_;
};

template <bool kCompose, bool kCompatible>
StepOrStatus MakeNormalForm(const JsonField&) {
  return std::make_unique<NormalFormStep>(NormalForm{kCompose, kCompatible});
}

StepOrStatus MakePrepend(const JsonField& field) {
  ASSIGN_OR_RETURN(auto prefix, field.Member("prepend").String());
  return std::make_unique<PrependStep>(std::move(prefix));
}

StepOrStatus MakeReplace(const JsonField& field) {
  ASSIGN_OR_RETURN(auto pattern, Pattern::Parse(field.Member("pattern")));
  ASSIGN_OR_RETURN(auto content, field.Member("content").String());
  return std::make_unique<ReplaceStep>(std::move(pattern), std::move(content));
}

StepOrStatus MakeStrip(const JsonField& field) {
  ASSIGN_OR_RETURN(auto left, field.Member("strip_left").Bool());
  ASSIGN_OR_RETURN(auto right, field.Member("strip_right").Bool());
  return std::make_unique<StripStep>(left, right);
}

template <typename Step>
StepOrStatus MakePlain(const JsonField&) {
  return std::make_unique<Step>();
}

struct Kind {
  const char* type;
  StepOrStatus (*make)(const JsonField& field);
};

constexpr Kind kKinds[] = {
    {"NFC", MakeNormalForm<true, false>},
    {"NFD", MakeNormalForm<false, false>},
    {"NFKC", MakeNormalForm<true, true>},
    {"NFKD", MakeNormalForm<false, true>},
    {"Prepend", MakePrepend},
    {"Replace", MakeReplace},
    {"Lowercase", MakePlain<LowercaseStep>},
    {"Strip", MakeStrip},
    {"StripAccents", MakePlain<StripAccentsStep>},
    {"Precompiled", MakePrecompiled},
};

}  // namespace

absl::StatusOr<Normalizer> Normalizer::Create(const JsonField& field) {
  ASSIGN_OR_RETURN(auto parts, ListParts(field, "normalizers"));
  Normalizer normalizer;
  for (const JsonField& part : parts) {
    ASSIGN_OR_RETURN(auto step, MakePart<std::unique_ptr<const NormalizerStep>>(part, kKinds));
    normalizer.steps_.push_back(std::move(step));
  }
  return normalizer;
}

absl::Status Normalizer::Apply(Piece* piece) const {
  // No step that is any use grows a text more than this: the longest compatibility form is 11 times its character.
  const size_t max_bytes = std::min(kMaxTextBytes, 4096 + 32 * piece->text.size());
  for (const auto& step : steps_) {
    RETURN_IF_ERROR(step->Apply(piece, max_bytes));
    RETURN_IF_ERROR(CheckGrowth(piece->text.size(), 0, 0, max_bytes));
  }
  return absl::OkStatus();
}

}  // namespace switchyard
