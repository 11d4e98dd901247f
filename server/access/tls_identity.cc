#include "server/access/tls_identity.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <memory>
#include <utility>
#include <vector>

#include "engine/base/status_macros.h"

namespace switchyard {
namespace {

template <auto Free>
struct Deleter {
  template <typename T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};
using Bio = std::unique_ptr<BIO, Deleter<&BIO_free_all>>;
using Certificate = std::unique_ptr<X509, Deleter<&X509_free>>;
using Key = std::unique_ptr<EVP_PKEY, Deleter<&EVP_PKEY_free>>;
using Context = std::unique_ptr<SSL_CTX, Deleter<&SSL_CTX_free>>;

absl::Status Wrong(const std::string& setting, const std::string& what) {
  return absl::InvalidArgumentError(setting + " " + what);
}

// OpenSSL's reason for the latest failure, as " (reason)". It names a rule of its own, never content.
std::string Reason() {
  const unsigned long error = ERR_peek_last_error();
  const char* reason = error == 0 ? nullptr : ERR_reason_error_string(error);
  ERR_clear_error();
  return reason == nullptr ? "" : std::string(" (") + reason + ")";
}

Bio Reading(const std::string& text) { return Bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

// Without it OpenSSL would ask the terminal.
int NoPassword(char*, int, int, void*) { return 0; }

absl::StatusOr<std::vector<Certificate>> ParseCertificates(const std::string& setting, const std::string& text) {
  std::vector<Certificate> certificates;
  const Bio input = Reading(text);
  ERR_clear_error();
  while (X509* next = PEM_read_bio_X509(input.get(), nullptr, &NoPassword, nullptr)) certificates.emplace_back(next);
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  if (!at_end) {
    return Wrong(setting, "has a damaged certificate, number " + std::to_string(certificates.size() + 1) + Reason());
  }
  ERR_clear_error();
  if (certificates.empty()) return Wrong(setting, "has no PEM certificate");
  return certificates;
}

absl::StatusOr<Key> ParseKey(const std::string& text) {
  const Bio input = Reading(text);
  ERR_clear_error();
  Key key(PEM_read_bio_PrivateKey(input.get(), nullptr, &NoPassword, nullptr));
  if (key == nullptr) return Wrong("--ssl-keyfile", "has no PEM private key that needs no password" + Reason());
  return key;
}

std::time_t ToTime(const ASN1_TIME* time) {
  std::tm utc{};
  return ASN1_TIME_to_tm(time, &utc) == 1 ? timegm(&utc) : 0;
}

std::string Date(std::time_t time) {
  std::tm utc{};
  gmtime_r(&time, &utc);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &utc);
  return text;
}

bool IsValidAt(const X509* certificate, std::time_t now) {
  return ToTime(X509_get0_notBefore(certificate)) <= now && now < ToTime(X509_get0_notAfter(certificate));
}

// Loads both as a server would, which also applies OpenSSL's rules on key sizes and signatures.
absl::Status CheckServable(const std::vector<Certificate>& chain, EVP_PKEY* key) {
  const Context context(SSL_CTX_new(TLS_server_method()));
  ERR_clear_error();
  if (context == nullptr || SSL_CTX_use_certificate(context.get(), chain.front().get()) != 1) {
    return Wrong("--ssl-certfile", "is refused by OpenSSL" + Reason());
  }
  for (size_t i = 1; i < chain.size(); ++i) {
    if (SSL_CTX_add1_chain_cert(context.get(), chain[i].get()) != 1) {
      return Wrong("--ssl-certfile", "is refused by OpenSSL, certificate " + std::to_string(i + 1) + Reason());
    }
  }
  if (SSL_CTX_use_PrivateKey(context.get(), key) != 1 || SSL_CTX_check_private_key(context.get()) != 1) {
    return Wrong("--ssl-keyfile", "is not the key of the certificate in --ssl-certfile" + Reason());
  }
  return absl::OkStatus();
}

absl::Status CheckClientCa(const std::string& text, std::time_t now) {
  ASSIGN_OR_RETURN(const std::vector<Certificate> authorities, ParseCertificates("--ssl-ca-certs", text));
  for (const Certificate& authority : authorities) {
    if (IsValidAt(authority.get(), now)) return absl::OkStatus();
  }
  return Wrong("--ssl-ca-certs", "has no certificate that is valid now, " + Date(now));
}

}  // namespace

absl::StatusOr<TlsIdentity> CheckTlsIdentity(TlsPem pem, std::time_t now) {
  ASSIGN_OR_RETURN(const std::vector<Certificate> chain, ParseCertificates("--ssl-certfile", pem.certificate_chain));
  ASSIGN_OR_RETURN(const Key key, ParseKey(pem.private_key));
  RETURN_IF_ERROR(CheckServable(chain, key.get()));
  const std::time_t not_before = ToTime(X509_get0_notBefore(chain.front().get()));
  const std::time_t not_after = ToTime(X509_get0_notAfter(chain.front().get()));
  if (now >= not_after) return Wrong("--ssl-certfile", "has expired on " + Date(not_after));
  if (now < not_before) return Wrong("--ssl-certfile", "is not valid before " + Date(not_before));
  if (!pem.client_ca.empty()) RETURN_IF_ERROR(CheckClientCa(pem.client_ca, now));
  return TlsIdentity{std::move(pem), not_after};
}

}  // namespace switchyard
