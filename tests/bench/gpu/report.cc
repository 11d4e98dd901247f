#include "tests/bench/gpu/report.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "tests/bench/gpu/json_text.h"

namespace switchyard::bench {
namespace {

std::string ToJson(const Result& r) {
  std::string json = "  {\"section\": " + Quoted(r.section) + Field("name", r.name) + Field("provider", r.provider) +
                     Field("us", r.us.median) + Field("us_p10", r.us.p10) + Field("us_p90", r.us.p90) +
                     Field("samples", r.us.samples) + Field("bytes", r.bytes) + Field("flops", r.flops) +
                     Field("floor_us", r.floor_us) + Field("share_of_floor", r.floor_us / r.us.median);
  if (!r.targets.goal.empty()) {
    json += Field("baseline", r.targets.baseline) + Field("state_of_the_art", r.targets.state_of_the_art) +
            Field("goal", r.targets.goal);
  }
  for (const auto& [name, value] : r.more) json += Field(name, value);
  return json + "}";
}

}  // namespace

double Limits::FloorUs(double bytes, double flop) const {
  if (bandwidth <= 0.0 || flops <= 0.0) return 0.0;
  return 1e6 * std::max(bytes / bandwidth, flop / flops);
}

void Report::Heading(const std::string& section) {
  if (!print_) return;
  std::printf("\n%-42s %-16s %9s %8s %8s %6s %6s %6s %9s | %8s %9s %9s\n", section.c_str(), "provider", "us", "p10",
              "p90", "TB/s", "TFLOP", "floor", "tok/s", "baseline", "state/art", "goal");
}

void Report::Add(Result r) {
  if (print_) {
    const double seconds = 1e-6 * r.us.median;
    char share[16] = "", rate[16] = "";
    if (r.floor_us > 0.0) std::snprintf(share, sizeof(share), "%.0f%%", 100.0 * r.floor_us / r.us.median);
    for (const auto& [name, value] : r.more) {
      if (name == "tokens_per_second") std::snprintf(rate, sizeof(rate), "%.0f", value);
    }
    std::printf("%-42s %-16s %9.2f %8.2f %8.2f %6.2f %6.0f %6s %9s | %8s %9s %9s\n", r.name.c_str(),
                r.provider.c_str(), r.us.median, r.us.p10, r.us.p90, r.bytes / seconds / 1e12,
                r.flops / seconds / 1e12, share, rate, r.targets.baseline.c_str(),
                r.targets.state_of_the_art.c_str(), r.targets.goal.c_str());
    std::fflush(stdout);
  }
  results_.push_back(std::move(r));
}

void Report::WriteJson(const std::string& file, const std::string& device, const Limits& limits,
                       const std::string& command) const {
  std::ofstream out(file);
  out << "{\"device\": " << Quoted(device) << Field("date", Date()) << Field("command", command)
      << Field("bandwidth", limits.bandwidth) << Field("flops", limits.flops) << ", \"results\": [\n";
  for (size_t i = 0; i < results_.size(); ++i) out << (i == 0 ? "" : ",\n") << ToJson(results_[i]);
  out << "\n]}\n";
  out.flush();
  if (out) return;
  std::fprintf(stderr, "cannot write %s\n", file.c_str());
  std::exit(1);
}

}  // namespace switchyard::bench
