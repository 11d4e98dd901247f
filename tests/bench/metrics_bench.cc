// What counting costs: one step, and one scrape, of ServingMetrics alone, for a model with many layers and experts.
//
//   switchyard_bench_metrics [--layers N] [--experts N] [--top-k N] [--repeat N]
//
// Each step routes its tokens at random. Medians over the repeats; "waits" is OnStep while another thread scrapes
// without a pause, at the 99th percentile: what a step may wait for a scrape that copies the counters.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "engine/base/status_macros.h"
#include "server/metrics/serving_metrics.h"

namespace switchyard {
namespace {

struct Shape {
  int32_t layers = 32;
  int32_t experts = 128;
  int32_t top_k = 8;
  int32_t repeat = 1000;
};

ModelFacts Facts(const Shape& shape) {
  ModelFacts facts;
  facts.backend = "none";
  facts.num_experts = shape.experts;
  facts.top_k = shape.top_k;
  for (int32_t layer = 0; layer < shape.layers; ++layer) facts.moe_layers.push_back(layer);
  return facts;
}

StepStats RandomStep(const Shape& shape, int32_t num_tokens, std::mt19937* random) {
  StepStats stats;
  stats.num_tokens = num_tokens;
  stats.seconds = 0.01f;
  std::vector<size_t> order(static_cast<size_t>(shape.experts));
  for (size_t e = 0; e < order.size(); ++e) order[e] = e;
  std::uniform_real_distribution<float> seconds(1e-6f, 1e-4f);
  for (int32_t i = 0; i < shape.layers; ++i) {
    MoeLayerStats& layer = stats.moe_layers.emplace_back();
    layer.num_tokens = num_tokens;
    layer.tokens_per_expert.assign(order.size(), 0);
    layer.seconds_per_expert.assign(order.size(), 0.0f);
    layer.probability_sums.assign(order.size(), 1.0f);
    layer.seconds = 1e-3f;
    for (int32_t token = 0; token < num_tokens; ++token) {
      std::shuffle(order.begin(), order.end(), *random);
      for (size_t rank = 0; rank < static_cast<size_t>(shape.top_k); ++rank) ++layer.tokens_per_expert[order[rank]];
    }
    for (size_t e = 0; e < order.size(); ++e) {
      if (layer.tokens_per_expert[e] > 0) layer.seconds_per_expert[e] = seconds(*random);
    }
  }
  return stats;
}

// Seconds of `count` calls each, ascending.
template <typename Call>
std::vector<double> Time(int32_t count, const Call& call) {
  std::vector<double> seconds;
  for (int32_t i = 0; i < count; ++i) {
    const auto start = std::chrono::steady_clock::now();
    call(i);
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds;
}

void Run(const Shape& shape) {
  constexpr size_t kSteps = 16;  // different ones in turn, so that branches are not learnt by heart
  ServingMetrics metrics("bench", "0");
  metrics.SetModel(Facts(shape), "full");
  std::printf("%d layers, %d experts, %d per token\n", shape.layers, shape.experts, shape.top_k);
  std::printf("%8s %14s %14s\n", "tokens", "OnStep, us", "waits, us");
  std::mt19937 random(1);
  for (const int32_t num_tokens : {1, 16, 128, 1024}) {
    std::vector<StepStats> steps;
    for (size_t i = 0; i < kSteps; ++i) steps.push_back(RandomStep(shape, num_tokens, &random));
    const auto step = [&](int32_t i) {
      StepReport report;
      report.stats = &steps[static_cast<size_t>(i) % kSteps];
      report.num_decode_tokens = num_tokens;
      metrics.OnStep(report);
    };
    const std::vector<double> alone = Time(shape.repeat, step);
    std::atomic<bool> stop{false};
    std::thread scraper([&] {
      while (!stop.load()) CHECK(!metrics.Scrape().empty());
    });
    const std::vector<double> beside = Time(shape.repeat, step);
    stop.store(true);
    scraper.join();
    std::printf("%8d %14.1f %14.1f\n", num_tokens, 1e6 * alone[alone.size() / 2],
                1e6 * beside[beside.size() * 99 / 100]);
  }
  const std::vector<double> scrapes = Time(std::max(shape.repeat / 10, 1), [&](int32_t) { metrics.Scrape(); });
  std::printf("a scrape: %.2f ms, %.2f MB\n", 1e3 * scrapes[scrapes.size() / 2],
              1e-6 * static_cast<double>(metrics.Scrape().size()));
}

}  // namespace
}  // namespace switchyard

int main(int argc, char** argv) {
  switchyard::Shape shape;
  for (int i = 1; i + 1 < argc; i += 2) {
    const int32_t value = std::max(std::atoi(argv[i + 1]), 1);
    if (std::strcmp(argv[i], "--layers") == 0) shape.layers = value;
    if (std::strcmp(argv[i], "--experts") == 0) shape.experts = value;
    if (std::strcmp(argv[i], "--top-k") == 0) shape.top_k = value;
    if (std::strcmp(argv[i], "--repeat") == 0) shape.repeat = value;
  }
  shape.top_k = std::min(shape.top_k, shape.experts);
  switchyard::Run(shape);
}
