#include "server/access/api_tokens.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <cctype>
#include <map>
#include <sstream>

namespace switchyard {
namespace {

constexpr size_t kMaxNameBytes = 128;
constexpr std::string_view kScheme = "bearer ";

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// False unless `text` is as many bytes in hexadecimal digits as `hash` has.
template <typename Hash>
bool ParseHash(const std::string& text, Hash* hash) {
  if (text.size() != 2 * hash->size()) return false;
  for (size_t i = 0; i < hash->size(); ++i) {
    const int high = HexDigit(text[2 * i]);
    const int low = HexDigit(text[2 * i + 1]);
    if (high < 0 || low < 0) return false;
    (*hash)[i] = static_cast<unsigned char>(16 * high + low);
  }
  return true;
}

absl::Status BadLine(int line, const std::string& what) {
  return absl::InvalidArgumentError("line " + std::to_string(line) + " " + what);
}

bool IsPrintable(const std::string& text) {
  for (char c : text) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) return false;
  }
  return true;
}

// The token of "Bearer TOKEN" (any case of the scheme, as RFC 7235 has it), or of none the empty text.
std::string_view TokenOf(std::string_view value) {
  if (value.size() < kScheme.size()) return {};
  for (size_t i = 0; i < kScheme.size(); ++i) {
    if (std::tolower(static_cast<unsigned char>(value[i])) != kScheme[i]) return {};
  }
  return value.substr(kScheme.size());
}

}  // namespace

absl::StatusOr<ApiTokens> ApiTokens::Parse(const std::string& text) {
  ApiTokens tokens;
  std::map<Hash, int> line_of;
  std::istringstream lines(text);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back())) != 0) line.pop_back();
    const size_t begin = line.find_first_not_of(" \t");
    if (begin == std::string::npos || line[begin] == '#') continue;
    const size_t end = line.find_first_of(" \t", begin);
    const std::string name = end == std::string::npos ? "" : line.substr(line.find_first_not_of(" \t", end));
    Hash hash;
    if (!ParseHash(line.substr(begin, end == std::string::npos ? end : end - begin), &hash)) {
      return BadLine(number, "does not begin with a SHA-256 hash of 64 hexadecimal digits (is it a token itself?)");
    }
    if (name.size() > kMaxNameBytes || !IsPrintable(name)) {
      return BadLine(number, "has a name that is over " + std::to_string(kMaxNameBytes) + " bytes or not printable");
    }
    const auto [first, is_new] = line_of.emplace(hash, number);
    if (!is_new) return BadLine(number, "has the hash of line " + std::to_string(first->second) + " again");
    tokens.hashes_.push_back(hash);
  }
  if (tokens.hashes_.size() > kMaxTokens) {
    return absl::InvalidArgumentError("there are " + std::to_string(tokens.hashes_.size()) + " tokens; use at most " +
                                      std::to_string(kMaxTokens));
  }
  return tokens;
}

bool ApiTokens::Admits(const std::vector<std::string_view>& authorization) const {
  std::string_view token = authorization.size() == 1 ? TokenOf(authorization.front()) : std::string_view();
  if (token.size() > kMaxTokenBytes) token = {};
  Hash hash;
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), hash.data());
  unsigned equal = 0;
  for (const Hash& known : hashes_) equal |= CRYPTO_memcmp(hash.data(), known.data(), hash.size()) == 0 ? 1u : 0u;
  // Last, so that the hash of the empty text in the file lets nobody in either.
  return equal != 0 && !token.empty();
}

}  // namespace switchyard
