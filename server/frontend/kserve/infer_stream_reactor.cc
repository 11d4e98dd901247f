#include "server/frontend/kserve/infer_stream_reactor.h"

#include "server/frontend/grpc_status.h"
#include "server/frontend/raw_message.h"

namespace switchyard::kserve {
namespace {

InferStream::Options OptionsFrom(const grpc::CallbackServerContext& context) {
  const auto strict = context.client_metadata().find("triton_grpc_error");
  return {.deadline = SteadyDeadline(context),
          .metadata_id = MetadataRequestId(context),
          .errors_end_stream = strict != context.client_metadata().end() && strict->second == "true"};
}

}  // namespace

InferStreamReactor::InferStreamReactor(FrontendParts* parts, grpc::CallbackServerContext* context)
    : context_(context), breakable_(context), stream_(std::make_shared<InferStream>(parts, OptionsFrom(*context))) {}

void InferStreamReactor::Begin(const absl::Status& admitted) {
  self_ = shared_from_this();
  if (!admitted.ok()) stream_->End(admitted);
  stream_->Start(self_);
}

void InferStreamReactor::Read() { StartRead(&incoming_); }

void InferStreamReactor::Write(const inference::ModelStreamInferResponse& message) {
  outgoing_ = SerializeMessage(message);
  StartWrite(&outgoing_);
}

void InferStreamReactor::Finish(const absl::Status& status) {
  AddRetryTrailer(status, context_);
  ServerBidiReactor::Finish(ToGrpcStatus(status));
}

void InferStreamReactor::Break() { breakable_.Break(); }

void InferStreamReactor::OnReadDone(bool ok) {
  if (!ok) return stream_->OnRequestsEnd();
  const auto request = ParseAs<inference::ModelInferRequest>(incoming_);
  incoming_.Clear();  // an idle stream holds no message
  stream_->OnRequest(request);
}

void InferStreamReactor::OnWriteDone(bool ok) {
  outgoing_.Clear();
  stream_->OnWriteDone(ok);
}

void InferStreamReactor::OnCancel() { stream_->OnCancel(); }

void InferStreamReactor::OnDone() {
  breakable_.Release();
  stream_->OnDone();
  self_.reset();  // may be the end of *this
}

}  // namespace switchyard::kserve
