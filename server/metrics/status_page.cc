#include "server/metrics/status_page.h"

#include <openssl/sha.h>

#include <string>

#include "absl/strings/escaping.h"
#include "engine/base/status_macros.h"
#include "status_page_text.h"

namespace switchyard {
namespace {

// What stands in the page's one element of this name.
std::string Content(const std::string& page, const std::string& tag) {
  const std::string open = "<" + tag + ">";
  const size_t begin = page.find(open);
  const size_t end = page.find("</" + tag + ">", begin);
  CHECK(begin != std::string::npos && end != std::string::npos);
  return page.substr(begin + open.size(), end - begin - open.size());
}

// A source expression of Content Security Policy level 3, section 2.3.1.
std::string HashSource(const std::string& content) {
  std::string hash(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(content.data()), content.size(),
         reinterpret_cast<unsigned char*>(hash.data()));
  return "'sha256-" + absl::Base64Escape(hash) + "'";
}

std::string ContentSecurityPolicy(const std::string& page) {
  return "default-src 'none'; connect-src 'self'; style-src " + HashSource(Content(page, "style")) + "; script-src " +
         HashSource(Content(page, "script")) + "; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
}

}  // namespace

AdminPage StatusPage() {
  static const AdminPage* const page =
      new AdminPage{200, "text/html; charset=utf-8", kStatusPageText, ContentSecurityPolicy(kStatusPageText)};
  return *page;
}

}  // namespace switchyard
