#include "server/access/credential_files.h"

#include <chrono>
#include <ctime>
#include <utility>

#include "engine/base/status_macros.h"
#include "server/log.h"

namespace switchyard {
namespace {

constexpr std::chrono::seconds kLookInterval{1};

std::vector<WatchedFile> TlsFiles(const AccessOptions& options) {
  std::vector<WatchedFile> files = {{"--ssl-certfile", options.ssl_certfile}, {"--ssl-keyfile", options.ssl_keyfile}};
  if (!options.ssl_ca_certs.empty()) files.push_back({"--ssl-ca-certs", options.ssl_ca_certs});
  return files;
}

absl::StatusOr<TlsIdentity> MakeIdentity(const std::vector<std::string>& texts) {
  const bool has_ca = texts.size() > 2;
  // An empty file must not mean that clients need no certificate.
  if (has_ca && texts[2].empty()) return absl::InvalidArgumentError("--ssl-ca-certs is empty");
  return CheckTlsIdentity({texts[0], texts[1], has_ca ? texts[2] : ""}, std::time(nullptr));
}

absl::StatusOr<ApiTokens> MakeTokens(const std::vector<std::string>& texts) {
  auto tokens = ApiTokens::Parse(texts[0]);
  if (tokens.ok()) return tokens;
  return absl::InvalidArgumentError("--api-key-file: " + std::string(tokens.status().message()));
}

void Report(CredentialKind kind, const absl::Status& result) {
  const char* what = kCredentialKindNames[static_cast<int>(kind)];
  if (result.ok()) {
    Log(LogLevel::kInfo, "credentials_changed", {{"what", what}});
  } else {
    Log(LogLevel::kError, "credentials_refused", {{"what", what}, {"reason", std::string(result.message())}});
  }
}

}  // namespace

CredentialFiles::CredentialFiles(const AccessOptions& options) {
  if (!options.ssl_certfile.empty()) {
    tls_ = std::make_unique<WatchedFiles<TlsIdentity>>(TlsFiles(options), &MakeIdentity);
  }
  if (!options.api_key_file.empty()) {
    tokens_ = std::make_unique<WatchedFiles<ApiTokens>>(
        std::vector<WatchedFile>{{"--api-key-file", options.api_key_file}}, &MakeTokens);
  }
}

absl::StatusOr<std::unique_ptr<CredentialFiles>> CredentialFiles::Open(const AccessOptions& options) {
  std::unique_ptr<CredentialFiles> files(new CredentialFiles(options));
  if (files->tls_) RETURN_IF_ERROR(files->tls_->Open());
  if (files->tokens_) {
    RETURN_IF_ERROR(files->tokens_->Open());
    if (files->tokens()->size() == 0) {
      return absl::InvalidArgumentError("--api-key-file " + options.api_key_file +
                                        " has no token, so nobody could call; `switchyard token` makes one");
    }
  }
  return files;
}

CredentialFiles::~CredentialFiles() {
  {
    MutexLock lock(&mutex_);
    stop_ = true;
  }
  stop_changed_.NotifyAll();
  if (thread_.joinable()) thread_.join();
}

bool CredentialFiles::WaitForStop(std::chrono::steady_clock::time_point until) {
  MutexLock lock(&mutex_);
  while (!stop_ && stop_changed_.WaitUntil(&mutex_, until)) {
  }
  return stop_;
}

void CredentialFiles::Watch(OnChange on_change) {
  if (!tls_ && !tokens_) return;
  thread_ = std::thread([this, on_change = std::move(on_change)] {
    const auto look = [&on_change](CredentialKind kind, auto* files) {
      if (files == nullptr) return;
      const std::optional<absl::Status> result = files->Look();
      if (!result) return;
      Report(kind, *result);
      on_change(kind, *result);
    };
    while (!WaitForStop(std::chrono::steady_clock::now() + kLookInterval)) {
      look(CredentialKind::kTls, tls_.get());
      look(CredentialKind::kTokens, tokens_.get());
    }
  });
}

}  // namespace switchyard
