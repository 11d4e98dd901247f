#include "server/metrics/metric_families_builder.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>

namespace switchyard {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// HELP and TYPE of `family`, as they stand before its samples.
std::string Header(Family family, const std::string& type) {
  const FamilyInfo& info = InfoOf(family);
  const std::string name = info.name;
  return "# HELP " + name + " " + info.help + "\n# TYPE " + name + " " + type + "\n";
}

// The text of one gauge of the process, which has no label of its own.
std::string TextOf(double value) {
  MetricFamiliesBuilder families("m");
  families.Value(Family::kProcessThreads, value);
  const std::string text = std::move(families).Text();
  const std::string before = Header(Family::kProcessThreads, "gauge") + "process_threads ";
  EXPECT_EQ(text.substr(0, before.size()), before);
  return text.substr(before.size());
}

TEST(MetricFamiliesBuilderTest, NumbersAreDecimal) {
  EXPECT_EQ(TextOf(0.0), "0\n");
  EXPECT_EQ(TextOf(-1.0), "-1\n");
  EXPECT_EQ(TextOf(0.1), "0.1\n");
  EXPECT_EQ(TextOf(0.25), "0.25\n");
  EXPECT_EQ(TextOf(-2.5e-10), "-2.5e-10\n");
}

TEST(MetricFamiliesBuilderTest, WholeNumbersHaveAllTheirDigits) {
  EXPECT_EQ(TextOf(12000000.0), "12000000\n");
  EXPECT_EQ(TextOf(1234567890123.0), "1234567890123\n");
  EXPECT_EQ(TextOf(0x1p53 - 1), "9007199254740991\n");  // the last one before doubles skip some
}

TEST(MetricFamiliesBuilderTest, WhatIsNotFiniteIsSpelledAsScrapersReadIt) {
  EXPECT_EQ(TextOf(kInfinity), "+Inf\n");
  EXPECT_EQ(TextOf(-kInfinity), "-Inf\n");
  EXPECT_EQ(TextOf(std::nan("")), "Nan\n");  // NaN in any case is one to them
}

TEST(MetricFamiliesBuilderTest, LabelsFollowTheModelNameAndAreEscaped) {
  MetricFamiliesBuilder families("a \"model\" of\\two\nlines, ü");
  families.Value(Family::kSteps, 3.0, {{"label", "\"\\\n"}, {"empty", ""}});
  EXPECT_EQ(std::move(families).Text(),
            "# HELP switchyard_steps_total Engine steps.\n"
            "# TYPE switchyard_steps_total counter\n"
            "switchyard_steps_total{model_name=\"a \\\"model\\\" of\\\\two\\nlines, ü\","
            "label=\"\\\"\\\\\\n\",empty=\"\"} 3\n");
}

TEST(MetricFamiliesBuilderTest, FamiliesStandInTheOrderOfTheEnumAndSamplesInTheOrderOfTheCalls) {
  MetricFamiliesBuilder families("m");
  families.Value(Family::kProcessThreads, 5.0);
  families.Value(Family::kStepTokens, 2.0, {{"kind", "prefill"}});
  families.Value(Family::kProcessCpu, 0.5, {{"cpu", "\\"}});
  families.Value(Family::kReady, 1.0);
  families.Value(Family::kStepTokens, 1.0, {{"kind", "decode"}});
  EXPECT_EQ(std::move(families).Text(), Header(Family::kReady, "gauge") + "switchyard_ready{model_name=\"m\"} 1\n" +
                                            Header(Family::kStepTokens, "counter") +
                                            "switchyard_engine_tokens_total{model_name=\"m\",kind=\"prefill\"} 2\n"
                                            "switchyard_engine_tokens_total{model_name=\"m\",kind=\"decode\"} 1\n" +
                                            Header(Family::kProcessCpu, "counter") +
                                            "process_cpu_seconds_total{cpu=\"\\\\\"} 0.5\n" +
                                            Header(Family::kProcessThreads, "gauge") + "process_threads 5\n");
}

TEST(MetricFamiliesBuilderTest, HistogramsHaveCumulativeBucketsSumAndCount) {
  Histogram histogram(InfoOf(Family::kRequestPreemptions).edges);
  for (const double value : {0.0, 0.0, 1.0, 2.0, 1000.0}) histogram.Observe(value);
  MetricFamiliesBuilder families("m");
  families.Distribution(Family::kRequestPreemptions, histogram, {{"expert", "7"}});
  EXPECT_EQ(std::move(families).Text(),
            Header(Family::kRequestPreemptions, "histogram") +
                "switchyard_request_preemptions_count{model_name=\"m\",expert=\"7\"} 5\n"
                "switchyard_request_preemptions_sum{model_name=\"m\",expert=\"7\"} 1003\n"
                "switchyard_request_preemptions_bucket{model_name=\"m\",expert=\"7\",le=\"0\"} 2\n"
                "switchyard_request_preemptions_bucket{model_name=\"m\",expert=\"7\",le=\"1\"} 3\n"
                "switchyard_request_preemptions_bucket{model_name=\"m\",expert=\"7\",le=\"2\"} 4\n"
                "switchyard_request_preemptions_bucket{model_name=\"m\",expert=\"7\",le=\"3\"} 4\n"
                "switchyard_request_preemptions_bucket{model_name=\"m\",expert=\"7\",le=\"+Inf\"} 5\n");
}

TEST(MetricFamiliesBuilderTest, EveryHistogramHasABucketPerEdgeAndOneWithoutEnd) {
  for (int i = 0; i < static_cast<int>(Family::kNumFamilies); ++i) {
    const Family family = static_cast<Family>(i);
    const FamilyInfo& info = InfoOf(family);
    if (info.type != prometheus::MetricType::Histogram) continue;
    MetricFamiliesBuilder families("m");
    families.Distribution(family, Histogram(info.edges));
    const std::string text = std::move(families).Text();
    size_t buckets = 0;
    for (size_t at = text.find("_bucket{"); at != std::string::npos; at = text.find("_bucket{", at + 1)) ++buckets;
    EXPECT_EQ(buckets, info.edges.size() + 1) << info.name;
    EXPECT_NE(text.find("le=\"+Inf\"} 0\n"), std::string::npos) << text;
  }
}

TEST(MetricFamiliesBuilderTest, FamiliesWithoutSamplesAreNotNamed) { EXPECT_EQ(MetricFamiliesBuilder("m").Text(), ""); }

}  // namespace
}  // namespace switchyard
