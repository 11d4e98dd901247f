// Counts everything that the server shows on /metrics and in ExpertService.
//
// The serving loop adds to plain arrays under one mutex, once per step. A reader copies the arrays under it and builds
// text, labels and balances from the copy, so that it holds up a step for the copy only. So a step pays for additions
// (about a microsecond for 64 experts-layers), never for labels or text. What gRPC threads count (answers, refusals)
// are atomics: relaxed, for nobody orders anything by them.
#ifndef SWITCHYARD_SERVER_METRICS_SERVING_METRICS_H_
#define SWITCHYARD_SERVER_METRICS_SERVING_METRICS_H_

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/mutex.h"
#include "engine/engine.h"
#include "server/access/credential_kind.h"
#include "server/metrics/expert_load.h"
#include "server/metrics/serving_counters.h"
#include "server/scheduler/serving_loop.h"

namespace switchyard {

// Why a generating call was refused before it was queued.
enum class Rejection : uint8_t { kInvalid, kNotFound, kQueueFull, kTooManyCalls, kStarting, kDraining, kEngineFailed };
inline constexpr int kNumRejections = 7;
inline constexpr int kNumGrpcCodes = 17;

class ServingMetrics : public LoopObserver {
 public:
  ServingMetrics(std::string model_name, std::string version);
  ~ServingMetrics() override;

  // Call once, before the loop starts: all series of the model exist from now on.
  void SetModel(const ModelFacts& facts, const std::string& expert_detail);
  void SetStartSeconds(const std::string& phase, double seconds);
  void SetReady(bool ready) { ready_.store(ready, std::memory_order_relaxed); }
  // Errors that are counted elsewhere (internal errors, dropped log lines), read at each scrape.
  void SetExternalCounters(uint64_t (*internal_errors)(), uint64_t (*dropped_log_lines)());

  // The serving loop's side ---------------------------------------------------------------------------------
  void OnStep(const StepReport& report) override;
  void OnFinished(const Request& request, const FinishedEvent& event) override;
  // Between two tokens of one choice; shown from the end of the step on.
  void OnInterTokenLatency(double seconds);

  // Any thread ----------------------------------------------------------------------------------------------
  void OnCallAnswered(int grpc_code);
  void OnRejected(Rejection reason);
  void OnConnectionRefused() { connections_refused_.fetch_add(1, std::memory_order_relaxed); }
  void OnCredentialsChange(CredentialKind kind, bool taken);
  // Seconds since the Unix epoch; never called without TLS.
  void SetCertificateExpiry(double not_after) { certificate_expiry_.store(not_after, std::memory_order_relaxed); }
  void OnOpenCalls(int change) { open_calls_.fetch_add(change, std::memory_order_relaxed); }

  // Gauges and totals of the scheduler after the latest step.
  SchedulerCounts counts() const;
  int open_calls() const { return open_calls_.load(std::memory_order_relaxed); }
  // At most 50 ms old: many watchers cost the loop no more than one.
  std::shared_ptr<const ExpertLoadTotals> ExpertSnapshot() const;
  // How long a refused caller should wait: the tokens in the queue at the measured speed, 0.1 to 30 s.
  double EstimateQueueSeconds() const;

  // All families in Prometheus' text format. One at a time: however many are asked for at once, they take one core from
  // the engine.
  std::string Scrape() const;

 private:
  const std::string model_name_;
  const std::string version_;
  const double start_time_seconds_;  // wall clock
  std::array<std::atomic<uint64_t>, kNumGrpcCodes> answered_{};
  std::array<std::atomic<uint64_t>, kNumRejections> rejected_{};
  std::atomic<int> open_calls_{0};
  std::array<std::array<std::atomic<uint64_t>, 2>, kNumCredentialKinds> credential_changes_{};  // [kind][taken]
  std::atomic<uint64_t> connections_refused_{0};
  std::atomic<double> certificate_expiry_{std::numeric_limits<double>::infinity()};
  std::atomic<bool> ready_{false};
  std::atomic<uint64_t (*)()> internal_errors_{nullptr};
  std::atomic<uint64_t (*)()> dropped_log_lines_{nullptr};
  std::vector<double> pending_token_latencies_;  // the serving loop's own, until the step ends

  mutable Mutex mutex_;
  const std::unique_ptr<ServingCounters> shared_ ABSL_PT_GUARDED_BY(mutex_);

  mutable Mutex scrape_mutex_;    // before mutex_; guards nothing, see Scrape
  mutable Mutex snapshot_mutex_;  // before mutex_; held while the snapshot is made, so that only one is
  mutable std::shared_ptr<const ExpertLoadTotals> snapshot_ ABSL_GUARDED_BY(snapshot_mutex_);
  mutable TimePoint snapshot_time_ ABSL_GUARDED_BY(snapshot_mutex_);
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_METRICS_SERVING_METRICS_H_
