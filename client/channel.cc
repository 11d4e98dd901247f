#include "client/channel.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <fstream>
#include <iterator>
#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "google/rpc/status.pb.h"

namespace switchyard {
namespace {

absl::StatusOr<std::string> ReadPemFile(const char* option, const std::string& path) {
  if (path.empty()) return std::string();
  std::ifstream file(path, std::ios::binary);
  std::string contents((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file || contents.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(option, " is ", path, ", which cannot be read or is empty"));
  }
  return contents;
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> CreateCredentials(const ClientOptions& options) {
  if (!options.tls && options.ca_file.empty() && options.cert_file.empty() && options.key_file.empty()) {
    return grpc::InsecureChannelCredentials();
  }
  absl::StatusOr<std::string> ca = ReadPemFile("ca_file", options.ca_file);
  if (!ca.ok()) return ca.status();
  absl::StatusOr<std::string> cert = ReadPemFile("cert_file", options.cert_file);
  if (!cert.ok()) return cert.status();
  absl::StatusOr<std::string> key = ReadPemFile("key_file", options.key_file);
  if (!key.ok()) return key.status();
  grpc::SslCredentialsOptions ssl;
  ssl.pem_root_certs = *ca;
  ssl.pem_cert_chain = *cert;
  ssl.pem_private_key = *key;
  return grpc::SslCredentials(ssl);
}

bool IsLoopback(const std::string& address) {
  return absl::StartsWith(address, "localhost:") || absl::StartsWith(address, "127.") ||
         absl::StartsWith(address, "[::1]");
}

// gRPC itself retries what is refused before the server has sent headers, which it does when a request is queued, and
// waits as long as `grpc-retry-pushback-ms` asks.
std::string RetryServiceConfig(int max_attempts) {
  return absl::StrCat(
      R"({"methodConfig":[{"name":[{"service":"switchyard.v1.InferenceService"}],"retryPolicy":{"maxAttempts":)",
      max_attempts, R"(,"initialBackoff":"0.2s","maxBackoff":"5s","backoffMultiplier":2,)",
      R"("retryableStatusCodes":["RESOURCE_EXHAUSTED"]}}]})");
}

grpc::ChannelArguments CreateArguments(const ClientOptions& options) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(static_cast<int>(options.max_message_bytes));
  arguments.SetMaxSendMessageSize(static_cast<int>(options.max_message_bytes));
  // Notices a dead server during a long wait. The server permits a ping each 5 s.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 30'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 10'000);
  // The default grows to two minutes: far too long to notice that a server has come back.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 200);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  if (IsLoopback(options.address)) arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  if (options.own_connection) arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  if (options.max_attempts > 1) {
    arguments.SetServiceConfigJSON(RetryServiceConfig(options.max_attempts));
  } else {
    arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  }
  return arguments;
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::Channel>> CreateChannel(const ClientOptions& options) {
  if (options.address.empty()) return absl::InvalidArgumentError("address is empty; expected host:port");
  if (options.max_attempts < 1 || options.max_attempts > 5) {
    return absl::InvalidArgumentError(absl::StrCat("max_attempts is ", options.max_attempts, "; allowed are 1 to 5"));
  }
  absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> credentials = CreateCredentials(options);
  if (!credentials.ok()) return credentials.status();
  return grpc::CreateCustomChannel(options.address, *credentials, CreateArguments(options));
}

void PrepareContext(const ClientOptions& options, const CallOptions& call, grpc::ClientContext* context) {
  if (call.timeout != absl::InfiniteDuration()) {
    context->set_deadline(absl::ToChronoTime(absl::Now() + call.timeout));
  }
  if (!options.api_key.empty()) context->AddMetadata("authorization", "Bearer " + options.api_key);
}

absl::Status ToAbslStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
  google::rpc::Status details;
  if (details.ParseFromString(status.error_details())) {
    for (const auto& detail : details.details()) result.SetPayload(detail.type_url(), absl::Cord(detail.value()));
  }
  return result;
}

}  // namespace switchyard
