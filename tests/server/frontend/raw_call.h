// Calls with bytes instead of messages, as a broken or hostile client makes them.
#ifndef SWITCHYARD_TESTS_SERVER_FRONTEND_RAW_CALL_H_
#define SWITCHYARD_TESTS_SERVER_FRONTEND_RAW_CALL_H_

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/impl/codegen/client_unary_call.h>
#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/sync_stream.h>

#include <chrono>
#include <memory>
#include <string>

namespace switchyard {

inline grpc::ByteBuffer ToBytes(const std::string& text) {
  const grpc::Slice slice(text);
  return grpc::ByteBuffer(&slice, 1);
}

// The status of a call of `method` ("/switchyard.v1.InferenceService/Generate") with `bytes` as its one message.
inline grpc::Status RawCall(grpc::Channel* channel, const std::string& method, bool streaming, const std::string& bytes,
                            grpc::ClientContext* context = nullptr) {
  grpc::ClientContext own_context;
  if (context == nullptr) context = &own_context;
  context->set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  const grpc::ByteBuffer request = ToBytes(bytes);
  grpc::ByteBuffer response;
  if (!streaming) {
    const grpc::internal::RpcMethod rpc(method.c_str(), grpc::internal::RpcMethod::NORMAL_RPC);
    return grpc::internal::BlockingUnaryCall(channel, rpc, context, request, &response);
  }
  const grpc::internal::RpcMethod rpc(method.c_str(), grpc::internal::RpcMethod::SERVER_STREAMING);
  const std::unique_ptr<grpc::ClientReader<grpc::ByteBuffer>> reader(
      grpc::internal::ClientReaderFactory<grpc::ByteBuffer>::Create(channel, rpc, context, request));
  while (reader->Read(&response)) {
  }
  return reader->Finish();
}

}  // namespace switchyard

#endif  // SWITCHYARD_TESTS_SERVER_FRONTEND_RAW_CALL_H_
