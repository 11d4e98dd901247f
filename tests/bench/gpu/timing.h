// Times ways to do the same work side by side with CUDA events.
//
// Each candidate is captured as one CUDA graph of several calls (so that launches do not count), replayed in the order
// A B C ... C B A for as many rounds as the budget allows, and reported as microseconds per call. A candidate that
// needs the host between its kernels runs without a graph, waits included.
#ifndef SWITCHYARD_TESTS_BENCH_GPU_TIMING_H_
#define SWITCHYARD_TESTS_BENCH_GPU_TIMING_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace switchyard::bench {

struct Candidate {
  std::string name;
  std::function<void(int call)> run;  // enqueues call number `call`; it picks the data set from it
  bool graph = true;
};

// Microseconds per call over the samples.
struct Spread {
  double median = 0.0;
  double p10 = 0.0;
  double p90 = 0.0;
  int samples = 0;
};
Spread SpreadOf(std::vector<double> microseconds);

struct TimingPlan {
  int sets = 4;                // data sets that calls rotate through; a replay is a multiple of them
  double seconds = 0.03;       // per candidate, about
  int max_calls = 20;          // of one replay
};
std::vector<Spread> TimeSideBySide(const std::vector<Candidate>& candidates, const TimingPlan& plan);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_TESTS_BENCH_GPU_TIMING_H_
