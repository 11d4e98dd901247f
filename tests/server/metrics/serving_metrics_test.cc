#include "server/metrics/serving_metrics.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <map>
#include <set>
#include <sstream>

#include "server/metrics/families.h"

namespace switchyard {
namespace {

ModelFacts Facts(int32_t layers, int32_t experts) {
  ModelFacts facts;
  facts.backend = "fake";
  facts.expert_gemms = {"native", "padded"};
  facts.num_experts = experts;
  facts.top_k = 2;
  for (int32_t i = 0; i < layers; ++i) facts.moe_layers.push_back(2 * i + 1);
  facts.block_size = 16;
  facts.num_kv_blocks = 100;
  return facts;
}

// A step of `num_tokens` tokens that all go to the experts 0 and 1.
StepStats Step(int32_t layers, int32_t experts, int32_t num_tokens) {
  StepStats stats;
  stats.num_tokens = num_tokens;
  stats.seconds = 0.002f;
  MoeLayerStats layer;
  layer.num_tokens = num_tokens;
  layer.tokens_per_expert.assign(static_cast<size_t>(experts), 0);
  layer.tokens_per_expert[0] = layer.tokens_per_expert[1] = num_tokens;
  layer.seconds_per_expert.assign(static_cast<size_t>(experts), 2e-5f);
  layer.probability_sums.assign(static_cast<size_t>(experts),
                                static_cast<float>(num_tokens) / static_cast<float>(experts));
  layer.seconds = 1e-4f;
  stats.moe_layers.assign(static_cast<size_t>(layers), layer);
  stats.expert_gemm_layers = {0, static_cast<uint64_t>(layers)};
  return stats;
}

void RunStep(ServingMetrics* metrics, const StepStats& stats) {
  StepReport report;
  report.stats = &stats;
  report.num_prefill_tokens = stats.num_tokens;
  report.num_sequences = 1;
  metrics->OnStep(report);
}

// "name{labels}" -> value
std::map<std::string, double> Series(const ServingMetrics& metrics) {
  std::map<std::string, double> series;
  std::istringstream page(metrics.Scrape());
  for (std::string line; std::getline(page, line);) {
    if (line.empty() || line[0] == '#') continue;
    const size_t space = line.rfind(' ');
    EXPECT_TRUE(series.emplace(line.substr(0, space), std::stod(line.substr(space + 1))).second) << "twice: " << line;
  }
  return series;
}

std::set<std::string> Names(const ServingMetrics& metrics) {
  std::set<std::string> names;
  for (const auto& [name, value] : Series(metrics)) names.insert(name);
  return names;
}

double Value(const ServingMetrics& metrics, const std::string& name) {
  const auto series = Series(metrics);
  const auto found = series.find(name);
  EXPECT_NE(found, series.end()) << name;
  return found == series.end() ? -1.0 : found->second;
}

TEST(FamiliesTest, NamesAreUniqueAndFollowTheRules) {
  std::set<std::string> names;
  for (int i = 0; i < static_cast<int>(Family::kNumFamilies); ++i) {
    const FamilyInfo& info = InfoOf(static_cast<Family>(i));
    const std::string name = info.name;
    EXPECT_TRUE(names.insert(name).second) << name;
    EXPECT_TRUE(name.rfind("switchyard_", 0) == 0 || name.rfind("process_", 0) == 0) << name;
    const bool is_total = name.size() > 6 && name.substr(name.size() - 6) == "_total";
    EXPECT_EQ(is_total, info.type == prometheus::MetricType::Counter) << name;
    EXPECT_EQ(info.edges.empty(), info.type != prometheus::MetricType::Histogram) << name;
    EXPECT_TRUE(std::is_sorted(info.edges.begin(), info.edges.end())) << name;
    EXPECT_FALSE(std::string(info.help).empty()) << name;
  }
}

TEST(ServingMetricsTest, DroppedChoicesAreCountedPerLayer) {
  ServingMetrics metrics("toy", "1");
  metrics.SetModel(Facts(3, 8), "auto");
  StepStats stats = Step(3, 8, 4);
  stats.moe_layers[2].num_dropped = 3;
  RunStep(&metrics, stats);
  RunStep(&metrics, stats);
  EXPECT_EQ(Value(metrics, "switchyard_moe_layer_dropped_tokens_total{model_name=\"toy\",layer=\"5\"}"), 6.0);
  EXPECT_EQ(Value(metrics, "switchyard_moe_layer_dropped_tokens_total{model_name=\"toy\",layer=\"3\"}"), 0.0);
}

TEST(ServingMetricsTest, ExpertGemmsAreCountedByProviderWhateverTheDetail) {
  ServingMetrics metrics("toy", "1");
  metrics.SetModel(Facts(3, 8), "off");
  StepStats stats = Step(3, 8, 4);
  RunStep(&metrics, stats);
  stats.expert_gemm_layers = {3, 3};  // totals, not what the step added
  RunStep(&metrics, stats);
  EXPECT_EQ(Value(metrics, "switchyard_expert_gemm_layers_total{model_name=\"toy\",provider=\"native\"}"), 3.0);
  EXPECT_EQ(Value(metrics, "switchyard_expert_gemm_layers_total{model_name=\"toy\",provider=\"padded\"}"), 3.0);
}

TEST(ServingMetricsTest, EverySeriesExistsAtZeroBeforeTheFirstRequest) {
  ServingMetrics metrics("toy", "1");
  metrics.SetModel(Facts(3, 8), "auto");
  const auto series = Series(metrics);
  EXPECT_EQ(series.at("switchyard_num_requests_waiting{model_name=\"toy\"}"), 0.0);
  EXPECT_EQ(series.at("switchyard_request_success_total{model_name=\"toy\",finish_reason=\"stop\"}"), 0.0);
  EXPECT_EQ(series.at("switchyard_request_status_total{model_name=\"toy\",grpc_code=\"DATA_LOSS\"}"), 0.0);
  EXPECT_EQ(series.at("switchyard_moe_expert_tokens_total{model_name=\"toy\",layer=\"5\",expert=\"7\"}"), 0.0);
  EXPECT_EQ(series.at("switchyard_moe_layer_imbalance_ratio{model_name=\"toy\",layer=\"3\"}"), 0.0);
  EXPECT_EQ(series.at("switchyard_moe_expert_batch_seconds_count{model_name=\"toy\",expert=\"7\"}"), 0.0);
  EXPECT_EQ(series.at("switchyard_cache_config_info{model_name=\"toy\",block_size=\"16\",num_gpu_blocks=\"100\"}"),
            1.0);
  EXPECT_TRUE(std::isinf(series.at("switchyard_tls_certificate_expiry_timestamp_seconds{model_name=\"toy\"}")));
  for (const auto& [name, value] : series) {
    if (name.rfind("process_", 0) == 0 || name.find("_info") != std::string::npos ||
        name.find("kv_blocks{") != std::string::npos || name.find("top_expert") != std::string::npos ||
        name.find("certificate_expiry") != std::string::npos) {  // without TLS nothing ever expires
      continue;
    }
    EXPECT_EQ(value, 0.0) << name;
  }
}

// Labels that are not known yet must not make a series that disappears later.
TEST(ServingMetricsTest, CacheConfigAppearsWithTheModel) {
  ServingMetrics metrics("toy", "1.2.3");
  EXPECT_EQ(metrics.Scrape().find("switchyard_cache_config_info{"), std::string::npos);
}

TEST(ServingMetricsTest, TrafficAddsNoSeries) {
  ServingMetrics metrics("toy", "1");
  metrics.SetModel(Facts(2, 4), "full");
  const std::set<std::string> before = Names(metrics);
  for (int i = 0; i < 100; ++i) {
    RunStep(&metrics, Step(2, 4, 1 + i));
    metrics.OnInterTokenLatency(0.001 * i);
    metrics.OnCallAnswered(i % 20);
    metrics.OnRejected(static_cast<Rejection>(i % kNumRejections));
    FinishedEvent event;
    event.num_output_tokens = i;
    metrics.OnFinished(Request(), event);
  }
  EXPECT_EQ(Names(metrics), before);
}

TEST(ServingMetricsTest, ExpertTokensAddUpToTokensTimesTopKTimesLayers) {
  ServingMetrics metrics("toy", "1");
  metrics.SetModel(Facts(3, 8), "full");
  for (int32_t tokens : {1, 7, 500}) RunStep(&metrics, Step(3, 8, tokens));
  double sum = 0.0;
  for (const auto& [name, value] : Series(metrics)) {
    if (name.rfind("switchyard_moe_expert_tokens_total", 0) == 0) sum += value;
  }
  EXPECT_EQ(sum, 508.0 * 2 * 3);
  EXPECT_EQ(Value(metrics, "switchyard_engine_tokens_total{model_name=\"toy\",kind=\"prefill\"}"), 508.0);
  EXPECT_EQ(metrics.ExpertSnapshot()->num_tokens, 508u);
}

TEST(ServingMetricsTest, HistogramsCountEachExpertBatchWithRows) {
  ServingMetrics metrics("toy", "1");
  metrics.SetModel(Facts(3, 8), "full");
  RunStep(&metrics, Step(3, 8, 3));
  EXPECT_EQ(Value(metrics, "switchyard_moe_expert_batch_rows_count{model_name=\"toy\"}"), 6.0)
      << "2 experts in 3 layers";
  EXPECT_EQ(Value(metrics, "switchyard_moe_expert_batch_rows_sum{model_name=\"toy\"}"), 18.0);
  EXPECT_EQ(Value(metrics, "switchyard_moe_expert_batch_rows_bucket{model_name=\"toy\",le=\"2\"}"), 0.0);
  EXPECT_EQ(Value(metrics, "switchyard_moe_expert_batch_rows_bucket{model_name=\"toy\",le=\"4\"}"), 6.0);
  EXPECT_EQ(Value(metrics, "switchyard_moe_expert_batch_seconds_count{model_name=\"toy\",expert=\"1\"}"), 3.0);
  EXPECT_EQ(Value(metrics, "switchyard_moe_expert_batch_seconds_count{model_name=\"toy\",expert=\"2\"}"), 0.0);
}

TEST(ServingMetricsTest, DetailBoundsTheSeries) {
  const auto count = [](const std::string& detail, const std::string& part, int32_t layers, int32_t experts) {
    ServingMetrics metrics("toy", "1");
    metrics.SetModel(Facts(layers, experts), detail);
    int64_t found = 0;
    for (const std::string& name : Names(metrics)) found += name.find(part) != std::string::npos ? 1 : 0;
    return found;
  };
  EXPECT_EQ(count("off", "_moe_", 4, 8), 0);
  EXPECT_EQ(count("layer", "moe_layer_imbalance_ratio", 4, 8), 4);
  EXPECT_EQ(count("layer", "moe_layer_top_expert", 4, 8), 0);
  EXPECT_EQ(count("topk", "moe_layer_top_expert", 4, 8), 16);
  EXPECT_EQ(count("topk", "moe_expert_tokens_total", 4, 8), 0);
  EXPECT_EQ(count("full", "moe_expert_tokens_total", 4, 8), 32);
  EXPECT_EQ(count("auto", "moe_expert_tokens_total", 16, 256), 4096);
  EXPECT_EQ(count("auto", "moe_expert_tokens_total", 17, 256), 0);
  EXPECT_LE(count("auto", "", 16, 256), 10'000);
  EXPECT_LE(count("auto", "", 94, 256), 10'000);
}

TEST(ServingMetricsTest, BusiestExpertsAreRanked) {
  ServingMetrics metrics("toy", "1");
  metrics.SetModel(Facts(1, 8), "topk");
  StepStats stats = Step(1, 8, 1);
  stats.moe_layers[0].tokens_per_expert = {0, 5, 0, 9, 0, 2, 0, 0};
  RunStep(&metrics, stats);
  EXPECT_EQ(Value(metrics, "switchyard_moe_layer_top_expert{model_name=\"toy\",layer=\"1\",rank=\"1\"}"), 3.0);
  EXPECT_EQ(Value(metrics, "switchyard_moe_layer_top_expert{model_name=\"toy\",layer=\"1\",rank=\"2\"}"), 1.0);
  EXPECT_DOUBLE_EQ(Value(metrics, "switchyard_moe_layer_top_share{model_name=\"toy\",layer=\"1\",rank=\"1\"}"),
                   9.0 / 16);
}

TEST(ServingMetricsTest, RequestHistogramsFollowTheEvent) {
  ServingMetrics metrics("toy", "1");
  Request request;
  request.prompt_tokens = {1, 2, 3};
  FinishedEvent event;
  event.num_output_tokens = 11;
  event.queue_seconds = 0.25;
  event.prefill_seconds = 0.5;
  event.decode_seconds = 1.0;
  metrics.OnFinished(request, event);
  EXPECT_DOUBLE_EQ(Value(metrics, "switchyard_time_to_first_token_seconds_sum{model_name=\"toy\"}"), 0.75);
  EXPECT_DOUBLE_EQ(Value(metrics, "switchyard_e2e_request_latency_seconds_sum{model_name=\"toy\"}"), 1.75);
  EXPECT_DOUBLE_EQ(Value(metrics, "switchyard_time_per_output_token_seconds_sum{model_name=\"toy\"}"), 0.1);
  EXPECT_DOUBLE_EQ(Value(metrics, "switchyard_request_prompt_tokens_sum{model_name=\"toy\"}"), 3.0);
  EXPECT_DOUBLE_EQ(Value(metrics, "switchyard_request_generation_tokens_sum{model_name=\"toy\"}"), 11.0);
  FinishedEvent never_ran;
  metrics.OnFinished(request, never_ran);
  EXPECT_EQ(Value(metrics, "switchyard_time_to_first_token_seconds_count{model_name=\"toy\"}"), 1.0);
  EXPECT_EQ(Value(metrics, "switchyard_request_queue_time_seconds_count{model_name=\"toy\"}"), 2.0);
}

TEST(ServingMetricsTest, GaugesAndTotalsAreTheSchedulers) {
  ServingMetrics metrics("toy", "1");
  metrics.SetModel(Facts(1, 2), "auto");
  StepReport report;
  report.counts.waiting = 3;
  report.counts.running = 2;
  report.counts.kv_blocks_total = 100;
  report.counts.kv_blocks_used = 25;
  report.counts.finished_total[static_cast<size_t>(FinishReason::kLength)] = 7;
  report.counts.preemptions_total = 4;
  metrics.OnStep(report);
  EXPECT_EQ(Value(metrics, "switchyard_num_requests_waiting{model_name=\"toy\"}"), 3.0);
  EXPECT_EQ(Value(metrics, "switchyard_num_requests_running{model_name=\"toy\"}"), 2.0);
  EXPECT_EQ(Value(metrics, "switchyard_kv_cache_usage_ratio{model_name=\"toy\"}"), 0.25);
  EXPECT_EQ(Value(metrics, "switchyard_request_success_total{model_name=\"toy\",finish_reason=\"length\"}"), 7.0);
  EXPECT_EQ(Value(metrics, "switchyard_preemptions_total{model_name=\"toy\"}"), 4.0);
  EXPECT_EQ(Value(metrics, "switchyard_steps_total{model_name=\"toy\"}"), 0.0) << "no step ran";
}

TEST(ServingMetricsTest, QueueEstimateIsTokensTimesMeasuredTimeWithinBounds) {
  ServingMetrics metrics("toy", "1");
  EXPECT_EQ(metrics.EstimateQueueSeconds(), 0.1);
  const StepStats stats = Step(0, 2, 100);  // 2 ms
  StepReport report;
  report.stats = &stats;
  report.num_prefill_tokens = 100;
  report.counts.waiting_tokens = 100'000;
  metrics.OnStep(report);
  EXPECT_NEAR(metrics.EstimateQueueSeconds(), 2.0, 1e-6);
  report.counts.waiting_tokens = 1'000'000'000;
  metrics.OnStep(report);
  EXPECT_EQ(metrics.EstimateQueueSeconds(), 30.0);
}

// The promise of the header: a step pays for additions only. 1 % of a step of 1 ms is 10 us.
TEST(ServingMetricsTest, StepCostsMicroseconds) {
  ServingMetrics metrics("toy", "1");
  metrics.SetModel(Facts(8, 8), "full");
  const StepStats stats = Step(8, 8, 64);
  double best = 1.0;
  for (int round = 0; round < 20; ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < 200; ++i) RunStep(&metrics, stats);
    best = std::min(best, std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() / 200);
  }
  std::printf("OnStep with 8 layers x 8 experts: %.2f us\n", best * 1e6);
  EXPECT_LT(best, 50e-6) << "generous, for sanitizers; the aim is 10 us";
}

}  // namespace
}  // namespace switchyard
