#include "tests/engine/model/planted/broken_backends.h"

#include <algorithm>
#include <limits>
#include <map>
#include <numeric>
#include <optional>
#include <vector>

#include "engine/base/status_macros.h"
#include "tests/support/forwarding_backend.h"

namespace switchyard::testing {
namespace {

// Asks the other backend for the scores of all experts and chooses among them itself.
class BrokenRouter final : public ForwardingBackend {
 public:
  BrokenRouter(Backend* inner, RouterFault fault) : ForwardingBackend(inner), fault_(fault) {}

  absl::StatusOr<std::unique_ptr<Weight>> LoadWeight(std::span<const TensorReader* const> parts,
                                                     std::span<const TensorReader* const> biases, DType dtype,
                                                     WeightUse use) override {
    ASSIGN_OR_RETURN(std::unique_ptr<Weight> weight, inner_->LoadWeight(parts, biases, dtype, use));
    if (use == WeightUse::kVector) {
      std::vector<float>& values = vectors_[weight.get()];
      values.resize(static_cast<size_t>(parts[0]->cols()));
      RETURN_IF_ERROR(parts[0]->ReadRows(0, 1, DType::kF32, values.data()));
    }
    return weight;
  }

  absl::StatusOr<Routing> AllocateRouting(int32_t max_tokens, const RouterConfig& config) override {
    ASSIGN_OR_RETURN(Routing routing, inner_->AllocateRouting(max_tokens, config));
    ASSIGN_OR_RETURN(all_[routing.expert_ids], inner_->AllocateRouting(max_tokens, ScoresOfAll(config)));
    return routing;
  }

  void Route(Matrix in, const Weight& router, const RouterConfig& config, Routing* routing) override {
    inner_->Route(in, router, config, routing);
    Routing& all = all_.at(routing->expert_ids);
    inner_->Route(in, router, ScoresOfAll(config), &all);
    CHECK(inner_->Wait().ok());
    const std::vector<float>& bias = vectors_.at(config.choice_bias);
    for (int32_t t = 0; t < routing->num_tokens; ++t) {
      std::vector<float> scores(bias.size());
      for (size_t i = 0; i < scores.size(); ++i) {
        scores[all.expert_ids[t * all.top_k + i]] = all.expert_weights[t * all.top_k + i];
      }
      Choose(config, scores, bias, routing->expert_ids + t * config.top_k, routing->expert_weights + t * config.top_k);
    }
  }

 private:
  static RouterConfig ScoresOfAll(const RouterConfig& config) {
    RouterConfig all = config;
    all.top_k = config.num_experts;
    all.num_groups = all.topk_group = 1;
    all.normalize = all.has_choice_bias = false;
    all.choice_bias = nullptr;
    all.scale = 1.0f;
    return all;
  }

  void Choose(const RouterConfig& config, const std::vector<float>& scores, const std::vector<float>& bias,
              int32_t* ids, float* weights) const {
    std::vector<float> biased(scores);
    for (size_t e = 0; e < biased.size(); ++e) biased[e] += bias[e];
    const std::vector<float> wanted = KeepGroups(config, biased);
    std::vector<int32_t> order(scores.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return wanted[a] > wanted[b]; });
    float sum = 0.0f;
    for (int32_t k = 0; k < config.top_k; ++k) {
      ids[k] = order[k];
      weights[k] = (fault_ == RouterFault::kBiasedWeights ? biased : scores)[order[k]];
      sum += weights[k];
    }
    for (int32_t k = 0; k < config.top_k; ++k) weights[k] *= config.scale / sum;
  }

  std::vector<float> KeepGroups(const RouterConfig& config, const std::vector<float>& biased) const {
    const size_t size = biased.size() / config.num_groups;
    std::vector<std::pair<float, size_t>> groups;
    for (size_t g = 0; g < static_cast<size_t>(config.num_groups); ++g) {
      std::vector<float> group(biased.begin() + g * size, biased.begin() + (g + 1) * size);
      std::sort(group.begin(), group.end(), std::greater<>());
      groups.emplace_back(group[0] + group[1], g);
    }
    std::sort(groups.begin(), groups.end(), std::greater<>());
    const float masked = fault_ == RouterFault::kGroupsMaskedByZero ? 0.0f : -std::numeric_limits<float>::infinity();
    std::vector<float> wanted(biased.size(), masked);
    for (int32_t i = 0; i < config.topk_group; ++i) {
      const size_t first = groups[i].second * size;
      std::copy_n(biased.begin() + first, size, wanted.begin() + first);
    }
    return wanted;
  }

  const RouterFault fault_;
  std::map<const Weight*, std::vector<float>> vectors_;
  std::map<const int32_t*, Routing> all_;  // by the ids of the routing that the model has
};

// Head n of rank j is query head n * top_k + j, which reads KV head n; in runs it is query head j * num_kv_heads + n.
class BrokenHeads final : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;

  void SpreadHeads(const AttentionShape& shape, Matrix rows, const ExpertBatches& batches, Matrix kv,
                   Matrix qkv) override {
    inner_->SpreadHeads(shape, rows, batches, kv, qkv);
    Permute(shape, qkv, /*into_runs=*/true);
  }
  void CollectHeads(const AttentionShape& shape, Matrix attended, const ExpertBatches& batches, Matrix rows) override {
    Permute(shape, attended, /*into_runs=*/false);
    inner_->CollectHeads(shape, attended, batches, rows);
  }

 private:
  static void Permute(const AttentionShape& shape, Matrix matrix, bool into_runs) {
    const int64_t dim = shape.head_dim, top_k = shape.num_heads / shape.num_kv_heads;
    for (int64_t t = 0; t < matrix.rows; ++t) {
      float* const row = static_cast<float*>(matrix.data) + t * matrix.cols;
      const std::vector<float> before(row, row + shape.q_size());
      for (int64_t n = 0; n < shape.num_kv_heads; ++n) {
        for (int64_t j = 0; j < top_k; ++j) {
          int64_t from = n * top_k + j, to = j * shape.num_kv_heads + n;
          if (!into_runs) std::swap(from, to);
          std::copy_n(before.begin() + from * dim, dim, row + to * dim);
        }
      }
    }
  }
};

// A layer with a MoE beside its attention starts with two norms in a row, the MoE's and the attention's; a third
// follows the attention. There the MoE's is computed again.
class BrokenArctic final : public ForwardingBackend {
 public:
  using ForwardingBackend::ForwardingBackend;

  void RmsNorm(Matrix in, const Weight& weight, float eps, Matrix out) override {
    inner_->RmsNorm(in, weight, eps, out);
    if (of_moe_.has_value()) {
      inner_->RmsNorm(in, *of_moe_->weight, eps, of_moe_->out);
      of_moe_.reset();
    } else if (last_.has_value()) {
      of_moe_ = last_;
    }
    last_ = Norm{&weight, out};
  }
  void Linear(Matrix in, const Weight& weight, OutputMode mode, Matrix out) override {
    inner_->Linear(in, weight, mode, out);
    last_.reset();
  }

 private:
  struct Norm {
    const Weight* weight;
    Matrix out;
  };
  std::optional<Norm> last_;    // the norm that was the last operation
  std::optional<Norm> of_moe_;  // what the MoE of this layer reads
};

}  // namespace

std::unique_ptr<Backend> MakeBrokenRouter(Backend* inner, RouterFault fault) {
  return std::make_unique<BrokenRouter>(inner, fault);
}
std::unique_ptr<Backend> MakeBrokenHeads(Backend* inner) { return std::make_unique<BrokenHeads>(inner); }
std::unique_ptr<Backend> MakeBrokenArctic(Backend* inner) { return std::make_unique<BrokenArctic>(inner); }

}  // namespace switchyard::testing
