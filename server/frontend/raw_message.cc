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

// Every text, submessage and unknown field of a parsed message is an object of its own, which may take a hundred times
// the bytes that it came in. No real request has so many.
constexpr int64_t kMaxParts = 65536;
constexpr int kMaxDepth = 100;  // what the parser takes

// Takes the parts of one message, or of a group that nobody knows (null), off `left`. False: there were not so many.
// Where the bytes are malformed it stops: the parser will say so.
bool TakeParts(google::protobuf::io::CodedInputStream* input, const google::protobuf::Descriptor* descriptor, int depth,
               int64_t* left) {
  while (const uint32_t tag = input->ReadTag()) {
    const WireFormatLite::WireType wire = WireFormatLite::GetTagWireType(tag);
    if (wire == WireFormatLite::WIRETYPE_END_GROUP) return true;
    const int number = WireFormatLite::GetTagFieldNumber(tag);
    const FieldDescriptor* const field = descriptor == nullptr ? nullptr : descriptor->FindFieldByNumber(number);
    // A number in another wire type than its own is an unknown field, too.
    const bool is_number = field != nullptr && wire != WireFormatLite::WIRETYPE_LENGTH_DELIMITED &&
                           wire == WireFormatLite::WireTypeForFieldType(
                                       static_cast<WireFormatLite::FieldType>(field->type()));
    if (!is_number && --*left < 0) return false;
    if (depth >= kMaxDepth) return true;
    if (wire == WireFormatLite::WIRETYPE_START_GROUP) {
      if (!TakeParts(input, nullptr, depth + 1, left)) return false;
    } else if (wire == WireFormatLite::WIRETYPE_LENGTH_DELIMITED && field != nullptr &&
               field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      uint32_t length = 0;
      if (!input->ReadVarint32(&length) || length > static_cast<uint32_t>(std::numeric_limits<int>::max())) return true;
      const auto limit = input->PushLimit(static_cast<int>(length));
      if (!TakeParts(input, field->message_type(), depth + 1, left)) return false;
      if (input->BytesUntilLimit() != 0) return true;
      input->PopLimit(limit);
    } else if (!WireFormatLite::SkipField(input, tag)) {
      return true;
    }
  }
  return true;
}

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
  google::protobuf::io::CodedInputStream input(slice.begin(), size);
  int64_t left = kMaxParts;
  if (!TakeParts(&input, message->GetDescriptor(), 0, &left)) {
    return InvalidRequest("", "the request has more than " + std::to_string(kMaxParts) +
                                  " texts, parts and unknown fields");
  }
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
