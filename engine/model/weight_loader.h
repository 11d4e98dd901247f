// Pulls the weights of one model through the backend, layer by layer: the parts that models of every shape have.
#ifndef SWITCHYARD_ENGINE_MODEL_WEIGHT_LOADER_H_
#define SWITCHYARD_ENGINE_MODEL_WEIGHT_LOADER_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/backend/backend.h"
#include "engine/checkpoint/weights.h"
#include "engine/config/model_config.h"
#include "engine/moe/moe_layer.h"

namespace switchyard {

struct NormWeights {
  std::unique_ptr<Weight> weight;
  std::unique_ptr<Weight> bias;  // null unless the config has norm biases
};

// The readers of one MoE layer's experts.
std::vector<ExpertReaders> FindExperts(const MoeConfig& moe, const Weights& weights, int layer);

// All calls that load: INVALID_ARGUMENT, DATA_LOSS and RESOURCE_EXHAUSTED as LoadLanguageModel.
// REQUIRES: the config calls for the weights that are asked for.
class WeightLoader {
 public:
  // All outlive this.
  WeightLoader(const ModelConfig& config, const Weights& weights, DType dtype, Backend* backend)
      : config_(config), weights_(weights), dtype_(dtype), backend_(backend) {}

  int64_t bytes() const { return bytes_; }                  // of all that was loaded, in device memory
  int64_t num_nonfinite() const { return num_nonfinite_; }

  absl::StatusOr<std::unique_ptr<Weight>> Load(WeightName name, WeightUse use, int layer = -1);
  // With its bias, if there is one.
  absl::StatusOr<std::unique_ptr<Weight>> LoadBiased(WeightName name, WeightName bias, bool has_bias, int layer);
  absl::StatusOr<NormWeights> LoadNorm(WeightName weight, WeightName bias, int layer = -1);
  absl::StatusOr<std::unique_ptr<Weight>> LoadHead();

  absl::StatusOr<std::unique_ptr<Weight>> LoadStacked(WeightName first, WeightName second, int layer);
  absl::StatusOr<std::unique_ptr<Weight>> LoadQkv(int layer);
  absl::StatusOr<std::unique_ptr<Weight>> LoadOutput(int layer);  // of attention
  absl::StatusOr<GatedMlp> LoadMlp(WeightName gate, WeightName up, WeightName down, int32_t width, int layer);
  absl::StatusOr<PlainMlp> LoadPlainMlp(int layer);
  absl::StatusOr<std::unique_ptr<MoeLayer>> LoadMoeLayer(int layer, int32_t max_tokens);

  // One matrix of several, one below the other; biases as Backend::LoadWeight.
  absl::StatusOr<std::unique_ptr<Weight>> Stack(const std::vector<const TensorReader*>& parts,
                                                const std::vector<const TensorReader*>& biases, WeightUse use);

 protected:
  const TensorReader* Find(WeightName name, int layer) const { return weights_.Find(name, layer); }
  const Weights& weights() const { return weights_; }
  Backend* backend() const { return backend_; }

 private:
  absl::StatusOr<MoeLayerWeights> LoadMoe(const MoeConfig& moe, int layer);

  const ModelConfig& config_;
  const Weights& weights_;
  const DType dtype_;
  Backend* const backend_;
  int64_t bytes_ = 0;
  int64_t num_nonfinite_ = 0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_MODEL_WEIGHT_LOADER_H_
