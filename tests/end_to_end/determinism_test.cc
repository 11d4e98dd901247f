// The promise of the server, on the real engine and the real scheduler with the bundled model: a request's tokens,
// logprobs and routing are the same bits alone, in batches of up to 32, in any chunking, after preemption, with reused
// prefixes, and whatever the number of threads. Each request of each random schedule is compared with its run alone,
// on another engine with one thread: that is one pair.

#include <bit>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/engine.h"
#include "gtest/gtest.h"
#include "server/scheduler/scheduler.h"

namespace switchyard {
namespace {

constexpr int32_t kBlockSize = 16;
constexpr int32_t kMaxSeqs = 32;
constexpr int32_t kMaxBatchedTokens = 256;
constexpr int32_t kMaxModelLen = 128;
constexpr int32_t kMaxPromptTokens = 90;  // without the start token of a decoder behind an encoder

// Everything observable of an answer, floats as bits.
struct Answer {
  std::vector<int32_t> tokens;
  std::vector<uint32_t> bits;
  bool finished = false;
  TerminalStatus status = TerminalStatus::kUnavailable;

  bool operator==(const Answer&) const = default;
};

class RecordingSink : public TokenSink {
 public:
  explicit RecordingSink(Answer* answer) : answer_(answer) {}

  SinkVerdict OnToken(const SampledToken& token, bool) override {
    answer_->tokens.push_back(token.token);
    AddFloat(token.logprob);
    for (const TokenLogprob& top : token.top_logprobs) {
      answer_->bits.push_back(static_cast<uint32_t>(top.token));
      AddFloat(top.logprob);
    }
    for (const int32_t id : token.routing.expert_ids) answer_->bits.push_back(static_cast<uint32_t>(id));
    for (const float weight : token.routing.expert_weights) AddFloat(weight);
    for (const float margin : token.routing.margins) AddFloat(margin);
    return SinkVerdict::kContinue;
  }

  void OnFinished(const FinishedEvent& event) override {
    answer_->finished = true;
    answer_->status = event.status;
  }

 private:
  void AddFloat(float value) { answer_->bits.push_back(std::bit_cast<uint32_t>(value)); }

  Answer* const answer_;
};

struct Case {
  std::string isa;
  int num_threads;
  int num_pairs;
  std::string model = "deploy/models/switchyard-demo";

  friend std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.isa << " " << c.model; }
};

class DeterminismTest : public ::testing::TestWithParam<Case> {
 protected:
  static bool IsSet(const char* variable) {
    const char* value = std::getenv(variable);
    return value != nullptr && std::string(value) == "1";
  }

  static int NumPairs() {
    if (IsSet("SWITCHYARD_LONG_TESTS")) return 20 * GetParam().num_pairs;
    return IsSet("SWITCHYARD_SLOW_BUILD") ? GetParam().num_pairs / 20 : GetParam().num_pairs;
  }

  int Uniform(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random_); }

  SamplingParams RandomSampling() {
    SamplingParams params;
    params.temperature = Uniform(0, 2) == 0 ? 0.0f : 0.1f * static_cast<float>(Uniform(5, 20));
    params.top_k = Uniform(0, 2) == 0 ? Uniform(1, 200) : 0;
    params.top_p = Uniform(0, 1) == 0 ? 0.9f : 1.0f;
    params.min_p = Uniform(0, 4) == 0 ? 0.05f : 0.0f;
    params.repetition_penalty = Uniform(0, 3) == 0 ? 1.2f : 1.0f;
    params.frequency_penalty = Uniform(0, 3) == 0 ? 0.3f : 0.0f;
    params.presence_penalty = Uniform(0, 3) == 0 ? -0.2f : 0.0f;
    params.num_logprobs = Uniform(0, 5);
    params.seed = random_();
    return params;
  }

  // Prompts of 1 to 90 tokens; half of them begin like an earlier one, so that prefixes can be reused.
  void MakeRequests(int count) {
    for (int i = 0; i < count; ++i) {
      Request request;
      request.id = i + 1;
      const int length = Uniform(1, kMaxPromptTokens);
      if (i > 0 && Uniform(0, 1) == 0) {
        const std::vector<int32_t>& other = requests_[Uniform(0, i - 1)].prompt_tokens;
        const size_t shared = Uniform(1, static_cast<int>(other.size()));
        request.prompt_tokens.assign(other.begin(), other.begin() + std::min<size_t>(shared, length));
      }
      while (static_cast<int>(request.prompt_tokens.size()) < length) {
        request.prompt_tokens.push_back(Uniform(0, alone_engine_->facts().vocab_size - 1));
      }
      if (has_encoder()) {
        request.num_encoder_tokens = length;
        request.prompt_tokens.push_back(alone_engine_->facts().decoder_start_token_id);
      }
      request.sampling = RandomSampling();
      request.max_tokens = Uniform(1, kMaxModelLen - kMaxPromptTokens - 1);
      request.explain_routing = Uniform(0, 3) == 0;
      requests_.push_back(request);
    }
  }

  SchedulerOptions AloneOptions() const {
    SchedulerOptions options;
    options.max_num_seqs = kMaxSeqs;
    options.max_num_batched_tokens = kMaxBatchedTokens;
    options.max_model_len = kMaxModelLen;
    options.block_size = kBlockSize;
    options.num_kv_blocks = alone_engine_->facts().num_kv_blocks;
    options.enable_prefix_caching = false;
    return options;
  }

  // Runs requests that arrive at the given steps until all have ended, with a fake clock.
  void Run(Engine* engine, const SchedulerOptions& options, const std::vector<std::pair<int, const Request*>>& arrivals,
           std::vector<Answer>* answers, SchedulerCounts* counts) {
    ASSERT_TRUE(ValidateSchedulerOptions(options).ok()) << ValidateSchedulerOptions(options);
    Scheduler scheduler(options);
    answers->assign(arrivals.size(), Answer());
    size_t next = 0;
    TimePoint now{};
    for (int step = 0; next < arrivals.size() || !scheduler.idle(); ++step) {
      ASSERT_LT(step, 100000) << "no progress";
      now += std::chrono::milliseconds(1);
      for (; next < arrivals.size() && arrivals[next].first <= step; ++next) {
        auto request = std::make_unique<Request>(*arrivals[next].second);
        request->id = next + 1;
        request->arrival = now;
        request->sink = std::make_shared<RecordingSink>(&(*answers)[next]);
        scheduler.Add(std::move(request), now);
      }
      const StepBatch* batch = scheduler.Plan(now);
      if (batch == nullptr || batch->slices.empty()) continue;
      largest_batch_ = std::max(largest_batch_, batch->slices.size());
      ASSERT_TRUE(engine->Launch(*batch).ok());
      const auto output = engine->Collect();
      ASSERT_TRUE(output.ok()) << output.status();
      scheduler.Apply(**output, now);
    }
    *counts = scheduler.counts(now);
  }

  bool has_encoder() const { return alone_engine_->facts().num_encoder_layers > 0; }

  std::mt19937_64 random_{20261122};
  // Null when the machine lacks the instruction set.
  static std::unique_ptr<Engine> MakeEngine(const std::string& isa, int num_threads) {
    EngineOptions options;
    options.model_dir = std::string(SWITCHYARD_SOURCE_DIR) + "/" + GetParam().model;
    options.expert_capacity = "config";  // where the model has one
    options.cpu_isa = isa;
    options.num_threads = num_threads;
    options.max_model_len = kMaxModelLen;
    options.max_num_seqs = kMaxSeqs;
    options.max_num_batched_tokens = kMaxBatchedTokens;
    options.block_size = kBlockSize;
    auto engine = CreateEngine(options);
    if (engine.status().code() == absl::StatusCode::kFailedPrecondition) return nullptr;
    EXPECT_TRUE(engine.ok()) << engine.status();
    return engine.ok() ? *std::move(engine) : nullptr;
  }

  std::unique_ptr<Engine> alone_engine_;
  std::unique_ptr<Engine> engine_;
  std::vector<Request> requests_;
  size_t largest_batch_ = 0;
};

TEST_P(DeterminismTest, AnswersDoNotDependOnTheScheduleBitForBit) {
  alone_engine_ = MakeEngine(GetParam().isa, 1);
  engine_ = MakeEngine(GetParam().isa, GetParam().num_threads);
  if (engine_ == nullptr || alone_engine_ == nullptr) {
    GTEST_SKIP() << "this machine lacks " << GetParam().isa;
  }
  MakeRequests(IsSet("SWITCHYARD_SLOW_BUILD") ? 20 : 60);
  std::vector<Answer> alone;
  SchedulerCounts counts;
  for (const Request& request : requests_) {
    std::vector<Answer> answer;
    ASSERT_NO_FATAL_FAILURE(Run(alone_engine_.get(), AloneOptions(), {{0, &request}}, &answer, &counts));
    ASSERT_TRUE(answer[0].finished);
    ASSERT_EQ(answer[0].status, TerminalStatus::kOk);
    alone.push_back(answer[0]);
  }

  const int num_pairs = NumPairs();
  int pairs = 0;
  int64_t preemptions = 0, reused = 0, recomputed = 0;
  while (pairs < num_pairs) {
    SchedulerOptions options = AloneOptions();
    options.max_num_seqs = Uniform(1, kMaxSeqs);
    const int smallest_step = options.max_num_seqs + (has_encoder() ? kMaxPromptTokens : 0);
    options.max_num_batched_tokens = Uniform(smallest_step, kMaxBatchedTokens);
    options.max_prefill_tokens_while_decoding = Uniform(1, options.max_num_batched_tokens);
    options.enable_prefix_caching = Uniform(0, 3) != 0;
    options.policy = Uniform(0, 1) == 0 ? SchedulingPolicy::kFcfs : SchedulingPolicy::kPriority;
    // From just enough for one sequence, which preempts all the time, to ample.
    options.num_kv_blocks = Uniform(0, 7) != 0 ? Uniform(kMaxModelLen / kBlockSize, 12) : options.num_kv_blocks;
    std::vector<std::pair<int, const Request*>> arrivals;
    std::vector<size_t> which;
    int step = 0;
    const bool all_at_once = Uniform(0, 2) == 0;
    if (all_at_once) {
      options = AloneOptions();
      options.enable_prefix_caching = Uniform(0, 1) == 0;
      if (Uniform(0, 2) == 0) options.num_kv_blocks = Uniform(kMaxModelLen / kBlockSize, 24);
    }
    for (int i = all_at_once ? 2 * kMaxSeqs : Uniform(2, 48); i > 0; --i) {
      which.push_back(Uniform(0, static_cast<int>(requests_.size()) - 1));
      arrivals.emplace_back(step, &requests_[which.back()]);
      step += !all_at_once && Uniform(0, 2) == 0 ? Uniform(0, 6) : 0;
    }
    std::vector<Answer> answers;
    ASSERT_NO_FATAL_FAILURE(Run(engine_.get(), options, arrivals, &answers, &counts));
    for (size_t i = 0; i < answers.size(); ++i) {
      ASSERT_TRUE(answers[i] == alone[which[i]]) << "request " << which[i] << " after " << pairs << " equal pairs";
      ++pairs;
    }
    preemptions += counts.preemptions_total;
    reused += counts.prefix_hit_tokens_total;
    recomputed += counts.recomputed_tokens_total;
  }
  std::cout << pairs << " pairs equal bit for bit; largest batch " << largest_batch_ << " sequences, " << preemptions
            << " preemptions, " << recomputed << " tokens recomputed, " << reused << " prompt tokens reused\n";
  if (has_encoder()) {
    EXPECT_EQ(reused, 0);
    EXPECT_GT(preemptions, 0);
    return;
  }
  if (num_pairs < 1000) return;  // too few schedules to demand that each kind of event happened often
  EXPECT_EQ(largest_batch_, static_cast<size_t>(kMaxSeqs));
  EXPECT_GT(preemptions, num_pairs / 100);
  EXPECT_GT(reused, num_pairs);
}

INSTANTIATE_TEST_SUITE_P(InstructionSets, DeterminismTest,
                         ::testing::Values(Case{"auto", 2, 2000}, Case{"scalar", 1, 100}, Case{"avx2", 1, 150},
                                           Case{"avx512", 1, 150}, Case{"avx512_bf16", 1, 150}, Case{"amx", 1, 150},
                                           Case{"auto", 2, 6000, "tests/golden/fixtures/switch_drop"}),
                         [](const auto& info) {
                           return info.param.isa + (info.param.model.find("switch_drop") == std::string::npos
                                                        ? ""
                                                        : "_encoder_decoder");
                         });

}  // namespace
}  // namespace switchyard
