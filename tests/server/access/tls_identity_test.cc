#include "server/access/tls_identity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include <memory>
#include <random>

namespace switchyard {
namespace {

using testing::HasSubstr;

constexpr std::time_t kNow = 1'800'000'000;
constexpr std::time_t kDay = 86'400;

std::string TextOf(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  std::string text(data, static_cast<size_t>(size));
  BIO_free(bio);
  return text;
}

// A key and its self-signed certificate, as PEM.
TlsPem MakePem(std::time_t not_before = kNow - kDay, std::time_t not_after = kNow + kDay) {
  EVP_PKEY* key = EVP_EC_gen("P-256");
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
  ASN1_TIME_set(X509_getm_notBefore(certificate), not_before);
  ASN1_TIME_set(X509_getm_notAfter(certificate), not_after);
  X509_set_pubkey(certificate, key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("test"), -1, -1, 0);
  X509_set_issuer_name(certificate, X509_get_subject_name(certificate));
  X509_sign(certificate, key, EVP_sha256());
  BIO* certificate_text = BIO_new(BIO_s_mem());
  BIO* key_text = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(certificate_text, certificate);
  PEM_write_bio_PrivateKey(key_text, key, nullptr, nullptr, 0, nullptr, nullptr);
  X509_free(certificate);
  EVP_PKEY_free(key);
  return {TextOf(certificate_text), TextOf(key_text), ""};
}

std::string RefusalOf(const TlsPem& pem) { return std::string(CheckTlsIdentity(pem, kNow).status().message()); }

TEST(TlsIdentityTest, TakesACertificateWithItsKeyAndSaysWhenItExpires) {
  const TlsPem pem = MakePem();
  const auto identity = CheckTlsIdentity(pem, kNow);
  ASSERT_TRUE(identity.ok()) << identity.status();
  EXPECT_EQ(identity->not_after, kNow + kDay);
  EXPECT_EQ(identity->pem.private_key, pem.private_key);
}

TEST(TlsIdentityTest, TakesChainsAndBundlesAndTextBetween) {
  TlsPem pem = MakePem();
  pem.certificate_chain = "subject=test\n" + pem.certificate_chain + "\nthe next one\n" + MakePem().certificate_chain;
  pem.client_ca = MakePem(kNow - 9 * kDay, kNow - kDay).certificate_chain + MakePem().certificate_chain;
  EXPECT_TRUE(CheckTlsIdentity(pem, kNow).ok()) << "one authority of the bundle is valid";
}

TEST(TlsIdentityTest, RefusesWhatDoesNotBelongTogetherOrIsOutOfDate) {
  const TlsPem good = MakePem();
  EXPECT_THAT(RefusalOf({good.certificate_chain, MakePem().private_key, ""}),
              HasSubstr("--ssl-keyfile is not the key"));
  EXPECT_THAT(RefusalOf(MakePem(kNow - 9 * kDay, kNow)),
              HasSubstr("--ssl-certfile has expired on 2027-01-15 08:00:00"));
  EXPECT_THAT(RefusalOf(MakePem(kNow + 1, kNow + kDay)), HasSubstr("--ssl-certfile is not valid before"));
  EXPECT_THAT(RefusalOf({"", good.private_key, ""}), HasSubstr("--ssl-certfile has no PEM certificate"));
  EXPECT_THAT(RefusalOf({good.private_key, good.private_key, ""}), HasSubstr("--ssl-certfile has no PEM certificate"));
  EXPECT_THAT(RefusalOf({good.certificate_chain, good.certificate_chain, ""}), HasSubstr("--ssl-keyfile has no PEM"));
  EXPECT_THAT(RefusalOf({good.certificate_chain, good.private_key, "x"}), HasSubstr("--ssl-ca-certs has no PEM"));
  EXPECT_THAT(
      RefusalOf({good.certificate_chain, good.private_key, MakePem(kNow - 9 * kDay, kNow - kDay).certificate_chain}),
      HasSubstr("--ssl-ca-certs has no certificate that is valid now"));
}

TEST(TlsIdentityTest, RefusesWhatWasCutOff) {
  const TlsPem good = MakePem();
  for (size_t size = 0; size + 2 < good.certificate_chain.size(); size += 7) {
    EXPECT_THAT(RefusalOf({good.certificate_chain.substr(0, size), good.private_key, ""}), HasSubstr("--ssl-certfile"));
    if (size <= 27) continue;  // less than its first line is text between certificates
    EXPECT_THAT(RefusalOf({good.certificate_chain + good.certificate_chain.substr(0, size), good.private_key, ""}),
                HasSubstr("--ssl-certfile has a damaged certificate, number 2"));
  }
  for (size_t size = 0; size + 2 < good.private_key.size(); size += 7) {
    EXPECT_THAT(RefusalOf({good.certificate_chain, good.private_key.substr(0, size), ""}), HasSubstr("--ssl-keyfile"));
  }
}

TEST(TlsIdentityTest, SurvivesRandomDamageAndNeverShowsTheKey) {
  const TlsPem good = MakePem();
  std::mt19937 random(1);
  for (int i = 0; i < 500; ++i) {
    TlsPem pem = good;
    std::string& text = i % 2 == 0 ? pem.certificate_chain : pem.private_key;
    text[random() % text.size()] = static_cast<char>(random());
    const auto identity = CheckTlsIdentity(pem, kNow);
    if (identity.ok()) continue;  // a byte outside of the certificate, or a blank
    EXPECT_THAT(std::string(identity.status().message()), testing::StartsWith("--ssl-"));
    EXPECT_THAT(std::string(identity.status().message()), Not(HasSubstr(good.private_key.substr(30, 20))));
  }
}

}  // namespace
}  // namespace switchyard
