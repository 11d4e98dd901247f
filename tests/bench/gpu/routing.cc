#include "tests/bench/gpu/routing.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <numeric>

namespace switchyard::bench {
namespace {

// Cumulative popularity of the experts.
std::vector<double> Popularity(int32_t num_experts, Skew skew, Random* random) {
  std::vector<int32_t> ranks(static_cast<size_t>(num_experts));
  std::iota(ranks.begin(), ranks.end(), 1);
  for (size_t i = ranks.size() - 1; i > 0; --i) {
    std::swap(ranks[i], ranks[static_cast<size_t>(random->Below(static_cast<int64_t>(i) + 1))]);
  }
  std::vector<double> sums;
  double sum = 0.0;
  for (const int32_t rank : ranks) sums.push_back(sum += skew == Skew::kZipf ? 1.0 / rank : 1.0);
  return sums;
}

int32_t DrawExpert(const std::vector<double>& sums, Random* random) {
  const double at = random->Uniform() * sums.back();
  const auto found = std::upper_bound(sums.begin(), sums.end(), at);
  return static_cast<int32_t>(std::min<int64_t>(found - sums.begin(), static_cast<int64_t>(sums.size()) - 1));
}

}  // namespace

RoutingDraw DrawRouting(const Model& model, int64_t num_tokens, Skew skew, int set) {
  Random random(static_cast<uint64_t>(num_tokens * 1000 + set * 10 + (skew == Skew::kZipf ? 1 : 0)));
  const std::vector<double> sums = Popularity(model.num_experts, skew, &random);
  RoutingDraw draw;
  for (int64_t t = 0; t < num_tokens; ++t) {
    const size_t first = draw.ids.size();
    float total = 0.0f;
    while (draw.ids.size() < first + static_cast<size_t>(model.top_k)) {
      const int32_t expert = DrawExpert(sums, &random);
      if (std::find(draw.ids.begin() + static_cast<int64_t>(first), draw.ids.end(), expert) != draw.ids.end()) continue;
      draw.ids.push_back(expert);
      draw.weights.push_back(0.1f + static_cast<float>(random.Uniform()));
      total += draw.weights.back();
    }
    for (size_t j = first; j < draw.weights.size(); ++j) draw.weights[j] /= total;
  }
  return draw;
}

int64_t CountTouched(const std::vector<int32_t>& ids, int32_t num_experts) {
  std::vector<bool> touched(static_cast<size_t>(num_experts));
  for (const int32_t id : ids) touched[static_cast<size_t>(id)] = true;
  return std::count(touched.begin(), touched.end(), true);
}

std::vector<int64_t> MoeTokens(bool quick) {
  if (quick) return {1, 8, 32, 128, 8192};
  return {1, 2, 4, 8, 16, 32, 64, 128, 512, 1024, 4096, 8192};
}

void WriteRoutings(const std::string& folder) {
  for (const Model& model : Models("")) {
    for (const int64_t tokens : MoeTokens(false)) {
      for (const Skew skew : {Skew::kUniform, Skew::kZipf}) {
        const std::string name =
            folder + "/" + model.name + "_" + std::to_string(tokens) + "_" + SkewName(skew) + ".i32";
        std::ofstream file(name, std::ios::binary);
        for (int set = 0; set < kRoutingSets; ++set) {
          const std::vector<int32_t> ids = DrawRouting(model, tokens, skew, set).ids;
          file.write(reinterpret_cast<const char*>(ids.data()), static_cast<std::streamsize>(ids.size() * 4));
        }
        if (file) continue;
        std::fprintf(stderr, "cannot write %s\n", name.c_str());
        std::exit(1);
      }
    }
  }
}

}  // namespace switchyard::bench
