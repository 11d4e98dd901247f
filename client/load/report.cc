#include "client/load/report.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace switchyard {
namespace {

constexpr double kLateSeconds = 0.010;
constexpr double kBusyCores = 0.8;

std::string Line(const std::string& name, const std::string& value) {
  return absl::StrFormat("%-34s %14s\n", name, value);
}

std::string Line(const std::string& name, int64_t value) { return Line(name, absl::StrCat(value)); }

std::string Line(const std::string& name, double value) { return Line(name, absl::StrFormat("%.2f", value)); }

std::string Row(const std::string& name, const Distribution& values) {
  return absl::StrFormat("%-34s %9.2f %9.2f %9.2f %9.2f %9.2f\n", name, 1e3 * values.mean, 1e3 * values.p50,
                         1e3 * values.p90, 1e3 * values.p99, 1e3 * values.max);
}

double CpuCores(const LoadRun& run) { return run.duration > 0 ? run.cpu_seconds / run.duration : 0; }

// Without a rate all requests are planned for the start, and the plan says nothing about when they should be sent.
bool HasSchedule(const LoadReport& report) { return !std::isinf(report.shape.request_rate); }

std::string Doubts(const LoadReport& report) {
  const LoadSummary& summary = report.summary;
  std::string doubts;
  for (const auto& [code, count] : summary.errors) {
    for (const RequestRecord& record : report.run.records) {
      if (absl::StatusCodeToString(record.status.code()) != code) continue;
      absl::StrAppend(&doubts, "! ", count, " failed, the first: ", Describe(record.status), "\n");
      break;
    }
  }
  if (HasSchedule(report) && summary.send_lag.p99 > kLateSeconds) {
    absl::StrAppendFormat(
        &doubts, "! requests were sent late (p99 %.0f ms), because %s: read the rows \"from schedule\"\n",
        1e3 * summary.send_lag.p99,
        report.options.max_concurrency > 0 ? "--max-concurrency held them back" : "this machine is busy");
  }
  if (CpuCores(report.run) > kBusyCores) {
    absl::StrAppendFormat(&doubts, "! this load generator used %.2f cores: times may be its own\n",
                          CpuCores(report.run));
  }
  return doubts;
}

// With the names mean_x_ms, median_x_ms, std_x_ms, p50_x_ms, p90_x_ms, p99_x_ms.
void AddDistribution(const std::string& name, const Distribution& values, nlohmann::ordered_json* json) {
  (*json)["mean_" + name + "_ms"] = 1e3 * values.mean;
  (*json)["median_" + name + "_ms"] = 1e3 * values.p50;
  (*json)["std_" + name + "_ms"] = 1e3 * values.stddev;
  (*json)["p50_" + name + "_ms"] = 1e3 * values.p50;
  (*json)["p90_" + name + "_ms"] = 1e3 * values.p90;
  (*json)["p99_" + name + "_ms"] = 1e3 * values.p99;
}

nlohmann::ordered_json RateToJson(double rate) {
  if (std::isinf(rate)) return "inf";
  return rate;
}

void AddRequests(const std::vector<RequestRecord>& records, nlohmann::ordered_json* json) {
  for (const RequestRecord& record : records) {
    (*json)["input_lens"].push_back(record.prompt_tokens);
    (*json)["output_lens"].push_back(record.output_tokens);
    (*json)["ttfts"].push_back(record.output_tokens > 0 ? record.first_token - record.sent : 0);
    (*json)["itls"].push_back(record.gaps);
    (*json)["errors"].push_back(record.status.ok() ? "" : Describe(record.status));
  }
}

}  // namespace

std::string RenderReport(const LoadReport& report) {
  const LoadSummary& summary = report.summary;
  std::string text = Line("requests completed", summary.completed) + Line("requests failed", summary.failed) +
                     Line("duration (s)", summary.duration) + Line("input tokens", summary.total_input_tokens) +
                     Line("output tokens", summary.total_output_tokens) +
                     Line("requests/s", summary.request_throughput());
  if (report.limits.any()) text += Line("requests/s within the limits", summary.request_goodput());
  text += Line("output tokens/s", summary.output_throughput()) +
          Line("input + output tokens/s", summary.total_token_throughput()) +
          Line("open requests at most", report.run.peak_concurrency) +
          Line("cores used by this client", CpuCores(report.run));
  absl::StrAppendFormat(&text, "\n%-34s %9s %9s %9s %9s %9s\n", "milliseconds", "mean", "median", "p90", "p99", "max");
  text += Row("time to first token", summary.ttft) + Row("time per output token", summary.tpot) +
          Row("inter-token latency", summary.itl) + Row("end to end", summary.e2el);
  if (HasSchedule(report)) {
    text += Row("time to first token from schedule", summary.ttft_from_schedule) +
            Row("end to end from schedule", summary.e2el_from_schedule);
  }
  const std::string doubts = Doubts(report);
  return doubts.empty() ? text : text + "\n" + doubts;
}

std::string ReportToJson(const LoadReport& report, bool detailed) {
  const LoadSummary& summary = report.summary;
  nlohmann::ordered_json json;
  json["date"] = report.date;
  json["backend"] = "switchyard";
  json["model_id"] = report.model;
  json["address"] = report.address;
  json["num_prompts"] = report.shape.num_prompts;
  json["request_rate"] = RateToJson(report.shape.request_rate);
  json["burstiness"] = 1.0;
  json["max_concurrency"] = nullptr;
  if (report.options.max_concurrency > 0) json["max_concurrency"] = report.options.max_concurrency;
  json["seed"] = report.shape.seed;
  json["duration"] = summary.duration;
  json["completed"] = summary.completed;
  json["failed"] = summary.failed;
  json["total_input_tokens"] = summary.total_input_tokens;
  json["total_output_tokens"] = summary.total_output_tokens;
  json["request_throughput"] = summary.request_throughput();
  json["request_goodput"] = nullptr;
  if (report.limits.any()) json["request_goodput"] = summary.request_goodput();
  json["output_throughput"] = summary.output_throughput();
  json["total_token_throughput"] = summary.total_token_throughput();
  json["max_concurrent_requests"] = report.run.peak_concurrency;
  AddDistribution("ttft", summary.ttft, &json);
  AddDistribution("tpot", summary.tpot, &json);
  AddDistribution("itl", summary.itl, &json);
  AddDistribution("e2el", summary.e2el, &json);
  if (HasSchedule(report)) {
    AddDistribution("ttft_from_schedule", summary.ttft_from_schedule, &json);
    AddDistribution("e2el_from_schedule", summary.e2el_from_schedule, &json);
    AddDistribution("send_lag", summary.send_lag, &json);
  }
  json["errors_by_status"] = nlohmann::ordered_json::object();
  for (const auto& [code, count] : summary.errors) json["errors_by_status"][code] = count;
  json["client_cpu_seconds"] = report.run.cpu_seconds;
  if (detailed) AddRequests(report.run.records, &json);
  return json.dump(2) + "\n";
}

}  // namespace switchyard
