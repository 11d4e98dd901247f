// The loop with real threads and a fake engine. Clean under ThreadSanitizer.
#include "server/scheduler/serving_loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/server/scheduler/recording_sink.h"

namespace switchyard {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using std::chrono::steady_clock;

// Answers token = position of the sampled row, so that outputs are known beforehand.
class PositionEngine : public Engine {
 public:
  explicit PositionEngine(int max_steps_in_flight) { facts_.max_steps_in_flight = max_steps_in_flight; }

  const ModelFacts& facts() const override { return facts_; }

  absl::Status Launch(const StepBatch& batch) override {
    const int number = num_steps_.fetch_add(1) + 1;
    calls += " L" + std::to_string(number);
    if (number == fail_launch_at) return absl::InternalError("device lost");
    EXPECT_LT(num_in_flight(), facts_.max_steps_in_flight);
    Step step;
    step.number = number;
    for (const SequenceSlice& slice : batch.slices) {
      ExpectKnown(slice);
      if (!slice.sample) continue;
      SampledToken token;
      token.sequence_id = slice.sequence_id;
      token.token = slice.first_position + static_cast<int32_t>(slice.tokens.size()) - 1;
      step.output.tokens.push_back(token);
    }
    in_flight_.push_back(std::move(step));
    return absl::OkStatus();
  }

  absl::StatusOr<const StepOutput*> Collect() override {
    EXPECT_GT(num_in_flight(), 0);
    while (hangs.load()) std::this_thread::sleep_for(milliseconds(1));
    if (step_time > milliseconds(0)) std::this_thread::sleep_for(step_time);
    const int number = in_flight_.front().number;
    calls += " C" + std::to_string(number);
    output_ = std::move(in_flight_.front().output);
    in_flight_.pop_front();
    failed_ = failed_ || number == fail_collect_at;
    if (failed_) return absl::InternalError("device lost");
    return &output_;
  }

  int num_steps() const { return num_steps_.load(); }  // launched
  int num_in_flight() const { return static_cast<int>(in_flight_.size()); }

  // Set before the loop starts.
  milliseconds step_time{0};
  int fail_launch_at = 0;  // 1: the first step
  int fail_collect_at = 0;
  std::atomic<bool> hangs{false};  // in Collect, until it is false

  std::string calls;  // " L1 L2 C1": launched and collected; read it when the loop is over or sleeps

 private:
  struct Step {
    int number = 0;
    StepOutput output;
  };

  // ~i is what the step in flight samples for the same sequence.
  void ExpectKnown(const SequenceSlice& slice) const {
    if (slice.tokens.front() >= 0) return;
    ASSERT_EQ(num_in_flight(), 1);
    const auto& sampled = in_flight_.front().output.tokens;
    ASSERT_LT(static_cast<size_t>(~slice.tokens.front()), sampled.size());
    EXPECT_EQ(sampled[static_cast<size_t>(~slice.tokens.front())].sequence_id, slice.sequence_id);
  }

  ModelFacts facts_;
  std::deque<Step> in_flight_;
  StepOutput output_;
  bool failed_ = false;
  std::atomic<int> num_steps_{0};
};

// Waits for the end from another thread.
class WaitingSink : public TokenSink {
 public:
  SinkVerdict OnToken(const SampledToken& token, bool) override {
    tokens.push_back(token.token);
    if (on_token) on_token(static_cast<int>(tokens.size()));
    return SinkVerdict::kContinue;
  }
  void OnFinished(const FinishedEvent& event) override { finished_.set_value(event); }

  // Blocks; fails the test after a minute.
  FinishedEvent Wait() {
    std::future<FinishedEvent> future = finished_.get_future();
    if (future.wait_for(seconds(60)) == std::future_status::ready) return future.get();
    ADD_FAILURE() << "no terminal event";
    return {};
  }

  std::vector<int32_t> tokens;  // read it after Wait
  std::function<void(int)> on_token;

 private:
  std::promise<FinishedEvent> finished_;
};

class CountingObserver : public LoopObserver {
 public:
  void OnStep(const StepReport& report) override {
    if (report.stats != nullptr) {
      ++num_steps;
      num_prefill_tokens += report.num_prefill_tokens;
      num_decode_tokens += report.num_decode_tokens;
    }
    if (report.stats == nullptr && report.counts.running > 0 &&
        report.counts.finished_total[static_cast<size_t>(FinishReason::kDeadline)] > 0) {
      saw_end_without_step = true;
    }
    last = report;
  }
  void OnFinished(const Request& request, const FinishedEvent&) override {
    ++num_finished;
    EXPECT_FALSE(request.prompt_tokens.empty());
  }

  void OnEngineFailed() override {
    EXPECT_EQ(num_finished, 0) << "before the first client hears of it";
    ++num_failures;
  }

  // Loop's thread; read them after Drain.
  int num_failures = 0;
  int num_steps = 0;
  int num_prefill_tokens = 0;
  int num_decode_tokens = 0;
  int num_finished = 0;
  bool saw_end_without_step = false;  // an end was reported while others went on, and no step with it
  StepReport last;
};

// The parameter: how many steps the engine takes at once.
class ServingLoopTest : public testing::TestWithParam<int> {
 protected:
  ServingLoopTest() : engine_(GetParam()) {
    options_.max_num_seqs = 8;
    options_.max_num_batched_tokens = 32;
    options_.max_model_len = 64;
    options_.block_size = 4;
    options_.num_kv_blocks = 32;
  }

  // However it ended, no step is left that reads what was freed.
  void TearDown() override {
    loop_.reset();
    EXPECT_EQ(engine_.num_in_flight(), 0);
  }

  void Start() {
    loop_ = std::make_unique<ServingLoop>(&engine_, &queue_, options_, &observer_);
    loop_->Start();
  }

  std::shared_ptr<WaitingSink> Push(int32_t num_prompt_tokens, int32_t max_tokens,
                                    TimePoint deadline = TimePoint::max()) {
    auto sink = std::make_shared<WaitingSink>();
    auto request = MakeRequest(next_id_++, std::vector<int32_t>(num_prompt_tokens, 1), max_tokens, sink);
    request->arrival = steady_clock::now();
    request->deadline = deadline;
    EXPECT_TRUE(queue_.Push(std::move(request)).ok());
    return sink;
  }

  PositionEngine engine_;
  RequestQueue queue_{64, 4096};
  SchedulerOptions options_;
  CountingObserver observer_;
  std::unique_ptr<ServingLoop> loop_;
  uint64_t next_id_ = 1;
};

INSTANTIATE_TEST_SUITE_P(StepsInFlight, ServingLoopTest, testing::Values(1, 2));

TEST_P(ServingLoopTest, AnswersARequestAndSleepsAfterwards) {
  Start();
  const auto sink = Push(3, 4);
  EXPECT_EQ(sink->Wait().reason, FinishReason::kLength);
  EXPECT_THAT(sink->tokens, testing::ElementsAre(2, 3, 4, 5));
  const int steps = engine_.num_steps();
  std::this_thread::sleep_for(milliseconds(30));
  EXPECT_EQ(engine_.num_steps(), steps);
  EXPECT_TRUE(loop_->healthy());
}

TEST_P(ServingLoopTest, WakesUpForEachArrival) {
  Start();
  const auto start = steady_clock::now();
  for (int i = 0; i < 50; ++i) EXPECT_EQ(Push(1, 1)->Wait().reason, FinishReason::kLength);
  EXPECT_LT(steady_clock::now() - start, seconds(25)) << "woken by the heartbeat only, which comes each second";
}

TEST_P(ServingLoopTest, EndsACancelledRequestWhileOthersGoOn) {
  // Both requests and the cancel are taken during the first step, which waits for them.
  engine_.hangs = true;
  Start();
  const auto cancelled = Push(2, 60);
  const auto other = Push(2, 30);
  queue_.Cancel(1);
  engine_.hangs = false;
  EXPECT_EQ(cancelled->Wait().status, TerminalStatus::kCancelled);
  EXPECT_EQ(other->Wait().status, TerminalStatus::kOk);
  EXPECT_EQ(other->tokens.size(), 30u);
}

TEST_P(ServingLoopTest, EndsARequestAtItsDeadline) {
  engine_.step_time = milliseconds(2);
  Start();
  const auto start = steady_clock::now();
  const auto sink = Push(2, 60, start + milliseconds(20));
  const FinishedEvent event = sink->Wait();
  EXPECT_EQ(event.status, TerminalStatus::kDeadlineExceeded);
  EXPECT_EQ(event.reason, FinishReason::kDeadline);
  EXPECT_GE(steady_clock::now() - start, milliseconds(20));
  EXPECT_EQ(event.num_output_tokens, static_cast<int32_t>(sink->tokens.size()));
}

TEST_P(ServingLoopTest, DrainFinishesWhatWasAdmittedAndRefusesTheRest) {
  engine_.step_time = milliseconds(1);
  Start();
  std::vector<std::shared_ptr<WaitingSink>> sinks;
  for (int i = 0; i < 20; ++i) sinks.push_back(Push(2, 10));
  loop_->Drain(steady_clock::now() + seconds(60));
  for (const auto& sink : sinks) EXPECT_EQ(sink->Wait().status, TerminalStatus::kOk);
  EXPECT_EQ(queue_.Push(MakeRequest(99, {1}, 1, sinks[0])).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(observer_.num_finished, 20);
  EXPECT_EQ(observer_.last.counts.kv_blocks_used, 0);
  EXPECT_EQ(observer_.last.counts.admitted_total, 20);
}

TEST_P(ServingLoopTest, DrainGivesUpAtItsDeadline) {
  engine_.step_time = milliseconds(100);  // six seconds of work
  Start();
  const auto sink = Push(2, 60);
  loop_->Drain(steady_clock::now() + milliseconds(30));
  const FinishedEvent event = sink->Wait();
  EXPECT_EQ(event.reason, FinishReason::kError);
  EXPECT_EQ(event.status, TerminalStatus::kUnavailable);
  EXPECT_EQ(observer_.last.counts.kv_blocks_used, 0);
}

TEST_P(ServingLoopTest, DrainSaysWhenTheEngineHangs) {
  engine_.hangs = true;
  Start();
  const auto sink = Push(2, 60);
  while (engine_.num_steps() == 0) std::this_thread::sleep_for(milliseconds(1));
  const auto start = steady_clock::now();
  EXPECT_FALSE(loop_->Drain(start + milliseconds(20)));
  EXPECT_LT(steady_clock::now() - start, seconds(30));
  EXPECT_FALSE(loop_->Alive(milliseconds(500)));
  EXPECT_TRUE(loop_->Alive(seconds(60)));
  engine_.hangs = false;
  EXPECT_EQ(sink->Wait().status, TerminalStatus::kUnavailable);
}

TEST_P(ServingLoopTest, ReportsAnEndBeforeTheNextStep) {
  engine_.step_time = milliseconds(1);
  engine_.hangs = true;  // until both are there
  Start();
  const auto other = Push(2, 60);
  const auto late = Push(2, 60, steady_clock::now() + milliseconds(10));
  engine_.hangs = false;
  EXPECT_EQ(late->Wait().reason, FinishReason::kDeadline);
  loop_->Drain(TimePoint::max());
  EXPECT_TRUE(observer_.saw_end_without_step);
}

TEST_P(ServingLoopTest, DrainOfAnIdleLoopReturnsAtOnce) {
  // The best of five, or the machine may have been busy: a heartbeat would take a second each time.
  auto best = steady_clock::duration::max();
  for (int i = 0; i < 5; ++i) {
    RequestQueue queue(64, 4096);
    ServingLoop loop(&engine_, &queue, options_, &observer_);
    loop.Start();
    std::this_thread::sleep_for(milliseconds(20));  // it sleeps by then
    const auto start = steady_clock::now();
    EXPECT_TRUE(loop.Drain(TimePoint::max()));
    best = std::min(best, steady_clock::now() - start);
  }
  EXPECT_LT(best, milliseconds(500));
}

TEST_P(ServingLoopTest, TheDestructorAnswersWhatIsLeft) {
  engine_.step_time = milliseconds(100);  // six seconds of work
  Start();
  std::vector<std::shared_ptr<WaitingSink>> sinks;
  for (int i = 0; i < 12; ++i) sinks.push_back(Push(2, 60));
  loop_.reset();
  for (const auto& sink : sinks) EXPECT_EQ(sink->Wait().status, TerminalStatus::kUnavailable);
}

void ExpectFailure(ServingLoop& loop, RequestQueue& queue, const std::vector<std::shared_ptr<WaitingSink>>& sinks) {
  for (const auto& sink : sinks) {
    const FinishedEvent event = sink->Wait();
    EXPECT_EQ(event.status, TerminalStatus::kUnavailable);
    EXPECT_FALSE(loop.healthy()) << "unhealthy before the first client hears of it";
  }
  EXPECT_EQ(loop.engine_failure().message(), "device lost");
  EXPECT_EQ(queue.Push(MakeRequest(99, {1}, 1, sinks[0])).code(), absl::StatusCode::kUnavailable);
}

TEST_P(ServingLoopTest, AFailedLaunchEndsEverythingAsUnavailable) {
  engine_.fail_launch_at = 1;
  std::vector<std::shared_ptr<WaitingSink>> sinks;
  for (int i = 0; i < 12; ++i) sinks.push_back(Push(2, 60));
  Start();
  ExpectFailure(*loop_, queue_, sinks);
  loop_->Drain(TimePoint::max());
  EXPECT_EQ(observer_.num_failures, 1);
}

TEST_P(ServingLoopTest, AFailedCollectEndsEverythingAsUnavailable) {
  engine_.fail_collect_at = 4;
  std::vector<std::shared_ptr<WaitingSink>> sinks;
  for (int i = 0; i < 12; ++i) sinks.push_back(Push(2, 60));
  Start();
  ExpectFailure(*loop_, queue_, sinks);
  EXPECT_EQ(sinks[0]->tokens.size(), 3u);
  EXPECT_EQ(engine_.num_steps(), 3 + GetParam()) << "no step after the failure";
  loop_->Drain(TimePoint::max());
}

TEST_P(ServingLoopTest, ReportsStepsAndCounts) {
  Start();
  EXPECT_EQ(Push(5, 3)->Wait().num_output_tokens, 3);
  loop_->Drain(TimePoint::max());
  EXPECT_EQ(observer_.num_steps, 3);
  EXPECT_EQ(observer_.last.counts.prompt_tokens_total, 5);
  EXPECT_EQ(observer_.last.counts.generation_tokens_total, 3);
  EXPECT_EQ(observer_.last.num_sequences, 1);
  EXPECT_EQ(observer_.last.num_decode_tokens, 1);
  EXPECT_EQ(observer_.num_prefill_tokens, 5);
  EXPECT_EQ(observer_.num_decode_tokens, 2);
}

TEST_P(ServingLoopTest, TheEngineHasItsNextStepBeforeTheLastIsRead) {
  Start();
  EXPECT_EQ(Push(2, 4)->Wait().num_output_tokens, 4);
  loop_->Drain(TimePoint::max());
  EXPECT_EQ(engine_.calls, GetParam() == 1 ? " L1 C1 L2 C2 L3 C3 L4 C4" : " L1 L2 C1 L3 C2 L4 C3 C4");
}

TEST_P(ServingLoopTest, ACancelCostsNoStepThatWasNotLaunchedYet) {
  const auto sink = std::make_shared<WaitingSink>();
  sink->on_token = [this](int num_tokens) {
    if (num_tokens == 3) queue_.Cancel(1);
  };
  ASSERT_TRUE(queue_.Push(MakeRequest(1, {1, 1}, 60, sink)).ok());
  Start();
  EXPECT_EQ(sink->Wait().status, TerminalStatus::kCancelled);
  loop_->Drain(TimePoint::max());
  EXPECT_EQ(sink->tokens.size(), 3u);
  EXPECT_EQ(engine_.calls, GetParam() == 1 ? " L1 C1 L2 C2 L3 C3" : " L1 L2 C1 L3 C2 L4 C3 C4");
}

TEST_P(ServingLoopTest, ATokenAfterTheEndIsNeitherSentNorCounted) {
  const auto sink = std::make_shared<WaitingSink>();
  auto request = MakeRequest(1, {1, 1}, 60, sink);
  request->sampling.stop_token_ids = {3};  // the third
  ASSERT_TRUE(queue_.Push(std::move(request)).ok());
  Start();
  EXPECT_EQ(sink->Wait().reason, FinishReason::kStop);
  loop_->Drain(TimePoint::max());
  EXPECT_THAT(sink->tokens, testing::ElementsAre(1, 2, 3));
  EXPECT_EQ(observer_.num_steps, 2 + GetParam());
  EXPECT_EQ(observer_.last.counts.generation_tokens_total, 3);
  EXPECT_EQ(observer_.last.counts.kv_blocks_used, 0);
}

TEST_P(ServingLoopTest, AFailureEndsRequestsOnlyWhenNoStepReadsThemAnyMore) {
  engine_.fail_launch_at = 2;
  const auto sink = std::make_shared<WaitingSink>();
  ASSERT_TRUE(queue_.Push(MakeRequest(1, {1, 1}, 60, sink)).ok());
  Start();
  ExpectFailure(*loop_, queue_, {sink});
  EXPECT_EQ(engine_.calls, GetParam() == 1 ? " L1 C1 L2" : " L1 L2 C1");
}

TEST_P(ServingLoopTest, AFailedCollectTakesTheStepBehindItAlong) {
  engine_.fail_collect_at = 1;
  const auto sink = std::make_shared<WaitingSink>();
  ASSERT_TRUE(queue_.Push(MakeRequest(1, {1, 1}, 60, sink)).ok());
  Start();
  ExpectFailure(*loop_, queue_, {sink});
  EXPECT_EQ(engine_.calls, GetParam() == 1 ? " L1 C1" : " L1 L2 C1 C2");
  EXPECT_TRUE(sink->tokens.empty());
}

TEST_P(ServingLoopTest, ShowsSignsOfLifeWhileIdle) {
  Start();
  std::this_thread::sleep_for(milliseconds(1500));
  // On a busy machine a sign may be late, but comes.
  const auto is_alive = [this] { return loop_->Alive(seconds(1) + milliseconds(400)); };
  for (int i = 0; i < 2000 && !is_alive(); ++i) std::this_thread::sleep_for(milliseconds(10));
  EXPECT_TRUE(is_alive());
}

// Many threads push, cancel and set deadlines; the pool is small enough to preempt. Every request ends once, and
// admitted = ended.
TEST_P(ServingLoopTest, ConservesRequestsUnderManyThreads) {
  constexpr int kThreads = 4, kEach = 250;
  options_.num_kv_blocks = 16;
  Start();
  std::atomic<int> pushed{0}, ended{0}, wrong{0};
  std::vector<std::thread> clients;
  for (int t = 0; t < kThreads; ++t) {
    clients.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      for (int i = 0; i < kEach; ++i) {
        const uint64_t id = static_cast<uint64_t>(t * kEach + i + 1000);
        const int32_t num_prompt_tokens = 1 + static_cast<int32_t>(random() % 30);
        const int32_t max_tokens = 1 + static_cast<int32_t>(random() % 30);
        auto sink = std::make_shared<WaitingSink>();
        auto request = MakeRequest(id, std::vector<int32_t>(num_prompt_tokens, 1), max_tokens, sink);
        request->arrival = steady_clock::now();
        if (random() % 8 == 0) request->deadline = request->arrival + std::chrono::microseconds(random() % 2000);
        if (!queue_.Push(std::move(request)).ok()) continue;
        pushed.fetch_add(1);
        if (random() % 4 == 0) queue_.Cancel(id);
        const FinishedEvent event = sink->Wait();
        ended.fetch_add(1);
        for (size_t k = 0; k < sink->tokens.size(); ++k) {
          if (sink->tokens[k] != num_prompt_tokens - 1 + static_cast<int32_t>(k)) wrong.fetch_add(1);
        }
        const bool ok = event.status == TerminalStatus::kOk;
        if (ok && event.num_output_tokens != max_tokens) wrong.fetch_add(1);
      }
    });
  }
  for (std::thread& client : clients) client.join();
  loop_->Drain(TimePoint::max());
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_EQ(ended.load(), pushed.load());
  const SchedulerCounts& counts = observer_.last.counts;
  EXPECT_EQ(counts.admitted_total, pushed.load());
  EXPECT_EQ(std::accumulate(counts.finished_total.begin(), counts.finished_total.end(), int64_t{0}), pushed.load());
  EXPECT_EQ(counts.kv_blocks_used, 0);
}

}  // namespace
}  // namespace switchyard
