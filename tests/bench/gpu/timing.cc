#include "tests/bench/gpu/timing.h"

#include <algorithm>
#include <cmath>

#include "tests/bench/gpu/device.h"

namespace switchyard::bench {
namespace {

constexpr double kLongReplaySeconds = 0.02;
constexpr int kMinRounds = 2;   // two samples each
constexpr int kMaxRounds = 25;  // 50 samples

class Event {
 public:
  Event() { CUDA_OK(cudaEventCreateWithFlags(&event_, cudaEventDefault)); }
  ~Event() { CUDA_OK(cudaEventDestroy(event_)); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void Record() { CUDA_OK(cudaEventRecord(event_, Stream())); }
  double MicrosecondsTo(const Event& end) const {
    float milliseconds = 0.0f;
    CUDA_OK(cudaEventElapsedTime(&milliseconds, event_, end.event_));
    return 1e3 * static_cast<double>(milliseconds);
  }

 private:
  cudaEvent_t event_ = nullptr;
};

// A candidate's calls, recorded once and run many times.
class Replay {
 public:
  Replay(const Candidate& candidate, int calls) : candidate_(candidate), calls_(calls) {
    if (!candidate.graph) return;
    cudaGraph_t graph = nullptr;
    CUDA_OK(cudaStreamBeginCapture(Stream(), cudaStreamCaptureModeThreadLocal));
    for (int call = 0; call < calls; ++call) candidate.run(call);
    CUDA_OK(cudaStreamEndCapture(Stream(), &graph));
    CUDA_OK(cudaGetLastError());
    CUDA_OK(cudaGraphInstantiate(&graph_, graph, 0));
    CUDA_OK(cudaGraphDestroy(graph));
  }
  ~Replay() {
    if (graph_ != nullptr) CUDA_OK(cudaGraphExecDestroy(graph_));
  }
  Replay(Replay&& other) noexcept : candidate_(other.candidate_), calls_(other.calls_), graph_(other.graph_) {
    other.graph_ = nullptr;
  }

  int calls() const { return calls_; }
  void Run() const {
    if (graph_ != nullptr) {
      CUDA_OK(cudaGraphLaunch(graph_, Stream()));
      return;
    }
    for (int call = 0; call < calls_; ++call) candidate_.run(call);
  }

 private:
  const Candidate& candidate_;
  const int calls_;
  cudaGraphExec_t graph_ = nullptr;
};

// Seconds of one call, after one that warms up.
double EstimateCall(const Candidate& candidate, int sets) {
  Event start, end;
  candidate.run(0);
  start.Record();
  for (int call = 0; call < sets; ++call) candidate.run(call);
  end.Record();
  Synchronize();
  return 1e-6 * start.MicrosecondsTo(end) / sets;
}

int CallsPerReplay(double call_seconds, const TimingPlan& plan) {
  const int most = std::max(1, plan.max_calls / plan.sets);
  const double fit = kLongReplaySeconds / std::max(1e-9, call_seconds * plan.sets);
  return plan.sets * std::clamp(static_cast<int>(std::min(fit, 1e6)), 1, most);
}

void RunRound(const std::vector<Replay>& replays, std::vector<std::vector<double>>* samples) {
  const size_t n = replays.size();
  std::vector<Event> starts(2 * n), ends(2 * n);
  const auto candidate_at = [n](size_t i) { return i < n ? i : 2 * n - 1 - i; };
  for (size_t i = 0; i < 2 * n; ++i) {
    starts[i].Record();
    replays[candidate_at(i)].Run();
    ends[i].Record();
  }
  Synchronize();
  for (size_t i = 0; i < 2 * n; ++i) {
    const size_t c = candidate_at(i);
    (*samples)[c].push_back(starts[i].MicrosecondsTo(ends[i]) / replays[c].calls());
  }
}

}  // namespace

Spread SpreadOf(std::vector<double> microseconds) {
  Spread spread;
  if (microseconds.empty()) return spread;
  std::sort(microseconds.begin(), microseconds.end());
  const auto at = [&](double share) {
    return microseconds[static_cast<size_t>(std::lround(share * static_cast<double>(microseconds.size() - 1)))];
  };
  spread.median = at(0.5);
  spread.p10 = at(0.1);
  spread.p90 = at(0.9);
  spread.samples = static_cast<int>(microseconds.size());
  return spread;
}

std::vector<Spread> TimeSideBySide(const std::vector<Candidate>& candidates, const TimingPlan& plan) {
  std::vector<Replay> replays;
  double round_seconds = 0.0;
  for (const Candidate& candidate : candidates) {
    const double call_seconds = EstimateCall(candidate, plan.sets);
    replays.emplace_back(candidate, CallsPerReplay(call_seconds, plan));
    round_seconds += 2.0 * call_seconds * replays.back().calls();
    replays.back().Run();  // the first launch of a graph uploads it
  }
  Synchronize();
  const double budget = plan.seconds * static_cast<double>(candidates.size());
  const int rounds = std::clamp(static_cast<int>(std::min(budget / std::max(round_seconds, 1e-9), 1e6)), kMinRounds,
                                kMaxRounds);
  std::vector<std::vector<double>> samples(candidates.size());
  for (int round = 0; round < rounds; ++round) RunRound(replays, &samples);
  std::vector<Spread> spreads;
  for (std::vector<double>& of_candidate : samples) spreads.push_back(SpreadOf(std::move(of_candidate)));
  return spreads;
}

}  // namespace switchyard::bench
