// From the times of single requests to the numbers of a load test. Pure functions; all times in seconds.
#ifndef SWITCHYARD_CLIENT_LOAD_STATISTICS_H_
#define SWITCHYARD_CLIENT_LOAD_STATISTICS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace switchyard {

// One request as the client saw it. Times count from the start of the test.
struct RequestRecord {
  double scheduled = 0;    // when the plan wanted it sent
  double sent = 0;         // when it was
  double first_token = 0;  // arrival of the first message with tokens; meaningless without tokens
  double last_token = 0;   // arrival of the last message with tokens; meaningless without tokens
  double ended = 0;        // arrival of the status
  int64_t prompt_tokens = 0;
  int64_t output_tokens = 0;
  // One per token after the first. The tokens of one message share the time since the message before evenly; those
  // that came together with the first token waited 0.
  std::vector<double> gaps = {};
  absl::Status status = {};
};

// Notes that `num_tokens` tokens arrived at `now`.
void AddTokens(double now, int64_t num_tokens, RequestRecord* record);

// Mean, standard deviation and percentiles of a set of values; all 0 for an empty set.
struct Distribution {
  int64_t count = 0;
  double mean = 0;
  double stddev = 0;  // of the population
  double p50 = 0;
  double p90 = 0;
  double p99 = 0;
  double max = 0;
};

Distribution DistributionOf(std::vector<double> values);

// The value below which `percent` (0 to 100) of `sorted` lies, linear between neighbours: percentile 50 of {1, 2} is
// 1.5. REQUIRES: `sorted` is sorted and not empty.
double Percentile(const std::vector<double>& sorted, double percent);

// A request is good when it keeps all limits that are set.
struct GoodputLimits {
  std::optional<double> ttft = {};
  std::optional<double> tpot = {};
  std::optional<double> e2el = {};

  bool any() const { return ttft || tpot || e2el; }
};

// The numbers of a test. Latencies are of completed requests; `*_from_schedule` count from the planned send time, so
// that a server (or client) that falls behind cannot hide it by having requests sent late.
struct LoadSummary {
  double duration = 0;
  int64_t completed = 0;
  int64_t failed = 0;
  int64_t good = 0;  // completed and within the limits
  int64_t total_input_tokens = 0;
  int64_t total_output_tokens = 0;
  std::map<std::string, int64_t> errors;  // status code -> how many
  Distribution ttft;                      // time to first token
  Distribution tpot;                      // time per output token after the first, one value per request
  Distribution itl;                       // inter-token latency, one value per token after the first
  Distribution e2el;                      // end-to-end latency
  Distribution ttft_from_schedule;
  Distribution e2el_from_schedule;
  Distribution send_lag;  // sent - scheduled

  double request_throughput() const { return PerSecond(completed); }
  double request_goodput() const { return PerSecond(good); }
  double output_throughput() const { return PerSecond(total_output_tokens); }
  double total_token_throughput() const { return PerSecond(total_input_tokens + total_output_tokens); }

 private:
  double PerSecond(int64_t count) const { return duration > 0 ? static_cast<double>(count) / duration : 0; }
};

// `duration`: from the start of the test to the last end.
LoadSummary Summarize(const std::vector<RequestRecord>& records, double duration, const GoodputLimits& limits);

}  // namespace switchyard

#endif  // SWITCHYARD_CLIENT_LOAD_STATISTICS_H_
