// Bytes that would grow a hundredfold when they are parsed are refused before that.
#include "server/frontend/raw_message.h"

#include <gtest/gtest.h>

#include <string>

#include "inference/grpc_service.pb.h"
#include "switchyard/v1/inference_service.pb.h"

namespace switchyard {
namespace {

grpc::ByteBuffer Bytes(const std::string& bytes) {
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

std::string Repeat(const std::string& part, int count) {
  std::string bytes;
  for (int i = 0; i < count; ++i) bytes += part;
  return bytes;
}

std::string Nested(const std::string& inner) {  // field 5, an input tensor
  std::string bytes = "\x2a";
  for (size_t size = inner.size(); true; size >>= 7) {
    bytes += static_cast<char>((size & 0x7f) | (size > 0x7f ? 0x80 : 0));
    if (size <= 0x7f) return bytes + inner;
  }
}

TEST(RawMessageTest, TooManyPartsAreRefusedUnparsed) {
  const std::string bodies[] = {
      Repeat(std::string("\x2a\x00", 2), 70000),          // empty input tensors
      Nested(Repeat(std::string("\x0a\x00", 2), 70000)),  // empty texts inside of one
      Repeat(std::string("\xf8\x7f\x01", 3), 70000),      // unknown numbers
      Repeat(std::string("\xfb\x7f\xfc\x7f", 4), 70000),  // unknown groups
      std::string("\xfb\x7f") + Repeat(std::string("\x08\x01", 2), 70000) + "\xfc\x7f",  // and inside of one
  };
  for (const std::string& body : bodies) {
    inference::ModelInferRequest request;
    const absl::Status status = ParseMessage(Bytes(body), &request);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(status.message(), "the request has more than 65536 texts, parts and unknown fields");
    EXPECT_EQ(request.ByteSizeLong(), 0u);
  }
}

TEST(RawMessageTest, ManyNumbersAndAFullConversationPass) {
  v1::GenerateRequest request;
  for (int i = 0; i < 200000; ++i) request.mutable_token_ids()->add_ids(i);
  EXPECT_TRUE(ParseAs<v1::GenerateRequest>(SerializeMessage(request)).ok());
  for (int i = 0; i < 1024; ++i) {
    v1::ChatMessage* const message = request.mutable_chat()->add_messages();
    message->set_role("user");
    message->set_content("Hello");
  }
  const auto parsed = ParseAs<v1::GenerateRequest>(SerializeMessage(request));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->chat().messages_size(), 1024);
}

TEST(RawMessageTest, MalformedBytesAreTheParsersBusiness) {
  for (const std::string& body : {std::string("\x2a\x05\x01", 3), std::string("\xfb\x7f"), std::string("\x2a")}) {
    inference::ModelInferRequest request;
    const absl::Status status = ParseMessage(Bytes(body), &request);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("is not a valid inference.ModelInferRequest"), std::string::npos) << status;
  }
}

}  // namespace
}  // namespace switchyard
