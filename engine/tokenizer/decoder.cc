#include "engine/tokenizer/decoder.h"

#include <optional>
#include <utility>

#include "engine/base/status_macros.h"
#include "engine/tokenizer/byte_level.h"
#include "engine/tokenizer/metaspace.h"
#include "engine/tokenizer/pattern.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

using KindOrStatus = absl::StatusOr<Decoder::StepKind>;
using Tokens = std::vector<std::string>;

// Puts a space between tokens: what the reference does where a file names no decoder.
class SpaceStep : public DecoderStep {
 public:
  void Push(std::string_view token, Tokens* out) override {
    out->push_back(first_ ? std::string(token) : " " + std::string(token));
    first_ = false;
  }

 private:
  bool first_ = true;
};

class FuseStep : public DecoderStep {
  void Push(std::string_view token, Tokens* out) override { out->emplace_back(token); }
};

class ByteLevelStep : public DecoderStep {
 public:
  void Push(std::string_view token, Tokens* out) override {
    std::string text;
    utf8_.Push(BytesOfByteLevel(token).value_or(std::string(token)), &text);
    out->push_back(std::move(text));
  }
  void Flush(Tokens* out) override {
    std::string text;
    utf8_.Flush(&text);
    out->push_back(std::move(text));
  }

 private:
  LossyUtf8 utf8_;
};

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// "<0x41>" -> 0x41. The reference also reads "<0x+5>".
std::optional<char> ByteOfToken(std::string_view token) {
  if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return std::nullopt;
  const int high = token[3] == '+' ? 0 : HexDigit(token[3]);
  const int low = HexDigit(token[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<char>(high * 16 + low);
}

class ByteFallbackStep : public DecoderStep {
 public:
  void Push(std::string_view token, Tokens* out) override {
    if (const auto byte = ByteOfToken(token)) {
      run_.push_back(*byte);
      return;
    }
    Flush(out);
    out->emplace_back(token);
  }
  void Flush(Tokens* out) override {
    if (run_.empty()) return;
    if (FindInvalidUtf8(run_) == std::string::npos) {
      out->push_back(run_);
    } else {
      out->insert(out->end(), run_.size(), "\xEF\xBF\xBD");
    }
    run_.clear();
  }

 private:
  std::string run_;
};

// Gives `inner` the whole text at once: for a step that looks at all of a token, when all tokens are one.
class WholeTextStep : public DecoderStep {
 public:
  explicit WholeTextStep(std::unique_ptr<DecoderStep> inner) : inner_(std::move(inner)) {}
  void Push(std::string_view token, Tokens*) override { text_.append(token); }
  void Flush(Tokens* out) override {
    inner_->Push(text_, out);
    inner_->Flush(out);
  }

 private:
  std::unique_ptr<DecoderStep> inner_;
  std::string text_;
};

// The text as it is where the expression gives up or the result would be absurdly long.
std::string Replaced(const Pattern& pattern, const std::string& content, std::string_view text) {
  constexpr size_t kMaxBytes = size_t{16} << 20;
  std::string replaced;
  if (!pattern.ReplaceAll(text, content, kMaxBytes, &replaced).ok()) return std::string(text);
  return replaced;
}

class ReplaceStep : public DecoderStep {
 public:
  ReplaceStep(const Pattern* pattern, const std::string* content) : pattern_(pattern), content_(content) {}
  void Push(std::string_view token, Tokens* out) override { out->push_back(Replaced(*pattern_, *content_, token)); }

 private:
  const Pattern* pattern_;
  const std::string* content_;
};

class MetaspaceStep : public DecoderStep {
 public:
  MetaspaceStep(const Metaspace* options, bool joined) : options_(options), joined_(joined) {}
  void Push(std::string_view token, Tokens* out) override {
    const bool drop = first_ && options_->prepend != Metaspace::Prepend::kNever;
    out->push_back(Replaced(Pattern::FromLiteral(options_->replacement), drop ? "" : " ", token));
    first_ = first_ && joined_;
  }

 private:
  const Metaspace* options_;
  bool joined_;
  bool first_ = true;
};

struct StripOptions {
  std::string content;  // one character
  size_t start;         // how many of it to take off at the start
  size_t stop;
};

class StripStep : public DecoderStep {
 public:
  StripStep(const StripOptions* options, bool joined) : options_(options), joined_(joined) {}
  void Push(std::string_view token, Tokens* out) override {
    std::string kept;
    for (size_t pos = 0; pos < token.size();) {
      const size_t length = Utf8Length(token[pos]);
      Character(token.substr(pos, length), &kept);
      pos += length;
    }
    out->push_back(std::move(kept));
    if (!joined_) {  // the next token is a text of its own
      at_start_ = true;
      num_stripped_ = num_held_ = 0;
    }
  }

 private:
  void Character(std::string_view character, std::string* kept) {
    const bool is_content = character == options_->content;
    if (is_content && at_start_ && num_stripped_ < options_->start) {
      ++num_stripped_;
      return;
    }
    at_start_ = false;
    if (is_content && num_held_ < options_->stop) {
      ++num_held_;  // comes out only if something else follows
      return;
    }
    if (!is_content) {
      for (; num_held_ > 0; --num_held_) kept->append(options_->content);
    }
    kept->append(character);
  }

  const StripOptions* options_;
  bool joined_;
  bool at_start_ = true;
  size_t num_stripped_ = 0;
  size_t num_held_ = 0;
};

template <typename Step>
std::unique_ptr<DecoderStep> MakeWhole(bool joined, std::unique_ptr<Step> step) {
  if (!joined) return step;
  return std::make_unique<WholeTextStep>(std::move(step));
}

std::string SameText(const std::string& token, bool) { return token; }

KindOrStatus MakeByteLevel(const JsonField&) {
  return Decoder::StepKind{
      [](bool joined) { return MakeWhole(joined, std::make_unique<ByteLevelStep>()); },
      [](const std::string& token, bool) { return BytesOfByteLevel(token).value_or(token); },
      /*joins=*/true,
  };
}

KindOrStatus MakeByteFallback(const JsonField&) {
  return Decoder::StepKind{
      [](bool joined) { return MakeWhole(joined, std::make_unique<ByteFallbackStep>()); },
      [](const std::string& token, bool) {
        const auto byte = ByteOfToken(token);
        return byte ? std::string(1, *byte) : token;
      },
  };
}

KindOrStatus MakeFuse(const JsonField&) {
  return Decoder::StepKind{[](bool) { return std::make_unique<FuseStep>(); }, SameText, /*joins=*/true};
}

KindOrStatus MakeReplace(const JsonField& field) {
  ASSIGN_OR_RETURN(auto pattern, Pattern::Parse(field.Member("pattern")));
  ASSIGN_OR_RETURN(auto content, field.Member("content").String());
  struct Options {
    Pattern pattern;
    std::string content;
  };
  const auto options = std::make_shared<const Options>(Options{std::move(pattern), std::move(content)});
  return Decoder::StepKind{
      [options](bool joined) {
        const bool whole = joined && !options->pattern.IsOneCharacter();
        return MakeWhole(whole, std::make_unique<ReplaceStep>(&options->pattern, &options->content));
      },
      [options](const std::string& token, bool) { return Replaced(options->pattern, options->content, token); },
  };
}

KindOrStatus MakeMetaspace(const JsonField& field) {
  ASSIGN_OR_RETURN(auto parsed, Metaspace::Parse(field));
  const auto options = std::make_shared<const Metaspace>(std::move(parsed));
  return Decoder::StepKind{
      [options](bool joined) { return std::make_unique<MetaspaceStep>(options.get(), joined); },
      [options](const std::string& token, bool) {
        return Replaced(Pattern::FromLiteral(options->replacement), " ", token);
      },
  };
}

KindOrStatus MakeStrip(const JsonField& field) {
  constexpr int32_t kMaxStrip = 1 << 20;
  ASSIGN_OR_RETURN(auto content, field.Member("content").Character());
  ASSIGN_OR_RETURN(auto start, field.Member("start").Int(0, kMaxStrip));
  ASSIGN_OR_RETURN(auto stop, field.Member("stop").Int(0, kMaxStrip));
  auto options =
      std::make_shared<StripOptions>(StripOptions{"", static_cast<size_t>(start), static_cast<size_t>(stop)});
  AppendUtf8(content, &options->content);
  return Decoder::StepKind{
      [options](bool joined) { return std::make_unique<StripStep>(options.get(), joined); },
      [options](const std::string& token, bool joined) {
        if (joined) return token;  // it cuts the ends of the whole text, not of this token
        Tokens out;
        StripStep(options.get(), /*joined=*/false).Push(token, &out);
        return out[0];
      },
  };
}

struct Kind {
  const char* type;
  KindOrStatus (*make)(const JsonField& field);
};

constexpr Kind kKinds[] = {
    {"ByteLevel", MakeByteLevel}, {"Replace", MakeReplace}, {"ByteFallback", MakeByteFallback},
    {"Fuse", MakeFuse},           {"Strip", MakeStrip},     {"Metaspace", MakeMetaspace},
};

}  // namespace

void DecoderStream::Push(std::string_view token, std::string* text) { RunFrom(0, {std::string(token)}, text); }

void DecoderStream::Flush(std::string* text) {
  for (size_t i = 0; i < steps_.size(); ++i) {
    Tokens rest;
    steps_[i]->Flush(&rest);
    RunFrom(i + 1, std::move(rest), text);
  }
}

void DecoderStream::RunFrom(size_t step, Tokens tokens, std::string* text) {
  for (size_t i = step; i < steps_.size(); ++i) {
    Tokens next;
    for (const std::string& token : tokens) steps_[i]->Push(token, &next);
    tokens = std::move(next);
  }
  for (const std::string& token : tokens) text->append(token);
}

absl::StatusOr<Decoder> Decoder::Create(const JsonField& field) {
  Decoder decoder;
  if (field.IsNull()) {
    decoder.kinds_.push_back({[](bool) { return std::make_unique<SpaceStep>(); }, SameText});
    return decoder;
  }
  ASSIGN_OR_RETURN(auto parts, ListParts(field, "decoders"));
  for (const JsonField& part : parts) {
    ASSIGN_OR_RETURN(auto kind, MakePart<StepKind>(part, kKinds));
    decoder.kinds_.push_back(std::move(kind));
  }
  return decoder;
}

DecoderStream Decoder::NewStream() const {
  std::vector<std::unique_ptr<DecoderStep>> steps;
  bool joined = false;
  for (const StepKind& kind : kinds_) {
    steps.push_back(kind.make(joined));
    joined = joined || kind.joins;
  }
  return DecoderStream(std::move(steps));
}

std::string Decoder::TokenText(const std::string& token) const {
  std::string text = token;
  bool joined = false;
  for (const StepKind& kind : kinds_) {
    if (FindInvalidUtf8(text) != std::string::npos) break;  // bytes of a character: the other steps take text
    text = kind.text_of(text, joined);
    joined = joined || kind.joins;
  }
  return text;
}

}  // namespace switchyard
