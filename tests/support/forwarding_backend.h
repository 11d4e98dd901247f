// A backend that does everything with another one, for tests that make one operation different.
#ifndef SWITCHYARD_TESTS_SUPPORT_FORWARDING_BACKEND_H_
#define SWITCHYARD_TESTS_SUPPORT_FORWARDING_BACKEND_H_

#include <functional>
#include <memory>
#include <string>

#include "engine/backend/backend.h"

namespace switchyard::testing {

class ForwardingBackend : public Backend {
 public:
  // `inner` outlives this.
  explicit ForwardingBackend(Backend* inner) : inner_(inner) {}

  const std::string& description() const override { return inner_->description(); }
  std::span<const ExpertGemmCount> expert_gemms() const override { return inner_->expert_gemms(); }
  absl::Status CheckServed(const LayerBlocks& blocks) const override { return inner_->CheckServed(blocks); }
  absl::StatusOr<std::unique_ptr<Weight>> LoadWeight(std::span<const TensorReader* const> parts,
                                                     std::span<const TensorReader* const> biases, DType dtype,
                                                     WeightUse use) override {
    return inner_->LoadWeight(parts, biases, dtype, use);
  }
  absl::StatusOr<std::unique_ptr<ExpertWeights>> LoadExperts(std::span<const ExpertReaders> experts,
                                                             DType dtype) override {
    return inner_->LoadExperts(experts, dtype);
  }
  ExpertMemory PlanExperts(std::span<const ExpertReaders> experts, DType dtype) const override {
    return inner_->PlanExperts(experts, dtype);
  }
  absl::StatusOr<Matrix> AllocateMatrix(int64_t rows, int64_t cols) override {
    return inner_->AllocateMatrix(rows, cols);
  }
  absl::StatusOr<Routing> AllocateRouting(int32_t max_tokens, const RouterConfig& config) override {
    return inner_->AllocateRouting(max_tokens, config);
  }
  absl::StatusOr<ExpertBatches> AllocateExpertBatches(int32_t max_tokens, const RouterConfig& config) override {
    return inner_->AllocateExpertBatches(max_tokens, config);
  }
  int64_t AvailableBytes() const override { return inner_->AvailableBytes(); }
  int64_t KvBlockBytes(const KvCacheShape& shape) const override { return inner_->KvBlockBytes(shape); }
  absl::StatusOr<std::unique_ptr<KvCache>> AllocateKvCache(const KvCacheShape& shape) override {
    return inner_->AllocateKvCache(shape);
  }
  absl::Status PrepareScratch(int32_t max_tokens) override { return inner_->PrepareScratch(max_tokens); }

  void Embed(std::span<const int32_t> ids, const Weight& table, Matrix out) override { inner_->Embed(ids, table, out); }
  void RmsNorm(Matrix in, const Weight& weight, float eps, Matrix out) override {
    inner_->RmsNorm(in, weight, eps, out);
  }
  void Linear(Matrix in, const Weight& weight, OutputMode mode, Matrix out) override {
    inner_->Linear(in, weight, mode, out);
  }
  void PrepareQkv(const AttentionShape& shape, std::span<const AttentionSlice> slices, const Weight* q_norm,
                  const Weight* k_norm, int32_t layer, KvCache& cache, Matrix qkv) override {
    inner_->PrepareQkv(shape, slices, q_norm, k_norm, layer, cache, qkv);
  }
  void Attention(const AttentionShape& shape, std::span<const AttentionSlice> slices, int32_t layer,
                 const KvCache& cache, Matrix qkv, Matrix out) override {
    inner_->Attention(shape, slices, layer, cache, qkv, out);
  }
  void Route(Matrix in, const Weight& router, const RouterConfig& config, Routing* routing) override {
    inner_->Route(in, router, config, routing);
  }
  void GroupByExpert(const Routing& routing, ExpertBatches* batches) override {
    inner_->GroupByExpert(routing, batches);
  }
  void ExpertMlp(Matrix in, const ExpertWeights& experts, const ExpertBatches& batches, Matrix rows_out) override {
    inner_->ExpertMlp(in, experts, batches, rows_out);
  }
  void Combine(Matrix rows, const Routing& routing, const ExpertBatches& batches, Matrix out) override {
    inner_->Combine(rows, routing, batches, out);
  }
  void SiluMul(Matrix gate_up, Matrix out) override { inner_->SiluMul(gate_up, out); }
  void AddGated(Matrix in, const Weight& gate, Matrix values, Matrix out) override {
    inner_->AddGated(in, gate, values, out);
  }
  void SelectRows(Matrix in, std::span<const int32_t> rows, Matrix out) override { inner_->SelectRows(in, rows, out); }

  void LayerNorm(Matrix in, const Weight& weight, const Weight* bias, float eps, Matrix out) override {
    inner_->LayerNorm(in, weight, bias, eps, out);
  }
  void Scale(float factor, Matrix matrix) override { inner_->Scale(factor, matrix); }
  void LinearPerHead(Matrix in, std::span<const std::unique_ptr<Weight>> heads, Matrix out) override {
    inner_->LinearPerHead(in, heads, out);
  }
  void AddBias(const Weight& bias, Matrix matrix) override { inner_->AddBias(bias, matrix); }
  void LinearPerExpert(Matrix in, bool in_is_grouped, std::span<const std::unique_ptr<Weight>> experts,
                       const ExpertBatches& batches, Matrix rows_out) override {
    inner_->LinearPerExpert(in, in_is_grouped, experts, batches, rows_out);
  }
  void SpreadHeads(const AttentionShape& shape, Matrix rows, const ExpertBatches& batches, Matrix kv,
                   Matrix qkv) override {
    inner_->SpreadHeads(shape, rows, batches, kv, qkv);
  }
  void CollectHeads(const AttentionShape& shape, Matrix attended, const ExpertBatches& batches, Matrix rows) override {
    inner_->CollectHeads(shape, attended, batches, rows);
  }
  void PrepareLatent(const AttentionShape& shape, std::span<const AttentionSlice> slices, const Weight& norm,
                     int32_t layer, KvCache& cache, Matrix q, Matrix latent, Matrix queries) override {
    inner_->PrepareLatent(shape, slices, norm, layer, cache, q, latent, queries);
  }

  void Upload(std::span<const float> values, Matrix matrix) override { inner_->Upload(values, matrix); }
  void Activate(Activation activation, Matrix matrix) override { inner_->Activate(activation, matrix); }
  void LimitChoices(const RouterConfig& config, std::span<const RowGroup> groups, Routing* routing) override {
    inner_->LimitChoices(config, groups, routing);
  }
  absl::Status PrepareBidirectional(const AttentionShape& shape, int32_t max_tokens, int32_t max_slices,
                                    DType dtype) override {
    return inner_->PrepareBidirectional(shape, max_tokens, max_slices, dtype);
  }
  void BidirectionalAttention(const AttentionShape& shape, std::span<const AttentionSlice> slices, Matrix qkv,
                              Matrix out) override {
    inner_->BidirectionalAttention(shape, slices, qkv, out);
  }
  void StoreEncoderKv(const AttentionShape& shape, std::span<const AttentionSlice> slices, int32_t layer,
                      KvCache& cache, Matrix kv) override {
    inner_->StoreEncoderKv(shape, slices, layer, cache, kv);
  }
  void CrossAttention(const AttentionShape& shape, std::span<const AttentionSlice> slices, int32_t layer,
                      const KvCache& cache, Matrix q, Matrix out) override {
    inner_->CrossAttention(shape, slices, layer, cache, q, out);
  }

  absl::Status Wait() override { return inner_->Wait(); }
  std::span<const float> HostView(Matrix matrix) override { return inner_->HostView(matrix); }
  int num_host_threads() const override { return inner_->num_host_threads(); }
  void ParallelFor(int64_t count, const std::function<void(int thread, int64_t i)>& body) override {
    inner_->ParallelFor(count, body);
  }

 protected:
  Backend* const inner_;
};

}  // namespace switchyard::testing

#endif  // SWITCHYARD_TESTS_SUPPORT_FORWARDING_BACKEND_H_
