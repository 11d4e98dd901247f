#include "engine/tokenizer/oniguruma.h"

#include <optional>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/tokenizer/oniguruma_class.h"
#include "engine/tokenizer/oniguruma_names.h"
#include "engine/tokenizer/oniguruma_reader.h"

namespace switchyard {
namespace {

constexpr size_t kNone = std::string::npos;
constexpr size_t kMaxGroupDepth = 100;
constexpr int kMaxWraps = 1000;
constexpr int kMaxRepeat = 1000;  // keeps the compiled pattern small; the files in the wild use at most 4

class Translator {
 public:
  explicit Translator(const std::string& pattern) : in_(pattern) {}

  absl::StatusOr<std::string> Run() {
    groups_.push_back({});
    while (!in_.AtEnd() && in_.ok()) Step();
    if (groups_.size() != 1) in_.Fail("unclosed group");
    if (!in_.ok()) return in_.status();
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

  void EmitAtom(const std::string& text) {
    atom_start_ = out_.size();
    atom_is_repeated_ = false;
    out_ += text;
  }

  void EmitMark(size_t length) {  // no atom: nothing to repeat
    for (size_t i = 0; i < length; ++i) out_ += in_.Peek(i);
    in_.Skip(length);
    atom_start_ = kNone;
  }

  void Step() {
    switch (in_.Peek()) {
      case '\\':
        return Escape();
      case '[':
        return EmitClass(ReadOnigurumaClass(&in_));
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
        in_.Skip(1);
        return EmitAtom(".");
      case '*':
      case '+':
      case '?':
        return SimpleRepeat();
      case '{':
        return Interval();
      default:
        return EmitAtom(OnigurumaLiteral(in_.ReadCharacter()));
    }
  }

  void Escape() {
    if (in_.At('A', 1) || in_.At('z', 1) || in_.At('Z', 1)) return EmitMark(2);
    if (in_.At('K', 1) || in_.At('R', 1)) return KeepOrLineBreak();
    if (in_.At('b', 1) || in_.At('B', 1)) return WordBoundary();
    if (in_.AtDigit(1) && !in_.At('0', 1)) return BackReference();
    if (auto set = in_.ReadEscapedSet(/*inside_class=*/false)) return EmitClass(OnigurumaBracket(*set));
    if (auto literal = in_.ReadEscapedLiteral()) return EmitAtom(OnigurumaLiteral(*literal));
  }

  void KeepOrLineBreak() {
    EmitAtom(in_.At('K', 1) ? "\\K" : "\\R");
    in_.Skip(2);
  }

  void WordBoundary() {
    const std::string word = OnigurumaBracket(*EscapedSet('w', false));
    const bool negated = in_.At('B', 1);
    EmitAtom(negated ? absl::StrCat("(?:(?<=", word, ")(?=", word, ")|(?<!", word, ")(?!", word, "))")
                     : absl::StrCat("(?:(?<=", word, ")(?!", word, ")|(?<!", word, ")(?=", word, "))"));
    in_.Skip(2);
  }

  void BackReference() {
    if (in_.AtDigit(2)) return in_.Fail("back-reference above 9");
    EmitAtom(absl::StrCat("\\g{", std::string(1, in_.Peek(1)), "}"));
    in_.Skip(2);
  }

  void OpenGroup() {
    if (groups_.size() > kMaxGroupDepth) return in_.Fail("groups nested too deep");
    for (const std::string_view plain : {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"}) {
      if (in_.AtText(plain)) return PushGroup(std::string(plain), plain.size());
    }
    if (in_.AtText("(?#")) return Comment();
    if (in_.AtText("(?<")) return NamedGroup();
    if (in_.AtText("(?")) return Options();
    PushGroup("(", 1);
  }

  void PushGroup(const std::string& opening, size_t length) {
    groups_.push_back({out_.size(), 0});
    out_ += opening;
    in_.Skip(length);
    atom_start_ = kNone;
  }

  void Comment() {
    if (!in_.ReadUntil(")")) in_.Fail("unclosed comment");
  }

  void NamedGroup() {
    if (!in_.ReadUntil(">")) return in_.Fail("unclosed group name");
    PushGroup("(?:", 0);
  }

  // (?imx-imx:...) and (?imx-imx), which in Ruby's syntax reaches to the end of the group, over any '|'.
  void Options() {
    std::string opening = "(?";
    size_t length = 2;
    for (; in_.At('i', length) || in_.At('m', length) || in_.At('-', length); ++length) {
      opening += in_.At('m', length) ? 's' : in_.Peek(length);
    }
    opening += ':';
    if (in_.At(':', length)) return PushGroup(opening, length + 1);
    if (!in_.At(')', length)) return in_.Fail("unsupported group \"(?\"");
    if (++groups_.back().extra_closes > kMaxGroupDepth) return in_.Fail("too many options");
    out_ += opening;
    in_.Skip(length + 1);
    atom_start_ = kNone;
  }

  void CloseGroup() {
    if (groups_.size() == 1) return in_.Fail("unmatched ')'");
    out_.append(1 + groups_.back().extra_closes, ')');
    atom_start_ = groups_.back().start;
    atom_is_repeated_ = false;
    groups_.pop_back();
    in_.Skip(1);
  }

  void SimpleRepeat() {
    const std::string repeat(1, in_.Peek());
    in_.Skip(1);
    Repeat(repeat, /*may_be_lazy=*/true, /*may_be_possessive=*/true);
  }

  // `repeat` was just read; '?' behind it makes it lazy and '+' possessive, where Ruby's syntax has that.
  void Repeat(const std::string& repeat, bool may_be_lazy, bool may_be_possessive) {
    if (atom_start_ == kNone) return in_.Fail("nothing to repeat");
    if (atom_is_repeated_) WrapAtom();
    const bool is_lazy = may_be_lazy && in_.At('?');
    const bool is_possessive = may_be_possessive && in_.At('+');
    first_class_runs_ = first_class_runs_ || (out_ == first_class_ && repeat == "+" && !is_lazy);
    out_ += repeat;
    if (is_lazy || is_possessive) EmitSuffix();
    atom_is_repeated_ = true;
  }

  void EmitSuffix() {
    out_ += in_.Peek();
    in_.Skip(1);
  }

  void WrapAtom() {
    if (++num_wraps_ > kMaxWraps) return in_.Fail("too many repeats of repeats");
    if (atom_start_ == 0) first_class_.clear();
    out_.insert(atom_start_, "(?:");
    out_ += ')';
  }

  void Interval() {
    const size_t start = in_.place();
    in_.Skip(1);
    const std::optional<int> low = in_.ReadNumber();
    const bool has_comma = in_.At(',');
    if (has_comma) in_.Skip(1);
    const std::optional<int> high = has_comma ? in_.ReadNumber() : low;
    if (!in_.At('}') || (!low && !high)) {  // not a repeat: a brace that stands for itself
      in_.GoBack(start + 1);
      return EmitAtom(OnigurumaLiteral('{'));
    }
    in_.Skip(1);
    if (low.value_or(0) > kMaxRepeat || high.value_or(0) > kMaxRepeat) return in_.Fail("repeat count above 1000");
    if (!has_comma) return Repeat(absl::StrCat("{", *low, "}"), /*may_be_lazy=*/false, /*may_be_possessive=*/false);
    const std::string upper = high ? absl::StrCat(*high) : std::string();
    Repeat(absl::StrCat("{", low.value_or(0), ",", upper, "}"), /*may_be_lazy=*/true, /*may_be_possessive=*/false);
  }

  OnigurumaReader in_;
  std::string out_;
  size_t atom_start_ = kNone;  // where in out_ begins what a repeat would repeat
  bool atom_is_repeated_ = false;
  int num_wraps_ = 0;
  std::string first_class_;  // the character class that the pattern begins with, if it does
  bool first_class_runs_ = false;
  bool has_alternatives_ = false;  // a '|' outside of all groups
  std::vector<Group> groups_;
};

}  // namespace

absl::StatusOr<std::string> TranslateOniguruma(const std::string& pattern) { return Translator(pattern).Run(); }

}  // namespace switchyard
