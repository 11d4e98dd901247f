#include "tests/bench/gpu/attention_layer.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "tests/bench/gpu/bench_kernels.h"
#include "tests/bench/gpu/moe_layer.h"
#include "tests/bench/gpu/routing.h"

namespace switchyard::bench {
namespace {

std::vector<int32_t> Shuffled(int64_t count, Random* random) {
  std::vector<int32_t> values(static_cast<size_t>(count));
  std::iota(values.begin(), values.end(), 0);
  for (int64_t i = count - 1; i > 0; --i) {
    std::swap(values[static_cast<size_t>(i)], values[static_cast<size_t>(random->Below(i + 1))]);
  }
  return values;
}

}  // namespace

StepData::StepData(int64_t sequences, int64_t new_tokens, int64_t context, int64_t vocab_size, uint64_t seed)
    : sequences_(sequences), new_tokens_(new_tokens), context_(context) {
  Random random(seed);
  const int64_t blocks = cuda::CeilDiv(context, kBlockSize);
  std::vector<int32_t> words;  // ids | positions | table_starts | logit_rows | decode_rows | tables
  for (int64_t r = 0; r < rows(); ++r) words.push_back(static_cast<int32_t>(random.Below(vocab_size)));
  for (int64_t r = 0; r < rows(); ++r) {
    words.push_back(static_cast<int32_t>(context - new_tokens + r % new_tokens));
  }
  for (int64_t r = 0; r < rows(); ++r) words.push_back(static_cast<int32_t>(r / new_tokens * blocks));
  for (int64_t s = 0; s < sequences; ++s) words.push_back(static_cast<int32_t>((s + 1) * new_tokens - 1));
  for (int64_t s = 0; s < sequences; ++s) words.push_back(static_cast<int32_t>(s));
  const std::vector<int32_t> tables = Shuffled(num_blocks(), &random);
  words.insert(words.end(), tables.begin(), tables.end());
  memory_ = Array<int32_t>(words);
  counts_ = Array<cuda::StepCounts>(std::vector<cuda::StepCounts>{
      {static_cast<int32_t>(rows()), static_cast<int32_t>(sequences), static_cast<int32_t>(is_decode() ? rows() : 0)}});
  device_.counts = counts_.get();
  device_.ids = memory_.get();
  device_.positions = device_.ids + rows();
  device_.table_starts = device_.positions + rows();
  device_.logit_rows = device_.table_starts + rows();
  device_.decode_rows = device_.logit_rows + sequences;
  device_.tables = device_.decode_rows + sequences;
}

double StepData::num_pairs() const {
  const double before = static_cast<double>(context_ - new_tokens_), added = static_cast<double>(new_tokens_);
  return static_cast<double>(sequences_) * (before * added + added * (added + 1) / 2);
}

const cuda::PrefillTile* StepData::Tiles(const cuda::AttentionArgs& args) {
  if (tiles_.size() > 0) return tiles_.get();
  const int64_t tile_rows = cuda::PrefillTileRows(args);
  std::vector<cuda::PrefillTile> tiles;
  for (int64_t s = 0; s < sequences_; ++s) {
    for (int64_t t = 0; t < new_tokens_; t += tile_rows) {
      tiles.push_back({static_cast<int32_t>(s * new_tokens_ + t),
                       static_cast<int32_t>(std::min(tile_rows, new_tokens_ - t))});
    }
  }
  tiles_ = Array<cuda::PrefillTile>(tiles);
  return tiles_.get();
}

KvMemory::KvMemory(int64_t elements) : keys(elements), values(elements) {
  FillNormalBf16(keys.get(), 1, 1, elements, elements, 1.0f, 80);
  FillNormalBf16(values.get(), 1, 1, elements, elements, 1.0f, 81);
}

int32_t DimPad(const Model& model) { return static_cast<int32_t>(cuda::RoundUp(model.head_dim, 32)); }

int64_t KvElements(const Model& model, int64_t num_blocks) {
  return num_blocks * model.num_key_value_heads * kBlockSize * DimPad(model);
}

AttentionLayer::AttentionLayer(const Model& model) : model_(model) {
  std::vector<float> frequencies;
  for (int32_t m = 0; m < model.head_dim / 2; ++m) {
    frequencies.push_back(std::pow(10000.0f, -2.0f * static_cast<float>(m) / static_cast<float>(model.head_dim)));
  }
  inv_freq_ = Array<float>(frequencies);
  q_norm_ = Array<float>(model.q_size());
  k_norm_ = Array<float>(model.q_size());
  FillNormalF32(q_norm_.get(), q_norm_.size(), 1.0f, 0.1f, 82);
  FillNormalF32(k_norm_.get(), k_norm_.size(), 1.0f, 0.1f, 83);
}

cuda::AttentionArgs AttentionLayer::Args(const KvMemory& kv, int64_t num_blocks, int64_t set) const {
  cuda::AttentionArgs args;
  args.num_heads = model_.num_attention_heads;
  args.num_kv_heads = model_.num_key_value_heads;
  args.head_dim = model_.head_dim;
  args.dim_pad = DimPad(model_);
  args.scale = 1.0f / std::sqrt(static_cast<float>(model_.head_dim));
  args.block_size = kBlockSize;
  args.cache_is_bf16 = true;
  args.max_shared_bytes = TheDevice().max_shared_bytes;
  args.num_multiprocessors = TheDevice().num_multiprocessors;
  args.keys = kv.keys.get() + set * KvElements(model_, num_blocks);
  args.values = kv.values.get() + set * KvElements(model_, num_blocks);
  args.qk_norm = model_.qk_norm;
  args.qk_norm_eps = 1e-6f;
  args.q_norm = q_norm_.get();
  args.k_norm = k_norm_.get();
  args.inv_freq = inv_freq_.get();
  args.rotated_pairs = model_.head_dim / 2;
  return args;
}

DecodeMemory::DecodeMemory(int64_t num_partials) : partials_(num_partials), finished_(cuda::kChunkCounters) {
  Clear(finished_.get(), finished_.bytes());
}

void RunAttention(StepData* step, const cuda::AttentionArgs& args, const float* qkv, const DecodeMemory& memory,
                  cuda::Planes out) {
  if (!step->is_decode()) {
    const cuda::PrefillTile* const tiles = step->Tiles(args);
    cuda::LaunchAttentionPrefill(step->device(), args, tiles, step->num_tiles(), qkv, out, Stream());
    return;
  }
  const int64_t max_chunks = (step->context() - 1) / cuda::kKeyChunk + 1;
  const int64_t at_once = cuda::MaxDecodeRows(memory.scratch(), args, max_chunks);
  for (int64_t first = 0; first < step->rows(); first += at_once) {
    cuda::LaunchAttentionDecode(step->device(), args, first, std::min(at_once, step->rows() - first), max_chunks, qkv,
                                memory.scratch(), out, Stream());
  }
}

double AttentionError(const StepData& step, const cuda::AttentionArgs& args, const float* qkv, const float* out) {
  std::vector<int32_t> samples;
  for (int64_t i = 0; i < 4; ++i) samples.push_back(static_cast<int32_t>(i * (step.rows() - 1) / 3));
  samples.erase(std::unique(samples.begin(), samples.end()), samples.end());
  const int64_t count = static_cast<int64_t>(samples.size()), width = int64_t{args.num_heads} * args.head_dim;
  const Array<int32_t> rows(samples);
  const Array<float> scores(count * args.num_heads * step.context()), reference(count * width);
  ReferenceAttention(step.device(), args, rows.get(), count, step.context(), qkv, scores.get(), reference.get());
  std::vector<float> values(static_cast<size_t>(count * width));
  for (int64_t i = 0; i < count; ++i) {
    Copy(values.data() + i * width, out + samples[static_cast<size_t>(i)] * width, width * 4);
  }
  return RelativeL2(values, reference.ToHost());
}

}  // namespace switchyard::bench
