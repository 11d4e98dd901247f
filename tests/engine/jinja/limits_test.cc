// Templates that try to take all the time, memory or stack there is. Each must be refused soon.
#include "engine/jinja/limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <string>

#include "engine/jinja/template.h"

namespace switchyard::jinja {
namespace {

using ::testing::HasSubstr;

constexpr RenderLimits kSmall = {.max_steps = 1'000'000, .max_allocated_chars = 1 << 20, .max_output_bytes = 1 << 20};

std::string Repeat(const std::string& text, int count) {
  std::string out;
  for (int i = 0; i < count; ++i) out += text;
  return out;
}

absl::Status Try(const std::string& source, const RenderLimits& limits = kSmall) {
  auto parsed = Template::Parse(source);
  if (!parsed.ok()) return parsed.status();
  return parsed->Render({{"text", Value::Utf8(Repeat("ab", 50'000))}}, std::tm{}, limits).status();
}

struct Greedy {
  const char* name;
  std::string source;
  const char* message;
};

std::ostream& operator<<(std::ostream& out, const Greedy& greedy) { return out << greedy.name; }

class GreedyTemplateTest : public ::testing::TestWithParam<Greedy> {};

TEST_P(GreedyTemplateTest, IsStoppedSoon) {
  const std::clock_t start = std::clock();  // of the process: the machine may be busy with other tests
  const absl::Status status = Try(GetParam().source);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().message));
  EXPECT_LT(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC, 20.0);
}

const char kLoop[] = "{% for a in range(100000) %}{% for b in range(100000) %}";
const char kEnd[] = "{% endfor %}{% endfor %}";

INSTANTIATE_TEST_SUITE_P(
    Limits, GreedyTemplateTest,
    ::testing::Values(
        Greedy{"steps", std::string(kLoop) + kEnd, "takes more than 1000000 steps"},
        Greedy{"output", std::string(kLoop) + Repeat("x", 1000) + kEnd, "makes more than 1048576 characters"},
        Greedy{"repeat", "{{ 'x' * 1000000000000 }}", "makes more than"},
        Greedy{"repeat_overflow", "{{ 'xyz' * 9223372036854775807 }}", "makes more than"},
        Greedy{"repeat_list", "{{ [1] * 1000000000000 }}", "makes more than"},
        Greedy{"doubling",
               "{% set n = namespace(s='x') %}{% for a in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
               "makes more than"},
        Greedy{"replace", "{{ text|replace('', text) }}", "makes more than"},
        Greedy{"join", "{{ (text|list)|join(text) }}", "makes more than"},
        Greedy{"pad", "{{ 'x'.ljust(1000000000000) }}", "makes more than"},
        Greedy{"center", "{{ 'x'|center(1000000000000) }}", "makes more than"},
        Greedy{"printf_width", "{{ '%2000000000d' % 1 }}", "makes more than"},
        Greedy{"indent_width", "{{ 'x'|indent(1000000000000) }}", "makes more than"},
        Greedy{"json_indent", "{{ [1]|tojson(indent=1000000000000) }}", "makes more than"},
        Greedy{"batch_fill", "{{ [1]|batch(1000000000000, 0)|list }}", "makes more than"},
        Greedy{"slices", "{{ [1]|slice(1000000000000)|list }}", "makes more than"},
        Greedy{"power", "{{ 10 ** 10 ** 10 }}", "64 bits"}, Greedy{"range", "{{ range(1000000) }}", "Range too big"},
        Greedy{"long_search", "{% for i in range(1000) %}{{ text.rfind(text[1:50000] ~ 'x') }}{% endfor %}", "steps"},
        Greedy{"strip_chars", "{% for i in range(1000) %}{{ text.strip(text[2:]) }}{% endfor %}", "steps"},
        Greedy{"nested_list", "{% set n = namespace(l=[]) %}{% for a in range(999) %}{% set n.l = [n.l] %}{% endfor %}",
               "nests values deeper than 100 levels"},
        Greedy{"nested_iterators",
               "{% set n = namespace(l=[1]) %}{% for a in range(999) %}{% set n.l = n.l|map('abs') %}{% endfor %}",
               "nests values deeper than 100 levels"},
        Greedy{"shared_lists",
               "{% set n = namespace(l=[1]) %}{% for a in range(60) %}{% set n.l = [n.l, n.l] %}{% endfor %}{{ n.l }}",
               "than"},
        Greedy{"shared_keys",
               "{% set n = namespace(l=(1,)) %}{% for a in range(60) %}{% set n.l = (n.l, n.l) %}{% endfor %}"
               "{{ {n.l: 1} }}",
               "steps"},
        Greedy{"equal_graphs",
               "{% set n = namespace(l=[1], m=[1]) %}{% for a in range(60) %}{% set n.l = [n.l, n.l] %}"
               "{% set n.m = [n.m, n.m] %}{% endfor %}{{ n.l == n.m }}",
               "steps"},
        Greedy{"namespace_of_itself", "{% set n = namespace() %}{% set n.n = n %}{{ n }}", "nested too deep"},
        Greedy{"recursive_macro", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "calls macros too deep"},
        Greedy{"recursive_default", "{% macro m(a=m()) %}{% endmacro %}{{ m() }}", "calls macros too deep"},
        Greedy{"recursive_caller", "{% macro m() %}{{ caller }}{% call m() %}x{% endcall %}{% endmacro %}{{ m() }}",
               "too deep"},
        Greedy{"parentheses", "{{ " + Repeat("(", 100'000), "nested deeper than 100 levels"},
        Greedy{"brackets", "{{ " + Repeat("[", 100'000), "nested deeper than 100 levels"},
        Greedy{"signs", "{{ " + Repeat("-", 100'000) + "1 }}", "too many signs"},
        Greedy{"nots", "{{ " + Repeat("not ", 100'000) + "1 }}", "more than 200 levels"},
        Greedy{"sum", "{{ 1" + Repeat(" + 1", 100'000) + " }}", "more than 200 levels"},
        Greedy{"attributes", "{{ a" + Repeat(".a", 100'000) + " }}", "more than 200 levels"},
        Greedy{"filters", "{{ a" + Repeat("|abs", 100'000) + " }}", "more than 200 levels"},
        Greedy{"else_chain", "{{ " + Repeat("1 if a else ", 10'000) + "2 }}", "nested deeper than 100 levels"},
        Greedy{"blocks", Repeat("{% if a %}", 50'000), "nested deeper than 100 levels"},
        Greedy{"targets", "{% for " + Repeat("(", 50'000), "nested deeper than 100 levels"},
        Greedy{"size", Repeat("x", (1 << 20) + 1), "at most 1048576 are read"},
        Greedy{"time_format", "{{ strftime_now('%Y' * 1000) }}", "time format"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(LimitsTest, DeepestAllowedNestingFitsOnTheStack) {
  EXPECT_TRUE(Try("{{ " + Repeat("(", 98) + "1" + Repeat(")", 98) + " }}").ok());
  EXPECT_TRUE(Try("{{ 1" + Repeat(" + 1", 190) + " }}").ok());
  EXPECT_TRUE(Try(Repeat("{% for x in [1] %}", 90) + "{{ x }}" + Repeat("{% endfor %}", 90)).ok());
  const std::string deep = "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}";
  EXPECT_TRUE(Try(deep + "{{ m(100) }}").ok());
}

TEST(LimitsTest, OutputIsBoundedInBytes) {
  RenderLimits limits = kSmall;
  limits.max_output_bytes = 5;
  EXPECT_TRUE(Try("12345", limits).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(Try("é世!", limits)));
}

}  // namespace
}  // namespace switchyard::jinja
