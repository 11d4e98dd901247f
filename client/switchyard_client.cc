#include "client/switchyard_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/channel.h"
#include "google/rpc/error_details.pb.h"
#include "grpc/health/v1/health.grpc.pb.h"
#include "switchyard/v1/expert_service.grpc.pb.h"
#include "switchyard/v1/inference_service.grpc.pb.h"

namespace switchyard {
namespace {

constexpr char kTypeUrlPrefix[] = "type.googleapis.com/google.rpc.";

Health ToHealth(const grpc::health::v1::HealthCheckResponse& response) {
  switch (response.status()) {
    case grpc::health::v1::HealthCheckResponse::SERVING:
      return Health::kServing;
    case grpc::health::v1::HealthCheckResponse::NOT_SERVING:
      return Health::kNotServing;
    case grpc::health::v1::HealthCheckResponse::SERVICE_UNKNOWN:
      return Health::kServiceUnknown;
    default:
      return Health::kUnknown;
  }
}

template <class Message>
class GrpcStream : public Stream<Message> {
 public:
  GrpcStream() = default;
  ~GrpcStream() override {
    if (finished_) return;
    Cancel();
    Finish().IgnoreError();
  }

  // Before Start only.
  grpc::ClientContext* context() { return &context_; }
  void Start(std::unique_ptr<grpc::ClientReader<Message>> reader) { reader_ = std::move(reader); }

  bool Next(Message* message) override { return reader_->Read(message); }

  absl::Status Finish() override {
    Message unread;
    while (reader_->Read(&unread)) {
    }
    finished_ = true;
    return ToAbslStatus(reader_->Finish());
  }

  void Cancel() override { context_.TryCancel(); }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<Message>> reader_;
  bool finished_ = false;
};

class HealthStream : public Stream<Health> {
 public:
  explicit HealthStream(std::unique_ptr<Stream<grpc::health::v1::HealthCheckResponse>> stream)
      : stream_(std::move(stream)) {}

  bool Next(Health* health) override {
    grpc::health::v1::HealthCheckResponse response;
    if (!stream_->Next(&response)) return false;
    *health = ToHealth(response);
    return true;
  }
  absl::Status Finish() override { return stream_->Finish(); }
  void Cancel() override { stream_->Cancel(); }

 private:
  std::unique_ptr<Stream<grpc::health::v1::HealthCheckResponse>> stream_;
};

template <class Detail>
std::optional<Detail> ReadDetail(const absl::Status& status, const char* name) {
  const auto payload = status.GetPayload(absl::StrCat(kTypeUrlPrefix, name));
  Detail detail;
  if (!payload.has_value() || !detail.ParseFromString(std::string(*payload))) return std::nullopt;
  return detail;
}

// May a server that answers so be SERVING a little later?
bool IsWorthWaiting(const absl::Status& status) {
  return status.ok() || absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) || absl::IsNotFound(status);
}

}  // namespace

struct Client::Rep {
  ClientOptions options;
  std::unique_ptr<v1::InferenceService::Stub> inference;
  std::unique_ptr<v1::ExpertService::Stub> experts;
  std::unique_ptr<grpc::health::v1::Health::Stub> health;

  template <class Response, class Stub, class Request>
  absl::StatusOr<Response> Call(Stub* stub,
                                grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                                const Request& request, const CallOptions& call) {
    grpc::ClientContext context;
    PrepareContext(options, call, &context);
    Response response;
    absl::Status status = ToAbslStatus((stub->*method)(&context, request, &response));
    if (!status.ok()) return status;
    return response;
  }

  template <class Response, class Stub, class Request>
  std::unique_ptr<Stream<Response>> Open(
      Stub* stub, std::unique_ptr<grpc::ClientReader<Response>> (Stub::*method)(grpc::ClientContext*, const Request&),
      const Request& request, const CallOptions& call) {
    auto stream = std::make_unique<GrpcStream<Response>>();
    PrepareContext(options, call, stream->context());
    stream->Start((stub->*method)(stream->context(), request));
    return stream;
  }
};

Client::Client(std::unique_ptr<Rep> rep) : rep_(std::move(rep)) {}
Client::~Client() = default;

absl::StatusOr<std::unique_ptr<Client>> Client::Create(const ClientOptions& options) {
  absl::StatusOr<std::shared_ptr<grpc::Channel>> channel = CreateChannel(options);
  if (!channel.ok()) return channel.status();
  auto rep = std::make_unique<Rep>();
  rep->options = options;
  rep->inference = v1::InferenceService::NewStub(*channel);
  rep->experts = v1::ExpertService::NewStub(*channel);
  rep->health = grpc::health::v1::Health::NewStub(*channel);
  return std::unique_ptr<Client>(new Client(std::move(rep)));
}

absl::StatusOr<v1::GenerateResponse> Client::Generate(const v1::GenerateRequest& request, const CallOptions& options) {
  return rep_->Call(rep_->inference.get(), &v1::InferenceService::Stub::Generate, request, options);
}

std::unique_ptr<Stream<v1::GenerateStreamResponse>> Client::GenerateStream(const v1::GenerateRequest& request,
                                                                           const CallOptions& options) {
  return rep_->Open(rep_->inference.get(), &v1::InferenceService::Stub::GenerateStream, request, options);
}

absl::Status Client::GenerateStream(const v1::GenerateRequest& request, const CallOptions& options,
                                    const std::function<bool(const v1::GenerateStreamResponse&)>& on_message) {
  const auto stream = GenerateStream(request, options);
  v1::GenerateStreamResponse message;
  while (stream->Next(&message)) {
    if (on_message(message)) continue;
    stream->Cancel();
    stream->Finish().IgnoreError();  // OK when the last message was already here: the caller asked for the same answer
    return absl::CancelledError("cancelled by the caller");
  }
  return stream->Finish();
}

absl::StatusOr<v1::AbortResponse> Client::Abort(const v1::AbortRequest& request, const CallOptions& options) {
  return rep_->Call(rep_->inference.get(), &v1::InferenceService::Stub::Abort, request, options);
}

absl::StatusOr<v1::TokenizeResponse> Client::Tokenize(const v1::TokenizeRequest& request, const CallOptions& options) {
  return rep_->Call(rep_->inference.get(), &v1::InferenceService::Stub::Tokenize, request, options);
}

absl::StatusOr<v1::DetokenizeResponse> Client::Detokenize(const v1::DetokenizeRequest& request,
                                                          const CallOptions& options) {
  return rep_->Call(rep_->inference.get(), &v1::InferenceService::Stub::Detokenize, request, options);
}

absl::StatusOr<v1::Model> Client::GetModel(const CallOptions& options) {
  return rep_->Call(rep_->inference.get(), &v1::InferenceService::Stub::GetModel, v1::GetModelRequest(), options);
}

absl::StatusOr<v1::Server> Client::GetServer(const CallOptions& options) {
  return rep_->Call(rep_->inference.get(), &v1::InferenceService::Stub::GetServer, v1::GetServerRequest(), options);
}

absl::StatusOr<v1::Load> Client::GetLoad(const CallOptions& options) {
  return rep_->Call(rep_->inference.get(), &v1::InferenceService::Stub::GetLoad, v1::GetLoadRequest(), options);
}

absl::StatusOr<v1::ExpertLoad> Client::GetExpertLoad(const v1::GetExpertLoadRequest& request,
                                                     const CallOptions& options) {
  return rep_->Call(rep_->experts.get(), &v1::ExpertService::Stub::GetExpertLoad, request, options);
}

std::unique_ptr<Stream<v1::ExpertLoad>> Client::WatchExpertLoad(const v1::WatchExpertLoadRequest& request,
                                                                const CallOptions& options) {
  return rep_->Open(rep_->experts.get(), &v1::ExpertService::Stub::WatchExpertLoad, request, options);
}

absl::StatusOr<Health> Client::CheckHealth(const std::string& service, const CallOptions& options) {
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  const auto response = rep_->Call(rep_->health.get(), &grpc::health::v1::Health::Stub::Check, request, options);
  if (!response.ok()) return response.status();
  return ToHealth(*response);
}

std::unique_ptr<Stream<Health>> Client::WatchHealth(const std::string& service, const CallOptions& options) {
  grpc::health::v1::HealthCheckRequest request;
  request.set_service(service);
  return std::make_unique<HealthStream>(
      rep_->Open(rep_->health.get(), &grpc::health::v1::Health::Stub::Watch, request, options));
}

absl::Status Client::WaitUntilServing(const std::string& service, absl::Duration timeout) {
  const absl::Time deadline = absl::Now() + timeout;
  for (;;) {
    const absl::Duration left = deadline - absl::Now();
    const absl::StatusOr<Health> health =
        CheckHealth(service, {.timeout = std::clamp(left, absl::Milliseconds(100), absl::Seconds(5))});
    if (health.ok() && *health == Health::kServing) return absl::OkStatus();
    if (!IsWorthWaiting(health.status())) return health.status();
    if (absl::Now() >= deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("not SERVING within ", absl::FormatDuration(timeout),
                       "; last answer: ", health.ok() ? std::string(HealthName(*health)) : Describe(health.status())));
    }
    absl::SleepFor(absl::Milliseconds(100));
  }
}

const char* HealthName(Health health) {
  switch (health) {
    case Health::kServing:
      return "SERVING";
    case Health::kNotServing:
      return "NOT_SERVING";
    case Health::kServiceUnknown:
      return "SERVICE_UNKNOWN";
    case Health::kUnknown:
      break;
  }
  return "UNKNOWN";
}

ErrorDetails DetailsOf(const absl::Status& status) {
  ErrorDetails details;
  if (const auto info = ReadDetail<google::rpc::ErrorInfo>(status, "ErrorInfo")) details.reason = info->reason();
  if (const auto bad = ReadDetail<google::rpc::BadRequest>(status, "BadRequest")) {
    for (const auto& violation : bad->field_violations()) {
      details.field_violations.emplace_back(violation.field(), violation.description());
    }
  }
  if (const auto retry = ReadDetail<google::rpc::RetryInfo>(status, "RetryInfo")) {
    details.retry_delay =
        absl::Seconds(retry->retry_delay().seconds()) + absl::Nanoseconds(retry->retry_delay().nanos());
  }
  return details;
}

std::string Describe(const absl::Status& status) {
  if (status.ok()) return "OK";
  const std::string message(status.message().data(), status.message().size());
  const ErrorDetails details = DetailsOf(status);
  std::vector<std::string> extra;
  if (!details.reason.empty()) extra.push_back(details.reason);
  for (const auto& [field, description] : details.field_violations) {
    const bool repeated = message.find(description) != std::string::npos;
    if (!repeated) extra.push_back(absl::StrCat(field, ": ", description));
    if (repeated && message.find(field) == std::string::npos) extra.push_back(field);
  }
  if (details.retry_delay) extra.push_back("retry after " + absl::FormatDuration(*details.retry_delay));
  std::string line = absl::StatusCodeToString(status.code());
  if (!message.empty() && message != line) absl::StrAppend(&line, ": ", message);
  if (!extra.empty()) absl::StrAppend(&line, " (", absl::StrJoin(extra, "; "), ")");
  return line;
}

}  // namespace switchyard
