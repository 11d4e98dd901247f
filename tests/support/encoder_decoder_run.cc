#include "tests/support/encoder_decoder_run.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"

namespace switchyard::testing {
namespace {

constexpr int32_t kMaxTokens = 256;
constexpr int32_t kBlockSize = 16;

}  // namespace

EncoderDecoderRun::EncoderDecoderRun(const ModelConfig& config, const std::string& golden_file, Backend* backend)
    : config_(config), backend_(backend), golden_(golden_file), ids_(golden_.Ids("input_ids")) {
  num_encoded_ = length();
  const std::vector<int32_t> decoder_ids = golden_.Ids("decoder_input_ids");
  ids_.insert(ids_.end(), decoder_ids.begin(), decoder_ids.end());
  const int32_t blocks = (length() + kBlockSize - 1) / kBlockSize;
  for (int32_t sequence = 0; sequence < kNumSequences; ++sequence) {
    for (int32_t i = blocks - 1; i >= 0; --i) tables_[sequence].push_back(i * kNumSequences + sequence);
  }
}

absl::StatusOr<std::unique_ptr<KvCache>> EncoderDecoderRun::AllocateCache(DType dtype) const {
  const AttentionShape& shape = config_.layers[0].attention.shape;
  return backend_->AllocateKvCache({.num_layers = config_.num_decoder_layers(),
                                    .num_blocks = kNumSequences * static_cast<int32_t>(tables_[0].size()),
                                    .block_size = kBlockSize,
                                    .num_kv_heads = shape.num_kv_heads,
                                    .head_dim = shape.head_dim,
                                    .dtype = dtype});
}

absl::StatusOr<std::unique_ptr<EncoderDecoderRun>> EncoderDecoderRun::Create(const ModelConfig& config,
                                                                             const Weights& weights,
                                                                             const std::string& golden_file,
                                                                             DType dtype, Backend* backend) {
  RETURN_IF_ERROR(EncoderDecoder::CheckServed(config, *backend));
  std::unique_ptr<EncoderDecoderRun> run(new EncoderDecoderRun(config, golden_file, backend));
  ASSIGN_OR_RETURN(run->cache_, run->AllocateCache(dtype));
  ASSIGN_OR_RETURN(
      run->model_,
      EncoderDecoder::Load(config, weights, dtype, {.max_tokens = kMaxTokens, .max_logit_rows = kMaxTokens}, backend));
  return run;
}

AttentionSlice EncoderDecoderRun::Slice(int64_t first_row, int32_t first, int32_t count, int sequence,
                                        int32_t prompt) const {
  return {.first_row = first_row,
          .num_tokens = count,
          .first_position = first,
          .block_table = tables_[sequence].data(),
          .num_encoder_tokens = num_encoded_,
          .prompt_end = num_encoded_ + prompt};
}

std::vector<int32_t> EncoderDecoderRun::Part(int32_t first, int32_t count) const {
  return {ids_.begin() + first, ids_.begin() + first + count};
}

absl::StatusOr<std::vector<float>> EncoderDecoderRun::RunStep(const std::vector<int32_t>& ids,
                                                              const std::vector<AttentionSlice>& slices) {
  std::vector<int32_t> rows;
  for (const AttentionSlice& slice : slices) {
    const int32_t encoded = std::max(slice.num_encoder_tokens - slice.first_position, 0);
    for (int32_t i = encoded; i < slice.num_tokens; ++i) rows.push_back(static_cast<int32_t>(slice.first_row) + i);
  }
  const Matrix out = model_->Forward({ids, slices, rows}, cache_.get());
  RETURN_IF_ERROR(backend_->Wait());
  const std::span<const float> logits = backend_->HostView(out);
  return std::vector<float>(logits.begin(), logits.end());
}

absl::StatusOr<GoldenErrors> EncoderDecoderRun::RunAtOnce() {
  ASSIGN_OR_RETURN(const std::vector<float> logits, RunStep(ids_, {Slice(0, 0, length(), 0, num_decoded())}));
  GoldenErrors errors;
  golden_.CompareLogits("logits", logits, 0, &errors);
  CompareRouting(&errors);
  return errors;
}

absl::StatusOr<GoldenErrors> EncoderDecoderRun::RunGenerated(const std::vector<int>& chunks) {
  CHECK(std::accumulate(chunks.begin(), chunks.end(), 0) == num_decoded());
  GoldenErrors errors;
  int32_t decoded = 0;
  for (const int size : chunks) {
    const int32_t first = decoded == 0 ? 0 : num_encoded_ + decoded, count = num_encoded_ + decoded + size - first;
    ASSIGN_OR_RETURN(const std::vector<float> logits, RunStep(Part(first, count), {Slice(0, first, count, 0, 1)}));
    golden_.CompareLogits("one_by_one.logits", logits, decoded, &errors);
    decoded += size;
  }
  return errors;
}

void EncoderDecoderRun::CompareRouting(GoldenErrors* errors) const {
  size_t moe_index = 0;
  for (int32_t l = 0; l < config_.num_layers(); ++l) {
    if (!config_.layers[static_cast<size_t>(l)].is_moe) continue;
    const Routing& routing = model_->moe_layers()[moe_index++]->routing();
    CHECK(routing.num_tokens == (l < config_.num_encoder_layers ? num_encoded_ : num_decoded()));
    golden_.CompareRouting(absl::StrCat("layers.", l, ".router"), routing, 1.0, 0, errors);
  }
  CHECK(moe_index == model_->moe_layers().size());
}

}  // namespace switchyard::testing
