// Prometheus' text format, version 0.0.4: samples go straight into one string per family.
//
// A scrape of 32 layers of 128 experts has 7,000 lines, and on a server without a GPU every millisecond that they take
// is a millisecond less for the engine. So there is no tree of metrics in between, and no stream.
//
// A number is written as the shortest text that reads back as the same double; whole numbers without an exponent.
#ifndef SWITCHYARD_SERVER_METRICS_METRICS_TEXT_H_
#define SWITCHYARD_SERVER_METRICS_METRICS_TEXT_H_

#include <array>
#include <initializer_list>
#include <string>
#include <string_view>

#include "server/metrics/families.h"
#include "server/metrics/histogram.h"

namespace switchyard {

struct Label {
  std::string_view name;
  std::string_view value;  // any text: what the format cannot hold is escaped
};
using Labels = std::initializer_list<Label>;

class MetricsText {
 public:
  explicit MetricsText(const std::string& model_name);

  // REQUIRES: `family` is a counter or a gauge.
  void Value(Family family, double value, Labels labels = {});
  // REQUIRES: `family` is a histogram with these edges.
  void Distribution(Family family, const Histogram& histogram, Labels labels = {});

  // All families with samples, in the order of the enum, each after its HELP and TYPE.
  std::string Text() const;

 private:
  // `name{labels` without what closes it; the model's name comes first, but not on process_*.
  std::string Head(Family family, const char* suffix, Labels labels) const;

  const std::string model_label_;  // model_name="...", escaped
  std::array<std::string, static_cast<size_t>(Family::kNumFamilies)> samples_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_METRICS_METRICS_TEXT_H_
