// Who goes to which expert: drawn on the host by a generator of our own, so that every program gets the same ids.
#ifndef SWITCHYARD_TESTS_BENCH_GPU_ROUTING_H_
#define SWITCHYARD_TESTS_BENCH_GPU_ROUTING_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tests/bench/gpu/models.h"

namespace switchyard::bench {

// splitmix64.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() {
    uint64_t x = state_ += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
  }
  double Uniform() { return static_cast<double>(Next() >> 11) * 0x1p-53; }  // [0, 1)
  int64_t Below(int64_t limit) { return static_cast<int64_t>(Next() % static_cast<uint64_t>(limit)); }

 private:
  uint64_t state_;
};

enum class Skew { kUniform, kZipf };
inline const char* SkewName(Skew skew) { return skew == Skew::kUniform ? "uniform" : "zipf"; }

// [num_tokens][top_k], distinct per token. Zipf: expert popularity is 1 / rank, ranks drawn once per `set`.
struct RoutingDraw {
  std::vector<int32_t> ids;
  std::vector<float> weights;  // sum to 1 per token
};
RoutingDraw DrawRouting(const Model& model, int64_t num_tokens, Skew skew, int set);

int64_t CountTouched(const std::vector<int32_t>& ids, int32_t num_experts);

// Numbers of tokens that the MoE section measures.
std::vector<int64_t> MoeTokens(bool quick);
inline constexpr int kRoutingSets = 4;

// Writes the ids of all cases as DIR/MODEL_TOKENS_SKEW.i32: int32 [kRoutingSets][tokens][top_k].
void WriteRoutings(const std::string& folder);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_TESTS_BENCH_GPU_ROUTING_H_
