#include "engine/tokenizer/oniguruma_names.h"

#include <algorithm>
#include <cctype>
#include <iterator>

#include "engine/tokenizer/regex.h"

namespace switchyard {
namespace {

constexpr char kSpaces[] =
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}";
constexpr char kWord[] = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
constexpr char kLatin1WordExtras[] = "\\x{b2}\\x{b3}\\x{b9}\\x{bc}-\\x{be}";
// With the characters of Unicode 14 that became Alphabetic or Lowercase later, as the reference has them.
constexpr char kAlphabetic[] =
    "\\p{Alphabetic}\\x{363}-\\x{36f}\\x{c04}\\x{f82}\\x{f83}\\x{1dd3}-\\x{1de6}\\x{11080}\\x{11081}";
constexpr char kAlphanumeric[] =
    "\\p{Nd}\\p{Alphabetic}\\x{363}-\\x{36f}\\x{c04}\\x{f82}\\x{f83}\\x{1dd3}-\\x{1de6}\\x{11080}\\x{11081}";
constexpr char kLowercase[] = "\\p{Lowercase}\\x{10fc}\\x{a7f2}-\\x{a7f4}\\x{ab69}";
constexpr char kHexDigits[] = "0-9A-Fa-f";

struct NameAndMembers {
  const char* name;
  const char* members;
};

constexpr NameAndMembers kNames[] = {
    {"alnum", kAlphanumeric},
    {"alpha", kAlphabetic},
    {"alphabetic", kAlphabetic},
    {"any", "\\x{0}-\\x{10ffff}"},
    {"ascii", "\\x{0}-\\x{7f}"},
    {"blank", "\\p{Zs}\\x{9}"},
    {"casedletter", "\\p{L&}"},
    {"closepunctuation", "\\p{Pe}"},
    {"cntrl", "\\p{Cc}"},
    {"connectorpunctuation", "\\p{Pc}"},
    {"control", "\\p{Cc}"},
    {"currencysymbol", "\\p{Sc}"},
    {"dashpunctuation", "\\p{Pd}"},
    {"decimalnumber", "\\p{Nd}"},
    {"digit", "\\p{Nd}"},
    {"enclosingmark", "\\p{Me}"},
    {"finalpunctuation", "\\p{Pf}"},
    {"format", "\\p{Cf}"},
    {"initialpunctuation", "\\p{Pi}"},
    {"lc", "\\p{L&}"},
    {"letter", "\\p{L}"},
    {"letternumber", "\\p{Nl}"},
    {"lineseparator", "\\p{Zl}"},
    {"lower", kLowercase},
    {"lowercase", kLowercase},
    {"lowercaseletter", "\\p{Ll}"},
    {"mark", "\\p{M}"},
    {"mathsymbol", "\\p{Sm}"},
    {"modifierletter", "\\p{Lm}"},
    {"modifiersymbol", "\\p{Sk}"},
    {"nonspacingmark", "\\p{Mn}"},
    {"number", "\\p{N}"},
    {"openpunctuation", "\\p{Ps}"},
    {"other", "\\p{C}"},
    {"otherletter", "\\p{Lo}"},
    {"othernumber", "\\p{No}"},
    {"otherpunctuation", "\\p{Po}"},
    {"othersymbol", "\\p{So}"},
    {"paragraphseparator", "\\p{Zp}"},
    {"privateuse", "\\p{Co}"},
    {"punct", "\\p{P}"},
    {"punctuation", "\\p{P}"},
    {"separator", "\\p{Z}"},
    {"space", kSpaces},
    {"spaceseparator", "\\p{Zs}"},
    {"spacingmark", "\\p{Mc}"},
    {"symbol", "\\p{S}"},
    {"titlecaseletter", "\\p{Lt}"},
    {"unassigned", "\\p{Cn}"},
    {"upper", "\\p{Uppercase}"},
    {"uppercaseletter", "\\p{Lu}"},
    {"whitespace", kSpaces},
    {"word", kWord},
    {"xdigit", kHexDigits},
};

// "C", "Cc", "L", "Lu", ...: spelled with one capital and at most one small letter in PCRE2.
std::optional<std::string> GeneralCategory(const std::string& name) {
  constexpr std::string_view kCategories =
      " C Cc Cf Cn Co Cs L Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm So Z Zl Zp Zs ";
  if (name.empty() || name.size() > 2) return std::nullopt;
  std::string category = name;
  category[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(category[0])));
  if (kCategories.find(" " + category + " ") == std::string_view::npos) return std::nullopt;
  return "\\p{" + category + "}";
}

std::string Simplify(std::string_view name) {
  std::string simple;
  for (const char c : name) {
    if (c != ' ' && c != '_' && c != '-') {
      simple.push_back(static_cast<char>(std::tolower(static_cast<unsigned char>(c))));
    }
  }
  return simple;
}

std::optional<std::string> MembersOf(const std::string& name) {
  if (auto category = GeneralCategory(name)) return category;
  const auto* known =
      std::lower_bound(std::begin(kNames), std::end(kNames), name,
                       [](const NameAndMembers& entry, const std::string& wanted) { return entry.name < wanted; });
  if (known != std::end(kNames) && known->name == name) return known->members;
  // Scripts and binary properties: PCRE2 knows which exist.
  const bool is_plain = !name.empty() && name.size() <= 64 &&
                        std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c); });
  if (!is_plain) return std::nullopt;
  for (const std::string& candidate : {"\\p{sc:" + name + "}", "\\p{" + name + "}"}) {
    if (Pcre2Accepts(candidate)) return candidate;
  }
  return std::nullopt;
}

}  // namespace

std::optional<CharacterSet> EscapedSet(char letter, bool inside_class) {
  const bool negated = letter >= 'A' && letter <= 'Z';
  const char small = static_cast<char>(std::tolower(static_cast<unsigned char>(letter)));
  if (small == 's') return CharacterSet{kSpaces, negated};
  if (small == 'd') return CharacterSet{"\\p{Nd}", negated};
  if (small == 'h') return CharacterSet{kHexDigits, negated};
  if (small == 'w') return CharacterSet{inside_class ? kWord : std::string(kWord) + kLatin1WordExtras, negated};
  return std::nullopt;
}

std::optional<CharacterSet> NamedSet(std::string_view name) {
  const bool negated = !name.empty() && name.front() == '^';
  if (negated) name.remove_prefix(1);
  std::optional<std::string> members = MembersOf(Simplify(name));
  if (!members) return std::nullopt;
  return CharacterSet{*std::move(members), negated};
}

}  // namespace switchyard
