// Steps of sequences with a paged KV cache, for the attention kernels.
#ifndef SWITCHYARD_TESTS_BENCH_GPU_ATTENTION_LAYER_H_
#define SWITCHYARD_TESTS_BENCH_GPU_ATTENTION_LAYER_H_

#include <cstdint>

#include "engine/backend/cuda/attention_kernels.h"
#include "tests/bench/gpu/device.h"
#include "tests/bench/gpu/models.h"

namespace switchyard::bench {

inline constexpr int32_t kBlockSize = 16;  // what the server uses unless told otherwise
inline constexpr int64_t kPartialFloats = int64_t{32} << 20;  // scratch of the backend, for all chunks at once

// The inputs of one step on the device: `sequences` sequences of `new_tokens` rows each, whose last row sees `context`
// keys. Every row of a decode (new_tokens = 1) gets logits, else only the last row of each sequence. The blocks of the
// KV cache are handed out in random order.
class StepData {
 public:
  StepData(int64_t sequences, int64_t new_tokens, int64_t context, int64_t vocab_size, uint64_t seed);

  const cuda::DeviceStep& device() const { return device_; }
  int64_t rows() const { return sequences_ * new_tokens_; }
  int64_t logit_rows() const { return sequences_; }
  int64_t context() const { return context_; }
  bool is_decode() const { return new_tokens_ == 1; }
  int64_t num_blocks() const { return sequences_ * cuda::CeilDiv(context_, kBlockSize); }
  // (row, key) pairs that attention looks at.
  double num_pairs() const;
  // Tiles for the prefill kernel.
  const cuda::PrefillTile* Tiles(const cuda::AttentionArgs& args);
  int64_t num_tiles() const { return tiles_.size(); }

 private:
  int64_t sequences_, new_tokens_, context_;
  Array<int32_t> memory_;
  Array<cuda::StepCounts> counts_;
  Array<cuda::PrefillTile> tiles_;
  cuda::DeviceStep device_ = {};
};

// Keys and values for as many layers, or data sets, as fit.
struct KvMemory {
  explicit KvMemory(int64_t elements);
  Array<uint16_t> keys, values;
};
int32_t DimPad(const Model& model);
// Elements of the keys, or values, of one layer.
int64_t KvElements(const Model& model, int64_t num_blocks);

// What one layer's attention needs besides q, k and v.
class AttentionLayer {
 public:
  explicit AttentionLayer(const Model& model);
  // Layer `set` of a cache whose layers have `num_blocks` blocks.
  cuda::AttentionArgs Args(const KvMemory& kv, int64_t num_blocks, int64_t set) const;

 private:
  const Model model_;
  Array<float> inv_freq_, q_norm_, k_norm_;
};

// For the chunks of decode: kPartialFloats floats, or at least those of one row.
class DecodeMemory {
 public:
  explicit DecodeMemory(int64_t num_partials);
  cuda::DecodeScratch scratch() const { return {partials_.get(), partials_.size(), finished_.get()}; }

 private:
  Array<float> partials_;
  Array<unsigned> finished_;
};

void RunAttention(StepData* step, const cuda::AttentionArgs& args, const float* qkv, const DecodeMemory& memory,
                  cuda::Planes out);

// rel-L2 of a few rows of `out` ([rows][heads * head_dim]) against fp32.
double AttentionError(const StepData& step, const cuda::AttentionArgs& args, const float* qkv, const float* out);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_TESTS_BENCH_GPU_ATTENTION_LAYER_H_
