// Puts the counters of one scrape, a copy of them, into families.
#ifndef SWITCHYARD_SERVER_METRICS_METRICS_PAGE_H_
#define SWITCHYARD_SERVER_METRICS_METRICS_PAGE_H_

#include <cstdint>
#include <string>

#include "server/metrics/metric_families_builder.h"
#include "server/metrics/serving_counters.h"

namespace switchyard {

class MetricsPage : public MetricFamiliesBuilder {
 public:
  using MetricFamiliesBuilder::MetricFamiliesBuilder;

  // Queue, KV cache and finished requests.
  void Requests(const ServingCounters& s);
  void Steps(const ServingCounters& s);
  // Nothing before the model is loaded; else as much as the counters' detail allows.
  void Experts(const ServingCounters& s);
  // `start_time_seconds`: since the Unix epoch.
  void Process(double start_time_seconds);

 private:
  void Layer(const ServingCounters& s, int32_t layer);
  void BusiestExperts(const ServingCounters& s, int32_t layer, const std::string& name);
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_METRICS_METRICS_PAGE_H_
