#include "tests/bench/gpu/moe_providers.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "engine/backend/cuda/expert_gemm_kinds.h"
#include "engine/backend/cuda/wgmma_layout.h"

namespace switchyard::bench {

MoeProviders::MoeProviders(const Model& model, int64_t max_tokens)
    : model_(model), buffers_(model, max_tokens), grouped_(model.num_experts) {
  for (int set = 0; set < kRoutingSets; ++set) {
    experts_.emplace_back(model, static_cast<uint64_t>(set) + 1);
    batches_.push_back(std::make_unique<RoutedBatch>(model, max_tokens));
  }
  scratch_ = Array<uint16_t>(std::max(
      CublasGrouped::ScratchElements(experts_[0], max_tokens * model.top_k),
      PaddedScratchElements(experts_[0], std::min(max_tokens, cuda::kMaxPaddedTokens))));
}

void MoeProviders::Use(int64_t tokens, Skew skew, const std::vector<int>& tiles) {
  tokens_ = tokens;
  skew_ = skew;
  touched_ = 0.0;
  for (int set = 0; set < kRoutingSets; ++set) {
    RoutedBatch& batch = BatchOf(set);
    batch.Use(DrawRouting(model_, tokens, skew, set));
    touched_ += static_cast<double>(CountTouched(batch.draw().ids, model_.num_experts)) / kRoutingSets;
    for (const int tile : tiles) batch.Group(tile);
    for (const ExpertKernel kernel : Kernels()) batch.Group(chosen_tile(kernel));
  }
  Synchronize();
}

std::string MoeProviders::CaseName() const {
  return model_.name + " T=" + std::to_string(tokens_) + " " + SkewName(skew_);
}

int MoeProviders::chosen_tile(ExpertKernel kernel) const {
  return kernel == ExpertKernel::kWgmma ? cuda::ChooseWgmmaTileTokens(rows(), model_.num_experts)
                                        : cuda::ChooseTileTokens(rows(), model_.num_experts);
}

std::vector<ExpertKernel> MoeProviders::Kernels() {
  if (TheDevice().has_wgmma) return {ExpertKernel::kNative, ExpertKernel::kWgmma};
  return {ExpertKernel::kNative};
}

Candidate MoeProviders::Kernel(ExpertKernel kernel, int tile) {
  return {kernel == ExpertKernel::kWgmma ? "wgmma" : "native", [this, kernel, tile](int call) {
            GateUp(call, tile, kernel);
            Down(call, tile, kernel);
          }};
}

std::vector<Candidate> MoeProviders::Providers() {
  std::vector<Candidate> providers;
  for (const ExpertKernel kernel : Kernels()) providers.push_back(Kernel(kernel, chosen_tile(kernel)));
  std::vector<Candidate> libraries = Libraries();
  std::move(libraries.begin(), libraries.end(), std::back_inserter(providers));
  return providers;
}

std::vector<Candidate> MoeProviders::Libraries() {
  std::vector<Candidate> libraries;
  libraries.push_back({"cublas_grouped",
                       [this](int call) {
                         grouped_.Run(ExpertsOf(call), &BatchOf(call), chosen_tile(), &buffers_, scratch_.get());
                       },
                       /*graph=*/false});
  if (tokens_ <= cuda::kMaxPaddedTokens) {
    libraries.push_back({"cublas_padded", [this](int call) {
                           RunCublasPadded(ExpertsOf(call), &BatchOf(call), chosen_tile(), &buffers_, scratch_.get());
                         }});
  }
  return libraries;
}

double MoeProviders::ErrorOf(const Candidate& provider, int call) {
  buffers_.ResetX();
  buffers_.PoisonRows();
  provider.run(call);
  Combine(call);
  Synchronize();
  return MoeError(model_, ExpertsOf(call), BatchOf(call), buffers_);
}

void MoeProviders::Route(int call, int tile) {
  RunRoute(model_, ExpertsOf(call), tokens_, &buffers_);
  BatchOf(call).Group(tile);
}

}  // namespace switchyard::bench
