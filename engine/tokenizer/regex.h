// A compiled regular expression from a tokenizer.json (Oniguruma syntax), run by PCRE2 with its JIT.
#ifndef SWITCHYARD_ENGINE_TOKENIZER_REGEX_H_
#define SWITCHYARD_ENGINE_TOKENIZER_REGEX_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard {

// Bytes [begin, end) of a text.
struct Span {
  size_t begin;
  size_t end;
};

// Immutable; Find may run on many threads.
class Regex {
 public:
  // INVALID_ARGUMENT: syntax error, unsupported construct, pattern above 16 KiB.
  static absl::StatusOr<Regex> Compile(const std::string& oniguruma_pattern);

  Regex(Regex&&) noexcept;
  Regex& operator=(Regex&&) noexcept;
  ~Regex();

  // Appends all matches, left to right, without overlap. An empty match directly behind the last match is skipped.
  // INVALID_ARGUMENT: a match took too many steps or too much memory. REQUIRES: valid UTF-8.
  absl::Status FindAll(std::string_view text, std::vector<Span>* matches) const;

 private:
  struct Program;
  explicit Regex(std::unique_ptr<const Program> program);
  std::unique_ptr<const Program> program_;
};

// True if PCRE2 compiles `pattern` as it stands.
bool Pcre2Accepts(const std::string& pattern);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_TOKENIZER_REGEX_H_
