// Facts for people: lines of "name  value", and numbers as one reads them.
#ifndef SWITCHYARD_CLIENT_VIEW_FACTS_TEXT_H_
#define SWITCHYARD_CLIENT_VIEW_FACTS_TEXT_H_

#include <cstdint>
#include <span>
#include <string>

namespace switchyard {

// One line; what a terminal would take for a command is made visible.
std::string FactLine(const std::string& name, const std::string& value);

// 1234567 as "1,234,567".
std::string GroupDigits(int64_t number);

// {0, 1, 2, 5} as "0-2, 5".
std::string NumberRanges(std::span<const int32_t> numbers);

}  // namespace switchyard

#endif  // SWITCHYARD_CLIENT_VIEW_FACTS_TEXT_H_
