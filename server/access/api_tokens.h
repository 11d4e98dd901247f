// The bearer tokens that are let in, known by their SHA-256 hashes only.
//
//   # a comment
//   9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08 alice       hash, then a name for people
//
// A token is random (256 bits, as `switchyard token` makes them): its hash needs no salt and may be fast.
#ifndef SWITCHYARD_SERVER_ACCESS_API_TOKENS_H_
#define SWITCHYARD_SERVER_ACCESS_API_TOKENS_H_

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard {

// Immutable, so thread-safe.
class ApiTokens {
 public:
  static constexpr size_t kMaxTokens = 1024;     // each call is compared with all of them
  static constexpr size_t kMaxTokenBytes = 512;  // longer ones are refused unread

  // INVALID_ARGUMENT: names the line, never its content. A text without tokens is valid: it lets nobody in.
  static absl::StatusOr<ApiTokens> Parse(const std::string& text);

  // `authorization`: all values of that header of one call. True for exactly one that is "Bearer " and a known token.
  // Takes the same path whatever is wrong, and looks at every hash.
  bool Admits(const std::vector<std::string_view>& authorization) const;

  size_t size() const { return hashes_.size(); }

 private:
  using Hash = std::array<unsigned char, 32>;
  std::vector<Hash> hashes_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_ACCESS_API_TOKENS_H_
