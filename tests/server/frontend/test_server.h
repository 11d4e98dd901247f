// A whole server in this process: frontend on a free port, scheduler and loop, a fake engine, byte tokenizer.
#ifndef SWITCHYARD_TESTS_SERVER_FRONTEND_TEST_SERVER_H_
#define SWITCHYARD_TESTS_SERVER_FRONTEND_TEST_SERVER_H_

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <string>

#include "engine/tokenizer/tokenizer.h"
#include "server/byte_tokenizer.h"
#include "server/frontend/frontend.h"
#include "server/frontend/step_observer.h"
#include "server/metrics/serving_metrics.h"
#include "server/scheduler/serving_loop.h"
#include "switchyard/v1/expert_service.grpc.pb.h"
#include "switchyard/v1/inference_service.grpc.pb.h"
#include "tests/support/fake_engine.h"

namespace switchyard {

// More than main gives: on a busy machine the threads of clients may come late to their last messages.
constexpr std::chrono::seconds kFlushTime{10};

// 900 tokens take 18 s: what a test starts still runs when the test looks at it, ends it or lets it fail.
constexpr std::chrono::milliseconds kSlowStep{20};

struct TestServerOptions {
  GrpcOptions grpc = {};
  SchedulingOptions scheduling = {};
  bool begin_serving = true;
  std::string chat_template = "";  // empty: the model has none
  std::chrono::milliseconds stall_timeout{30'000};
};

class TestServer {
 public:
  explicit TestServer(TestServerOptions options = {})
      : metrics("toy", "1.2.3"),
        queue(options.scheduling.max_num_queued_reqs, options.scheduling.max_num_queued_tokens) {
    options.grpc.host = "127.0.0.1";
    options.grpc.port = 0;
    tokenizer = *Tokenizer::Parse(ByteTokenizerJson());
    if (!options.chat_template.empty()) chat_template = *ChatTemplate::Parse(options.chat_template, std::nullopt);
    frontend = *Frontend::Listen(options.grpc, options.scheduling, &metrics);
    const ModelFacts& facts = engine.facts();
    scheduler.max_num_seqs = options.scheduling.max_num_seqs;
    scheduler.max_num_batched_tokens = options.scheduling.max_num_batched_tokens;
    scheduler.max_model_len = facts.max_model_len;
    scheduler.block_size = facts.block_size;
    scheduler.num_kv_blocks = facts.num_kv_blocks;
    metrics.SetModel(facts, "auto");
    observer = std::make_unique<StepObserver>(&metrics, frontend.get());
    loop = std::make_unique<ServingLoop>(&engine, &queue, scheduler, observer.get());
    stall_timeout = options.stall_timeout;
    loop->Start();
    channel = grpc::CreateChannel("127.0.0.1:" + std::to_string(frontend->port()), grpc::InsecureChannelCredentials());
    stub = v1::InferenceService::NewStub(channel);
    experts = v1::ExpertService::NewStub(channel);
    if (options.begin_serving) BeginServing();
  }

  ~TestServer() {
    if (!drained) Drain(std::chrono::seconds(0));
  }

  void BeginServing() {
    RequestLimits limits;
    limits.served_model_name = "toy";
    limits.vocab_size = engine.facts().vocab_size;
    limits.max_model_len = scheduler.max_model_len;
    limits.eos_token_ids = engine.facts().eos_token_ids;
    limits.moe_layers = engine.facts().moe_layers;
    frontend->BeginServing({engine.facts(), limits, scheduler, tokenizer.get(), &queue, chat_template.get()},
                           [this] { return loop->Alive(stall_timeout); });
  }

  // What main does on SIGTERM. False: the engine hangs.
  bool Drain(std::chrono::milliseconds limit) {
    drained = true;
    const auto deadline = std::chrono::steady_clock::now() + limit;
    frontend->BeginDraining();
    const bool ended = loop->Drain(deadline);
    frontend->Shutdown(std::max(std::chrono::steady_clock::now(), deadline) + kFlushTime);
    return ended;
  }

  // Waits until nothing runs or waits any more; false after a minute.
  bool BecomesIdle() {
    for (int i = 0; i < 6000; ++i) {
      const SchedulerCounts counts = metrics.counts();
      if (counts.running == 0 && counts.waiting == 0 && counts.kv_blocks_used == 0 && metrics.open_calls() == 0)
        return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
  }

  FakeEngine engine;
  ServingMetrics metrics;
  RequestQueue queue;
  SchedulerOptions scheduler;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<const ChatTemplate> chat_template;
  std::unique_ptr<Frontend> frontend;
  std::unique_ptr<StepObserver> observer;
  std::unique_ptr<ServingLoop> loop;
  std::chrono::milliseconds stall_timeout{};
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<v1::InferenceService::Stub> stub;
  std::unique_ptr<v1::ExpertService::Stub> experts;
  bool drained = false;
};

}  // namespace switchyard

#endif  // SWITCHYARD_TESTS_SERVER_FRONTEND_TEST_SERVER_H_
