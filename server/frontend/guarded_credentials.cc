#include "server/frontend/guarded_credentials.h"

#include <grpc/grpc.h>
#include <grpc/grpc_security.h>
#include <grpc/slice.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace switchyard {
namespace {

// Whoever may connect may ask these; every other method wants a token. Probes and load balancers have none.
constexpr std::string_view kMethodsForAll[] = {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"};

std::string_view View(const grpc_slice& slice) {
  return {reinterpret_cast<const char*>(GRPC_SLICE_START_PTR(slice)), GRPC_SLICE_LENGTH(slice)};
}

class PortCredentials final : public grpc::ServerCredentials {
 public:
  PortCredentials(const CredentialFiles* files, ServingMetrics* metrics)
      : files_(files), metrics_(metrics), credentials_(files->identity() ? CreateTls() : CreatePlaintext()) {
    if (files->tokens()) {
      grpc_server_credentials_set_auth_metadata_processor(credentials_, {&CheckCall, [](void*) {}, this});
    }
  }
  ~PortCredentials() override { grpc_server_credentials_release(credentials_); }

  void SetAuthMetadataProcessor(const std::shared_ptr<grpc::AuthMetadataProcessor>&) override {}  // it has its own

 private:
  int AddPortToServer(const std::string& address, grpc_server* server) override {
    return grpc_server_add_http2_port(server, address.c_str(), credentials_);
  }

  static grpc_server_credentials* CreatePlaintext() { return grpc_insecure_server_credentials_create(); }

  // TLS 1.2 is gRPC's own minimum.
  grpc_server_credentials* CreateTls() {
    const bool ask_clients = !files_->identity()->pem.client_ca.empty();
    return grpc_ssl_server_credentials_create_with_options(
        grpc_ssl_server_credentials_create_options_using_config_fetcher(
            ask_clients ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                        : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE,
            &FetchCertificate, this));
  }

  // gRPC calls it at each handshake, one at a time per port, and copies what it is given.
  static grpc_ssl_certificate_config_reload_status FetchCertificate(void* self,
                                                                    grpc_ssl_server_certificate_config** config) {
    auto* const credentials = static_cast<PortCredentials*>(self);
    std::shared_ptr<const TlsIdentity> newest = credentials->files_->identity();
    if (newest == credentials->in_use_) return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_UNCHANGED;
    const TlsPem& pem = newest->pem;
    const grpc_ssl_pem_key_cert_pair pair = {pem.private_key.c_str(), pem.certificate_chain.c_str()};
    // gRPC aborts without trusted roots, even where it asks clients for no certificate and so never uses them.
    const std::string& roots = pem.client_ca.empty() ? pem.certificate_chain : pem.client_ca;
    *config = grpc_ssl_server_certificate_config_create(roots.c_str(), &pair, 1);
    credentials->in_use_ = std::move(newest);
    return GRPC_SSL_CERTIFICATE_CONFIG_RELOAD_NEW;
  }

  // The token is taken out of the headers, so that no handler can log or pass it on.
  static void CheckCall(void* self, grpc_auth_context*, const grpc_metadata* headers, size_t num_headers,
                        grpc_process_auth_metadata_done_cb done, void* call) {
    auto* const credentials = static_cast<PortCredentials*>(self);
    std::string_view path;
    std::vector<std::string_view> authorization;
    std::vector<grpc_metadata> taken_out;
    for (size_t i = 0; i < num_headers; ++i) {
      const std::string_view key = View(headers[i].key);
      if (key == ":path") path = View(headers[i].value);
      if (key != "authorization") continue;
      authorization.push_back(View(headers[i].value));
      taken_out.push_back(headers[i]);
    }
    const bool for_all =
        std::find(std::begin(kMethodsForAll), std::end(kMethodsForAll), path) != std::end(kMethodsForAll);
    if (for_all || credentials->files_->tokens()->Admits(authorization)) {
      done(call, taken_out.data(), taken_out.size(), nullptr, 0, GRPC_STATUS_OK, nullptr);
      return;
    }
    credentials->metrics_->OnCallAnswered(GRPC_STATUS_UNAUTHENTICATED);
    done(call, nullptr, 0, nullptr, 0, GRPC_STATUS_UNAUTHENTICATED, "authentication required");
  }

  const CredentialFiles* const files_;
  ServingMetrics* const metrics_;
  std::shared_ptr<const TlsIdentity> in_use_;  // by handshakes
  grpc_server_credentials* const credentials_;
};

}  // namespace

std::shared_ptr<grpc::ServerCredentials> GuardedCredentials(const CredentialFiles* files, ServingMetrics* metrics) {
  return std::make_shared<PortCredentials>(files, metrics);
}

}  // namespace switchyard
