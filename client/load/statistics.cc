#include "client/load/statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace switchyard {
namespace {

double Tpot(const RequestRecord& record) {
  return (record.last_token - record.first_token) / static_cast<double>(record.output_tokens - 1);
}

bool IsGood(const RequestRecord& record, const GoodputLimits& limits) {
  if (limits.ttft && record.first_token - record.sent > *limits.ttft) return false;
  if (limits.tpot && record.output_tokens > 1 && Tpot(record) > *limits.tpot) return false;
  return !limits.e2el || record.ended - record.sent <= *limits.e2el;
}

}  // namespace

void AddTokens(double now, int64_t num_tokens, RequestRecord* record) {
  if (num_tokens <= 0) return;
  const bool is_first = record->output_tokens == 0;
  if (is_first) {
    record->first_token = now;
    record->gaps.insert(record->gaps.end(), static_cast<size_t>(num_tokens - 1), 0.0);
  } else {
    const double gap = (now - record->last_token) / static_cast<double>(num_tokens);
    record->gaps.insert(record->gaps.end(), static_cast<size_t>(num_tokens), gap);
  }
  record->last_token = now;
  record->output_tokens += num_tokens;
}

double Percentile(const std::vector<double>& sorted, double percent) {
  const double place = percent / 100 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

Distribution DistributionOf(std::vector<double> values) {
  Distribution distribution;
  if (values.empty()) return distribution;
  std::sort(values.begin(), values.end());
  const auto count = static_cast<double>(values.size());
  distribution.count = static_cast<int64_t>(values.size());
  distribution.mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double squares = 0;
  for (const double value : values) squares += (value - distribution.mean) * (value - distribution.mean);
  distribution.stddev = std::sqrt(squares / count);
  distribution.p50 = Percentile(values, 50);
  distribution.p90 = Percentile(values, 90);
  distribution.p99 = Percentile(values, 99);
  distribution.max = values.back();
  return distribution;
}

LoadSummary Summarize(const std::vector<RequestRecord>& records, double duration, const GoodputLimits& limits) {
  LoadSummary summary;
  summary.duration = duration;
  std::vector<double> ttft, tpot, itl, e2el, ttft_from_schedule, e2el_from_schedule, send_lag;
  for (const RequestRecord& record : records) {
    send_lag.push_back(record.sent - record.scheduled);
    if (!record.status.ok()) {
      ++summary.failed;
      ++summary.errors[absl::StatusCodeToString(record.status.code())];
      continue;
    }
    ++summary.completed;
    summary.good += IsGood(record, limits) ? 1 : 0;
    summary.total_input_tokens += record.prompt_tokens;
    summary.total_output_tokens += record.output_tokens;
    e2el.push_back(record.ended - record.sent);
    e2el_from_schedule.push_back(record.ended - record.scheduled);
    if (record.output_tokens == 0) continue;
    ttft.push_back(record.first_token - record.sent);
    ttft_from_schedule.push_back(record.first_token - record.scheduled);
    if (record.output_tokens > 1) tpot.push_back(Tpot(record));
    itl.insert(itl.end(), record.gaps.begin(), record.gaps.end());
  }
  summary.ttft = DistributionOf(std::move(ttft));
  summary.tpot = DistributionOf(std::move(tpot));
  summary.itl = DistributionOf(std::move(itl));
  summary.e2el = DistributionOf(std::move(e2el));
  summary.ttft_from_schedule = DistributionOf(std::move(ttft_from_schedule));
  summary.e2el_from_schedule = DistributionOf(std::move(e2el_from_schedule));
  summary.send_lag = DistributionOf(std::move(send_lag));
  return summary;
}

}  // namespace switchyard
