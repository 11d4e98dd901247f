// Answers a short unary call from raw bytes: parse, run, serialize. The work must be short: it runs on a gRPC thread.
#ifndef SWITCHYARD_SERVER_FRONTEND_UNARY_CALL_H_
#define SWITCHYARD_SERVER_FRONTEND_UNARY_CALL_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "absl/status/status.h"
#include "server/frontend/call_context.h"
#include "server/frontend/grpc_status.h"
#include "server/frontend/raw_message.h"
#include "server/metrics/serving_metrics.h"

namespace switchyard {

// Ends the call with `status` and, if it is OK, `response`. Any thread; once. `metrics` may be null: not counted.
inline void FinishUnary(grpc::CallbackServerContext* context, grpc::ServerUnaryReactor* reactor,
                        ServingMetrics* metrics, const absl::Status& status,
                        const google::protobuf::MessageLite& response, grpc::ByteBuffer* out) {
  if (status.ok()) *out = SerializeMessage(response);
  AddRetryTrailer(status, context);
  if (metrics != nullptr) metrics->OnCallAnswered(static_cast<int>(status.code()));
  reactor->Finish(ToGrpcStatus(status));
}

// `run`: absl::Status(const Request&, Response*).
template <typename Request, typename Response, typename Run>
grpc::ServerUnaryReactor* AnswerUnary(grpc::CallbackServerContext* context, const grpc::ByteBuffer& bytes,
                                      grpc::ByteBuffer* out, ServingMetrics* metrics, Run run) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  Request request;
  Response response;
  absl::Status status = ParseMessage(bytes, &request);
  if (status.ok()) status = run(request, &response);
  FinishUnary(context, reactor, metrics, status, response, out);
  return reactor;
}

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_UNARY_CALL_H_
