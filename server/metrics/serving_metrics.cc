#include "server/metrics/serving_metrics.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "server/metrics/families.h"
#include "server/metrics/metrics_page.h"

namespace switchyard {
namespace {

constexpr std::chrono::milliseconds kSnapshotAge{50};
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

}  // namespace

ServingMetrics::ServingMetrics(std::string model_name, std::string version)
    : model_name_(std::move(model_name)),
      version_(std::move(version)),
      start_time_seconds_(UnixSeconds()),
      shared_(std::make_unique<ServingCounters>()) {
  pending_token_latencies_.reserve(4096);
}

ServingMetrics::~ServingMetrics() = default;

void ServingMetrics::SetModel(const ModelFacts& facts, const std::string& expert_detail) {
  MutexLock lock(&mutex_);
  ServingCounters& s = *shared_;
  const int32_t layers = static_cast<int32_t>(facts.moe_layers.size());
  s.expert_load.emplace(layers, facts.num_experts);
  s.detail = ParseExpertDetail(expert_detail, int64_t{layers} * facts.num_experts);
  s.moe_layers = facts.moe_layers;
  s.backend = facts.backend;
  s.expert_gemms = facts.expert_gemms;
  s.expert_gemm_layers.assign(facts.expert_gemms.size(), 0);
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
  ServingCounters& s = *shared_;
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
  ServingCounters& s = *shared_;
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
  MutexLock one_at_a_time(&scrape_mutex_);
  const ServingCounters shared = [this] {
    MutexLock lock(&mutex_);
    return *shared_;
  }();
  MetricsPage page(model_name_);
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
  return std::move(page).Text();
}

}  // namespace switchyard
