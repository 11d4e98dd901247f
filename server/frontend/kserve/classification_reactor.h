// The gRPC side of ModelInfer for images.
#ifndef SWITCHYARD_SERVER_FRONTEND_KSERVE_CLASSIFICATION_REACTOR_H_
#define SWITCHYARD_SERVER_FRONTEND_KSERVE_CLASSIFICATION_REACTOR_H_

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include "server/frontend/frontend_parts.h"

namespace switchyard::kserve {

// What is returned belongs to gRPC; `response` stays valid until it is done. REQUIRES: `model` is a classifier.
grpc::ServerUnaryReactor* StartClassification(FrontendParts* parts, grpc::CallbackServerContext* context,
                                              const ServedModel& model, const grpc::ByteBuffer& request,
                                              grpc::ByteBuffer* response);

}  // namespace switchyard::kserve

#endif  // SWITCHYARD_SERVER_FRONTEND_KSERVE_CLASSIFICATION_REACTOR_H_
