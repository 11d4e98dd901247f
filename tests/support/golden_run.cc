#include "tests/support/golden_run.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace switchyard::testing {
namespace {

// In no order, so that a mistake in paging shows.
constexpr int32_t kBlockTable[] = {11, 3, 7, 0};

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
    : config_(config), backend_(backend), golden_(golden_file), ids_(golden_.Ids("input_ids")) {}

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
  const StepInputs step = {.ids = ids, .slices = slices, .logit_rows = rows, .explain_routing = true};
  const Matrix out = model_->Forward(step, cache_.get());
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
    golden_.CompareLogits("logits", logits, position, &errors);
    CompareRouting(position, size, &errors);
    position += size;
  }
  return errors;
}

void GoldenRun::CompareRouting(int32_t position, int32_t size, GoldenErrors* errors) const {
  size_t moe_index = 0;
  for (int32_t l = 0; l < config_.num_layers(); ++l) {
    const std::string layer = absl::StrCat("layers.", l, ".");
    if (const Routing* heads = model_->attention_routing(l); heads != nullptr) {
      CHECK(heads->num_tokens == size);
      golden_.CompareRouting(layer + "attn_router", *heads, 1.0, position, errors);
    }
    if (!config_.layers[l].is_moe) continue;
    const Routing& routing = model_->moe_layers()[moe_index++]->routing();
    CHECK(routing.num_tokens == size);
    golden_.CompareRouting(layer + "router", routing, std::max(1.0f, config_.layers[l].moe.router.scale), position,
                           errors);
  }
  CHECK(moe_index == model_->moe_layers().size());
}

}  // namespace switchyard::testing
