// Protobuf messages from and to the bytes of raw gRPC methods.
//
// The generated handlers answer bytes that are no message with UNIMPLEMENTED and no text; raw methods let us say what
// is wrong.
#ifndef SWITCHYARD_SERVER_FRONTEND_RAW_MESSAGE_H_
#define SWITCHYARD_SERVER_FRONTEND_RAW_MESSAGE_H_

#include <google/protobuf/message.h>
#include <grpcpp/support/byte_buffer.h>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace switchyard {

// INVALID_ARGUMENT: names the text field that is not valid UTF-8 and the byte, or says that the bytes are no such
// message, or that it has more than 65,536 texts, submessages and unknown fields.
absl::Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message* message);

template <typename Message>
absl::StatusOr<Message> ParseAs(const grpc::ByteBuffer& bytes) {
  Message message;
  const absl::Status parsed = ParseMessage(bytes, &message);
  if (!parsed.ok()) return parsed;
  return message;
}

grpc::ByteBuffer SerializeMessage(const google::protobuf::MessageLite& message);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_RAW_MESSAGE_H_
