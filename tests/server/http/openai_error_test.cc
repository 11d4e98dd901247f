// Each status has its HTTP code, its JSON, and says when to come back.
#include "server/http/openai_error.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "server/frontend/errors.h"

namespace switchyard::http {
namespace {

nlohmann::json ErrorOf(const absl::Status& status) { return nlohmann::json::parse(ErrorJson(status)).at("error"); }

std::string HeaderOf(const AnswerPart& part, const std::string& name) {
  for (const auto& [key, value] : part.head->headers) {
    if (key == name) return value;
  }
  return "";
}

TEST(OpenAiErrorTest, EachStatusHasItsCode) {
  const std::pair<absl::Status, int> cases[] = {
      {InvalidRequest("n", "n is 0"), 400},
      {ErrorWithReason(absl::StatusCode::kFailedPrecondition, "no template", "NO_CHAT_TEMPLATE"), 400},
      {ErrorWithReason(absl::StatusCode::kResourceExhausted, "too large", "ANSWER_TOO_LARGE"), 400},
      {NotHttp("x"), 400},
      {AuthenticationRequired(), 401},
      {ModelNotFound("a", "b"), 404},
      {NoSuchPath(), 404},
      {WrongMethod("GET"), 405},
      {RequestTooSlow("body"), 408},
      {BodyTooLarge(1), 413},
      {WrongContentType(), 415},
      {Overloaded("full", "QUEUE_FULL", 0.2), 429},
      {HeadTooLarge(1), 431},
      {absl::CancelledError("aborted"), 499},
      {absl::InternalError("a secret"), 500},
      {ErrorWithReason(absl::StatusCode::kDataLoss, "not finite", "NON_FINITE_LOGIT"), 500},
      {Unavailable("draining", "DRAINING"), 503},
      {absl::DeadlineExceededError("late"), 504},
  };
  for (const auto& [status, code] : cases) {
    const AnswerPart answer = ErrorAnswer(status, "id");
    EXPECT_EQ(answer.head->status, code) << status;
    EXPECT_EQ(HeaderOf(answer, "x-request-id"), "id");
    const auto error = nlohmann::json::parse(answer.body).at("error");
    EXPECT_FALSE(error.at("message").get<std::string>().empty());
    EXPECT_EQ(error.size(), 4u) << error;
    EXPECT_EQ(answer.body.find("secret"), std::string::npos);
  }
}

TEST(OpenAiErrorTest, AllViolationsAreTold) {
  const auto error = ErrorOf(InvalidRequest({{"chat.messages[1].role", "chat.messages[1].role has 0 bytes"},
                                             {"token_ids.ids[3]", "token_ids.ids[3] is token 9"}}));
  EXPECT_EQ(error["message"], "messages[1].role has 0 bytes; prompt[3] is token 9");
  EXPECT_EQ(error["param"], "messages[1].role");
  EXPECT_EQ(error["type"], "invalid_request_error");
  EXPECT_TRUE(error["code"].is_null());
  EXPECT_EQ(ErrorOf(InvalidRequest("text", "prompt is empty"))["param"], "prompt");
  EXPECT_EQ(ErrorOf(ModelNotFound("a", "b"))["code"], "model_not_found");
  EXPECT_EQ(ErrorOf(ModelNotFound("a", "b"))["param"], "model");
  EXPECT_TRUE(ErrorOf(NoSuchPath())["param"].is_null());
}

TEST(OpenAiErrorTest, RetryAfterIsInWholeSecondsAndMilliseconds) {
  const AnswerPart answer = ErrorAnswer(Overloaded("full", "QUEUE_FULL", 1.2), "");
  EXPECT_EQ(HeaderOf(answer, "Retry-After"), "2");
  EXPECT_EQ(HeaderOf(answer, "retry-after-ms"), "1200");
  EXPECT_EQ(HeaderOf(ErrorAnswer(Unavailable("x", "DRAINING"), ""), "Retry-After"), "1");
  EXPECT_EQ(HeaderOf(ErrorAnswer(InvalidRequest("n", "n"), ""), "Retry-After"), "");
  EXPECT_EQ(HeaderOf(ErrorAnswer(AuthenticationRequired(), ""), "WWW-Authenticate"), "Bearer");
}

}  // namespace
}  // namespace switchyard::http
