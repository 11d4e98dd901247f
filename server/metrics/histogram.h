// A histogram over fixed edges: counts per bucket and the sum. Not thread-safe.
#ifndef SWITCHYARD_SERVER_METRICS_HISTOGRAM_H_
#define SWITCHYARD_SERVER_METRICS_HISTOGRAM_H_

#include <cstdint>
#include <span>
#include <vector>

namespace switchyard {

class Histogram {
 public:
  // `edges`: ascending upper bounds; values above the last one count in a bucket of their own. Must outlive this.
  explicit Histogram(std::span<const double> edges) : edges_(edges), counts_(edges.size() + 1) {}

  // Linear: most values land in the first few buckets, and the edges fit into two cache lines.
  void Observe(double value) {
    size_t bucket = 0;
    while (bucket < edges_.size() && value > edges_[bucket]) ++bucket;
    ++counts_[bucket];
    sum_ += value;
  }

  std::span<const double> edges() const { return edges_; }
  const std::vector<uint64_t>& counts() const { return counts_; }  // [edges + 1], not cumulative
  double sum() const { return sum_; }

 private:
  std::span<const double> edges_;
  std::vector<uint64_t> counts_;
  double sum_ = 0.0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_METRICS_HISTOGRAM_H_
