// Measured cases as a table on the terminal and as JSON.
#ifndef SWITCHYARD_TESTS_BENCH_GPU_REPORT_H_
#define SWITCHYARD_TESTS_BENCH_GPU_REPORT_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tests/bench/gpu/timing.h"

namespace switchyard::bench {

struct Limits {
  double bandwidth = 0.0;  // bytes read per second
  double flops = 0.0;      // bf16
  // Microseconds below which no version of such work runs.
  double FloorUs(double bytes, double flop) const;
};

// What is asked of a case, as text: "21%", "450 TF", "300 tok/s"; empty where nothing is known.
struct Targets {
  std::string baseline;
  std::string state_of_the_art;
  std::string goal;
};

struct Result {
  std::string section;
  std::string name;      // the case
  std::string provider;
  Spread us;
  double bytes = 0.0;
  double flops = 0.0;
  double floor_us = 0.0;  // 0: no floor is known
  Targets targets;
  std::vector<std::pair<std::string, double>> more;  // further numbers, JSON only; "tokens_per_second" is printed
};

class Report {
 public:
  explicit Report(bool print) : print_(print) {}
  void Heading(const std::string& section);
  void Add(Result result);
  const std::vector<Result>& results() const { return results_; }
  // Fails the program where the file cannot be written.
  void WriteJson(const std::string& file, const std::string& device, const Limits& limits,
                 const std::string& command) const;

 private:
  const bool print_;
  std::vector<Result> results_;
};

}  // namespace switchyard::bench

#endif  // SWITCHYARD_TESTS_BENCH_GPU_REPORT_H_
