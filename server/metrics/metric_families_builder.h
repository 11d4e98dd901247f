// Collects the families of one scrape for prometheus-cpp, whose serializer writes them in Prometheus' text format,
// version 0.0.4.
//
// A scrape of 32 layers of 128 experts has 7,000 lines. Each label and bucket is built once, where the serializer reads
// it, and nothing is copied in between.
#ifndef SWITCHYARD_SERVER_METRICS_METRIC_FAMILIES_BUILDER_H_
#define SWITCHYARD_SERVER_METRICS_METRIC_FAMILIES_BUILDER_H_

#include <prometheus/metric_family.h>

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "server/metrics/families.h"
#include "server/metrics/histogram.h"

namespace switchyard {

struct Label {
  std::string_view name;
  std::string_view value;  // any text: what the format cannot hold is escaped
};
using Labels = std::initializer_list<Label>;

class MetricFamiliesBuilder {
 public:
  // The label model_name comes first, on all but process_*.
  explicit MetricFamiliesBuilder(std::string model_name);

  // REQUIRES: `family` is a counter or a gauge.
  void Value(Family family, double value, Labels labels = {});
  // REQUIRES: `family` is a histogram with these edges.
  void Distribution(Family family, const Histogram& histogram, Labels labels = {});

  // All families with samples, in the order of the enum, each after its HELP and TYPE. Uses the samples up.
  std::string Text() &&;

 private:
  prometheus::ClientMetric& Add(Family family, Labels labels);

  const std::string model_name_;
  std::vector<prometheus::MetricFamily> families_;  // [kNumFamilies], named with the first sample
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_METRICS_METRIC_FAMILIES_BUILDER_H_
