// The two kinds of files that say who is let in.
#ifndef SWITCHYARD_SERVER_ACCESS_CREDENTIAL_KIND_H_
#define SWITCHYARD_SERVER_ACCESS_CREDENTIAL_KIND_H_

#include <cstdint>

namespace switchyard {

enum class CredentialKind : uint8_t { kTls, kTokens };
inline constexpr int kNumCredentialKinds = 2;
inline constexpr const char* kCredentialKindNames[kNumCredentialKinds] = {"tls", "tokens"};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_ACCESS_CREDENTIAL_KIND_H_
