// The result of a load test for people and for programs.
#ifndef SWITCHYARD_CLIENT_LOAD_REPORT_H_
#define SWITCHYARD_CLIENT_LOAD_REPORT_H_

#include <string>

#include "client/load/load_generator.h"
#include "client/load/plan.h"
#include "client/load/statistics.h"

namespace switchyard {

struct LoadReport {
  std::string model;
  std::string address;
  std::string date;  // ISO 8601
  LoadShape shape;
  LoadOptions options;
  GoodputLimits limits;
  LoadRun run;
  LoadSummary summary;
};

// A table in milliseconds, then what throws doubt on the numbers, if anything: failed requests, requests that were
// sent late, a load generator that itself was busy.
std::string RenderReport(const LoadReport& report);

// One JSON object with the key names of `vllm bench serve`; times in milliseconds. Ours in addition:
// {mean,median,std,p90,p99}_{ttft,e2el}_from_schedule_ms, *_send_lag_ms (at a finite rate), errors_by_status,
// client_cpu_seconds. `detailed` adds a list with an element per request: input_lens, output_lens, ttfts, itls
// (seconds), errors.
std::string ReportToJson(const LoadReport& report, bool detailed);

}  // namespace switchyard

#endif  // SWITCHYARD_CLIENT_LOAD_REPORT_H_
