// The files that say who is let in, watched: certificates and tokens are exchanged without a restart.
//
// A thread looks once a second. A change counts when two looks in a row saw the same content, so that a file which is
// still being written is not taken; then it is checked. What passes is in use from then on, within about two seconds;
// what does not leaves the old in use and is reported, once per change. Links that are switched (as Kubernetes does
// with secrets) and files that are replaced or written in place are all the same to it: it compares contents.
#ifndef SWITCHYARD_SERVER_ACCESS_CREDENTIAL_FILES_H_
#define SWITCHYARD_SERVER_ACCESS_CREDENTIAL_FILES_H_

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/mutex.h"
#include "server/access/api_tokens.h"
#include "server/access/credential_kind.h"
#include "server/access/tls_identity.h"
#include "server/access/watched_files.h"
#include "server/options.h"

namespace switchyard {

class CredentialFiles {
 public:
  // A change was taken (OK), or refused for the reason given. On the watching thread.
  using OnChange = std::function<void(CredentialKind kind, const absl::Status& result)>;

  // Reads and checks everything now.  INVALID_ARGUMENT: names the setting and what is wrong; also for a token file
  // without tokens, which would let nobody in.
  static absl::StatusOr<std::unique_ptr<CredentialFiles>> Open(const AccessOptions& options);
  ~CredentialFiles();
  CredentialFiles(const CredentialFiles&) = delete;
  CredentialFiles& operator=(const CredentialFiles&) = delete;

  // Begins to watch. Call once.
  void Watch(OnChange on_change);

  // Any thread. Null: the server has no certificate; connections are not encrypted.
  std::shared_ptr<const TlsIdentity> identity() const { return tls_ ? tls_->current() : nullptr; }
  // Any thread. Null: no token is asked for.
  std::shared_ptr<const ApiTokens> tokens() const { return tokens_ ? tokens_->current() : nullptr; }

 private:
  explicit CredentialFiles(const AccessOptions& options);
  bool WaitForStop(std::chrono::steady_clock::time_point until);

  std::unique_ptr<WatchedFiles<TlsIdentity>> tls_;
  std::unique_ptr<WatchedFiles<ApiTokens>> tokens_;

  Mutex mutex_;
  CondVar stop_changed_;
  bool stop_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_ACCESS_CREDENTIAL_FILES_H_
