#include "server/metrics/metrics_text.h"

#include <gtest/gtest.h>
#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <cmath>
#include <cstdlib>
#include <limits>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace switchyard {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr const char* kOddName = "a \"model\" of\\two\nlines, ü";

// The family as the library prometheus-cpp holds it, without samples.
prometheus::MetricFamily Expected(Family family) {
  const FamilyInfo& info = InfoOf(family);
  const prometheus::MetricType type = info.type == MetricType::kCounter ? prometheus::MetricType::Counter
                                      : info.type == MetricType::kGauge ? prometheus::MetricType::Gauge
                                                                        : prometheus::MetricType::Histogram;
  return {info.name, info.help, type, {}};
}

struct Line {
  std::string series;  // all of a comment
  double value = 0.0;
};

std::vector<Line> Lines(const std::string& text) {
  std::vector<Line> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) {
    const size_t space = line[0] == '#' ? line.size() : line.rfind(' ');
    const std::string value = space < line.size() ? line.substr(space + 1) : "0";
    char* end = nullptr;
    lines.push_back({line.substr(0, space), std::strtod(value.c_str(), &end)});
    EXPECT_EQ(*end, '\0') << line;
  }
  return lines;
}

// The same lines in the same order; a number may be written in another way, but is the same double.
void ExpectSame(const std::string& text, const std::vector<prometheus::MetricFamily>& families) {
  const std::vector<Line> lines = Lines(text);
  const std::vector<Line> expected = Lines(prometheus::TextSerializer().Serialize(families));
  ASSERT_EQ(lines.size(), expected.size()) << text;
  for (size_t i = 0; i < lines.size(); ++i) {
    EXPECT_EQ(lines[i].series, expected[i].series);
    const bool both_nan = std::isnan(lines[i].value) && std::isnan(expected[i].value);
    EXPECT_TRUE(both_nan || lines[i].value == expected[i].value)
        << lines[i].series << ": " << lines[i].value << ", expected " << expected[i].value;
  }
}

TEST(MetricsTextTest, NumbersReadBackAsTheyWere) {
  const std::vector<double> values = {
      0.0,    1.0,        -1.0, 0.1,      1.0 / 3,   1e-7,       5e-324,      1.5e308, 1e6, 123456789,
      0x1p53, 0x1p53 + 2, 1e22, -2.5e-10, kInfinity, -kInfinity, std::nan("")};
  MetricsText text("m");
  prometheus::MetricFamily expected = Expected(Family::kKvCacheUsage);
  for (size_t i = 0; i < values.size(); ++i) {
    const std::string number = std::to_string(i);
    text.Value(Family::kKvCacheUsage, values[i], {{"number", number}});
    prometheus::ClientMetric& metric = expected.metric.emplace_back();
    metric.label = {{"model_name", "m"}, {"number", number}};
    metric.gauge.value = values[i];
  }
  ExpectSame(text.Text(), {expected});
}

TEST(MetricsTextTest, WholeNumbersHaveNoExponent) {
  MetricsText text("m");
  text.Value(Family::kSteps, 12000000.0);
  EXPECT_NE(text.Text().find("switchyard_steps_total{model_name=\"m\"} 12000000\n"), std::string::npos);
}

TEST(MetricsTextTest, LabelsAreEscaped) {
  MetricsText text(kOddName);
  text.Value(Family::kSteps, 3.0, {{"label", "\"\\\n"}, {"empty", ""}});
  text.Value(Family::kProcessThreads, 5.0);
  text.Value(Family::kProcessCpu, 0.5, {{"cpu", "\\"}});
  prometheus::MetricFamily steps = Expected(Family::kSteps);
  steps.metric.emplace_back().label = {{"model_name", kOddName}, {"label", "\"\\\n"}, {"empty", ""}};
  steps.metric[0].counter.value = 3.0;
  prometheus::MetricFamily cpu = Expected(Family::kProcessCpu);
  cpu.metric.emplace_back().label = {{"cpu", "\\"}};
  cpu.metric[0].counter.value = 0.5;
  prometheus::MetricFamily threads = Expected(Family::kProcessThreads);
  threads.metric.emplace_back().gauge.value = 5.0;
  // In the order of the enum, not of the calls.
  ExpectSame(text.Text(), {steps, cpu, threads});
}

TEST(MetricsTextTest, HistogramsHaveCumulativeBucketsSumAndCount) {
  MetricsText text("m");
  std::vector<prometheus::MetricFamily> families;
  for (int i = 0; i < static_cast<int>(Family::kNumFamilies); ++i) {
    const Family family = static_cast<Family>(i);
    const FamilyInfo& info = InfoOf(family);
    if (info.type != MetricType::kHistogram) continue;
    Histogram histogram(info.edges);
    for (const double value : {0.0, 1e-6, 0.02, 0.02, 1.0, 1.5, 1e9}) histogram.Observe(value);
    text.Distribution(family, histogram, {{"expert", "7"}});

    prometheus::MetricFamily& expected = families.emplace_back(Expected(family));
    prometheus::ClientMetric& metric = expected.metric.emplace_back();
    metric.label = {{"model_name", "m"}, {"expert", "7"}};
    metric.histogram.sample_sum = histogram.sum();
    for (size_t bucket = 0; bucket <= info.edges.size(); ++bucket) {
      metric.histogram.sample_count += histogram.counts()[bucket];
      const double edge = bucket < info.edges.size() ? info.edges[bucket] : kInfinity;
      metric.histogram.bucket.push_back({metric.histogram.sample_count, edge});
    }
    EXPECT_EQ(metric.histogram.sample_count, 7u);
  }
  ASSERT_GT(families.size(), 10u);
  ExpectSame(text.Text(), families);
}

TEST(MetricsTextTest, FamiliesWithoutSamplesAreNotNamed) { EXPECT_EQ(MetricsText("m").Text(), ""); }

}  // namespace
}  // namespace switchyard
