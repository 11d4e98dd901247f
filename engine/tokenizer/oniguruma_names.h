// Names of character classes in Oniguruma and the PCRE2 class members that mean the same.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_ONIGURUMA_NAMES_H_
#define SWITCHYARD_ENGINE_TOKENIZER_ONIGURUMA_NAMES_H_

#include <optional>
#include <string>
#include <string_view>

namespace switchyard {

// Members for use inside [...]: `members` listed, or everything but `members` if `negated`.
struct CharacterSet {
  std::string members;
  bool negated = false;
};

// \s \S \w \W \d \D \h \H. nullopt: another letter.
// The reference's \w outside of a class also matches the superscripts and fractions of Latin-1.
std::optional<CharacterSet> EscapedSet(char letter, bool inside_class);

// The name of \p{name} or [:name:]: general categories, POSIX names, scripts and binary properties; case, blanks, '_'
// and '-' do not matter; "^name" negates. nullopt: unknown.
std::optional<CharacterSet> NamedSet(std::string_view name);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_ONIGURUMA_NAMES_H_
