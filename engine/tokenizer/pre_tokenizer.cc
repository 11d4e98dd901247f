#include "engine/tokenizer/pre_tokenizer.h"

#include <optional>
#include <string>
#include <utility>

#include "engine/base/status_macros.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/metaspace.h"
#include "engine/tokenizer/pattern.h"
#include "engine/tokenizer/splitting.h"
#include "engine/tokenizer/unicode.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

using StepOrStatus = absl::StatusOr<std::unique_ptr<const PreTokenizerStep>>;

// GPT-2's words, from https://github.com/openai/gpt-2 (encoder.py).
constexpr char kGpt2Words[] = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

void Prepend(const std::string& prefix, Piece* piece) {
  piece->text.insert(0, prefix);
  if (piece->at_start > 0) piece->at_start += prefix.size();
}

class SplitStep : public PreTokenizerStep {
 public:
  SplitStep(Pattern pattern, SplitBehavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  absl::Status Split(Piece piece, std::vector<Piece>* out) const override {
    std::vector<Span> matches;
    RETURN_IF_ERROR(pattern_.FindAll(piece.text, &matches));
    SplitAt(piece, matches, behavior_, invert_, out);
    return absl::OkStatus();
  }

 private:
  Pattern pattern_;
  SplitBehavior behavior_;
  bool invert_;
};

// Splits at every character of a class.
class CharacterStep : public PreTokenizerStep {
 public:
  CharacterStep(bool (*is_match)(char32_t), SplitBehavior behavior) : is_match_(is_match), behavior_(behavior) {}
  absl::Status Split(Piece piece, std::vector<Piece>* out) const override {
    std::vector<Span> matches;
    for (size_t pos = 0; pos < piece.text.size();) {
      const size_t begin = pos;
      if (is_match_(NextCodePoint(piece.text, &pos))) matches.push_back({begin, pos});
    }
    SplitAt(piece, matches, behavior_, /*invert=*/false, out);
    return absl::OkStatus();
  }

 private:
  bool (*is_match_)(char32_t);
  SplitBehavior behavior_;
};

class ByteLevelStep : public PreTokenizerStep {
 public:
  ByteLevelStep(bool add_prefix_space, std::optional<Regex> words)
      : add_prefix_space_(add_prefix_space), words_(std::move(words)) {}
  absl::Status Split(Piece piece, std::vector<Piece>* out) const override {
    if (add_prefix_space_ && piece.text[0] != ' ') Prepend(" ", &piece);
    std::vector<Piece> parts;
    if (words_) {
      std::vector<Span> matches;
      RETURN_IF_ERROR(words_->FindAll(piece.text, &matches));
      SplitAt(piece, matches, SplitBehavior::kIsolated, /*invert=*/false, &parts);
    } else {
      parts.push_back(std::move(piece));
    }
    for (const Piece& part : parts) out->push_back(Encode(part));
    return absl::OkStatus();
  }

 private:
  static Piece Encode(const Piece& part) {
    Piece encoded;
    AppendByteLevel(std::string_view(part.text).substr(0, part.at_start), &encoded.text);
    encoded.at_start = encoded.text.size();
    AppendByteLevel(std::string_view(part.text).substr(part.at_start), &encoded.text);
    return encoded;
  }

  bool add_prefix_space_;
  std::optional<Regex> words_;
};

class MetaspaceStep : public PreTokenizerStep {
 public:
  explicit MetaspaceStep(Metaspace options)
      : options_(std::move(options)), separator_(Pattern::FromLiteral(options_.replacement)) {}
  absl::Status Split(Piece piece, std::vector<Piece>* out) const override {
    ReplaceSpaces(&piece);
    const bool wanted = options_.prepend == Metaspace::Prepend::kAlways ||
                        (options_.prepend == Metaspace::Prepend::kFirst && piece.at_start > 0);
    if (wanted && piece.text.rfind(options_.replacement, 0) != 0) Prepend(options_.replacement, &piece);
    if (!options_.split) {
      out->push_back(std::move(piece));
      return absl::OkStatus();
    }
    std::vector<Span> matches;
    const absl::Status status = separator_.FindAll(piece.text, &matches);
    SplitAt(piece, matches, SplitBehavior::kMergedWithNext, /*invert=*/false, out);
    return status;
  }

 private:
  void ReplaceSpaces(Piece* piece) const {
    Piece replaced;
    for (size_t i = 0; i < piece->text.size(); ++i) {
      if (i == piece->at_start) replaced.at_start = replaced.text.size();
      if (piece->text[i] == ' ') {
        replaced.text += options_.replacement;
      } else {
        replaced.text.push_back(piece->text[i]);
      }
    }
    if (piece->at_start == piece->text.size()) replaced.at_start = replaced.text.size();
    *piece = std::move(replaced);
  }

  Metaspace options_;
  Pattern separator_;
};

StepOrStatus MakeSplit(const JsonField& field) {
  ASSIGN_OR_RETURN(auto pattern, Pattern::Parse(field.Member("pattern")));
  ASSIGN_OR_RETURN(auto behavior, ParseSplitBehavior(field.Member("behavior")));
  ASSIGN_OR_RETURN(auto invert, field.Member("invert").BoolOr(false));
  return std::make_unique<SplitStep>(std::move(pattern), behavior, invert);
}

StepOrStatus MakeByteLevel(const JsonField& field) {
  ASSIGN_OR_RETURN(auto add_prefix_space, field.Member("add_prefix_space").Bool());
  ASSIGN_OR_RETURN(auto use_regex, field.Member("use_regex").BoolOr(true));
  std::optional<Regex> words;
  if (use_regex) {
    ASSIGN_OR_RETURN(auto compiled, Regex::Compile(kGpt2Words));
    words = std::move(compiled);
  }
  return std::make_unique<ByteLevelStep>(add_prefix_space, std::move(words));
}

StepOrStatus MakeMetaspace(const JsonField& field) {
  ASSIGN_OR_RETURN(auto options, Metaspace::Parse(field));
  return std::make_unique<MetaspaceStep>(std::move(options));
}

StepOrStatus MakeDigits(const JsonField& field) {
  ASSIGN_OR_RETURN(auto individual, field.Member("individual_digits").Bool());
  return std::make_unique<CharacterStep>(IsNumeric, individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous);
}

StepOrStatus MakePunctuation(const JsonField& field) {
  if (field.Member("behavior").IsNull())
    return std::make_unique<CharacterStep>(IsPunctuation, SplitBehavior::kIsolated);
  ASSIGN_OR_RETURN(auto behavior, ParseSplitBehavior(field.Member("behavior")));
  return std::make_unique<CharacterStep>(IsPunctuation, behavior);
}

StepOrStatus MakeWhitespaceSplit(const JsonField&) {
  return std::make_unique<CharacterStep>(IsWhitespace, SplitBehavior::kRemoved);
}

// Runs of word characters and runs of anything else but spaces.
StepOrStatus MakeWhitespace(const JsonField&) {
  ASSIGN_OR_RETURN(auto regex, Pattern::FromRegex(R"([[:word:]\u200c\u200d]+|[^[:word:]\u200c\u200d\s]+)"));
  return std::make_unique<SplitStep>(std::move(regex), SplitBehavior::kRemoved, /*invert=*/true);
}

struct Kind {
  const char* type;
  StepOrStatus (*make)(const JsonField& field);
};

constexpr Kind kKinds[] = {
    {"Split", MakeSplit},
    {"ByteLevel", MakeByteLevel},
    {"Digits", MakeDigits},
    {"Metaspace", MakeMetaspace},
    {"Punctuation", MakePunctuation},
    {"Whitespace", MakeWhitespace},
    {"WhitespaceSplit", MakeWhitespaceSplit},
};

}  // namespace

absl::StatusOr<PreTokenizer> PreTokenizer::Create(const JsonField& field) {
  ASSIGN_OR_RETURN(auto parts, ListParts(field, "pretokenizers"));
  PreTokenizer pre_tokenizer;
  for (const JsonField& part : parts) {
    ASSIGN_OR_RETURN(auto step, MakePart<std::unique_ptr<const PreTokenizerStep>>(part, kKinds));
    pre_tokenizer.steps_.push_back(std::move(step));
  }
  return pre_tokenizer;
}

absl::Status PreTokenizer::Apply(std::vector<Piece>* pieces) const {
  for (const auto& step : steps_) {
    std::vector<Piece> parts;
    parts.reserve(pieces->size());
    for (Piece& piece : *pieces) {
      if (piece.token >= 0) {
        parts.push_back(std::move(piece));
      } else
        RETURN_IF_ERROR(step->Split(std::move(piece), &parts));
    }
    pieces->swap(parts);
  }
  return absl::OkStatus();
}

}  // namespace switchyard
