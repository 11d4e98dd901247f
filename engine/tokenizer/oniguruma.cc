#include "engine/tokenizer/oniguruma.h"

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/tokenizer/oniguruma_names.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

constexpr size_t kNone = std::string::npos;
constexpr int kMaxClassDepth = 8;
constexpr size_t kMaxGroupDepth = 100;
constexpr int kMaxRepeat = 1000;  // keeps the compiled pattern small; the files in the wild use at most 4

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsLetter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

int HexValue(char c) {
  if (IsDigit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::string Literal(char32_t c) {
  if (c < 0x80 && (IsLetter(static_cast<char>(c)) || IsDigit(static_cast<char>(c))))
    return std::string(1, static_cast<char>(c));
  return absl::StrCat("\\x{", absl::Hex(static_cast<uint32_t>(c)), "}");
}

std::string Bracket(const CharacterSet& set) { return absl::StrCat(set.negated ? "[^" : "[", set.members, "]"); }

class Translator {
 public:
  explicit Translator(const std::string& pattern) : in_(pattern) {}

  absl::StatusOr<std::string> Run() {
    groups_.push_back({});
    while (pos_ < in_.size() && status_.ok()) Step();
    if (status_.ok() && groups_.size() != 1) Fail("unclosed group");
    if (!status_.ok()) return status_;
    out_.append(groups_.back().extra_closes, ')');
    return RunGuard() + out_;
  }

 private:
  struct Group {
    size_t start = 0;         // where it begins in out_
    size_t extra_closes = 0;  // one for each (?i) inside, which becomes (?i:...)
  };

  // A pattern like \s+$ would look at a long run of spaces once for each start in it: quadratic. But what does not
  // match from the start of a run of X does not match from later in the run either, so "X+..." may skip those.
  std::string RunGuard() const {
    if (first_class_.empty() || !first_class_runs_ || has_alternatives_) return "";
    return absl::StrCat("(?:\\G|(?<!", first_class_, "))");
  }

  void EmitClass(const std::string& text) {
    if (out_.empty()) first_class_ = text;
    EmitAtom(text);
  }

  bool At(char c, size_t ahead = 0) const { return pos_ + ahead < in_.size() && in_[pos_ + ahead] == c; }
  bool AtText(std::string_view text) const { return std::string_view(in_).substr(pos_, text.size()) == text; }

  void Fail(const std::string& what) {
    if (status_.ok()) status_ = absl::InvalidArgumentError(absl::StrCat(what, " at byte ", pos_));
  }

  void EmitAtom(const std::string& text) {
    atom_start_ = out_.size();
    atom_is_repeated_ = false;
    out_ += text;
  }

  void EmitMark(size_t length) {  // no atom: nothing to repeat
    out_.append(in_, pos_, length);
    pos_ += length;
    atom_start_ = kNone;
  }

  void Step() {
    switch (in_[pos_]) {
      case '\\':
        return Escape();
      case '[':
        return Class();
      case '(':
        return OpenGroup();
      case ')':
        return CloseGroup();
      case '|':
        has_alternatives_ = has_alternatives_ || groups_.size() == 1;
        return EmitMark(1);
      case '^':
      case '$':
        return EmitMark(1);
      case '.':
        ++pos_;
        return EmitAtom(".");
      case '*':
      case '+':
      case '?':
        return Repeat(std::string(1, in_[pos_++]), /*interval=*/false, false);
      case '{':
        return Interval();
      default:
        return EmitAtom(Literal(NextCodePoint(in_, &pos_)));
    }
  }

  // Outside of a class -------------------------------------------------------------------------------------------

  void Escape() {
    if (pos_ + 1 >= in_.size()) return Fail("backslash at the end");
    const char c = in_[pos_ + 1];
    if (c == 'A' || c == 'z' || c == 'Z') return EmitMark(2);
    if (c == 'K' || c == 'R') return pos_ += 2, EmitAtom(c == 'K' ? "\\K" : "\\R");
    if (c == 'b' || c == 'B') return WordBoundary(c == 'B');
    if (c >= '1' && c <= '9') return BackReference();
    if (auto set = ReadEscapedSet(/*inside_class=*/false)) return EmitClass(Bracket(*set));
    if (auto literal = ReadEscapedLiteral()) return EmitAtom(Literal(*literal));
  }

  void WordBoundary(bool negated) {
    const std::string word = Bracket(*EscapedSet('w', false));
    EmitAtom(negated ? absl::StrCat("(?:(?<=", word, ")(?=", word, ")|(?<!", word, ")(?!", word, "))")
                     : absl::StrCat("(?:(?<=", word, ")(?!", word, ")|(?<!", word, ")(?=", word, "))"));
    pos_ += 2;
  }

  void BackReference() {
    if (pos_ + 2 < in_.size() && IsDigit(in_[pos_ + 2])) return Fail("back-reference above 9");
    EmitAtom(absl::StrCat("\\g{", std::string(1, in_[pos_ + 1]), "}"));
    pos_ += 2;
  }

  void OpenGroup() {
    if (groups_.size() > kMaxGroupDepth) return Fail("groups nested too deep");
    for (const std::string_view plain : {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"}) {
      if (AtText(plain)) return PushGroup(std::string(plain), plain.size());
    }
    if (AtText("(?#")) return Comment();
    if (AtText("(?<")) return NamedGroup();
    if (AtText("(?")) return Options();
    PushGroup("(", 1);
  }

  void PushGroup(const std::string& opening, size_t length) {
    groups_.push_back({out_.size(), 0});
    out_ += opening;
    pos_ += length;
    atom_start_ = kNone;
  }

  void Comment() {
    const size_t end = in_.find(')', pos_);
    if (end == kNone) return Fail("unclosed comment");
    pos_ = end + 1;
  }

  void NamedGroup() {
    const size_t end = in_.find('>', pos_);
    if (end == kNone) return Fail("unclosed group name");
    PushGroup("(?:", end + 1 - pos_);
  }

  // (?imx-imx:...) and (?imx-imx), which in Ruby's syntax reaches to the end of the group, over any '|'.
  void Options() {
    std::string options;
    size_t end = pos_ + 2;
    for (; end < in_.size() && (in_[end] == 'i' || in_[end] == 'm' || in_[end] == '-'); ++end) {
      options.push_back(in_[end] == 'm' ? 's' : in_[end]);
    }
    if (end >= in_.size() || (in_[end] != ':' && in_[end] != ')')) return Fail("unsupported group \"(?\"");
    const std::string opening = absl::StrCat("(?", options, ":");
    if (in_[end] == ':') return PushGroup(opening, end + 1 - pos_);
    if (++groups_.back().extra_closes > kMaxGroupDepth) return Fail("too many options");
    out_ += opening;
    pos_ = end + 1;
    atom_start_ = kNone;
  }

  void CloseGroup() {
    if (groups_.size() == 1) return Fail("unmatched ')'");
    out_.append(1 + groups_.back().extra_closes, ')');
    atom_start_ = groups_.back().start;
    atom_is_repeated_ = false;
    groups_.pop_back();
    ++pos_;
  }

  // `repeat` was just read. '?' makes it lazy and '+' possessive, but {n} and {n,m} know no possessive form.
  void Repeat(const std::string& repeat, bool interval, bool fixed_count) {
    if (atom_start_ == kNone) return Fail("nothing to repeat");
    if (atom_is_repeated_) WrapAtom();
    const bool is_first = atom_start_ == 0 && out_ == first_class_;
    out_ += repeat;
    atom_is_repeated_ = true;
    if (is_first) first_class_runs_ = repeat == "+" && !At('?');
    if (At('?') && !fixed_count) {
      out_ += '?';
      ++pos_;
    } else if (At('+') && !interval) {
      out_ += '+';
      ++pos_;
    }
  }

  void WrapAtom() {
    if (++num_wraps_ > 1000) return Fail("too many repeats of repeats");
    out_.insert(atom_start_, "(?:");
    out_ += ')';
  }

  void Interval() {
    const size_t start = pos_;
    ++pos_;
    const std::optional<int> low = ReadNumber();
    const bool has_comma = At(',');
    if (has_comma) ++pos_;
    const std::optional<int> high = has_comma ? ReadNumber() : low;
    if (!At('}') || (!low && !high)) {  // not a repeat: a brace that stands for itself
      pos_ = start + 1;
      return EmitAtom(Literal('{'));
    }
    ++pos_;
    if (low.value_or(0) > kMaxRepeat || high.value_or(0) > kMaxRepeat) return Fail("repeat count above 1000");
    if (!has_comma) return Repeat(absl::StrCat("{", *low, "}"), true, /*fixed_count=*/true);
    Repeat(absl::StrCat("{", low.value_or(0), ",", high ? absl::StrCat(*high) : std::string(), "}"), true, false);
  }

  std::optional<int> ReadNumber() {
    if (pos_ >= in_.size() || !IsDigit(in_[pos_])) return std::nullopt;
    int number = 0;
    for (; pos_ < in_.size() && IsDigit(in_[pos_]); ++pos_) number = std::min(number * 10 + (in_[pos_] - '0'), 100000);
    return number;
  }

  // Escapes that mean the same inside and outside of a class -------------------------------------------------------

  // Reads \s, \p{..} and so on; leaves pos_ alone and returns nullopt for any other escape.
  std::optional<CharacterSet> ReadEscapedSet(bool inside_class) {
    const char c = in_[pos_ + 1];
    if (c == 'p' || c == 'P') return ReadProperty();
    auto set = EscapedSet(c, inside_class);
    if (set) pos_ += 2;
    return set;
  }

  std::optional<CharacterSet> ReadProperty() {
    const size_t end = in_.find('}', pos_);
    if (!At('{', 2) || end == kNone) return Fail("\\p without {name}"), std::nullopt;
    const std::string name = in_.substr(pos_ + 3, end - pos_ - 3);
    auto set = NamedSet(name);
    if (!set) return Fail(absl::StrCat("unknown property \\p{", name.substr(0, 64), "}")), std::nullopt;
    if (in_[pos_ + 1] == 'P') set->negated = !set->negated;
    pos_ = end + 1;
    return set;
  }

  std::optional<char32_t> ReadEscapedLiteral() {
    if (!status_.ok()) return std::nullopt;
    const char c = in_[++pos_];
    constexpr std::string_view kNames = "tnrfvae";
    constexpr std::string_view kValues = "\t\n\r\f\v\a\x1b";
    if (const size_t index = kNames.find(c); index != kNone) return ++pos_, kValues[index];
    if (c == 'x') return ++pos_, At('{') ? ReadHexInBraces() : ReadHex(1, 2);
    if (c == 'u') return ++pos_, ReadHex(4, 4);
    if (c == '0') return ReadOctal();
    if (IsLetter(c) || IsDigit(c)) return Fail(absl::StrCat("unsupported escape \\", std::string(1, c))), std::nullopt;
    return NextCodePoint(in_, &pos_);
  }

  std::optional<char32_t> CheckedCodePoint(uint32_t value) {
    if (value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) return Fail("not a character"), std::nullopt;
    return static_cast<char32_t>(value);
  }

  std::optional<char32_t> ReadHex(int min_digits, int max_digits) {
    uint32_t value = 0;
    int digits = 0;
    for (; digits < max_digits && pos_ < in_.size() && HexValue(in_[pos_]) >= 0; ++digits) {
      value = value * 16 + static_cast<uint32_t>(HexValue(in_[pos_++]));
    }
    if (digits < min_digits) return Fail("hexadecimal digits missing"), std::nullopt;
    if (max_digits == 2 && value >= 0x80) return Fail("\\x80 to \\xff are bytes, not characters"), std::nullopt;
    return CheckedCodePoint(value);
  }

  std::optional<char32_t> ReadHexInBraces() {
    ++pos_;
    const auto value = ReadHex(1, 8);
    if (value && !At('}')) return Fail("'}' missing"), std::nullopt;
    ++pos_;
    return value;
  }

  std::optional<char32_t> ReadOctal() {
    uint32_t value = 0;
    for (int i = 0; i < 3 && pos_ < in_.size() && in_[pos_] >= '0' && in_[pos_] <= '7'; ++i)
      value = value * 8 + static_cast<uint32_t>(in_[pos_++] - '0');
    if (value >= 0x80) return Fail("\\200 to \\377 are bytes, not characters"), std::nullopt;
    return value;
  }

  // Classes --------------------------------------------------------------------------------------------------------

  // One side of "&&": members of a plain [...] and whole expressions that match one character each.
  struct Operand {
    std::string members;
    std::vector<std::string> others;
  };

  void Class() {
    const std::string translated = ReadClass(/*depth=*/1);
    if (status_.ok()) EmitClass(translated);
  }

  std::string ReadClass(int depth) {
    if (depth > kMaxClassDepth) return Fail("classes nested too deep"), "";
    ++pos_;
    const bool negated = At('^');
    if (negated) ++pos_;
    std::vector<Operand> operands(1);
    for (bool first = true; status_.ok() && (first || !At(']')); first = false) {
      if (pos_ >= in_.size()) return Fail("unclosed class"), "";
      if (AtText("&&")) {
        operands.emplace_back();
        pos_ += 2;
      } else {
        ReadClassItem(depth, &operands.back());
      }
    }
    ++pos_;
    return status_.ok() ? JoinClass(operands, negated) : "";
  }

  void ReadClassItem(int depth, Operand* operand) {
    if (AtText("[:")) {
      if (ReadPosixSet(operand)) return;
    }
    if (At('[')) {
      operand->others.push_back(ReadClass(depth + 1));
      return;
    }
    if (At('\\') && pos_ + 1 < in_.size()) {
      if (auto set = ReadEscapedSet(/*inside_class=*/true)) return AddSet(*set, operand);
    }
    ReadRange(operand);
  }

  bool ReadPosixSet(Operand* operand) {
    const size_t end = in_.find(":]", pos_);
    if (end == kNone) return false;
    const std::string name = in_.substr(pos_ + 2, end - pos_ - 2);
    std::optional<CharacterSet> set = name == "punct" ? CharacterSet{"\\p{P}\\p{S}", false} : NamedSet(name);
    if (!set) return Fail(absl::StrCat("unknown class [:", name.substr(0, 64), ":]")), true;
    pos_ = end + 2;
    AddSet(*set, operand);
    return true;
  }

  void AddSet(const CharacterSet& set, Operand* operand) {
    if (set.negated) {
      operand->others.push_back(Bracket(set));
    } else {
      operand->members += set.members;
    }
  }

  void ReadRange(Operand* operand) {
    const std::optional<char32_t> low = ReadClassLiteral();
    if (!low) return;
    operand->members += Literal(*low);
    const bool is_range =
        At('-') && pos_ + 1 < in_.size() && in_[pos_ + 1] != ']' && in_[pos_ + 1] != '[' && !IsSetEscape(pos_ + 1);
    if (!is_range) return;
    ++pos_;
    const std::optional<char32_t> high = ReadClassLiteral();
    if (!high) return;
    if (*high < *low) return Fail("empty range");
    operand->members += absl::StrCat("-", Literal(*high));
  }

  bool IsSetEscape(size_t pos) const {
    return in_[pos] == '\\' && pos + 1 < in_.size() && std::string_view("sSdDwWhHpP").find(in_[pos + 1]) != kNone;
  }

  std::optional<char32_t> ReadClassLiteral() {
    if (!status_.ok()) return std::nullopt;
    if (!At('\\')) return NextCodePoint(in_, &pos_);
    if (pos_ + 1 >= in_.size()) return Fail("backslash at the end"), std::nullopt;
    if (At('b', 1)) return pos_ += 2, U'\b';
    return ReadEscapedLiteral();
  }

  std::string JoinClass(const std::vector<Operand>& operands, bool negated) {
    if (operands.size() == 1 && operands[0].others.empty()) return Bracket({operands[0].members, negated});
    std::string joined;
    for (size_t i = operands.size(); i-- > 0;) {
      const std::string operand = JoinOperand(operands[i]);
      joined = joined.empty() ? operand : absl::StrCat("(?:(?=", joined, ")", operand, ")");
    }
    return negated ? absl::StrCat("(?:(?!", joined, ")[\\x{0}-\\x{10ffff}])") : joined;
  }

  std::string JoinOperand(const Operand& operand) {
    if (operand.members.empty() && operand.others.empty()) return Fail("empty side of && in a class"), "";
    std::vector<std::string> parts = operand.others;
    if (!operand.members.empty()) parts.insert(parts.begin(), Bracket({operand.members, false}));
    if (parts.size() == 1) return parts[0];
    std::string joined = "(?:";
    for (size_t i = 0; i < parts.size(); ++i) absl::StrAppend(&joined, i ? "|" : "", parts[i]);
    return joined + ")";
  }

  const std::string& in_;
  size_t pos_ = 0;
  std::string out_;
  size_t atom_start_ = kNone;  // where in out_ begins what a repeat would repeat
  bool atom_is_repeated_ = false;
  int num_wraps_ = 0;
  std::string first_class_;  // the character class that the pattern begins with, if it does
  bool first_class_runs_ = false;
  bool has_alternatives_ = false;  // a '|' outside of all groups
  std::vector<Group> groups_;
  absl::Status status_;
};

}  // namespace

absl::StatusOr<std::string> TranslateOniguruma(const std::string& pattern) { return Translator(pattern).Run(); }

}  // namespace switchyard
