// The providers of the experts' products side by side: each as the backend runs it, on rotating data, so that the L2
// cache does not hold the weights of the next call.
#ifndef SWITCHYARD_TESTS_BENCH_GPU_MOE_PROVIDERS_H_
#define SWITCHYARD_TESTS_BENCH_GPU_MOE_PROVIDERS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/bench/gpu/device.h"
#include "tests/bench/gpu/moe_cublas.h"
#include "tests/bench/gpu/moe_layer.h"
#include "tests/bench/gpu/routing.h"
#include "tests/bench/gpu/timing.h"

namespace switchyard::bench {

// kRoutingSets sets of weights of one layer, each with a draw of expert ids. Call number n uses set n % kRoutingSets.
class MoeProviders {
 public:
  MoeProviders(const Model& model, int64_t max_tokens);

  // What the calls from now on do: so many tokens, routed so; `tiles`: those that Kernel will be asked for, beside
  // those that the backend chooses.
  void Use(int64_t tokens, Skew skew, const std::vector<int>& tiles);

  const Model& model() const { return model_; }
  int64_t tokens() const { return tokens_; }
  Skew skew() const { return skew_; }
  int64_t rows() const { return tokens_ * model_.top_k; }
  double touched() const { return touched_; }  // experts with rows, on average over the sets
  double rows_per_expert() const { return static_cast<double>(rows()) / touched_; }
  // What the backend chooses.
  int chosen_tile(ExpertKernel kernel = ExpertKernel::kNative) const;
  std::string CaseName() const;

  // From the tokens' activations to the rows of the experts, without Combine. Views of this object.
  Candidate Kernel(ExpertKernel kernel, int tile);
  // Of the device; native first.
  static std::vector<ExpertKernel> Kernels();
  // Those that take so many tokens.
  std::vector<Candidate> Libraries();
  // All of them with the tiles that the backend chooses, named as in cuda::kExpertGemmKinds.
  std::vector<Candidate> Providers();
  // rel-L2 of the layer with such products.
  double ErrorOf(const Candidate& provider, int call);

  void Route(int call, int tile);  // and groups
  void GateUp(int call, int tile, ExpertKernel kernel = ExpertKernel::kNative) {
    RunGateUp(ExpertsOf(call), &BatchOf(call), rows(), tile, &buffers_, kernel);
  }
  void Down(int call, int tile, ExpertKernel kernel = ExpertKernel::kNative) {
    RunDown(ExpertsOf(call), &BatchOf(call), rows(), tile, &buffers_, kernel);
  }
  void Combine(int call) { RunCombine(model_, BatchOf(call), BatchOf(call).weights(), tokens_, &buffers_); }

 private:
  const ExpertMatrices& ExpertsOf(int call) const { return experts_[static_cast<size_t>(call % kRoutingSets)]; }
  RoutedBatch& BatchOf(int call) const { return *batches_[static_cast<size_t>(call % kRoutingSets)]; }

  const Model model_;
  MoeBuffers buffers_;
  std::vector<ExpertMatrices> experts_;
  std::vector<std::unique_ptr<RoutedBatch>> batches_;
  Array<uint16_t> scratch_;
  CublasGrouped grouped_;
  int64_t tokens_ = 0;
  Skew skew_ = Skew::kUniform;
  double touched_ = 0.0;
};

}  // namespace switchyard::bench

#endif  // SWITCHYARD_TESTS_BENCH_GPU_MOE_PROVIDERS_H_
