#include "server/frontend/raw_message.h"

#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/slice.h>

#include <limits>
#include <string>

#include "engine/tokenizer/utf8.h"
#include "server/frontend/errors.h"

namespace switchyard {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::internal::WireFormatLite;

// Parsing failed: was it one of the message's own text fields?
absl::Status ExplainFailure(const uint8_t* data, int size, const google::protobuf::Message& message) {
  google::protobuf::io::CodedInputStream input(data, size);
  while (const uint32_t tag = input.ReadTag()) {
    const FieldDescriptor* field = message.GetDescriptor()->FindFieldByNumber(WireFormatLite::GetTagFieldNumber(tag));
    const bool is_text = field != nullptr && field->type() == FieldDescriptor::TYPE_STRING &&
                         WireFormatLite::GetTagWireType(tag) == WireFormatLite::WIRETYPE_LENGTH_DELIMITED;
    if (!is_text) {
      if (!WireFormatLite::SkipField(&input, tag)) break;
      continue;
    }
    uint32_t length = 0;
    std::string text;
    if (!input.ReadVarint32(&length) || length > static_cast<uint32_t>(std::numeric_limits<int>::max()) ||
        !input.ReadString(&text, static_cast<int>(length))) {
      break;
    }
    const size_t invalid = FindInvalidUtf8(text);
    if (invalid == std::string::npos) continue;
    const std::string name = field->name() == "text" ? "prompt" : field->name();
    return InvalidRequest(field->name(), name + " is not valid UTF-8 (byte " + std::to_string(invalid) + ")");
  }
  return InvalidRequest("", "the request is not a valid " + message.GetDescriptor()->full_name() +
                                " message; check that client and server use the same .proto files");
}

}  // namespace

absl::Status ParseMessage(const grpc::ByteBuffer& bytes, google::protobuf::Message* message) {
  grpc::Slice slice;
  if (!bytes.Valid() || !(bytes.TrySingleSlice(&slice).ok() || bytes.DumpToSingleSlice(&slice).ok())) {
    return InvalidRequest("", "the request has no message");
  }
  const int size = static_cast<int>(slice.size());
  if (message->ParseFromArray(slice.begin(), size)) return absl::OkStatus();
  return ExplainFailure(slice.begin(), size, *message);
}

grpc::ByteBuffer SerializeMessage(const google::protobuf::MessageLite& message) {
  const size_t size = message.ByteSizeLong();
  grpc::Slice slice(size);
  message.SerializeWithCachedSizesToArray(const_cast<uint8_t*>(slice.begin()));
  return grpc::ByteBuffer(&slice, 1);
}

}  // namespace switchyard
