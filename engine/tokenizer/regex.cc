#include "engine/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "engine/tokenizer/oniguruma.h"
#include "engine/tokenizer/utf8.h"

namespace switchyard {
namespace {

constexpr size_t kMaxPatternBytes = 16 << 10;
constexpr uint32_t kMatchLimit = 20'000'000;  // steps of one match; a bad pattern fails after about 0.2 s
constexpr uint32_t kHeapLimitKib = 64 << 10;

struct FreeCode {
  void operator()(pcre2_code* code) const { pcre2_code_free(code); }
};
struct FreeMatchContext {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
struct FreeMatchData {
  void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
};
struct FreeCompileContext {
  void operator()(pcre2_compile_context* context) const { pcre2_compile_context_free(context); }
};
using Code = std::unique_ptr<pcre2_code, FreeCode>;
using MatchData = std::unique_ptr<pcre2_match_data, FreeMatchData>;

std::string ErrorText(int error) {
  PCRE2_UCHAR buffer[256];
  if (pcre2_get_error_message(error, buffer, sizeof(buffer)) < 0) return absl::StrCat("PCRE2 error ", error);
  return reinterpret_cast<const char*>(buffer);
}

absl::StatusOr<Code> CompilePcre2(const std::string& pattern) {
  const std::unique_ptr<pcre2_compile_context, FreeCompileContext> context(pcre2_compile_context_create(nullptr));
  if (!context) return absl::ResourceExhaustedError("no memory for a regular expression");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_bsr(context.get(), PCRE2_BSR_UNICODE);
  int error = 0;
  PCRE2_SIZE offset = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                          PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset,
                          context.get()));
  if (!code) return absl::InvalidArgumentError(ErrorText(error));
  return code;
}

}  // namespace

struct Regex::Program {
  Code code;
  std::unique_ptr<pcre2_match_context, FreeMatchContext> context;
};

Regex::Regex(std::unique_ptr<const Program> program) : program_(std::move(program)) {}
Regex::Regex(Regex&&) noexcept = default;
Regex& Regex::operator=(Regex&&) noexcept = default;
Regex::~Regex() = default;

absl::StatusOr<Regex> Regex::Compile(const std::string& oniguruma_pattern) {
  if (oniguruma_pattern.size() > kMaxPatternBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the pattern has ", oniguruma_pattern.size(), " bytes; the limit is ", kMaxPatternBytes));
  }
  ASSIGN_OR_RETURN(auto pattern, TranslateOniguruma(oniguruma_pattern));
  ASSIGN_OR_RETURN(auto code, CompilePcre2(pattern));
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // where this fails (no executable memory) the interpreter runs

  auto program = std::make_unique<Program>();
  program->code = std::move(code);
  program->context.reset(pcre2_match_context_create(nullptr));
  if (!program->context) return absl::ResourceExhaustedError("no memory for a regular expression");
  pcre2_set_match_limit(program->context.get(), kMatchLimit);
  pcre2_set_heap_limit(program->context.get(), kHeapLimitKib);
  return Regex(std::move(program));
}

absl::Status Regex::FindAll(std::string_view text, std::vector<Span>* matches) const {
  const MatchData data(pcre2_match_data_create(1, nullptr));
  if (!data) return absl::ResourceExhaustedError("no memory to match a regular expression");
  const PCRE2_SIZE* found = pcre2_get_ovector_pointer(data.get());
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  size_t last_end = std::string_view::npos;
  for (size_t from = 0; from <= text.size();) {
    int rc = pcre2_match(program_->code.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK, data.get(),
                         program_->context.get());
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {  // the interpreter keeps its backtracking points on the heap
      rc = pcre2_match(program_->code.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, data.get(),
                       program_->context.get());
    }
    if (rc == PCRE2_ERROR_NOMATCH) break;
    if (rc < 0)
      return absl::InvalidArgumentError(
          absl::StrCat("a regular expression of the tokenizer gave up at byte ", from, ": ", ErrorText(rc)));
    const Span match{found[0], found[1]};
    if (match.begin == match.end && match.end == last_end) {
      from += from < text.size() ? Utf8Length(text[from]) : 1;
      continue;
    }
    matches->push_back(match);
    from = last_end = match.end;
  }
  return absl::OkStatus();
}

bool Pcre2Accepts(const std::string& pattern) { return CompilePcre2(pattern).ok(); }

}  // namespace switchyard
