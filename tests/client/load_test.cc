#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "client/load/load_generator.h"
#include "client/load/plan.h"
#include "client/load/report.h"
#include "client/load/statistics.h"
#include "tests/client/fake_server.h"

namespace switchyard {
namespace {

using testing::DoubleEq;
using testing::Each;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

std::vector<PlannedRequest> Plan(const LoadShape& shape, const PromptSource& source = {.vocab_size = 100}) {
  auto plan = PlanRequests(shape, source);
  EXPECT_TRUE(plan.ok()) << plan.status();
  return *std::move(plan);
}

std::vector<double> SendTimes(const LoadShape& shape) {
  std::vector<double> times;
  for (const PlannedRequest& request : Plan(shape)) times.push_back(request.send_seconds);
  return times;
}

TEST(PlanTest, SameSeedGivesTheSamePlan) {
  const LoadShape shape{.num_prompts = 20, .random_range_ratio = 0.5, .request_rate = 10, .seed = 7};
  const auto a = Plan(shape), b = Plan(shape);
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].send_seconds, b[i].send_seconds);
    EXPECT_EQ(a[i].token_ids, b[i].token_ids);
    EXPECT_EQ(a[i].output_len, b[i].output_len);
    EXPECT_EQ(a[i].seed, b[i].seed);
  }
}

TEST(PlanTest, SendTimesDependOnSeedAndRateOnly) {
  const auto times = SendTimes({.num_prompts = 20, .request_rate = 10, .seed = 7});
  EXPECT_EQ(times,
            SendTimes({.num_prompts = 20, .input_len = 3, .random_range_ratio = 0.9, .request_rate = 10, .seed = 7}));
  EXPECT_NE(times, SendTimes({.num_prompts = 20, .request_rate = 10, .seed = 8}));
}

TEST(PlanTest, ArrivalsArePoisson) {
  constexpr int kCount = 20'000;
  constexpr double kRate = 50;
  const auto times = SendTimes({.num_prompts = kCount, .input_len = 1, .request_rate = kRate});
  std::vector<double> gaps;
  for (size_t i = 1; i < times.size(); ++i) gaps.push_back(times[i] - times[i - 1]);
  const Distribution distribution = DistributionOf(gaps);
  // Mean and deviation of an exponential are equal; their estimates are within 5 standard errors.
  const double tolerance = 5 / kRate / std::sqrt(static_cast<double>(kCount));
  EXPECT_NEAR(distribution.mean, 1 / kRate, tolerance);
  EXPECT_NEAR(distribution.stddev, 1 / kRate, 2 * tolerance);
  EXPECT_NEAR(distribution.p50, std::log(2) / kRate, 2 * tolerance);
}

TEST(PlanTest, InfiniteRateSendsAllAtOnce) { EXPECT_THAT(SendTimes({.num_prompts = 5}), Each(DoubleEq(0))); }

TEST(PlanTest, PromptsAreValidIdsOfTheAskedLengths) {
  const PromptSource source{.vocab_size = 10, .excluded_ids = {0, 9}};
  bool varies = false;
  for (const PlannedRequest& request :
       Plan({.num_prompts = 200, .input_len = 10, .output_len = 20, .random_range_ratio = 0.5}, source)) {
    EXPECT_GE(request.token_ids.size(), 5u);
    EXPECT_LE(request.token_ids.size(), 15u);
    EXPECT_GE(request.output_len, 10);
    EXPECT_LE(request.output_len, 30);
    varies = varies || request.token_ids.size() != 10;
    for (const int32_t id : request.token_ids) EXPECT_TRUE(id > 0 && id < 9) << id;
  }
  EXPECT_TRUE(varies);
}

TEST(PlanTest, PrefixIsSharedByAllPrompts) {
  const auto plan = Plan({.num_prompts = 3, .input_len = 4, .random_prefix_len = 6});
  for (const PlannedRequest& request : plan) {
    EXPECT_EQ(request.token_ids.size(), 10u);
    EXPECT_TRUE(std::equal(request.token_ids.begin(), request.token_ids.begin() + 6, plan[0].token_ids.begin()));
  }
}

TEST(PlanTest, TextsAreAllUsedBeforeOneRepeats) {
  std::vector<std::string> used;
  for (const PlannedRequest& request : Plan({.num_prompts = 4}, {.texts = {"a", "b", "c", "d"}})) {
    EXPECT_TRUE(request.token_ids.empty());
    used.push_back(request.text);
  }
  EXPECT_THAT(used, testing::UnorderedElementsAre("a", "b", "c", "d"));
}

TEST(PlanTest, RejectsWhatIsOutOfRange) {
  const PromptSource source{.vocab_size = 100};
  EXPECT_FALSE(PlanRequests({.num_prompts = 0}, source).ok());
  EXPECT_FALSE(PlanRequests({.random_range_ratio = 1}, source).ok());
  EXPECT_FALSE(PlanRequests({.request_rate = 0}, source).ok());
  EXPECT_FALSE(PlanRequests({}, {.vocab_size = 1}).ok());
}

TEST(StatisticsTest, PercentilesAreLinearBetweenNeighbours) {
  const std::vector<double> values = {1, 2, 3, 4};
  EXPECT_DOUBLE_EQ(Percentile(values, 0), 1);
  EXPECT_DOUBLE_EQ(Percentile(values, 50), 2.5);
  EXPECT_DOUBLE_EQ(Percentile(values, 90), 3.7);
  EXPECT_DOUBLE_EQ(Percentile(values, 100), 4);
  EXPECT_DOUBLE_EQ(Percentile({5}, 99), 5);
}

TEST(StatisticsTest, DistributionOfKnownValues) {
  const Distribution distribution = DistributionOf({4, 1, 3, 2});
  EXPECT_EQ(distribution.count, 4);
  EXPECT_DOUBLE_EQ(distribution.mean, 2.5);
  EXPECT_DOUBLE_EQ(distribution.stddev, std::sqrt(1.25));
  EXPECT_DOUBLE_EQ(distribution.max, 4);
  EXPECT_EQ(DistributionOf({}).count, 0);
}

TEST(StatisticsTest, TokensOfOneMessageShareItsGap) {
  RequestRecord record;
  AddTokens(1.0, 2, &record);
  AddTokens(1.0, 0, &record);
  AddTokens(1.6, 3, &record);
  EXPECT_EQ(record.output_tokens, 5);
  EXPECT_THAT(record.gaps, ElementsAre(DoubleEq(0), DoubleEq(0.6 / 3), DoubleEq(0.6 / 3), DoubleEq(0.6 / 3)));
}

TEST(StatisticsTest, GapsAddUpToTheDecodeTime) {
  std::mt19937 random(1);
  RequestRecord record;
  double now = 0.25;
  for (int message = 0; message < 100; ++message) {
    now += static_cast<double>(random() % 1000) * 1e-4;
    AddTokens(now, static_cast<int64_t>(random() % 4), &record);
  }
  double sum = 0;
  for (const double gap : record.gaps) sum += gap;
  EXPECT_NEAR(sum, record.last_token - record.first_token, 1e-9);
  EXPECT_EQ(static_cast<int64_t>(record.gaps.size()), record.output_tokens - 1);
}

// Sent 0.1 s late, first token 0.2 s after that, then one each 0.05 s.
RequestRecord Record(double scheduled, int num_tokens) {
  RequestRecord record{.scheduled = scheduled, .sent = scheduled + 0.1, .prompt_tokens = 10};
  for (int i = 0; i < num_tokens; ++i) AddTokens(record.sent + 0.2 + 0.05 * i, 1, &record);
  record.ended = record.last_token + 0.01;
  return record;
}

TEST(StatisticsTest, SummaryCountsAndRates) {
  std::vector<RequestRecord> records = {Record(0, 5), Record(1, 3)};
  RequestRecord& failed = records.emplace_back(Record(2, 1));
  failed.status = absl::ResourceExhaustedError("full");
  const LoadSummary summary = Summarize(records, 2, {.ttft = 0.25, .e2el = 0.35});
  EXPECT_EQ(summary.completed, 2);
  EXPECT_EQ(summary.failed, 1);
  EXPECT_EQ(summary.errors.at("RESOURCE_EXHAUSTED"), 1);
  EXPECT_EQ(summary.good, 1) << "0.41 s is above the limit, 0.31 s is not";
  EXPECT_EQ(summary.total_input_tokens, 20);
  EXPECT_EQ(summary.total_output_tokens, 8);
  EXPECT_DOUBLE_EQ(summary.request_throughput(), 1);
  EXPECT_DOUBLE_EQ(summary.output_throughput(), 4);
  EXPECT_DOUBLE_EQ(summary.total_token_throughput(), 14);
  EXPECT_DOUBLE_EQ(summary.request_goodput(), 0.5);
  EXPECT_NEAR(summary.ttft.mean, 0.2, 1e-12);
  EXPECT_NEAR(summary.tpot.p99, 0.05, 1e-12);
  EXPECT_EQ(summary.itl.count, 6);
  EXPECT_NEAR(summary.e2el.mean, 0.36, 1e-12);
}

TEST(StatisticsTest, LateSendingDoesNotHideFromTheSchedule) {
  const LoadSummary summary = Summarize({Record(0, 2)}, 1, {});
  EXPECT_NEAR(summary.ttft.mean, 0.2, 1e-12);
  EXPECT_NEAR(summary.ttft_from_schedule.mean, 0.3, 1e-12);
  EXPECT_NEAR(summary.send_lag.mean, 0.1, 1e-12);
}

TEST(ReportTest, JsonHasTheKeysOfVllmBench) {
  LoadReport report;
  report.run.records = {Record(0, 5)};
  report.run.duration = 1;
  report.summary = Summarize(report.run.records, 1, {});
  const auto json = nlohmann::json::parse(ReportToJson(report, true));
  for (const char* key : {"date",
                          "model_id",
                          "num_prompts",
                          "request_rate",
                          "max_concurrency",
                          "duration",
                          "completed",
                          "failed",
                          "total_input_tokens",
                          "total_output_tokens",
                          "request_throughput",
                          "request_goodput",
                          "output_throughput",
                          "total_token_throughput",
                          "mean_ttft_ms",
                          "median_ttft_ms",
                          "std_ttft_ms",
                          "p99_ttft_ms",
                          "mean_tpot_ms",
                          "median_tpot_ms",
                          "std_tpot_ms",
                          "p99_tpot_ms",
                          "mean_itl_ms",
                          "median_itl_ms",
                          "std_itl_ms",
                          "p99_itl_ms",
                          "mean_e2el_ms",
                          "median_e2el_ms",
                          "p99_e2el_ms",
                          "input_lens",
                          "output_lens",
                          "ttfts",
                          "itls",
                          "errors"}) {
    EXPECT_TRUE(json.contains(key)) << key;
  }
  EXPECT_EQ(json["request_rate"], "inf");
  EXPECT_FALSE(json.contains("mean_ttft_from_schedule_ms")) << "all at once has no schedule";
  EXPECT_NEAR(json["mean_ttft_ms"].get<double>(), 200, 1e-9);
  EXPECT_NEAR(json["p99_itl_ms"].get<double>(), 50, 1e-9);
}

TEST(ReportTest, SaysWhatThrowsDoubt) {
  LoadReport report;
  report.shape.request_rate = 10;
  report.run.records = {Record(0, 5), Record(1, 1)};
  report.run.records[1].status = absl::UnavailableError("draining");
  report.run.duration = 1;
  report.run.cpu_seconds = 1;
  report.summary = Summarize(report.run.records, 1, {});
  const std::string text = RenderReport(report);
  EXPECT_THAT(text, HasSubstr("! 1 failed, the first: UNAVAILABLE: draining"));
  EXPECT_THAT(text, HasSubstr("! requests were sent late (p99 100 ms)"));
  EXPECT_THAT(text, HasSubstr("! this load generator used 1.00 cores"));
  report.run.records = {Record(0, 5)};
  report.run.cpu_seconds = 0;
  report.shape.request_rate = kInfinity;
  report.summary = Summarize(report.run.records, 1, {});
  EXPECT_THAT(RenderReport(report), Not(HasSubstr("!")));
}

class LoadGeneratorTest : public testing::Test {
 protected:
  LoadRun Run(const LoadShape& shape, const LoadOptions& options, const std::atomic<bool>* stop = nullptr) {
    LoadOptions with_address = options;
    with_address.client.address = server_.address();
    auto run = RunLoad(Plan(shape), with_address, nullptr, stop);
    EXPECT_TRUE(run.ok()) << run.status();
    return *std::move(run);
  }

  // Counts how many calls are open and keeps each open for 20 ms.
  void CountOpenCalls() {
    server_.on_generate = [this](const auto&, auto*, auto* writer) {
      const int open = open_.fetch_add(1) + 1;
      int peak = peak_.load();
      while (open > peak && !peak_.compare_exchange_weak(peak, open)) {
      }
      writer->Write(TokenMessage(0));
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      open_.fetch_sub(1);
      return grpc::Status::OK;
    };
  }

  std::atomic<int> open_{0}, peak_{0};
  FakeServer server_;
};

TEST_F(LoadGeneratorTest, EveryRequestIsSentOnceAndCounted) {
  const LoadRun run = Run({.num_prompts = 40, .input_len = 5, .output_len = 9}, {});
  EXPECT_EQ(run.records.size(), 40u);
  EXPECT_EQ(server_.num_generate_calls(), 40);
  for (const RequestRecord& record : run.records) {
    EXPECT_TRUE(record.status.ok()) << record.status;
    EXPECT_EQ(record.prompt_tokens, 5);
    EXPECT_EQ(record.output_tokens, 9);
    EXPECT_EQ(record.gaps.size(), 8u);
    EXPECT_LE(record.scheduled, record.sent);
    EXPECT_LT(record.sent, record.first_token);
    EXPECT_LE(record.first_token, record.last_token);
    EXPECT_LE(record.last_token, record.ended);
  }
}

TEST_F(LoadGeneratorTest, SendsWhatThePlanSays) {
  Run({.num_prompts = 1, .input_len = 5, .output_len = 9}, {.ignore_eos = true, .temperature = 0.5});
  const v1::GenerateRequest request = server_.last_request();
  EXPECT_EQ(request.token_ids().ids_size(), 5);
  EXPECT_EQ(request.max_tokens(), 9);
  EXPECT_TRUE(request.ignore_eos());
  EXPECT_FLOAT_EQ(request.temperature(), 0.5);
  EXPECT_TRUE(request.has_seed());
}

TEST_F(LoadGeneratorTest, ClosedLoopKeepsTheLimit) {
  CountOpenCalls();
  const LoadRun run = Run({.num_prompts = 30, .input_len = 5}, {.max_concurrency = 4});
  EXPECT_EQ(run.records.size(), 30u);
  EXPECT_LE(peak_.load(), 4);
  EXPECT_EQ(run.peak_concurrency, 4);
}

TEST_F(LoadGeneratorTest, OpenLoopDoesNotWaitForAnswers) {
  CountOpenCalls();
  const LoadRun run = Run({.num_prompts = 20, .input_len = 5, .request_rate = 1000}, {});
  EXPECT_GT(run.peak_concurrency, 4);
}

TEST_F(LoadGeneratorTest, OpenLoopFollowsTheSchedule) {
  const LoadShape shape{.num_prompts = 20, .input_len = 5, .request_rate = 100};
  const LoadRun run = Run(shape, {});
  const std::vector<double> times = SendTimes(shape);
  ASSERT_EQ(run.records.size(), times.size());
  for (size_t i = 0; i < times.size(); ++i) {
    EXPECT_DOUBLE_EQ(run.records[i].scheduled, times[i]);
    EXPECT_GE(run.records[i].sent, times[i]);
  }
}

TEST_F(LoadGeneratorTest, FailuresAreRecordedWithTheirStatus) {
  std::atomic<int> count{0};
  server_.on_generate = [&](const auto&, auto*, auto* writer) {
    if (count.fetch_add(1) % 2 == 0) return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "full");
    writer->Write(TokenMessage(0));
    return grpc::Status::OK;
  };
  const LoadRun run = Run({.num_prompts = 10, .input_len = 5}, {.num_connections = 2});
  const LoadSummary summary = Summarize(run.records, run.duration, {});
  EXPECT_EQ(summary.completed, 5);
  EXPECT_EQ(summary.errors.at("RESOURCE_EXHAUSTED"), 5);
}

TEST_F(LoadGeneratorTest, TimeoutEndsARequest) {
  server_.on_generate = [](const auto&, grpc::ServerContext* context, auto*) {
    while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return grpc::Status::CANCELLED;
  };
  const LoadRun run = Run({.num_prompts = 2, .input_len = 5}, {.request_timeout = absl::Milliseconds(100)});
  for (const RequestRecord& record : run.records) EXPECT_TRUE(absl::IsDeadlineExceeded(record.status)) << record.status;
}

TEST_F(LoadGeneratorTest, StopCancelsWhatRunsAndSendsNoMore) {
  std::atomic<bool> stop{false};
  server_.on_generate = [&](const auto&, grpc::ServerContext* context, auto*) {
    stop.store(true);
    while (!context->IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return grpc::Status::CANCELLED;
  };
  const LoadRun run = Run({.num_prompts = 100, .input_len = 5}, {.max_concurrency = 2}, &stop);
  EXPECT_LE(run.records.size(), 4u);
  for (const RequestRecord& record : run.records) EXPECT_TRUE(absl::IsCancelled(record.status)) << record.status;
}

}  // namespace
}  // namespace switchyard
