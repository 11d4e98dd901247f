#include "server/access/api_tokens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace switchyard {
namespace {

using testing::HasSubstr;

// Their SHA-256 hashes were made by sha256sum.
constexpr char kHashOfTest[] = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
constexpr char kHashOfAbc[] = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
constexpr char kHashOfNothing[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

ApiTokens TokensOf(const std::string& text) { return *ApiTokens::Parse(text); }

std::string RefusalOf(const std::string& text) { return std::string(ApiTokens::Parse(text).status().message()); }

TEST(ApiTokensTest, ReadsHashesNamesAndComments) {
  const ApiTokens tokens =
      TokensOf(std::string("# ours\r\n\n  ") + kHashOfTest + "  alice  \r\n\t\n" + kHashOfAbc + "\tbob and carol");
  EXPECT_EQ(tokens.size(), 2u);
  EXPECT_TRUE(tokens.Admits({"Bearer test"}));
  EXPECT_TRUE(tokens.Admits({"Bearer abc"}));
}

TEST(ApiTokensTest, AdmitsOneBearerTokenThatIsKnown) {
  const ApiTokens tokens = TokensOf(kHashOfTest);
  EXPECT_TRUE(tokens.Admits({"bearer test"})) << "the scheme is not case-sensitive";
  for (const char* value : {"", "Bearer", "Bearer ", "Bearer  test", "Bearer test ", "Bearer Test", "Bearer tes",
                            "Bearer testt", "Basic test", "test", "Bearertest", "Bearer test,Bearer test"}) {
    EXPECT_FALSE(tokens.Admits({value})) << value;
  }
  EXPECT_FALSE(tokens.Admits({std::string("Bearer ") + kHashOfTest})) << "its hash is no token";
  EXPECT_FALSE(tokens.Admits({}));
  EXPECT_FALSE(tokens.Admits({"Bearer test", "Bearer test"}));
  EXPECT_FALSE(tokens.Admits({"Bearer test", ""}));
}

TEST(ApiTokensTest, TokensThatAreTooLongAreNotEvenHashed) {
  constexpr char kHashOf512[] = "64164443bb63e338ef1cfdb12a57117cd1212270cc935a798f6e8a665cdf4659";  // times "x"
  constexpr char kHashOf513[] = "35ade0090e64e74d6ad04204009c23a4e34b82bdf0f4f317fbcc5f26f9b10241";
  EXPECT_TRUE(TokensOf(kHashOf512).Admits({"Bearer " + std::string(ApiTokens::kMaxTokenBytes, 'x')}));
  EXPECT_FALSE(TokensOf(kHashOf513).Admits({"Bearer " + std::string(ApiTokens::kMaxTokenBytes + 1, 'x')}));
  EXPECT_FALSE(TokensOf(kHashOfNothing).Admits({"Bearer " + std::string(9000, 'x')}))
      << "what is not read must not pass for the empty token";
}

TEST(ApiTokensTest, NoTokenLetsNobodyIn) {
  for (const char* text : {"", "\n\n", "# only this"}) {
    EXPECT_EQ(TokensOf(text).size(), 0u);
    EXPECT_FALSE(TokensOf(text).Admits({"Bearer test"}));
    EXPECT_FALSE(TokensOf(text).Admits({}));
  }
  EXPECT_FALSE(TokensOf(kHashOfNothing).Admits({"Bearer "})) << "the empty token is none, whatever the file says";
  EXPECT_FALSE(TokensOf(kHashOfNothing).Admits({}));
}

TEST(ApiTokensTest, NamesTheLineThatIsWrongAndNeverItsContent) {
  EXPECT_THAT(RefusalOf("\n# x\nsecret alice"), HasSubstr("line 3 does not begin with a SHA-256 hash"));
  EXPECT_THAT(RefusalOf("secret"), Not(HasSubstr("secret")));
  EXPECT_THAT(RefusalOf(std::string(kHashOfTest) + "0"), HasSubstr("line 1"));
  EXPECT_THAT(RefusalOf(std::string(kHashOfTest).substr(1)), HasSubstr("line 1"));
  EXPECT_THAT(RefusalOf("g" + std::string(kHashOfTest).substr(1)), HasSubstr("line 1"));
  EXPECT_THAT(RefusalOf(std::string(kHashOfTest) + " a\x01"
                                                   "b"),
              HasSubstr("not printable"));
  EXPECT_THAT(RefusalOf(std::string(kHashOfTest) + " " + std::string(200, 'n')), HasSubstr("over 128 bytes"));
  EXPECT_THAT(RefusalOf(std::string(kHashOfTest) + "\n" + kHashOfTest), HasSubstr("line 2 has the hash of line 1"));
}

TEST(ApiTokensTest, BoundsTheirNumber) {
  std::string text;
  for (size_t i = 0; i < ApiTokens::kMaxTokens; ++i) {
    std::string number = std::to_string(i);
    text += std::string(64 - number.size(), '0') + number + "\n";
  }
  EXPECT_EQ(TokensOf(text).size(), ApiTokens::kMaxTokens);
  EXPECT_THAT(RefusalOf(text + kHashOfTest), HasSubstr("there are 1025 tokens; use at most 1024"));
}

}  // namespace
}  // namespace switchyard
