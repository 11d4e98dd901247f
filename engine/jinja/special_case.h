// Characters that become several in upper case, such as the German sharp s.
#ifndef SWITCHYARD_ENGINE_JINJA_SPECIAL_CASE_H_
#define SWITCHYARD_ENGINE_JINJA_SPECIAL_CASE_H_

namespace switchyard::jinja {

// The upper case, or the title case, of `c`, ended by 0; nullptr: it is one character.
const char32_t* SpecialUpper(char32_t c);
const char32_t* SpecialTitle(char32_t c);

}  // namespace switchyard::jinja

#endif  // SWITCHYARD_ENGINE_JINJA_SPECIAL_CASE_H_
