#include "server/metrics/status_page.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <regex>
#include <string>

namespace switchyard {
namespace {

std::string Sha256Base64(const std::string& text) {
  unsigned char hash[32];
  unsigned char base64[45];
  EVP_Digest(text.data(), text.size(), hash, nullptr, EVP_sha256(), nullptr);
  EVP_EncodeBlock(base64, hash, sizeof(hash));
  return reinterpret_cast<const char*>(base64);
}

// As a browser finds it: from the first opening tag on, whatever its attributes, to the first closing one.
std::string Element(const std::string& page, const std::string& tag) {
  const size_t begin = page.find('>', page.find("<" + tag)) + 1;
  return page.substr(begin, page.find("</" + tag, begin) - begin);
}

size_t Count(const std::string& page, const std::string& what) {
  size_t count = 0;
  for (size_t at = page.find(what); at != std::string::npos; at = page.find(what, at + 1)) ++count;
  return count;
}

TEST(StatusPageTest, PolicyAllowsItsOwnStyleAndScriptOnly) {
  const AdminPage page = StatusPage();
  EXPECT_EQ(page.code, 200);
  EXPECT_EQ(page.content_type, "text/html; charset=utf-8");
  EXPECT_EQ(Count(page.body, "<script"), 1u);
  EXPECT_EQ(Count(page.body, "<style"), 1u);
  EXPECT_EQ(page.content_security_policy, "default-src 'none'; connect-src 'self'; style-src 'sha256-" +
                                              Sha256Base64(Element(page.body, "style")) + "'; script-src 'sha256-" +
                                              Sha256Base64(Element(page.body, "script")) +
                                              "'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
}

TEST(StatusPageTest, NothingComesFromElsewhere) {
  std::string body = StatusPage().body;
  const std::string svg_namespace = "http://www.w3.org/2000/svg";  // a name, never asked for
  for (size_t at; (at = body.find(svg_namespace)) != std::string::npos;) body.erase(at, svg_namespace.size());
  for (const char* foreign : {"http:", "https:", "url(", "@import", "//cdn", " src=", "<link", "<img", "<iframe"}) {
    EXPECT_EQ(Count(body, foreign), 0u) << foreign;
  }
}

TEST(StatusPageTest, DataNeverBecomesMarkup) {
  const std::string body = StatusPage().body;
  for (const char* sink : {"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("}) {
    EXPECT_EQ(Count(body, sink), 0u) << sink;
  }
  EXPECT_FALSE(std::regex_search(body.substr(0, body.find("<script")), std::regex("<[^>]* (on[a-z]+|style)=")));
}

TEST(StatusPageTest, AllPartsAreInIt) {
  const std::string body = StatusPage().body;
  for (const char* part : {"class Metrics", "class Serving", "class ExpertMap", "async function poll", ".tile h2 {"}) {
    EXPECT_EQ(Count(body, part), 1u) << part;
  }
  EXPECT_EQ(Count(body, "@PAGE"), 0u);
}

}  // namespace
}  // namespace switchyard
