#include "server/metrics/metrics_page.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <vector>

namespace switchyard {
namespace {

constexpr size_t kTopRanks = 4;
constexpr const char* kFinishReasonNames[kNumFinishReasons] = {"stop",      "eos",      "length",
                                                               "cancelled", "deadline", "error"};
constexpr const char* kPhaseNames[kNumPhases] = {"queued", "prefill", "decode", "preempted"};

double CountEntries(const char* folder) {
  std::error_code error;
  double count = 0.0;
  for (auto it = std::filesystem::directory_iterator(folder, error);
       !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
    count += 1.0;
  }
  return count;
}

}  // namespace

void MetricsPage::Requests(const ServingCounters& s) {
  const SchedulerCounts& c = s.counts;
  Value(Family::kRequestsWaiting, c.waiting);
  Value(Family::kRequestsRunning, c.running);
  const int32_t total = std::max(c.kv_blocks_total, s.num_kv_blocks);
  Value(Family::kKvCacheUsage, total == 0 ? 0.0 : static_cast<double>(c.kv_blocks_used) / total);
  if (s.num_kv_blocks > 0) {  // labels that are not known yet would become a second series later
    Value(Family::kCacheConfig, 1.0,
          {{"block_size", std::to_string(s.block_size)}, {"num_gpu_blocks", std::to_string(s.num_kv_blocks)}});
    Value(Family::kWeightsNonfinite, static_cast<double>(s.num_nonfinite_weights));
  }
  Value(Family::kWaitingTokens, static_cast<double>(c.waiting_tokens));
  Value(Family::kOldestWaiting, c.oldest_waiting_seconds);
  Value(Family::kKvBlocks, total);
  Value(Family::kKvBlocksUsed, c.kv_blocks_used);
  Value(Family::kKvBlocksCached, c.kv_blocks_cached);
  for (size_t i = 0; i < kNumFinishReasons; ++i) {
    Value(Family::kRequestSuccess, static_cast<double>(c.finished_total[i]),
          {{"finish_reason", kFinishReasonNames[i]}});
  }
  for (size_t i = 0; i < kNumPhases; ++i) {
    Value(Family::kCancelled, static_cast<double>(c.cancelled_total[i]), {{"phase", kPhaseNames[i]}});
    Value(Family::kDeadline, static_cast<double>(c.deadline_total[i]), {{"phase", kPhaseNames[i]}});
  }
  Value(Family::kPromptTokens, static_cast<double>(c.prompt_tokens_total));
  Value(Family::kGenerationTokens, static_cast<double>(c.generation_tokens_total));
  Value(Family::kPrefixCacheQueries, static_cast<double>(c.prefix_query_tokens_total));
  Value(Family::kPrefixCacheHits, static_cast<double>(c.prefix_hit_tokens_total));
  Value(Family::kRecomputedTokens, static_cast<double>(c.recomputed_tokens_total));
  Value(Family::kPreemptions, static_cast<double>(c.preemptions_total));
  Distribution(Family::kTimeToFirstToken, s.time_to_first_token);
  Distribution(Family::kInterTokenLatency, s.inter_token_latency);
  Distribution(Family::kTimePerOutputToken, s.time_per_output_token);
  Distribution(Family::kE2eLatency, s.e2e_latency);
  Distribution(Family::kQueueTime, s.queue_time);
  Distribution(Family::kPrefillTime, s.prefill_time);
  Distribution(Family::kDecodeTime, s.decode_time);
  Distribution(Family::kRequestPromptTokens, s.request_prompt_tokens);
  Distribution(Family::kRequestGenerationTokens, s.request_generation_tokens);
  Distribution(Family::kRequestPreemptions, s.request_preemptions);
}

void MetricsPage::Steps(const ServingCounters& s) {
  Value(Family::kSteps, static_cast<double>(s.steps));
  Value(Family::kStepTokens, static_cast<double>(s.prefill_tokens), {{"kind", "prefill"}});
  Value(Family::kStepTokens, static_cast<double>(s.decode_tokens), {{"kind", "decode"}});
  Distribution(Family::kStepSeconds, s.step_seconds);
  Distribution(Family::kStepTokensHistogram, s.step_tokens);
  Distribution(Family::kStepSequences, s.step_sequences);
  for (size_t i = 0; i < s.expert_gemms.size(); ++i) {
    Value(Family::kExpertGemmLayers, static_cast<double>(s.expert_gemm_layers[i]), {{"provider", s.expert_gemms[i]}});
  }
  for (const auto& [phase, seconds] : s.start_seconds) Value(Family::kStartSeconds, seconds, {{"phase", phase}});
}

void MetricsPage::Experts(const ServingCounters& s) {
  if (!s.expert_load || s.detail == ExpertDetail::kOff) return;
  Distribution(Family::kExpertBatchRows, s.expert_rows);
  for (size_t i = 0; i < s.expert_seconds.size(); ++i) {
    if (s.detail < ExpertDetail::kFull) {
      Distribution(Family::kExpertBatchSeconds, s.expert_seconds[i]);
    } else {
      Distribution(Family::kExpertBatchSeconds, s.expert_seconds[i], {{"expert", std::to_string(i)}});
    }
  }
  for (int32_t layer = 0; layer < s.expert_load->num_moe_layers(); ++layer) Layer(s, layer);
}

void MetricsPage::Process(double start_time_seconds) {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  Value(Family::kProcessCpu, seconds(usage.ru_utime) + seconds(usage.ru_stime));
  long resident_pages = 0;
  if (std::FILE* file = std::fopen("/proc/self/statm", "r")) {
    if (std::fscanf(file, "%*s %ld", &resident_pages) != 1) resident_pages = 0;
    std::fclose(file);
  }
  Value(Family::kProcessResident, static_cast<double>(resident_pages) * static_cast<double>(sysconf(_SC_PAGESIZE)));
  Value(Family::kProcessStartTime, start_time_seconds);
  Value(Family::kProcessOpenFds, CountEntries("/proc/self/fd"));
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  Value(Family::kProcessMaxFds, static_cast<double>(limit.rlim_cur));
  Value(Family::kProcessThreads, CountEntries("/proc/self/task"));
}

void MetricsPage::Layer(const ServingCounters& s, int32_t layer) {
  const std::string name = std::to_string(s.moe_layers[static_cast<size_t>(layer)]);
  const LayerBalance balance = s.expert_load->Balance(layer);
  Value(Family::kLayerImbalance, balance.imbalance_ratio, {{"layer", name}});
  Value(Family::kLayerActiveExperts, balance.active_experts, {{"layer", name}});
  Value(Family::kLayerMaxShare, balance.max_share, {{"layer", name}});
  Value(Family::kLayerEntropy, balance.entropy, {{"layer", name}});
  Value(Family::kLayerLoadBalanceLoss, balance.load_balance_loss, {{"layer", name}});
  Value(Family::kLayerZLoss, balance.router_z_loss, {{"layer", name}});
  const uint64_t dropped = s.expert_load->totals().dropped[static_cast<size_t>(layer)];
  Value(Family::kLayerDroppedTokens, static_cast<double>(dropped), {{"layer", name}});
  Distribution(Family::kLayerSeconds, s.layer_seconds[static_cast<size_t>(layer)], {{"layer", name}});
  if (s.detail >= ExpertDetail::kTopk) BusiestExperts(s, layer, name);
  if (s.detail < ExpertDetail::kFull) return;
  const size_t experts = static_cast<size_t>(s.expert_load->num_experts());
  const std::vector<uint64_t>& tokens = s.expert_load->totals().tokens;
  for (size_t e = 0; e < experts; ++e) {
    Value(Family::kExpertTokens, static_cast<double>(tokens[static_cast<size_t>(layer) * experts + e]),
          {{"layer", name}, {"expert", std::to_string(e)}});
  }
}

void MetricsPage::BusiestExperts(const ServingCounters& s, int32_t layer, const std::string& name) {
  const std::vector<uint64_t> rows = s.expert_load->WindowRows(layer);
  std::vector<size_t> order(rows.size());
  uint64_t total = 0;
  for (size_t e = 0; e < rows.size(); ++e) {
    order[e] = e;
    total += rows[e];
  }
  const size_t ranks = std::min(kTopRanks, rows.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(ranks), order.end(),
                    [&](size_t a, size_t b) { return rows[a] != rows[b] ? rows[a] > rows[b] : a < b; });
  for (size_t rank = 0; rank < ranks; ++rank) {
    const std::string number = std::to_string(rank + 1);
    const double share = total == 0 ? 0.0 : static_cast<double>(rows[order[rank]]) / static_cast<double>(total);
    Value(Family::kTopkExpert, static_cast<double>(order[rank]), {{"layer", name}, {"rank", number}});
    Value(Family::kTopkShare, share, {{"layer", name}, {"rank", number}});
  }
}

}  // namespace switchyard
