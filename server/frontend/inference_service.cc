#include "server/frontend/inference_service.h"

#include <chrono>
#include <memory>
#include <utility>

#include "engine/base/status_macros.h"
#include "server/frontend/call_admission.h"
#include "server/frontend/errors.h"
#include "server/frontend/generation_call.h"
#include "server/frontend/grpc_transport.h"
#include "server/frontend/open_calls.h"
#include "server/frontend/proto_time.h"
#include "server/frontend/unary_call.h"

namespace switchyard {
namespace {

// A unary call whose work may be long runs on the text worker; gRPC keeps context and buffers until the reactor is
// done.
template <typename Request, typename Response, typename Run>
grpc::ServerUnaryReactor* AnswerOnWorker(FrontendParts* parts, grpc::CallbackServerContext* context,
                                         const grpc::ByteBuffer& bytes, grpc::ByteBuffer* out, Run run) {
  if (bytes.Length() <= TextWorker::kInlineBytes) {
    return AnswerUnary<Request, Response>(context, bytes, out, parts->metrics, run);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  auto request = std::make_shared<Request>();
  absl::Status status = ParseMessage(bytes, request.get());
  const auto job = [parts, context, reactor, request, out, run](bool stopping) {
    Response response;
    const absl::Status done = stopping                 ? parts->EndedByServer()
                              : context->IsCancelled() ? absl::CancelledError("the client went away")
                                                       : run(*request, &response);
    FinishUnary(context, reactor, parts->metrics, done, response, out);
  };
  if (status.ok() && parts->text_worker->Post(bytes.Length(), job)) return reactor;
  if (status.ok()) status = parts->TextWorkerRefused();
  FinishUnary(context, reactor, parts->metrics, status, Response(), out);
  return reactor;
}

}  // namespace

grpc::ServerUnaryReactor* InferenceService::Generate(Context* context, const Bytes* request, Bytes* response) {
  return StartUnaryCall(parts_, context,
                        {ParseAs<v1::GenerateRequest>(*request), SteadyDeadline(*context), SerializeMessage}, response);
}

grpc::ServerWriteReactor<grpc::ByteBuffer>* InferenceService::GenerateStream(Context* context, const Bytes* request) {
  return StartStreamingCall(parts_, context, ParseAs<v1::GenerateRequest>(*request));
}

grpc::ServerUnaryReactor* InferenceService::Tokenize(Context* context, const Bytes* request, Bytes* response) {
  return AnswerOnWorker<v1::TokenizeRequest, v1::TokenizeResponse>(
      parts_, context, *request, response,
      [this](const v1::TokenizeRequest& in, v1::TokenizeResponse* out) { return DoTokenize(in, out); });
}

grpc::ServerUnaryReactor* InferenceService::Detokenize(Context* context, const Bytes* request, Bytes* response) {
  return AnswerOnWorker<v1::DetokenizeRequest, v1::DetokenizeResponse>(
      parts_, context, *request, response,
      [this](const v1::DetokenizeRequest& in, v1::DetokenizeResponse* out) { return DoDetokenize(in, out); });
}

grpc::ServerUnaryReactor* InferenceService::GetModel(Context* context, const Bytes* request, Bytes* response) {
  return AnswerUnary<v1::GetModelRequest, v1::Model>(
      context, *request, response, parts_->metrics,
      [this](const v1::GetModelRequest& in, v1::Model* out) { return DoGetModel(in, out); });
}

grpc::ServerUnaryReactor* InferenceService::GetServer(Context* context, const Bytes* request, Bytes* response) {
  return AnswerUnary<v1::GetServerRequest, v1::Server>(
      context, *request, response, parts_->metrics,
      [this](const v1::GetServerRequest&, v1::Server* out) { return DoGetServer(out); });
}

grpc::ServerUnaryReactor* InferenceService::GetLoad(Context* context, const Bytes* request, Bytes* response) {
  return AnswerUnary<v1::GetLoadRequest, v1::Load>(
      context, *request, response, parts_->metrics,
      [this](const v1::GetLoadRequest&, v1::Load* out) { return DoGetLoad(out); });
}

grpc::ServerUnaryReactor* InferenceService::Abort(Context* context, const Bytes* request, Bytes* response) {
  return AnswerUnary<v1::AbortRequest, v1::AbortResponse>(
      context, *request, response, parts_->metrics,
      [this](const v1::AbortRequest& in, v1::AbortResponse* out) { return DoAbort(in, out); });
}

absl::Status InferenceService::DoTokenize(const v1::TokenizeRequest& request, v1::TokenizeResponse* response) const {
  ASSIGN_OR_RETURN(const ServedModel* model, parts_->LoadedModel());
  RETURN_IF_ERROR(CheckModelName(request.model(), model->limits));
  RETURN_IF_ERROR(CheckServesText(*model));
  RETURN_IF_ERROR(CheckTextBytes("text", static_cast<int64_t>(request.text().size()), model->limits));
  EncodeOptions options;
  options.add_special_tokens = !request.has_add_special_tokens() || request.add_special_tokens();
  options.allow_special_tokens = request.allow_special_tokens();
  const auto ids = model->tokenizer->Encode(request.text(), options);
  if (!ids.ok()) return InvalidRequest("text", "text cannot be tokenized: " + std::string(ids.status().message()));
  response->mutable_token_ids()->Add(ids->begin(), ids->end());
  return absl::OkStatus();
}

absl::Status InferenceService::DoDetokenize(const v1::DetokenizeRequest& request,
                                            v1::DetokenizeResponse* response) const {
  ASSIGN_OR_RETURN(const ServedModel* model, parts_->LoadedModel());
  RETURN_IF_ERROR(CheckModelName(request.model(), model->limits));
  RETURN_IF_ERROR(CheckServesText(*model));
  if (request.token_ids_size() > model->limits.max_model_len) {
    return InvalidRequest("token_ids", "token_ids has " + WithCommas(request.token_ids_size()) +
                                           " entries; use at most " + WithCommas(model->limits.max_model_len) +
                                           ", the model's context");
  }
  RETURN_IF_ERROR(CheckTokenIds("token_ids", request.token_ids(), model->limits));
  const bool skip_special = !request.has_skip_special_tokens() || request.skip_special_tokens();
  response->set_text(model->tokenizer->Decode(
      {request.token_ids().data(), static_cast<size_t>(request.token_ids_size())}, skip_special));
  return absl::OkStatus();
}

absl::Status InferenceService::DoGetModel(const v1::GetModelRequest& request, v1::Model* response) const {
  ASSIGN_OR_RETURN(const ServedModel* model, parts_->LoadedModel());
  RETURN_IF_ERROR(CheckModelName(request.name(), model->limits));
  const ModelFacts& facts = model->facts;
  response->set_name(model->limits.served_model_name);
  response->set_architecture(facts.architecture);
  response->set_dtype(DTypeName(facts.dtype));
  response->set_num_parameters(facts.num_parameters);
  response->set_num_active_parameters(facts.num_active_parameters);
  response->set_weight_bytes(facts.weight_bytes);
  response->set_expert_dtype(facts.expert_dtype);
  response->set_vocab_size(facts.vocab_size);
  response->set_max_model_len(model->limits.max_model_len);
  response->set_num_layers(facts.num_layers);
  response->set_num_encoder_layers(facts.num_encoder_layers);
  if (facts.num_encoder_layers > 0) response->set_decoder_start_token_id(facts.decoder_start_token_id);
  response->mutable_moe_layers()->Add(facts.moe_layers.begin(), facts.moe_layers.end());
  response->set_num_experts(facts.num_experts);
  response->set_top_k(facts.top_k);
  response->mutable_eos_token_ids()->Add(facts.eos_token_ids.begin(), facts.eos_token_ids.end());
  response->set_has_chat_template(model->chat_template != nullptr);
  response->set_bos_token_id(-1);
  if (model->tokenizer == nullptr) return absl::OkStatus();
  // What the tokenizer makes of an empty text and puts before any other; what only follows is no beginning.
  const auto start = model->tokenizer->Encode("", EncodeOptions());
  const auto other = model->tokenizer->Encode("a", EncodeOptions());
  const bool has_bos = start.ok() && !start->empty() &&
                       (!other.ok() || (!other->empty() && other->front() == start->front()));
  if (has_bos) response->set_bos_token_id(start->front());
  return absl::OkStatus();
}

absl::Status InferenceService::DoGetServer(v1::Server* response) const {
  const auto uptime = std::chrono::steady_clock::now() - parts_->start;
  response->set_version(parts_->limits.version);
  SetTime(std::chrono::system_clock::now() - uptime, response->mutable_start_time());
  SetDuration(std::chrono::duration<double>(uptime).count(), response->mutable_uptime());
  ASSIGN_OR_RETURN(const ServedModel* model, parts_->LoadedModel());
  response->set_backend(model->facts.backend);
  response->set_model(model->limits.served_model_name);
  SetDuration(model->facts.load_seconds, response->mutable_load_duration());
  v1::ServerLimits* limits = response->mutable_limits();
  limits->set_max_model_len(model->limits.max_model_len);
  limits->set_max_num_seqs(model->scheduler.max_num_seqs);
  limits->set_max_num_batched_tokens(model->scheduler.max_num_batched_tokens);
  limits->set_max_num_queued_reqs(parts_->limits.max_num_queued_reqs);
  limits->set_max_num_queued_tokens(parts_->limits.max_num_queued_tokens);
  limits->set_max_message_bytes(parts_->limits.max_message_bytes);
  limits->set_max_prompt_bytes(model->limits.max_prompt_bytes());
  limits->set_num_kv_blocks(model->facts.num_kv_blocks);
  limits->set_block_size(model->facts.block_size);
  v1::ServerFeatures* features = response->mutable_features();
  features->set_prefix_caching(model->scheduler.enable_prefix_caching);
  features->set_chunked_prefill(model->scheduler.enable_chunked_prefill);
  features->set_priority_scheduling(model->scheduler.policy == SchedulingPolicy::kPriority);
  return absl::OkStatus();
}

absl::Status InferenceService::DoGetLoad(v1::Load* response) const {
  const SchedulerCounts counts = parts_->metrics->counts();
  response->set_waiting_requests(counts.waiting);
  response->set_running_requests(counts.running);
  response->set_waiting_tokens(counts.waiting_tokens);
  response->set_kv_blocks_total(counts.kv_blocks_total);
  response->set_kv_blocks_used(counts.kv_blocks_used);
  response->set_kv_cache_usage(
      counts.kv_blocks_total == 0 ? 0.0 : static_cast<double>(counts.kv_blocks_used) / counts.kv_blocks_total);
  response->set_ready(parts_->phase.load(std::memory_order_acquire) == ServingPhase::kServing);
  response->set_generation_tokens_total(static_cast<uint64_t>(counts.generation_tokens_total));
  response->set_prompt_tokens_total(static_cast<uint64_t>(counts.prompt_tokens_total));
  response->set_preemptions_total(static_cast<uint64_t>(counts.preemptions_total));
  response->set_open_calls(parts_->metrics->open_calls());
  return absl::OkStatus();
}

absl::Status InferenceService::DoAbort(const v1::AbortRequest& request, v1::AbortResponse* response) const {
  if (!IsValidRequestId(request.request_id())) {
    return InvalidRequest("request_id",
                          "request_id is empty, too long or has unusual characters; use the id that the call "
                          "was given or answered with");
  }
  const auto calls = parts_->open_calls->Find(request.request_id());
  if (calls.empty()) {
    return ErrorWithReason(absl::StatusCode::kNotFound, "no open call has that request_id", "REQUEST_NOT_FOUND");
  }
  for (const auto& call : calls) call->Abort();
  response->set_aborted(static_cast<int32_t>(calls.size()));
  return absl::OkStatus();
}

}  // namespace switchyard
