#include "client/view/facts_text.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/view/terminal.h"

namespace switchyard {

std::string FactLine(const std::string& name, const std::string& value) {
  return absl::StrFormat("%-24s %s\n", name, MakePrintable(value));
}

std::string GroupDigits(int64_t number) {
  std::string digits = absl::StrCat(number);
  const size_t first = number < 0 ? 1 : 0;
  for (size_t i = digits.size(); i > first + 3; i -= 3) digits.insert(i - 3, ",");
  return digits;
}

std::string NumberRanges(std::span<const int32_t> numbers) {
  std::vector<std::string> ranges;
  for (size_t i = 0; i < numbers.size();) {
    size_t end = i + 1;
    while (end < numbers.size() && numbers[end] == numbers[end - 1] + 1) ++end;
    ranges.push_back(end - i == 1 ? absl::StrCat(numbers[i]) : absl::StrCat(numbers[i], "-", numbers[end - 1]));
    i = end;
  }
  return absl::StrJoin(ranges, ", ");
}

}  // namespace switchyard
