// The Open Inference Protocol over gRPC against a server in this process: same answers as Generate, streams, ends.
#include <gtest/gtest.h>

#include <chrono>
#include <map>
#include <thread>

#include "grpc/health/v1/health.grpc.pb.h"
#include "inference/grpc_service.grpc.pb.h"
#include "tests/server/frontend/kserve/infer_requests.h"
#include "tests/server/frontend/test_server.h"

namespace switchyard::kserve {
namespace {

using Api = inference::GRPCInferenceService;
using Stream = grpc::ClientReaderWriter<inference::ModelInferRequest, inference::ModelStreamInferResponse>;

bool IsFinal(const inference::ModelStreamInferResponse& answer) {
  const auto& parameters = answer.infer_response().parameters();
  const auto found = parameters.find("triton_final_response");
  return found != parameters.end() && found->second.bool_param();
}

inference::ModelInferRequest Streaming(int32_t max_tokens, const std::string& id = "r1") {
  inference::ModelInferRequest request = Hello(max_tokens);
  request.set_id(id);
  AddRaw("stream", "BOOL", {1}, "\x01", &request);
  return request;
}

struct Kserve : TestServer {
  explicit Kserve(TestServerOptions options = {}) : TestServer(options), kserve(Api::NewStub(channel)) {}

  grpc::Status Infer(const inference::ModelInferRequest& request, inference::ModelInferResponse* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
    return kserve->ModelInfer(&context, request, response);
  }

  const std::unique_ptr<Api::Stub> kserve;
};

TEST(KserveServiceTest, ModelInferAnswersWhatGenerateAnswers) {
  Kserve server;
  v1::GenerateRequest generate;
  generate.set_text("hello");
  generate.set_max_tokens(7);
  generate.set_n(2);
  generate.add_stop("oh");
  grpc::ClientContext context;
  v1::GenerateResponse generated;
  ASSERT_TRUE(server.stub->Generate(&context, generate, &generated).ok());

  inference::ModelInferRequest request;
  request.set_model_name("toy");
  request.set_model_version("1");
  request.set_id("abc");
  AddRawText("text_input", "hello", &request);
  AddRawText("sampling_parameters", R"({"max_tokens": "7", "n": 2, "stop": "oh"})", &request);
  for (const std::string name : {"finish_reason", "text_output", "num_output_tokens"})
    request.add_outputs()->set_name(name);
  inference::ModelInferResponse response;
  ASSERT_TRUE(server.Infer(request, &response).ok());
  EXPECT_EQ(response.id(), "abc");
  EXPECT_EQ(response.model_name(), "toy");
  EXPECT_EQ(response.model_version(), "1");
  ASSERT_EQ(response.outputs_size(), 3);
  EXPECT_EQ(OutputTexts(response, "text_output"),
            (std::vector<std::string>{generated.choices(0).text(), generated.choices(1).text()}));
  EXPECT_EQ(OutputTexts(response, "text_output")[0], "hell") << "cut at the stop string";
  EXPECT_EQ(OutputTexts(response, "finish_reason"), (std::vector<std::string>{"stop", "stop"}));
  EXPECT_TRUE(server.BecomesIdle());
  EXPECT_NE(server.metrics.Scrape().find("switchyard_request_status_total{model_name=\"toy\",grpc_code=\"OK\"} 2"),
            std::string::npos)
      << "counted as Generate is";
}

TEST(KserveServiceTest, AStreamSendsWhatIsNewAndMarksTheLast) {
  Kserve server;
  server.engine.set_steps_allowed(1);  // each step waits for the answer of the one before
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));
  const auto stream = server.kserve->ModelStreamInfer(&context);
  ASSERT_TRUE(stream->Write(Streaming(12)));
  std::string text;
  int num_answers = 0;
  inference::ModelStreamInferResponse answer;
  do {
    const bool is_there = stream->Read(&answer);
    server.engine.set_steps_allowed(is_there ? num_answers + 2 : 1000);
    ASSERT_TRUE(is_there);
    EXPECT_EQ(answer.error_message(), "");
    EXPECT_EQ(answer.infer_response().id(), "r1");
    EXPECT_EQ(answer.infer_response().parameters().count("triton_final_response"), 1u);
    text += OutputTexts(answer.infer_response(), "text_output")[0];
    ++num_answers;
  } while (!IsFinal(answer));
  EXPECT_EQ(text, "hellohellohe");
  EXPECT_GE(num_answers, 12);
  server.engine.set_steps_allowed(1000);

  // Without `stream`, one answer; on the same stream.
  ASSERT_TRUE(stream->Write(Hello(4)));
  ASSERT_TRUE(stream->Read(&answer));
  EXPECT_TRUE(IsFinal(answer));
  EXPECT_EQ(OutputTexts(answer.infer_response(), "text_output")[0], "hell");
  stream->WritesDone();
  EXPECT_FALSE(stream->Read(&answer));
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_TRUE(server.BecomesIdle());
}

TEST(KserveServiceTest, MoreRequestsThanRunAtATimeAllGetTheirAnswers) {
  Kserve server;
  grpc::ClientContext context;
  const auto stream = server.kserve->ModelStreamInfer(&context);
  constexpr int kRequests = 300;
  std::thread writer([&] {
    for (int i = 0; i < kRequests; ++i) {
      inference::ModelInferRequest request = Streaming(1 + i % 9, "r" + std::to_string(i));
      if (i % 3 == 0) request = Hello(1 + i % 9), request.set_id("r" + std::to_string(i));
      if (i % 7 == 0) request.mutable_inputs(0)->set_name("nothing");
      ASSERT_TRUE(stream->Write(request));
    }
    stream->WritesDone();
  });
  std::map<std::string, std::string> texts;
  std::map<std::string, int> finals;
  inference::ModelStreamInferResponse answer;
  while (stream->Read(&answer)) {
    const std::string& id = answer.infer_response().id();
    EXPECT_EQ(finals[id], 0) << "an answer after the last one of " << id;
    finals[id] += IsFinal(answer) ? 1 : 0;
    if (answer.error_message().empty()) texts[id] += OutputTexts(answer.infer_response(), "text_output")[0];
  }
  writer.join();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_EQ(finals.size(), static_cast<size_t>(kRequests));
  for (int i = 0; i < kRequests; ++i) {
    const std::string id = "r" + std::to_string(i);
    EXPECT_EQ(finals[id], 1) << id;
    EXPECT_EQ(texts[id], i % 7 == 0 ? "" : std::string("hellohello").substr(0, 1 + static_cast<size_t>(i) % 9)) << id;
  }
  EXPECT_TRUE(server.BecomesIdle());
}

TEST(KserveServiceTest, CancellingTheStreamEndsItsRequests) {
  Kserve server;
  server.engine.set_step_time(kSlowStep);
  grpc::ClientContext context;
  const auto stream = server.kserve->ModelStreamInfer(&context);
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(stream->Write(Streaming(1000, "r" + std::to_string(i))));
  inference::ModelStreamInferResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  context.TryCancel();
  while (stream->Read(&answer)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  EXPECT_TRUE(server.BecomesIdle()) << "all KV blocks are free again";
}

TEST(KserveServiceTest, TheCallsDeadlineAndTheTimeoutParameterEndRequests) {
  Kserve server;
  server.engine.set_step_time(std::chrono::milliseconds(5));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  inference::ModelInferResponse response;
  EXPECT_EQ(server.kserve->ModelInfer(&context, Hello(1000), &response).error_code(),
            grpc::StatusCode::DEADLINE_EXCEEDED);

  inference::ModelInferRequest request = Streaming(1000);
  (*request.mutable_parameters())["timeout"].set_int64_param(100'000);
  grpc::ClientContext stream_context;
  const auto stream = server.kserve->ModelStreamInfer(&stream_context);
  ASSERT_TRUE(stream->Write(request));
  inference::ModelStreamInferResponse answer;
  while (stream->Read(&answer) && !IsFinal(answer)) {
  }
  EXPECT_EQ(answer.error_message(), "the deadline passed");
  EXPECT_EQ(answer.infer_response().parameters().at("status_code").string_param(), "DEADLINE_EXCEEDED");
  inference::ModelInferRequest unary = Hello(1000);
  (*unary.mutable_parameters())["timeout"].set_int64_param(100'000);
  EXPECT_EQ(server.Infer(unary, &response).error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  stream->WritesDone();
  EXPECT_TRUE(stream->Finish().ok());
  EXPECT_TRUE(server.BecomesIdle());
}

TEST(KserveServiceTest, AbortFindsARequestOfAStreamByItsId) {
  Kserve server;
  server.engine.set_step_time(kSlowStep);
  grpc::ClientContext context;
  const auto stream = server.kserve->ModelStreamInfer(&context);
  ASSERT_TRUE(stream->Write(Streaming(1000, "job-1")));
  inference::ModelStreamInferResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  v1::AbortRequest abort;
  abort.set_request_id("job-1");
  grpc::ClientContext abort_context;
  v1::AbortResponse aborted;
  ASSERT_TRUE(server.stub->Abort(&abort_context, abort, &aborted).ok());
  while (stream->Read(&answer) && !IsFinal(answer)) {
  }
  EXPECT_EQ(answer.error_message(), "the request was aborted");
}

TEST(KserveServiceTest, StrictStreamsEndWithTheFirstFailure) {
  Kserve server;
  server.engine.set_step_time(kSlowStep);
  grpc::ClientContext context;
  context.AddMetadata("triton_grpc_error", "true");
  const auto stream = server.kserve->ModelStreamInfer(&context);
  ASSERT_TRUE(stream->Write(Streaming(1000, "runs")));
  inference::ModelStreamInferResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  inference::ModelInferRequest bad = Hello();
  bad.set_model_name("other");
  ASSERT_TRUE(stream->Write(bad));
  while (stream->Read(&answer)) EXPECT_EQ(answer.error_message(), "");
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_TRUE(server.BecomesIdle()) << "what ran beside it is cancelled";
}

TEST(KserveServiceTest, AFullQueueIsAnErrorOfTheRequest) {
  TestServerOptions options;
  options.scheduling.max_num_queued_reqs = 1;
  options.scheduling.max_num_seqs = 1;
  Kserve server(options);
  server.engine.set_step_time(std::chrono::milliseconds(20));
  grpc::ClientContext context;
  const auto stream = server.kserve->ModelStreamInfer(&context);
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(stream->Write(Streaming(20)));
  int num_refused = 0;
  inference::ModelStreamInferResponse answer;
  for (int num_final = 0; num_final < 6; num_final += IsFinal(answer) ? 1 : 0) {
    ASSERT_TRUE(stream->Read(&answer));
    if (answer.error_message().empty()) continue;
    EXPECT_EQ(answer.infer_response().parameters().at("status_code").string_param(), "RESOURCE_EXHAUSTED");
    ++num_refused;
  }
  EXPECT_GE(num_refused, 1);
}

TEST(KserveServiceTest, DrainingEndsIdleStreamsAtOnce) {
  Kserve server;
  grpc::ClientContext context;
  const auto stream = server.kserve->ModelStreamInfer(&context);
  ASSERT_TRUE(stream->Write(Hello()));
  inference::ModelStreamInferResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(server.Drain(std::chrono::seconds(100)));
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(50));
  EXPECT_FALSE(stream->Read(&answer));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(status.error_message(), "the server is shutting down; retry on another replica");
}

TEST(KserveServiceTest, AnEngineThatFailsFailsTheRequestsOfAStream) {
  Kserve server;
  server.engine.set_step_time(kSlowStep);
  grpc::ClientContext context;
  const auto stream = server.kserve->ModelStreamInfer(&context);
  ASSERT_TRUE(stream->Write(Streaming(1000)));
  inference::ModelStreamInferResponse answer;
  ASSERT_TRUE(stream->Read(&answer));
  server.engine.FailNextStep();
  while (stream->Read(&answer) && !IsFinal(answer)) {
  }
  EXPECT_EQ(answer.infer_response().parameters().at("status_code").string_param(), "UNAVAILABLE");
}

TEST(KserveServiceTest, TooManyStreamsAreRefused) {
  TestServerOptions options;
  options.grpc.max_open_calls = 2;
  Kserve server(options);
  grpc::ClientContext contexts[3];
  std::vector<std::unique_ptr<Stream>> streams;
  for (int i = 0; i < 2; ++i) {
    streams.push_back(server.kserve->ModelStreamInfer(&contexts[i]));
    ASSERT_TRUE(streams.back()->Write(Hello()));
    inference::ModelStreamInferResponse answer;
    ASSERT_TRUE(streams.back()->Read(&answer));
    EXPECT_EQ(answer.error_message(), "");
  }
  const auto refused = server.kserve->ModelStreamInfer(&contexts[2]);
  inference::ModelStreamInferResponse answer;
  EXPECT_FALSE(refused->Read(&answer));
  const grpc::Status status = refused->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "this server has 2 open ModelStreamInfer calls, its limit; retry after 5.0 s");
}

struct Readiness {
  bool live = false, server = false, model = false;
  std::string health;
};

Readiness Ask(Kserve* server) {
  Readiness readiness;
  grpc::ClientContext contexts[4];
  inference::ServerLiveResponse live;
  EXPECT_TRUE(server->kserve->ServerLive(&contexts[0], {}, &live).ok());
  inference::ServerReadyResponse ready;
  EXPECT_TRUE(server->kserve->ServerReady(&contexts[1], {}, &ready).ok());
  inference::ModelReadyRequest which;
  which.set_name("toy");
  inference::ModelReadyResponse model;
  EXPECT_TRUE(server->kserve->ModelReady(&contexts[2], which, &model).ok());
  grpc::health::v1::HealthCheckRequest check;
  check.set_service("inference.GRPCInferenceService");
  grpc::health::v1::HealthCheckResponse health;
  EXPECT_TRUE(grpc::health::v1::Health::NewStub(server->channel)->Check(&contexts[3], check, &health).ok());
  return {live.live(), ready.ready(), model.ready(),
          grpc::health::v1::HealthCheckResponse::ServingStatus_Name(health.status())};
}

TEST(KserveServiceTest, LiveReadyAndHealthFollowThePhases) {
  TestServerOptions options;
  options.begin_serving = false;
  Kserve server(options);
  Readiness starting = Ask(&server);
  EXPECT_TRUE(starting.live);
  EXPECT_FALSE(starting.server || starting.model);
  EXPECT_EQ(starting.health, "NOT_SERVING");
  inference::ModelInferResponse response;
  const grpc::Status early = server.Infer(Hello(), &response);
  EXPECT_EQ(early.error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(early.error_message(), "the server is starting; retry when its health check says SERVING");

  server.BeginServing();
  Readiness serving = Ask(&server);
  EXPECT_TRUE(serving.live && serving.server && serving.model);
  EXPECT_EQ(serving.health, "SERVING");

  server.frontend->MarkEngineFailed();
  Readiness failed = Ask(&server);
  EXPECT_FALSE(failed.live || failed.server || failed.model);
  EXPECT_EQ(server.Infer(Hello(), &response).error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST(KserveServiceTest, MetadataDescribesServerAndModel) {
  Kserve server;
  grpc::ClientContext contexts[2];
  inference::ServerMetadataResponse about_server;
  ASSERT_TRUE(server.kserve->ServerMetadata(&contexts[0], {}, &about_server).ok());
  EXPECT_EQ(about_server.name(), "switchyard");
  EXPECT_NE(about_server.version(), "");
  inference::ModelMetadataResponse about_model;
  ASSERT_TRUE(server.kserve->ModelMetadata(&contexts[1], {}, &about_model).ok());
  EXPECT_EQ(about_model.name(), "toy");
  EXPECT_EQ(about_model.versions(0), "1");
  EXPECT_EQ(about_model.platform(), "switchyard_fake");
  EXPECT_EQ(about_model.inputs(0).name(), "text_input");
  EXPECT_EQ(about_model.outputs(0).name(), "text_output");
}

}  // namespace
}  // namespace switchyard::kserve
