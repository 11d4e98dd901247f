#include "server/metrics/serving_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <system_error>

#include "server/metrics/families.h"
#include "server/metrics/metrics_text.h"

namespace switchyard {
namespace {

constexpr int64_t kMaxExpertSeries = 4096;
constexpr size_t kTopRanks = 4;
constexpr std::chrono::milliseconds kSnapshotAge{50};
constexpr const char* kFinishReasonNames[kNumFinishReasons] = {"stop",      "eos",      "length",
                                                               "cancelled", "deadline", "error"};
constexpr const char* kPhaseNames[kNumPhases] = {"queued", "prefill", "decode", "preempted"};
constexpr const char* kRejectionNames[kNumRejections] = {"invalid",  "not_found", "queue_full",   "too_many_calls",
                                                         "starting", "draining",  "engine_failed"};
constexpr const char* kGrpcCodeNames[kNumGrpcCodes] = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};

double UnixSeconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

Histogram EmptyHistogram(Family family) { return Histogram(InfoOf(family).edges); }

}  // namespace

ExpertDetail ParseExpertDetail(const std::string& name, int64_t num_layers_times_experts) {
  if (name == "off") return ExpertDetail::kOff;
  if (name == "layer") return ExpertDetail::kLayer;
  if (name == "topk") return ExpertDetail::kTopk;
  if (name == "full") return ExpertDetail::kFull;
  return num_layers_times_experts <= kMaxExpertSeries ? ExpertDetail::kFull : ExpertDetail::kTopk;
}

// What the serving loop writes and a scrape reads.
struct ServingMetrics::Shared {
  SchedulerCounts counts;
  uint64_t steps = 0;
  uint64_t prefill_tokens = 0;
  uint64_t decode_tokens = 0;
  double step_seconds_sum = 0.0;
  std::map<std::string, double> start_seconds;

  // One per family of the request and step histograms.
  Histogram time_to_first_token = EmptyHistogram(Family::kTimeToFirstToken);
  Histogram inter_token_latency = EmptyHistogram(Family::kInterTokenLatency);
  Histogram time_per_output_token = EmptyHistogram(Family::kTimePerOutputToken);
  Histogram e2e_latency = EmptyHistogram(Family::kE2eLatency);
  Histogram queue_time = EmptyHistogram(Family::kQueueTime);
  Histogram prefill_time = EmptyHistogram(Family::kPrefillTime);
  Histogram decode_time = EmptyHistogram(Family::kDecodeTime);
  Histogram request_prompt_tokens = EmptyHistogram(Family::kRequestPromptTokens);
  Histogram request_generation_tokens = EmptyHistogram(Family::kRequestGenerationTokens);
  Histogram request_preemptions = EmptyHistogram(Family::kRequestPreemptions);
  Histogram step_seconds = EmptyHistogram(Family::kStepSeconds);
  Histogram step_tokens = EmptyHistogram(Family::kStepTokensHistogram);
  Histogram step_sequences = EmptyHistogram(Family::kStepSequences);
  Histogram expert_rows = EmptyHistogram(Family::kExpertBatchRows);

  // Known once the model is loaded.
  std::optional<ExpertLoad> expert_load;
  ExpertDetail detail = ExpertDetail::kOff;
  std::vector<int32_t> moe_layers;
  std::string backend;
  int32_t block_size = 0;
  int32_t num_kv_blocks = 0;
  int64_t num_nonfinite_weights = 0;
  std::vector<Histogram> expert_seconds;  // [num_experts] with kFull, else one for all
  std::vector<Histogram> layer_seconds;   // [num_moe_layers]; empty with kOff

  void AddExpertSteps(const StepStats& stats) {
    expert_load->Add(stats);
    for (size_t layer = 0; layer < stats.moe_layers.size(); ++layer) {
      const MoeLayerStats& s = stats.moe_layers[layer];
      if (s.num_tokens == 0) continue;  // an encoder's layer in a step without prompts
      if (!layer_seconds.empty()) layer_seconds[layer].Observe(static_cast<double>(s.seconds));
      for (size_t e = 0; e < s.tokens_per_expert.size(); ++e) {
        if (s.tokens_per_expert[e] == 0) continue;
        expert_rows.Observe(s.tokens_per_expert[e]);
        if (e >= s.seconds_per_expert.size()) continue;
        expert_seconds[detail == ExpertDetail::kFull ? e : 0].Observe(static_cast<double>(s.seconds_per_expert[e]));
      }
    }
  }
};

// Writes the families of one scrape.
class ServingMetrics::Page : public MetricsText {
 public:
  using MetricsText::MetricsText;

  void Requests(const Shared& s) {
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

  void Steps(const Shared& s) {
    Value(Family::kSteps, static_cast<double>(s.steps));
    Value(Family::kStepTokens, static_cast<double>(s.prefill_tokens), {{"kind", "prefill"}});
    Value(Family::kStepTokens, static_cast<double>(s.decode_tokens), {{"kind", "decode"}});
    Distribution(Family::kStepSeconds, s.step_seconds);
    Distribution(Family::kStepTokensHistogram, s.step_tokens);
    Distribution(Family::kStepSequences, s.step_sequences);
    for (const auto& [phase, seconds] : s.start_seconds) Value(Family::kStartSeconds, seconds, {{"phase", phase}});
  }

  void Experts(const Shared& s) {
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

  void Process(double start_time_seconds) {
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

 private:
  void Layer(const Shared& s, int32_t layer) {
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

  void BusiestExperts(const Shared& s, int32_t layer, const std::string& name) {
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

  static double CountEntries(const char* folder) {
    std::error_code error;
    double count = 0.0;
    for (auto it = std::filesystem::directory_iterator(folder, error);
         !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
      count += 1.0;
    }
    return count;
  }
};

ServingMetrics::ServingMetrics(std::string model_name, std::string version)
    : model_name_(std::move(model_name)),
      version_(std::move(version)),
      start_time_seconds_(UnixSeconds()),
      shared_(std::make_unique<Shared>()) {
  pending_token_latencies_.reserve(4096);
}

ServingMetrics::~ServingMetrics() = default;

void ServingMetrics::SetModel(const ModelFacts& facts, const std::string& expert_detail) {
  MutexLock lock(&mutex_);
  Shared& s = *shared_;
  const int32_t layers = static_cast<int32_t>(facts.moe_layers.size());
  s.expert_load.emplace(layers, facts.num_experts);
  s.detail = ParseExpertDetail(expert_detail, int64_t{layers} * facts.num_experts);
  s.moe_layers = facts.moe_layers;
  s.backend = facts.backend;
  s.block_size = facts.block_size;
  s.num_kv_blocks = facts.num_kv_blocks;
  s.num_nonfinite_weights = facts.num_nonfinite_weights;
  const size_t num_histograms = s.detail == ExpertDetail::kFull ? static_cast<size_t>(facts.num_experts) : 1;
  s.expert_seconds.assign(num_histograms, EmptyHistogram(Family::kExpertBatchSeconds));
  if (s.detail != ExpertDetail::kOff) {
    s.layer_seconds.assign(facts.moe_layers.size(), EmptyHistogram(Family::kLayerSeconds));
  }
}

void ServingMetrics::SetStartSeconds(const std::string& phase, double seconds) {
  MutexLock lock(&mutex_);
  shared_->start_seconds[phase] = seconds;
}

void ServingMetrics::SetExternalCounters(uint64_t (*internal_errors)(), uint64_t (*dropped_log_lines)()) {
  internal_errors_.store(internal_errors);
  dropped_log_lines_.store(dropped_log_lines);
}

void ServingMetrics::OnStep(const StepReport& report) {
  MutexLock lock(&mutex_);
  Shared& s = *shared_;
  s.counts = report.counts;
  for (double seconds : pending_token_latencies_) s.inter_token_latency.Observe(seconds);
  pending_token_latencies_.clear();
  if (report.stats == nullptr) return;
  ++s.steps;
  s.prefill_tokens += static_cast<uint64_t>(report.num_prefill_tokens);
  s.decode_tokens += static_cast<uint64_t>(report.num_decode_tokens);
  s.step_seconds_sum += static_cast<double>(report.stats->seconds);
  s.step_seconds.Observe(static_cast<double>(report.stats->seconds));
  s.step_tokens.Observe(report.stats->num_tokens);
  s.step_sequences.Observe(report.num_sequences);
  if (s.expert_load) s.AddExpertSteps(*report.stats);
}

void ServingMetrics::OnFinished(const Request& request, const FinishedEvent& event) {
  MutexLock lock(&mutex_);
  Shared& s = *shared_;
  s.queue_time.Observe(event.queue_seconds);
  s.e2e_latency.Observe(event.queue_seconds + event.prefill_seconds + event.decode_seconds);
  s.request_prompt_tokens.Observe(static_cast<double>(request.prompt_tokens.size()));
  s.request_generation_tokens.Observe(event.num_output_tokens);
  s.request_preemptions.Observe(event.num_preemptions);
  if (event.num_output_tokens == 0) return;
  s.time_to_first_token.Observe(event.queue_seconds + event.prefill_seconds);
  s.prefill_time.Observe(event.prefill_seconds);
  s.decode_time.Observe(event.decode_seconds);
  if (event.num_output_tokens > 1)
    s.time_per_output_token.Observe(event.decode_seconds / (event.num_output_tokens - 1));
}

void ServingMetrics::OnInterTokenLatency(double seconds) { pending_token_latencies_.push_back(seconds); }

void ServingMetrics::OnCallAnswered(int grpc_code) {
  const int code = grpc_code >= 0 && grpc_code < kNumGrpcCodes ? grpc_code : 2;
  answered_[static_cast<size_t>(code)].fetch_add(1, std::memory_order_relaxed);
}

void ServingMetrics::OnRejected(Rejection reason) {
  rejected_[static_cast<size_t>(reason)].fetch_add(1, std::memory_order_relaxed);
}

void ServingMetrics::OnCredentialsChange(CredentialKind kind, bool taken) {
  credential_changes_[static_cast<size_t>(kind)][taken ? 1 : 0].fetch_add(1, std::memory_order_relaxed);
}

SchedulerCounts ServingMetrics::counts() const {
  MutexLock lock(&mutex_);
  return shared_->counts;
}

std::shared_ptr<const ExpertLoadTotals> ServingMetrics::ExpertSnapshot() const {
  MutexLock snapshot_lock(&snapshot_mutex_);
  const TimePoint now = std::chrono::steady_clock::now();
  if (snapshot_ != nullptr && now - snapshot_time_ < kSnapshotAge) return snapshot_;
  const std::optional<ExpertLoad> load = [this] {
    MutexLock lock(&mutex_);
    return shared_->expert_load;
  }();
  snapshot_ = std::make_shared<const ExpertLoadTotals>(load ? load->Snapshot() : ExpertLoadTotals());
  snapshot_time_ = now;
  return snapshot_;
}

double ServingMetrics::EstimateQueueSeconds() const {
  MutexLock lock(&mutex_);
  const double tokens = static_cast<double>(shared_->prefill_tokens + shared_->decode_tokens);
  const double seconds_per_token = tokens > 0.0 ? shared_->step_seconds_sum / tokens : 0.0;
  return std::clamp(static_cast<double>(shared_->counts.waiting_tokens) * seconds_per_token, 0.1, 30.0);
}

std::string ServingMetrics::Scrape() const {
  const Shared shared = [this] {
    MutexLock lock(&mutex_);
    return *shared_;
  }();
  Page page(model_name_);
  page.Requests(shared);
  page.Steps(shared);
  page.Experts(shared);
  if (!shared.backend.empty())
    page.Value(Family::kBuildInfo, 1.0, {{"version", version_}, {"backend", shared.backend}});
  page.Value(Family::kReady, ready_.load(std::memory_order_relaxed) ? 1.0 : 0.0);
  page.Value(Family::kOpenCalls, open_calls());
  for (size_t i = 0; i < kNumGrpcCodes; ++i) {
    page.Value(Family::kRequestStatus, static_cast<double>(answered_[i].load(std::memory_order_relaxed)),
               {{"grpc_code", kGrpcCodeNames[i]}});
  }
  for (size_t i = 0; i < kNumRejections; ++i) {
    page.Value(Family::kRejected, static_cast<double>(rejected_[i].load(std::memory_order_relaxed)),
               {{"reason", kRejectionNames[i]}});
  }
  uint64_t (*const internal_errors)() = internal_errors_.load();
  uint64_t (*const dropped)() = dropped_log_lines_.load();
  page.Value(Family::kInternalErrors, internal_errors == nullptr ? 0.0 : static_cast<double>(internal_errors()));
  page.Value(Family::kLogDropped, dropped == nullptr ? 0.0 : static_cast<double>(dropped()));
  for (size_t kind = 0; kind < kNumCredentialKinds; ++kind) {
    for (size_t taken = 0; taken < 2; ++taken) {
      page.Value(Family::kCredentialReloads,
                 static_cast<double>(credential_changes_[kind][taken].load(std::memory_order_relaxed)),
                 {{"what", kCredentialKindNames[kind]}, {"result", taken == 1 ? "taken" : "refused"}});
    }
  }
  page.Value(Family::kConnectionsRefused, static_cast<double>(connections_refused_.load(std::memory_order_relaxed)));
  page.Value(Family::kCertificateExpiry, certificate_expiry_.load(std::memory_order_relaxed));
  page.Process(start_time_seconds_);
  return page.Text();
}

}  // namespace switchyard
