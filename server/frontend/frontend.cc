#include "server/frontend/frontend.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <thread>
#include <utility>

#include "engine/base/status_macros.h"
#include "server/access/credential_files.h"
#include "server/frontend/connection_acceptor.h"
#include "server/frontend/errors.h"
#include "server/frontend/expert_service.h"
#include "server/frontend/generation_call.h"
#include "server/frontend/guarded_credentials.h"
#include "server/frontend/health_service.h"
#include "server/frontend/inference_service.h"
#include "server/frontend/kserve/kserve_service.h"
#include "server/frontend/library_log.h"
#include "server/frontend/open_calls.h"
#include "server/log.h"

namespace switchyard {
namespace {

using ExternalConnections = grpc::ServerBuilder::experimental_type::ExternalConnectionType;

constexpr std::chrono::milliseconds kProbeInterval{100};
constexpr std::chrono::milliseconds kProbeTimeout{500};
constexpr std::chrono::seconds kSweepInterval{5};
constexpr std::chrono::seconds kStalledFor{60};  // a client that reads nothing for so long is cut off
constexpr size_t kTextJobs = 256;
constexpr size_t kTextJobBytes = size_t{64} << 20;  // all of them together

FrontendLimits LimitsFrom(const GrpcOptions& grpc, const SchedulingOptions& scheduling) {
  FrontendLimits limits;
  limits.max_request_seconds = grpc.max_request_seconds;
  limits.stream_buffer_bytes = grpc.stream_buffer_bytes;
  limits.max_message_bytes = grpc.max_message_bytes;
  limits.max_open_calls = grpc.max_open_calls;
  limits.max_num_queued_reqs = scheduling.max_num_queued_reqs;
  limits.max_num_queued_tokens = scheduling.max_num_queued_tokens;
  limits.version = SoftwareVersion();
  return limits;
}

int Millis(double seconds) { return static_cast<int>(seconds * 1e3); }

void SetChannelArguments(const GrpcOptions& options, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(static_cast<int>(options.max_message_bytes));
  builder->SetMaxSendMessageSize(-1);
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);  // a taken port is an error, not a shared one
  builder->AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, options.max_concurrent_streams);
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, options.max_metadata_bytes);
  // Identity only: gRPC inflates a compressed message before it checks the size.
  builder->AddChannelArgument(GRPC_COMPRESSION_CHANNEL_ENABLED_ALGORITHMS_BITSET, 1);
  builder->AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, Millis(options.handshake_timeout));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Millis(options.keepalive_time));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, Millis(options.keepalive_timeout));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5000);
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  if (options.max_connection_age > 0) {
    builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_MS, Millis(options.max_connection_age));
    builder->AddChannelArgument(GRPC_ARG_MAX_CONNECTION_AGE_GRACE_MS, Millis(options.max_connection_age_grace));
  }
}

}  // namespace

struct Frontend::Impl {
  Impl(const GrpcOptions& grpc, const SchedulingOptions& scheduling, ServingMetrics* serving_metrics)
      : open_calls(grpc.max_open_calls),
        text_worker(kTextJobs, kTextJobBytes),
        health({"switchyard.v1.InferenceService", "switchyard.v1.ExpertService", "inference.GRPCInferenceService"}),
        inference(&parts),
        expert(&parts),
        kserve(&parts) {
    parts.limits = LimitsFrom(grpc, scheduling);
    parts.metrics = serving_metrics;
    parts.writer = &writer;
    parts.text_worker = &text_worker;
    parts.open_calls = &open_calls;
  }

  absl::Status OpenCredentials(const AccessOptions& options);
  absl::Status Listen(const GrpcOptions& options);
  void Probe();
  bool StopAsked(std::chrono::milliseconds wait);
  void StopProbe();
  bool AdvancePhase(ServingPhase phase);
  void EndCalls();
  void CheckEngine();
  void CheckGrpc(grpc::health::v1::Health::Stub* stub);
  void BreakStalledCalls();

  FrontendParts parts;
  StreamWriter writer;
  OpenCalls open_calls;
  ServedModel model;
  TextWorker text_worker;
  HealthService health;
  InferenceService inference;
  ExpertService expert;
  kserve::KserveService kserve;
  // The server asks these until it is gone.
  std::unique_ptr<CredentialFiles> credentials;
  std::shared_ptr<grpc::ServerCredentials> port_credentials;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor>
      accepted;  // with a limit of connections, their way in
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<ConnectionAcceptor> acceptor;  // with a limit of connections
  int port = 0;
  bool shut_down = false;

  Mutex phase_mutex;  // of who changes the phase

  Mutex mutex;
  CondVar stop_changed;
  bool stop ABSL_GUARDED_BY(mutex) = false;
  std::function<bool()> alive ABSL_GUARDED_BY(mutex);
  grpc::ClientContext* probe_call ABSL_GUARDED_BY(mutex) = nullptr;  // in flight
  std::thread probe;
};

absl::Status Frontend::Impl::OpenCredentials(const AccessOptions& options) {
  const auto show_expiry = [this] {
    if (const auto identity = credentials->identity())
      parts.metrics->SetCertificateExpiry(static_cast<double>(identity->not_after));
  };
  ASSIGN_OR_RETURN(credentials, CredentialFiles::Open(options));
  show_expiry();
  credentials->Watch([=, this](CredentialKind kind, const absl::Status& result) {
    parts.metrics->OnCredentialsChange(kind, result.ok());
    show_expiry();
  });
  const auto tokens = credentials->tokens();
  Log(LogLevel::kInfo, "access",
      {{"tls", credentials->identity() != nullptr},
       {"client_certificates", !options.ssl_ca_certs.empty()},
       {"tokens", tokens == nullptr ? 0 : tokens->size()}});
  return absl::OkStatus();
}

absl::Status Frontend::Impl::Listen(const GrpcOptions& options) {
  RETURN_IF_ERROR(OpenCredentials(options.access));
  if (options.enable_reflection) grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  const std::string address = HostAndPort(options.host, options.port);
  grpc::ServerBuilder builder;
  SetChannelArguments(options, &builder);
  port_credentials = GuardedCredentials(credentials.get(), parts.metrics);
  if (options.max_connections > 0) {
    ASSIGN_OR_RETURN(acceptor, ConnectionAcceptor::Listen(options.host, options.port, options.max_connections));
    port = acceptor->port();
    accepted = builder.experimental().AddExternalConnectionAcceptor(ExternalConnections::FROM_FD, port_credentials);
  } else {
    builder.AddListeningPort(address, port_credentials, &port);
  }
  builder.RegisterService(&inference);
  builder.RegisterService(&expert);
  builder.RegisterService(&kserve);
  builder.RegisterService(&health);
  server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    return absl::UnavailableError("cannot listen on " + address + "; another process may have that port");
  }
  if (acceptor) {
    acceptor->Start(
        [this](int listener, int connection) {
          grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters parameters;
          parameters.listener_fd = listener;
          parameters.fd = connection;
          accepted->HandleNewConnection(&parameters);
        },
        [this] { parts.metrics->OnConnectionRefused(); });
  }
  probe = std::thread([this] { Probe(); });
  return absl::OkStatus();
}

// Health first: nobody may be refused before the health check says so. False: that phase, or a later one, was reached
// before.
bool Frontend::Impl::AdvancePhase(ServingPhase phase) {
  MutexLock lock(&phase_mutex);
  if (phase <= parts.phase.load(std::memory_order_relaxed)) return false;
  const bool serving = phase == ServingPhase::kServing;
  if (!serving) health.SetServing(false);
  parts.metrics->SetReady(serving);
  parts.phase.store(phase, std::memory_order_release);
  if (serving) health.SetServing(true);
  return true;
}

void Frontend::Impl::EndCalls() {
  for (const auto& call : open_calls.All()) call->EndUnavailable();
}

bool Frontend::Impl::StopAsked(std::chrono::milliseconds wait) {
  const TimePoint until = std::chrono::steady_clock::now() + wait;
  MutexLock lock(&mutex);
  while (!stop && stop_changed.WaitUntil(&mutex, until)) {
  }
  return stop;
}

void Frontend::Impl::StopProbe() {
  {
    MutexLock lock(&mutex);
    stop = true;
    if (probe_call != nullptr) probe_call->TryCancel();
  }
  stop_changed.NotifyAll();
  if (probe.joinable()) probe.join();
}

void Frontend::Impl::Probe() {
  const auto stub = grpc::health::v1::Health::NewStub(server->InProcessChannel(grpc::ChannelArguments()));
  TimePoint next_sweep = std::chrono::steady_clock::now() + kSweepInterval;
  while (!StopAsked(kProbeInterval)) {
    CheckEngine();
    CheckGrpc(stub.get());
    if (std::chrono::steady_clock::now() < next_sweep) continue;
    next_sweep += kSweepInterval;
    BreakStalledCalls();
  }
}

void Frontend::Impl::CheckEngine() {
  std::function<bool()> is_alive;
  {
    MutexLock lock(&mutex);
    is_alive = alive;
  }
  // While it drains, the drain's own limit ends a hanging engine.
  if (!is_alive || parts.phase.load(std::memory_order_acquire) == ServingPhase::kDraining || is_alive()) return;
  if (!AdvancePhase(ServingPhase::kEngineFailed)) return;
  Log(LogLevel::kError, "engine_dead", {});
  EndCalls();
}

void Frontend::Impl::CheckGrpc(grpc::health::v1::Health::Stub* stub) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kProbeTimeout);
  grpc::health::v1::HealthCheckRequest request;
  grpc::health::v1::HealthCheckResponse response;
  {
    MutexLock lock(&mutex);
    if (stop) return;
    probe_call = &context;
  }
  const grpc::Status status = stub->Check(&context, request, &response);
  MutexLock lock(&mutex);
  probe_call = nullptr;
  if (!status.ok() && !stop)
    Log(LogLevel::kWarning, "self_check_failed", {{"grpc_code", static_cast<int>(status.error_code())}});
}

void Frontend::Impl::BreakStalledCalls() {
  const TimePoint now = std::chrono::steady_clock::now();
  for (const auto& call : open_calls.All()) call->BreakIfStalled(now, kStalledFor);
  kserve.SweepStreams(now, kStalledFor);
}

absl::StatusOr<std::unique_ptr<Frontend>> Frontend::Listen(const GrpcOptions& grpc, const SchedulingOptions& scheduling,
                                                           ServingMetrics* metrics) {
  RouteLibraryLogs();
  auto impl = std::make_unique<Impl>(grpc, scheduling, metrics);
  metrics->SetExternalCounters(&InternalErrors, &DroppedLogLines);
  const absl::Status listening = impl->Listen(grpc);
  if (!listening.ok()) return listening;
  return std::unique_ptr<Frontend>(new Frontend(std::move(impl)));
}

Frontend::Frontend(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Frontend::~Frontend() {
  if (!impl_->shut_down) Shutdown(std::chrono::steady_clock::now());
}

int Frontend::port() const { return impl_->port; }

void Frontend::BeginServing(ServedModel model, std::function<bool()> alive) {
  impl_->model = std::move(model);
  impl_->parts.model.store(&impl_->model, std::memory_order_release);
  {
    MutexLock lock(&impl_->mutex);
    impl_->alive = std::move(alive);
  }
  impl_->AdvancePhase(ServingPhase::kServing);
}

void Frontend::BeginDraining() { impl_->AdvancePhase(ServingPhase::kDraining); }

void Frontend::MarkEngineFailed() { impl_->AdvancePhase(ServingPhase::kEngineFailed); }

void Frontend::Shutdown(TimePoint deadline) {
  impl_->shut_down = true;
  impl_->AdvancePhase(ServingPhase::kDraining);
  impl_->StopProbe();
  if (impl_->acceptor) impl_->acceptor->Stop();
  impl_->EndCalls();
  impl_->text_worker.Stop();
  impl_->expert.EndWatches();
  impl_->kserve.EndStreams();
  impl_->health.EndWatches();
  const auto remaining = deadline - std::chrono::steady_clock::now();
  impl_->server->Shutdown(std::chrono::system_clock::now() +
                          std::chrono::duration_cast<std::chrono::system_clock::duration>(remaining));
  impl_->server->Wait();
}

void Frontend::Flush() { impl_->writer.Flush(); }

bool Frontend::serving() const { return impl_->health.serving(); }

bool Frontend::healthy() const {
  return impl_->parts.phase.load(std::memory_order_acquire) != ServingPhase::kEngineFailed;
}

FrontendParts* Frontend::parts() { return &impl_->parts; }

const CredentialFiles* Frontend::credentials() const { return impl_->credentials.get(); }

std::shared_ptr<grpc::Channel> Frontend::InProcessChannel() {
  return impl_->server->InProcessChannel(grpc::ChannelArguments());
}

}  // namespace switchyard
