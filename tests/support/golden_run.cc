#include "tests/support/golden_run.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace switchyard::testing {
namespace {

// In no order, so that a mistake in paging shows.
constexpr int32_t kBlockTable[] = {11, 3, 7, 0};

double ErrorOf(double actual, double golden) {
  const double error = std::fabs(actual - golden);
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

absl::StatusOr<std::unique_ptr<KvCache>> AllocateCache(Backend& backend, const ModelConfig& config, DType dtype) {
  const AttentionShape& attention = config.layers[0].attention.shape;
  return backend.AllocateKvCache({.num_layers = config.num_layers(),
                                  .num_blocks = 16,
                                  .block_size = 16,
                                  .num_kv_heads = attention.num_kv_heads,
                                  .head_dim = attention.head_dim,
                                  .dtype = dtype,
                                  .latent_dim = attention.latent_dim});
}

}  // namespace

GoldenRun::GoldenRun(const ModelConfig& config, const std::string& golden_file, Backend* backend)
    : config_(config), backend_(backend) {
  const GoldenFile golden(golden_file);
  ids_ = golden.GetIds("input_ids");
  logits_ = golden.Get("logits");
  for (const double value : logits_.values) largest_logit_ = std::max(largest_logit_, std::fabs(value));
  const auto read = [&](const std::string& name) {
    if (!golden.Has(name + "ids")) return GoldenRouting{};
    return GoldenRouting{golden.GetIds(name + "ids"), golden.Get(name + "weights").values};
  };
  for (int32_t l = 0; l < config.num_layers(); ++l) {
    routings_.push_back(read(absl::StrCat("layers.", l, ".router.")));
    attention_routings_.push_back(read(absl::StrCat("layers.", l, ".attn_router.")));
  }
}

absl::StatusOr<std::unique_ptr<GoldenRun>> GoldenRun::Create(const ModelConfig& config, const Weights& weights,
                                                             const std::string& golden_file, DType dtype,
                                                             Backend* backend) {
  RETURN_IF_ERROR(Transformer::CheckServed(config, *backend));
  std::unique_ptr<GoldenRun> run(new GoldenRun(config, golden_file, backend));
  ASSIGN_OR_RETURN(run->cache_, AllocateCache(*backend, config, dtype));
  ASSIGN_OR_RETURN(run->model_,
                   Transformer::Load(config, weights, dtype, {.max_tokens = 64, .max_logit_rows = 64}, backend));
  return run;
}

absl::StatusOr<std::vector<float>> GoldenRun::RunStep(const std::vector<int32_t>& ids,
                                                      const std::vector<AttentionSlice>& slices) {
  std::vector<int32_t> rows(ids.size());
  std::iota(rows.begin(), rows.end(), 0);
  const Matrix out = model_->Forward(ids, slices, rows, cache_.get());
  RETURN_IF_ERROR(backend_->Wait());
  const std::span<const float> logits = backend_->HostView(out);
  return std::vector<float>(logits.begin(), logits.end());
}

absl::StatusOr<GoldenErrors> GoldenRun::RunChunks(const std::vector<int>& chunks) {
  CHECK(std::accumulate(chunks.begin(), chunks.end(), 0) == length());
  GoldenErrors errors;
  int32_t position = 0;
  for (const int size : chunks) {
    const std::vector<int32_t> ids(ids_.begin() + position, ids_.begin() + position + size);
    ASSIGN_OR_RETURN(const std::vector<float> logits, RunStep(ids, {{0, size, position, kBlockTable}}));
    CompareLogits(logits, position, &errors);
    CompareRouting(position, size, &errors);
    position += size;
  }
  return errors;
}

void GoldenRun::CompareLogits(const std::vector<float>& actual, int32_t position, GoldenErrors* errors) const {
  const int64_t vocab = config_.vocab_size;
  CHECK((position * vocab + static_cast<int64_t>(actual.size())) <= static_cast<int64_t>(logits_.values.size()));
  for (size_t i = 0; i < actual.size(); ++i) {
    const double error = ErrorOf(actual[i], logits_.values[position * vocab + i]) / largest_logit_;
    if (error <= errors->logits) continue;
    errors->logits = error;
    errors->worst_logit = absl::StrCat("position ", position + i / vocab, ", token ", i % vocab);
  }
}

void GoldenRun::CompareRouting(int32_t position, int32_t size, GoldenErrors* errors) const {
  size_t moe_index = 0;
  for (int32_t l = 0; l < config_.num_layers(); ++l) {
    if (const Routing* heads = model_->attention_routing(l); heads != nullptr) {
      CHECK(heads->num_tokens == size);
      CompareRouting(*heads, attention_routings_[l], 1.0, position, errors);
    }
    if (!config_.layers[l].is_moe) continue;
    const Routing& routing = model_->moe_layers()[moe_index++]->routing();
    CHECK(routing.num_tokens == size);
    CompareRouting(routing, routings_[l], std::max(1.0f, config_.layers[l].moe.router.scale), position, errors);
  }
  CHECK(moe_index == model_->moe_layers().size());
}

void GoldenRun::CompareRouting(const Routing& routing, const GoldenRouting& golden, double scale, int32_t position,
                               GoldenErrors* errors) {
  for (int32_t i = 0; i < routing.num_tokens * routing.top_k && errors->wrong_expert.empty(); ++i) {
    const size_t g = static_cast<size_t>(position * routing.top_k + i);
    if (g >= golden.expert_ids.size() || routing.expert_ids[i] != golden.expert_ids[g]) {
      errors->wrong_expert = absl::StrCat("position ", position + i / routing.top_k, ", rank ", i % routing.top_k,
                                          ": expert ", routing.expert_ids[i]);
      return;
    }
    const double error = ErrorOf(routing.expert_weights[i], golden.weights[g]) / scale;
    errors->router_weights = std::max(errors->router_weights, error);
  }
}

}  // namespace switchyard::testing
