#include "tests/client/fake_server.h"

#include <chrono>

#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"

namespace switchyard {
namespace {

constexpr int kDefaultTokens = 3;

grpc::Status StreamTokens(const v1::GenerateRequest& request, grpc::ServerContext*,
                          grpc::ServerWriter<v1::GenerateStreamResponse>* writer) {
  const int num_tokens = request.has_max_tokens() ? request.max_tokens() : kDefaultTokens;
  for (int token = 0; token < num_tokens; ++token) {
    v1::GenerateStreamResponse message = TokenMessage(token);
    if (token == 0) {
      message.mutable_prompt()->set_request_id(request.request_id());
      message.mutable_prompt()->set_prompt_tokens(request.has_token_ids() ? request.token_ids().ids_size() : 7);
      message.mutable_prompt()->set_seed(request.seed());
    }
    if (token == num_tokens - 1) {
      message.mutable_choices(0)->set_finish_reason(v1::FINISH_REASON_LENGTH);
      message.mutable_usage()->set_completion_tokens(num_tokens);
    }
    if (!writer->Write(message)) break;
  }
  return grpc::Status::OK;
}

}  // namespace

v1::GenerateStreamResponse TokenMessage(int token) {
  v1::GenerateStreamResponse message;
  v1::ChoiceDelta* delta = message.add_choices();
  delta->set_text(" t" + std::to_string(token));
  delta->add_token_ids(token);
  v1::TokenDetail* detail = delta->add_details();
  for (const int layer : {1, 3}) {
    v1::LayerRouting* routing = detail->add_routing();
    routing->set_layer(layer);
    routing->add_expert_ids(token % 4);
    routing->add_expert_weights(0.75f);
    routing->add_expert_ids((token + 1) % 4);
    routing->add_expert_weights(0.25f);
  }
  return message;
}

grpc::Status ErrorWithDetails(grpc::StatusCode code, const std::string& message, const std::string& reason,
                              int retry_seconds, const std::string& field, const std::string& description) {
  google::rpc::Status details;
  details.set_code(code);
  details.set_message(message);
  google::rpc::ErrorInfo info;
  info.set_reason(reason);
  details.add_details()->PackFrom(info);
  if (retry_seconds > 0) {
    google::rpc::RetryInfo retry;
    retry.mutable_retry_delay()->set_seconds(retry_seconds);
    details.add_details()->PackFrom(retry);
  }
  if (!field.empty()) {
    google::rpc::BadRequest bad;
    bad.add_field_violations()->set_field(field);
    bad.mutable_field_violations(0)->set_description(description);
    details.add_details()->PackFrom(bad);
  }
  return grpc::Status(code, message, details.SerializeAsString());
}

FakeServer::FakeServer() : on_generate(StreamTokens) {
  model.set_name("fake");
  model.set_vocab_size(100);
  model.set_num_experts(4);
  model.set_top_k(2);
  model.add_moe_layers(1);
  model.add_moe_layers(3);
  model.add_eos_token_ids(0);
  model.set_bos_token_id(1);
  grpc::EnableDefaultHealthCheckService(true);
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
  builder.RegisterService(static_cast<v1::InferenceService::Service*>(this));
  builder.RegisterService(static_cast<v1::ExpertService::Service*>(this));
  server_ = builder.BuildAndStart();
}

FakeServer::~FakeServer() { server_->Shutdown(std::chrono::system_clock::now()); }

v1::GenerateRequest FakeServer::last_request() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return last_request_;
}

grpc::Status FakeServer::Generate(grpc::ServerContext*, const v1::GenerateRequest* request,
                                  v1::GenerateResponse* response) {
  if (!error.ok()) return error;
  v1::Choice* choice = response->add_choices();
  choice->set_text("echo: " + request->text());
  choice->set_finish_reason(v1::FINISH_REASON_EOS);
  return grpc::Status::OK;
}

grpc::Status FakeServer::GenerateStream(grpc::ServerContext* context, const v1::GenerateRequest* request,
                                        grpc::ServerWriter<v1::GenerateStreamResponse>* writer) {
  num_generate_calls_.fetch_add(1);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    last_request_ = *request;
  }
  return on_generate(*request, context, writer);
}

grpc::Status FakeServer::Tokenize(grpc::ServerContext*, const v1::TokenizeRequest* request,
                                  v1::TokenizeResponse* response) {
  for (const char c : request->text()) response->add_token_ids(c);
  return error;
}

grpc::Status FakeServer::Detokenize(grpc::ServerContext*, const v1::DetokenizeRequest* request,
                                    v1::DetokenizeResponse* response) {
  for (const int32_t id : request->token_ids()) response->mutable_text()->append(" t" + std::to_string(id));
  return error;
}

grpc::Status FakeServer::GetModel(grpc::ServerContext*, const v1::GetModelRequest*, v1::Model* response) {
  *response = model;
  return error;
}

grpc::Status FakeServer::GetServer(grpc::ServerContext*, const v1::GetServerRequest*, v1::Server* response) {
  response->set_version("1.2.3");
  return error;
}

grpc::Status FakeServer::GetLoad(grpc::ServerContext*, const v1::GetLoadRequest*, v1::Load* response) {
  response->set_running_requests(5);
  return error;
}

grpc::Status FakeServer::Abort(grpc::ServerContext*, const v1::AbortRequest* request, v1::AbortResponse* response) {
  if (request->request_id() != "known") {
    return grpc::Status(grpc::StatusCode::NOT_FOUND, "no request " + request->request_id());
  }
  response->set_aborted(1);
  return grpc::Status::OK;
}

grpc::Status FakeServer::GetExpertLoad(grpc::ServerContext*, const v1::GetExpertLoadRequest*,
                                       v1::ExpertLoad* response) {
  *response = expert_load;
  return error;
}

// Two snapshots, the second with one token more for each expert, then the end.
grpc::Status FakeServer::WatchExpertLoad(grpc::ServerContext*, const v1::WatchExpertLoadRequest*,
                                         grpc::ServerWriter<v1::ExpertLoad>* writer) {
  writer->Write(expert_load);
  v1::ExpertLoad next = expert_load;
  next.set_num_tokens(next.num_tokens() + 2);
  next.mutable_time()->set_seconds(next.time().seconds() + 1);
  for (v1::LayerExpertLoad& layer : *next.mutable_layers()) {
    for (int e = 0; e < layer.tokens_per_expert_size(); ++e) {
      layer.set_tokens_per_expert(e, layer.tokens_per_expert(e) + 1);
    }
  }
  writer->Write(next);
  return error;
}

}  // namespace switchyard
