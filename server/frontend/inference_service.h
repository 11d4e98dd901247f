// switchyard.v1.InferenceService: generation, and the small calls around it.
#ifndef SWITCHYARD_SERVER_FRONTEND_INFERENCE_SERVICE_H_
#define SWITCHYARD_SERVER_FRONTEND_INFERENCE_SERVICE_H_

#include "server/frontend/frontend_parts.h"
#include "switchyard/v1/inference_service.grpc.pb.h"

namespace switchyard {

// Every method raw: see raw_message.h.
using RawInferenceService = v1::InferenceService::WithRawCallbackMethod_Generate<
    v1::InferenceService::WithRawCallbackMethod_GenerateStream<v1::InferenceService::WithRawCallbackMethod_Tokenize<
        v1::InferenceService::WithRawCallbackMethod_Detokenize<v1::InferenceService::WithRawCallbackMethod_GetModel<
            v1::InferenceService::WithRawCallbackMethod_GetServer<v1::InferenceService::WithRawCallbackMethod_GetLoad<
                v1::InferenceService::WithRawCallbackMethod_Abort<v1::InferenceService::Service>>>>>>>>;

class InferenceService final : public RawInferenceService {
 public:
  explicit InferenceService(FrontendParts* parts) : parts_(parts) {}

  using Context = grpc::CallbackServerContext;
  using Bytes = grpc::ByteBuffer;
  grpc::ServerUnaryReactor* Generate(Context* context, const Bytes* request, Bytes* response) override;
  grpc::ServerWriteReactor<Bytes>* GenerateStream(Context* context, const Bytes* request) override;
  grpc::ServerUnaryReactor* Tokenize(Context* context, const Bytes* request, Bytes* response) override;
  grpc::ServerUnaryReactor* Detokenize(Context* context, const Bytes* request, Bytes* response) override;
  grpc::ServerUnaryReactor* GetModel(Context* context, const Bytes* request, Bytes* response) override;
  grpc::ServerUnaryReactor* GetServer(Context* context, const Bytes* request, Bytes* response) override;
  grpc::ServerUnaryReactor* GetLoad(Context* context, const Bytes* request, Bytes* response) override;
  grpc::ServerUnaryReactor* Abort(Context* context, const Bytes* request, Bytes* response) override;

 private:
  absl::Status DoTokenize(const v1::TokenizeRequest& request, v1::TokenizeResponse* response) const;
  absl::Status DoDetokenize(const v1::DetokenizeRequest& request, v1::DetokenizeResponse* response) const;
  absl::Status DoGetModel(const v1::GetModelRequest& request, v1::Model* response) const;
  absl::Status DoGetServer(v1::Server* response) const;
  absl::Status DoGetLoad(v1::Load* response) const;
  absl::Status DoAbort(const v1::AbortRequest& request, v1::AbortResponse* response) const;

  FrontendParts* const parts_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_INFERENCE_SERVICE_H_
