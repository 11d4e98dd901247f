// inference.GRPCInferenceService: the Open Inference Protocol v2 over the same model, queue and checks as
// switchyard.v1.InferenceService.
#ifndef SWITCHYARD_SERVER_FRONTEND_KSERVE_KSERVE_SERVICE_H_
#define SWITCHYARD_SERVER_FRONTEND_KSERVE_KSERVE_SERVICE_H_

#include <chrono>
#include <memory>
#include <vector>

#include "engine/base/mutex.h"
#include "inference/grpc_service.grpc.pb.h"
#include "server/frontend/frontend_parts.h"
#include "server/frontend/kserve/infer_stream.h"

namespace switchyard::kserve {

// Every method raw: see raw_message.h.
using Api = inference::GRPCInferenceService;
using RawService =
    Api::WithRawCallbackMethod_ServerLive<Api::WithRawCallbackMethod_ServerReady<Api::WithRawCallbackMethod_ModelReady<
        Api::WithRawCallbackMethod_ServerMetadata<Api::WithRawCallbackMethod_ModelMetadata<
            Api::WithRawCallbackMethod_ModelInfer<Api::WithRawCallbackMethod_ModelStreamInfer<Api::Service>>>>>>>;

class KserveService final : public RawService {
 public:
  explicit KserveService(FrontendParts* parts) : parts_(parts) {}

  // Lets no stream wait for more requests, as the server goes down.
  void EndStreams();
  // Breaks off streams whose clients have read nothing for `stalled_for`, and ends those long without a request.
  void SweepStreams(TimePoint now, std::chrono::seconds stalled_for);

  using Context = grpc::CallbackServerContext;
  using Bytes = grpc::ByteBuffer;
  grpc::ServerUnaryReactor* ServerLive(Context* context, const Bytes* request, Bytes* response) override;
  grpc::ServerUnaryReactor* ServerReady(Context* context, const Bytes* request, Bytes* response) override;
  grpc::ServerUnaryReactor* ModelReady(Context* context, const Bytes* request, Bytes* response) override;
  grpc::ServerUnaryReactor* ServerMetadata(Context* context, const Bytes* request, Bytes* response) override;
  grpc::ServerUnaryReactor* ModelMetadata(Context* context, const Bytes* request, Bytes* response) override;
  grpc::ServerUnaryReactor* ModelInfer(Context* context, const Bytes* request, Bytes* response) override;
  grpc::ServerBidiReactor<Bytes, Bytes>* ModelStreamInfer(Context* context) override;

 private:
  bool Serves() const;
  absl::Status DoModelReady(const inference::ModelReadyRequest& request, inference::ModelReadyResponse* response) const;
  absl::Status DoModelMetadata(const inference::ModelMetadataRequest& request,
                               inference::ModelMetadataResponse* response) const;
  absl::Status AddStream(const std::shared_ptr<InferStream>& stream);
  std::vector<std::shared_ptr<InferStream>> Streams();

  FrontendParts* const parts_;
  Mutex mutex_;
  std::vector<std::weak_ptr<InferStream>> streams_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace switchyard::kserve

#endif  // SWITCHYARD_SERVER_FRONTEND_KSERVE_KSERVE_SERVICE_H_
