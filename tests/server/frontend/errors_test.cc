#include "server/frontend/errors.h"

#include <gtest/gtest.h>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/frontend/grpc_status.h"

namespace switchyard {
namespace {

template <typename Message>
Message Detail(const grpc::Status& status) {
  google::rpc::Status details;
  EXPECT_TRUE(details.ParseFromString(status.error_details()));
  Message message;
  for (const auto& any : details.details()) {
    if (any.Is<Message>()) {
      EXPECT_TRUE(any.UnpackTo(&message));
      return message;
    }
  }
  ADD_FAILURE() << "no " << Message::descriptor()->full_name();
  return message;
}

TEST(ErrorsTest, InvalidRequestListsEveryField) {
  const grpc::Status status = ToGrpcStatus(InvalidRequest({{"a", "a is bad"}, {"b[1]", "b[1] is worse"}}));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(status.error_message(), "a is bad (and 1 more, see the details)");
  const auto details = Detail<google::rpc::BadRequest>(status);
  ASSERT_EQ(details.field_violations_size(), 2);
  EXPECT_EQ(details.field_violations(1).field(), "b[1]");
  EXPECT_EQ(details.field_violations(1).description(), "b[1] is worse");
  EXPECT_EQ(Detail<google::rpc::ErrorInfo>(status).reason(), "INVALID_REQUEST");
}

TEST(ErrorsTest, OverloadSaysWhenToRetry) {
  const absl::Status overloaded = Overloaded("the request queue is full (256 waiting)", "QUEUE_FULL", 1.84);
  EXPECT_EQ(overloaded.message(), "the request queue is full (256 waiting); retry after 1.8 s");
  EXPECT_EQ(RetryPushbackMillis(overloaded), 1840);
  const auto retry = Detail<google::rpc::RetryInfo>(ToGrpcStatus(overloaded));
  EXPECT_EQ(retry.retry_delay().seconds(), 1);
  EXPECT_EQ(retry.retry_delay().nanos(), 840'000'000);
}

TEST(ErrorsTest, OtherErrorsAskForNoRetry) {
  EXPECT_EQ(RetryPushbackMillis(Unavailable("x", "DRAINING")), -1);
  EXPECT_EQ(RetryPushbackMillis(absl::OkStatus()), -1);
}

TEST(ErrorsTest, InternalTextStaysInTheLog) {
  const uint64_t before = InternalErrors();
  for (const absl::Status& status : {absl::InternalError("secret path"), absl::UnknownError("secret path")}) {
    const grpc::Status shown = ToGrpcStatus(status);
    EXPECT_EQ(shown.error_code(), grpc::StatusCode::INTERNAL);
    EXPECT_EQ(shown.error_message().find("secret"), std::string::npos);
    EXPECT_EQ(shown.error_message().rfind("internal error, id ", 0), 0u);
  }
  EXPECT_EQ(InternalErrors(), before + 2);
}

TEST(ErrorsTest, ModelNamesAreShownHarmless) {
  EXPECT_EQ(Sanitized("a/b-c_d.1:x"), "a/b-c_d.1:x");
  EXPECT_EQ(Sanitized("\n\x1b[31m"), "???31m");
  EXPECT_EQ(Sanitized(std::string(1'000'000, 'x')), std::string(64, 'x') + "...");
}

}  // namespace
}  // namespace switchyard
