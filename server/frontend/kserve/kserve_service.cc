#include "server/frontend/kserve/kserve_service.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "engine/base/status_macros.h"
#include "server/frontend/call_admission.h"
#include "server/frontend/call_context.h"
#include "server/frontend/errors.h"
#include "server/frontend/grpc_transport.h"
#include "server/frontend/kserve/classification_reactor.h"
#include "server/frontend/kserve/envelope.h"
#include "server/frontend/kserve/infer_stream_reactor.h"
#include "server/frontend/kserve/text_request.h"
#include "server/frontend/kserve/text_response.h"
#include "server/frontend/unary_call.h"

namespace switchyard::kserve {
namespace {

constexpr std::chrono::seconds kIdleStreamFor{600};  // a stream without a request for so long gives its place back

// The request of a call that answers once.
absl::StatusOr<TextRequest> ReadUnary(const absl::Status& admitting, int64_t max_message_bytes,
                                      const grpc::ByteBuffer& bytes) {
  RETURN_IF_ERROR(admitting);  // a server that does not serve says so first
  ASSIGN_OR_RETURN(const auto request, ParseAs<inference::ModelInferRequest>(bytes));
  ASSIGN_OR_RETURN(TextRequest text, ReadTextRequest(request, max_message_bytes));
  if (!text.stream) return text;
  return InvalidRequest("inputs", "tensor \"stream\" is true, but ModelInfer answers once; use ModelStreamInfer");
}

}  // namespace

bool KserveService::Serves() const { return parts_->phase.load(std::memory_order_acquire) == ServingPhase::kServing; }

grpc::ServerUnaryReactor* KserveService::ServerLive(Context* context, const Bytes* request, Bytes* response) {
  return AnswerUnary<inference::ServerLiveRequest, inference::ServerLiveResponse>(
      context, *request, response, parts_->metrics, [this](const auto&, inference::ServerLiveResponse* out) {
        out->set_live(parts_->phase.load(std::memory_order_acquire) != ServingPhase::kEngineFailed);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* KserveService::ServerReady(Context* context, const Bytes* request, Bytes* response) {
  return AnswerUnary<inference::ServerReadyRequest, inference::ServerReadyResponse>(
      context, *request, response, parts_->metrics, [this](const auto&, inference::ServerReadyResponse* out) {
        out->set_ready(Serves());
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* KserveService::ModelReady(Context* context, const Bytes* request, Bytes* response) {
  return AnswerUnary<inference::ModelReadyRequest, inference::ModelReadyResponse>(
      context, *request, response, parts_->metrics,
      [this](const inference::ModelReadyRequest& in, inference::ModelReadyResponse* out) {
        return DoModelReady(in, out);
      });
}

grpc::ServerUnaryReactor* KserveService::ServerMetadata(Context* context, const Bytes* request, Bytes* response) {
  return AnswerUnary<inference::ServerMetadataRequest, inference::ServerMetadataResponse>(
      context, *request, response, parts_->metrics, [this](const auto&, inference::ServerMetadataResponse* out) {
        out->set_name("switchyard");
        out->set_version(parts_->limits.version);
        return absl::OkStatus();
      });
}

grpc::ServerUnaryReactor* KserveService::ModelMetadata(Context* context, const Bytes* request, Bytes* response) {
  return AnswerUnary<inference::ModelMetadataRequest, inference::ModelMetadataResponse>(
      context, *request, response, parts_->metrics,
      [this](const inference::ModelMetadataRequest& in, inference::ModelMetadataResponse* out) {
        return DoModelMetadata(in, out);
      });
}

grpc::ServerUnaryReactor* KserveService::ModelInfer(Context* context, const Bytes* request, Bytes* response) {
  const absl::StatusOr<const ServedModel*> model = parts_->AdmittingModel();
  if (model.ok() && (*model)->facts.is_classifier()) {
    return StartClassification(parts_, context, **model, *request, response);
  }
  absl::StatusOr<TextRequest> text = ReadUnary(model.status(), parts_->limits.max_message_bytes, *request);
  if (!text.ok()) return StartUnaryCall(parts_, context, {text.status(), SteadyDeadline(*context), nullptr}, response);
  TimePoint deadline = SteadyDeadline(*context);
  if (text->timeout) deadline = std::min(deadline, std::chrono::steady_clock::now() + *text->timeout);
  const auto encode = [answers = TextAnswers(std::move(text->reply))](const v1::GenerateResponse& answer) {
    return SerializeMessage(answers.Whole(answer));
  };
  return StartUnaryCall(parts_, context, {std::move(text->generate), deadline, encode}, response);
}

grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* KserveService::ModelStreamInfer(Context* context) {
  auto reactor = std::make_shared<InferStreamReactor>(parts_, context);
  const absl::Status admitted = AddStream(reactor->stream());
  if (!admitted.ok()) {
    parts_->metrics->OnRejected(RejectionOf(*parts_, admitted));
    parts_->metrics->OnCallAnswered(static_cast<int>(admitted.code()));
  }
  reactor->Begin(admitted);
  return reactor.get();
}

absl::Status KserveService::DoModelReady(const inference::ModelReadyRequest& request,
                                         inference::ModelReadyResponse* response) const {
  const auto model = parts_->LoadedModel();
  if (!model.ok()) return absl::OkStatus();  // while it starts: not ready
  RETURN_IF_ERROR(CheckModelName(request.name(), (*model)->limits));
  RETURN_IF_ERROR(CheckVersion(request.version()));
  response->set_ready(Serves());
  return absl::OkStatus();
}

absl::Status KserveService::DoModelMetadata(const inference::ModelMetadataRequest& request,
                                            inference::ModelMetadataResponse* response) const {
  ASSIGN_OR_RETURN(const ServedModel* model, parts_->LoadedModel());
  RETURN_IF_ERROR(CheckModelName(request.name(), model->limits));
  RETURN_IF_ERROR(CheckVersion(request.version()));
  response->set_name(model->limits.served_model_name);
  response->add_versions(kModelVersion);
  response->set_platform("switchyard_" + model->facts.architecture);
  if (model->facts.is_classifier()) {
    DescribeImageTensors(model->facts, response);
  } else {
    DescribeTextTensors(response);
  }
  return absl::OkStatus();
}

// As many streams as calls, idle ones among them.
absl::Status KserveService::AddStream(const std::shared_ptr<InferStream>& stream) {
  MutexLock lock(&mutex_);
  RETURN_IF_ERROR(parts_->AdmittingModel().status());  // under the lock: EndStreams sees what was admitted before it
  std::erase_if(streams_, [](const auto& weak) { return weak.expired(); });
  if (streams_.size() >= static_cast<size_t>(parts_->limits.max_open_calls)) {
    return Overloaded(
        "this server has " + std::to_string(parts_->limits.max_open_calls) + " open ModelStreamInfer calls, its limit",
        "TOO_MANY_CALLS", 5.0);
  }
  streams_.push_back(stream);
  return absl::OkStatus();
}

void KserveService::EndStreams() {
  for (const auto& stream : Streams()) stream->End(parts_->EndedByServer());
}

void KserveService::SweepStreams(TimePoint now, std::chrono::seconds stalled_for) {
  for (const auto& stream : Streams()) stream->Sweep(now, stalled_for, kIdleStreamFor);
}

std::vector<std::shared_ptr<InferStream>> KserveService::Streams() {
  std::vector<std::shared_ptr<InferStream>> streams;
  MutexLock lock(&mutex_);
  for (const auto& weak : streams_) {
    if (auto stream = weak.lock()) streams.push_back(std::move(stream));
  }
  return streams;
}

}  // namespace switchyard::kserve
