// A Switchyard server that says what a test wants: no model, no scheduler, on a free port of this machine.
//
// A generated token with id i has the text " t<i>". Each test may replace the functions before it calls.
#ifndef SWITCHYARD_TESTS_CLIENT_FAKE_SERVER_H_
#define SWITCHYARD_TESTS_CLIENT_FAKE_SERVER_H_

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "switchyard/v1/expert_service.grpc.pb.h"
#include "switchyard/v1/inference_service.grpc.pb.h"

namespace switchyard {

class FakeServer : private v1::InferenceService::Service, private v1::ExpertService::Service {
 public:
  using StreamFunction = std::function<grpc::Status(const v1::GenerateRequest&, grpc::ServerContext*,
                                                    grpc::ServerWriter<v1::GenerateStreamResponse>*)>;

  FakeServer();
  ~FakeServer() override;

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  void SetServing(bool serving) { server_->GetHealthCheckService()->SetServingStatus(serving); }

  // The request that came last.
  v1::GenerateRequest last_request() const;
  int num_generate_calls() const { return num_generate_calls_.load(); }

  // Replaced by tests, before calls. The default streams the tokens 0, 1, ..., max_tokens - 1.
  StreamFunction on_generate;
  grpc::Status error = grpc::Status::OK;  // of every call but GenerateStream
  v1::Model model;                        // "fake", 4 experts, top 2, MoE layers 1 and 3, vocabulary of 100
  v1::ExpertLoad expert_load;

 private:
  grpc::Status Generate(grpc::ServerContext*, const v1::GenerateRequest* request,
                        v1::GenerateResponse* response) override;
  grpc::Status GenerateStream(grpc::ServerContext* context, const v1::GenerateRequest* request,
                              grpc::ServerWriter<v1::GenerateStreamResponse>* writer) override;
  grpc::Status Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override;
  grpc::Status Detokenize(grpc::ServerContext*, const v1::DetokenizeRequest* request,
                          v1::DetokenizeResponse* response) override;
  grpc::Status GetModel(grpc::ServerContext*, const v1::GetModelRequest*, v1::Model* response) override;
  grpc::Status GetServer(grpc::ServerContext*, const v1::GetServerRequest*, v1::Server* response) override;
  grpc::Status GetLoad(grpc::ServerContext*, const v1::GetLoadRequest*, v1::Load* response) override;
  grpc::Status Abort(grpc::ServerContext*, const v1::AbortRequest* request, v1::AbortResponse* response) override;
  grpc::Status GetExpertLoad(grpc::ServerContext*, const v1::GetExpertLoadRequest*, v1::ExpertLoad* response) override;
  grpc::Status WatchExpertLoad(grpc::ServerContext*, const v1::WatchExpertLoadRequest*,
                               grpc::ServerWriter<v1::ExpertLoad>* writer) override;

  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::atomic<int> num_generate_calls_{0};
  mutable std::mutex mutex_;
  v1::GenerateRequest last_request_;  // under mutex_
};

// An error as the real server sends it: with ErrorInfo, and RetryInfo when `retry_seconds` is above 0, and BadRequest
// when `field` is not empty.
grpc::Status ErrorWithDetails(grpc::StatusCode code, const std::string& message, const std::string& reason,
                              int retry_seconds, const std::string& field, const std::string& description);

// One streamed token with its routing in the layers 1 and 3: experts token % 4 and (token + 1) % 4, weights 0.75, 0.25.
v1::GenerateStreamResponse TokenMessage(int token);

}  // namespace switchyard

#endif  // SWITCHYARD_TESTS_CLIENT_FAKE_SERVER_H_
