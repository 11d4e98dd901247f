// What the server shows in a TLS handshake, and whom it trusts: PEM texts that were checked.
#ifndef SWITCHYARD_SERVER_ACCESS_TLS_IDENTITY_H_
#define SWITCHYARD_SERVER_ACCESS_TLS_IDENTITY_H_

#include <ctime>
#include <string>

#include "absl/status/statusor.h"

namespace switchyard {

struct TlsPem {
  std::string certificate_chain;  // the server's own certificate first
  std::string private_key;        // of that certificate, not encrypted
  std::string client_ca;          // who signs clients' certificates; empty: clients need none
};

struct TlsIdentity {
  TlsPem pem;
  std::time_t not_after = 0;  // when the server's own certificate expires
};

// Checks by OpenSSL, at its own security level: everything parses, the key fits, the certificate is valid at `now`, and
// so is at least one of the client CA's.  INVALID_ARGUMENT: names the setting and what is wrong, never the content.
absl::StatusOr<TlsIdentity> CheckTlsIdentity(TlsPem pem, std::time_t now);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_ACCESS_TLS_IDENTITY_H_
