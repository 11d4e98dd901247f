#include "engine/tokenizer/oniguruma_class.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace switchyard {
namespace {

constexpr int kMaxDepth = 8;

// One side of "&&": members of a plain [...] and whole expressions that match one character each.
struct Operand {
  std::string members;
  std::vector<std::string> others;
};

class ClassReader {
 public:
  explicit ClassReader(OnigurumaReader* reader) : in_(reader) {}

  std::string Read(int depth) {
    if (depth > kMaxDepth) return in_->Fail("classes nested too deep"), "";
    in_->Skip(1);
    const bool negated = in_->At('^');
    if (negated) in_->Skip(1);
    std::vector<Operand> operands(1);
    for (bool first = true; in_->ok() && (first || !in_->At(']')); first = false) {
      if (in_->AtEnd()) return in_->Fail("unclosed class"), "";
      if (in_->AtText("&&")) {
        operands.emplace_back();
        in_->Skip(2);
      } else {
        ReadItem(depth, &operands.back());
      }
    }
    in_->Skip(1);
    return in_->ok() ? Join(operands, negated) : "";
  }

 private:
  void ReadItem(int depth, Operand* operand) {
    if (in_->AtText("[:") && ReadPosixSet(operand)) return;
    if (in_->At('[')) {
      operand->others.push_back(Read(depth + 1));
      return;
    }
    if (in_->At('\\')) {
      if (auto set = in_->ReadEscapedSet(/*inside_class=*/true)) return AddSet(*set, operand);
    }
    ReadRange(operand);
  }

  bool ReadPosixSet(Operand* operand) {
    const std::optional<std::string> text = in_->ReadUntil(":]");
    if (!text) return false;
    const std::string name = text->substr(2);
    std::optional<CharacterSet> set = name == "punct" ? CharacterSet{"\\p{P}\\p{S}", false} : NamedSet(name);
    if (!set) return in_->Fail(absl::StrCat("unknown class [:", name.substr(0, 64), ":]")), true;
    AddSet(*set, operand);
    return true;
  }

  void AddSet(const CharacterSet& set, Operand* operand) {
    if (set.negated) {
      operand->others.push_back(OnigurumaBracket(set));
    } else {
      operand->members += set.members;
    }
  }

  void ReadRange(Operand* operand) {
    const std::optional<char32_t> low = ReadLiteral();
    if (!low) return;
    operand->members += OnigurumaLiteral(*low);
    const bool is_range = in_->At('-') && !in_->At(']', 1) && !in_->At('[', 1) && !in_->AtSetEscape(1);
    if (!is_range) return;
    in_->Skip(1);
    const std::optional<char32_t> high = ReadLiteral();
    if (!high) return;
    if (*high < *low) return in_->Fail("empty range");
    operand->members += absl::StrCat("-", OnigurumaLiteral(*high));
  }

  std::optional<char32_t> ReadLiteral() {
    if (!in_->ok()) return std::nullopt;
    if (in_->AtEnd()) return in_->Fail("unclosed class"), std::nullopt;
    if (!in_->At('\\')) return in_->ReadCharacter();
    if (in_->At('b', 1)) return in_->Skip(2), U'\b';
    return in_->ReadEscapedLiteral();
  }

  std::string Join(const std::vector<Operand>& operands, bool negated) {
    if (operands.size() == 1 && operands[0].others.empty()) return OnigurumaBracket({operands[0].members, negated});
    std::string joined;
    for (size_t i = operands.size(); i-- > 0;) {
      const std::string operand = JoinOperand(operands[i]);
      joined = joined.empty() ? operand : absl::StrCat("(?:(?=", joined, ")", operand, ")");
    }
    return negated ? absl::StrCat("(?:(?!", joined, ")[\\x{0}-\\x{10ffff}])") : joined;
  }

  std::string JoinOperand(const Operand& operand) {
    if (operand.members.empty() && operand.others.empty()) return in_->Fail("empty side of && in a class"), "";
    std::vector<std::string> parts = operand.others;
    if (!operand.members.empty()) parts.insert(parts.begin(), OnigurumaBracket({operand.members, false}));
    if (parts.size() == 1) return parts[0];
    std::string joined = "(?:";
    for (size_t i = 0; i < parts.size(); ++i) absl::StrAppend(&joined, i ? "|" : "", parts[i]);
    return joined + ")";
  }

  OnigurumaReader* in_;
};

}  // namespace

std::string ReadOnigurumaClass(OnigurumaReader* reader) { return ClassReader(reader).Read(/*depth=*/1); }

}  // namespace switchyard
