#include "server/metrics/metrics_text.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>

namespace switchyard {
namespace {

constexpr double kWholeNumbers = 0x1p53;  // below it a double has every whole number

void AppendNumber(double number, std::string* out) {
  if (std::isnan(number)) {
    out->append("NaN");
    return;
  }
  if (std::isinf(number)) {
    out->append(number > 0 ? "+Inf" : "-Inf");
    return;
  }
  char digits[32];
  const bool whole = std::abs(number) < kWholeNumbers && number == std::trunc(number);
  const std::to_chars_result end = whole ? std::to_chars(digits, std::end(digits), static_cast<int64_t>(number))
                                         : std::to_chars(digits, std::end(digits), number, std::chars_format::general);
  out->append(digits, end.ptr);
}

// `quotes`: also those, which label values stand in.
void AppendEscaped(std::string_view text, bool quotes, std::string* out) {
  for (const char c : text) {
    if (c == '\\' || (quotes && c == '"')) {
      out->push_back('\\');
      out->push_back(c);
    } else if (c == '\n') {
      out->append("\\n");
    } else {
      out->push_back(c);
    }
  }
}

void AppendLabel(const Label& label, std::string* out) {
  out->append(label.name).append("=\"");
  AppendEscaped(label.value, true, out);
  out->push_back('"');
}

std::string ModelLabel(const std::string& model_name) {
  std::string label;
  AppendLabel({"model_name", model_name}, &label);
  return label;
}

void AppendSample(const std::string& head, double value, std::string* out) {
  out->append(head);
  if (head.find('{') != std::string::npos) out->push_back('}');
  out->push_back(' ');
  AppendNumber(value, out);
  out->push_back('\n');
}

const char* TypeName(MetricType type) {
  switch (type) {
    case MetricType::kCounter:
      return "counter";
    case MetricType::kGauge:
      return "gauge";
    case MetricType::kHistogram:
      return "histogram";
  }
  return "untyped";
}

}  // namespace

MetricsText::MetricsText(const std::string& model_name) : model_label_(ModelLabel(model_name)) {}

std::string MetricsText::Head(Family family, const char* suffix, Labels labels) const {
  std::string head = InfoOf(family).name;
  head.append(suffix);
  char before = '{';
  if (family < Family::kProcessCpu) {
    head.push_back(before);
    head.append(model_label_);
    before = ',';
  }
  for (const Label& label : labels) {
    head.push_back(before);
    AppendLabel(label, &head);
    before = ',';
  }
  return head;
}

void MetricsText::Value(Family family, double value, Labels labels) {
  AppendSample(Head(family, "", labels), value, &samples_[static_cast<size_t>(family)]);
}

void MetricsText::Distribution(Family family, const Histogram& histogram, Labels labels) {
  std::string& out = samples_[static_cast<size_t>(family)];
  uint64_t count = 0;
  for (const uint64_t in_bucket : histogram.counts()) count += in_bucket;
  AppendSample(Head(family, "_count", labels), static_cast<double>(count), &out);
  AppendSample(Head(family, "_sum", labels), histogram.sum(), &out);
  const std::string head = Head(family, "_bucket", labels);
  uint64_t cumulative = 0;
  for (size_t i = 0; i < histogram.counts().size(); ++i) {
    const bool last = i == histogram.edges().size();
    cumulative += histogram.counts()[i];
    out.append(head).append(",le=\"");
    AppendNumber(last ? std::numeric_limits<double>::infinity() : histogram.edges()[i], &out);
    out.append("\"} ");
    AppendNumber(static_cast<double>(cumulative), &out);
    out.push_back('\n');
  }
}

std::string MetricsText::Text() const {
  std::string text;
  size_t size = 0;
  for (const std::string& samples : samples_) size += samples.size() + 512;  // and HELP and TYPE
  text.reserve(size);
  for (size_t i = 0; i < samples_.size(); ++i) {
    if (samples_[i].empty()) continue;
    const FamilyInfo& info = InfoOf(static_cast<Family>(i));
    text.append("# HELP ").append(info.name).push_back(' ');
    AppendEscaped(info.help, false, &text);
    text.append("\n# TYPE ").append(info.name).push_back(' ');
    text.append(TypeName(info.type)).push_back('\n');
    text.append(samples_[i]);
  }
  return text;
}

}  // namespace switchyard
