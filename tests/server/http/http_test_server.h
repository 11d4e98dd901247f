// What OpenAI's interface needs of a server, without gRPC: the shared parts, a fake engine, scheduler and loop.
#ifndef SWITCHYARD_TESTS_SERVER_HTTP_HTTP_TEST_SERVER_H_
#define SWITCHYARD_TESTS_SERVER_HTTP_HTTP_TEST_SERVER_H_

#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "server/access/credential_files.h"
#include "server/byte_tokenizer.h"
#include "server/frontend/frontend_parts.h"
#include "server/frontend/open_calls.h"
#include "server/scheduler/serving_loop.h"
#include "tests/support/fake_engine.h"

namespace switchyard {

struct TestParts {
  TestParts() {
    model.facts.vocab_size = 257;
    model.limits.served_model_name = "toy";
    model.limits.vocab_size = 257;
    model.limits.max_model_len = 1024;
    model.limits.eos_token_ids = {FakeEngine::kEos};
    model.scheduler.max_model_len = 1024;
    model.scheduler.num_kv_blocks = 512;
    model.scheduler.block_size = 16;
    model.tokenizer = tokenizer.get();
    model.chat_template = chat_template.get();
    model.queue = &queue;
    parts.metrics = &metrics;
    parts.writer = &writer;
    parts.text_worker = &text_worker;
    parts.open_calls = &open_calls;
    parts.model.store(&model);
    parts.phase.store(ServingPhase::kServing);
  }

  std::unique_ptr<Tokenizer> tokenizer = *Tokenizer::Parse(ByteTokenizerJson());
  std::unique_ptr<const ChatTemplate> chat_template =
      *ChatTemplate::Parse("{% for m in messages %}{{ m.content }}{% endfor %}", std::nullopt);
  ServingMetrics metrics{"toy", "1"};
  RequestQueue queue{8, 100'000};
  OpenCalls open_calls{64};
  ServedModel model;
  FrontendParts parts;
  StreamWriter writer;
  TextWorker text_worker{64, size_t{1} << 24};
};

// With a loop that serves.
struct ServingParts : TestParts, LoopObserver {
  ServingParts() : loop(&engine, &queue, model.scheduler, this) {
    metrics.SetModel(engine.facts(), "auto");
    loop.Start();
  }
  ~ServingParts() override { loop.Drain(std::chrono::steady_clock::now()); }

  void OnStep(const StepReport& report) override {
    metrics.OnStep(report);
    writer.Flush();
  }
  void OnFinished(const Request& request, const FinishedEvent& event) override { metrics.OnFinished(request, event); }
  void OnEngineFailed() override {}

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
  ServingLoop loop;
};

}  // namespace switchyard

#endif  // SWITCHYARD_TESTS_SERVER_HTTP_HTTP_TEST_SERVER_H_
