#include "server/metrics/metric_families_builder.h"

#include <prometheus/text_serializer.h>

#include <limits>
#include <sstream>
#include <utility>

namespace switchyard {

MetricFamiliesBuilder::MetricFamiliesBuilder(std::string model_name)
    : model_name_(std::move(model_name)), families_(static_cast<size_t>(Family::kNumFamilies)) {}

prometheus::ClientMetric& MetricFamiliesBuilder::Add(Family family, Labels labels) {
  prometheus::MetricFamily& to = families_[static_cast<size_t>(family)];
  if (to.metric.empty()) {
    const FamilyInfo& info = InfoOf(family);
    to.name = info.name;
    to.help = info.help;
    to.type = info.type;
  }
  prometheus::ClientMetric& metric = to.metric.emplace_back();
  metric.label.reserve(labels.size() + 1);
  if (family < Family::kProcessCpu) metric.label.push_back({"model_name", model_name_});
  for (const Label& label : labels) metric.label.push_back({std::string(label.name), std::string(label.value)});
  return metric;
}

void MetricFamiliesBuilder::Value(Family family, double value, Labels labels) {
  prometheus::ClientMetric& metric = Add(family, labels);
  if (InfoOf(family).type == prometheus::MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
}

void MetricFamiliesBuilder::Distribution(Family family, const Histogram& histogram, Labels labels) {
  prometheus::ClientMetric::Histogram& out = Add(family, labels).histogram;
  out.bucket.reserve(histogram.counts().size());
  for (size_t i = 0; i < histogram.counts().size(); ++i) {
    out.sample_count += histogram.counts()[i];
    const bool last = i == histogram.edges().size();
    out.bucket.push_back({out.sample_count, last ? std::numeric_limits<double>::infinity() : histogram.edges()[i]});
  }
  out.sample_sum = histogram.sum();
}

std::string MetricFamiliesBuilder::Text() && {
  // The serializer would name families without samples, too.
  std::erase_if(families_, [](const prometheus::MetricFamily& family) { return family.metric.empty(); });
  std::ostringstream text;
  prometheus::TextSerializer().Serialize(text, families_);
  return std::move(text).str();
}

}  // namespace switchyard
