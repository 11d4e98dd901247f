#include "engine/backend/cuda/step_inputs.h"

#include <algorithm>
#include <cstring>

#include "engine/base/status_macros.h"

namespace switchyard::cuda {
namespace {

constexpr int64_t kHeaderInts = 64;  // StepCounts, and the arrays behind it aligned
static_assert(sizeof(StepCounts) <= kHeaderInts * 4);
constexpr int64_t kSamplingInts = sizeof(RowSampling) / 4;

int64_t NumBlocks(const AttentionSlice& slice, int32_t block_size) {
  return CeilDiv(int64_t{slice.first_position} + slice.num_tokens, block_size);
}

}  // namespace

UploadedStep::Block::~Block() {
  if (copied != nullptr) cudaEventDestroy(copied);
}

absl::Status UploadedStep::Block::Wait() {
  if (!under_way) return absl::OkStatus();
  under_way = false;
  return ToStatus(cudaEventSynchronize(copied), "copying a step's inputs");
}

absl::Status UploadedStep::Block::Allocate(int64_t bytes) {
  if (copied == nullptr) {
    RETURN_IF_ERROR(ToStatus(cudaEventCreateWithFlags(&copied, cudaEventDisableTiming), "cudaEventCreate"));
  }
  ASSIGN_OR_RETURN(host, PinnedBuffer::Allocate(bytes));
  // Frees the memory before it, for which cudaFree waits until no kernel can read it.
  ASSIGN_OR_RETURN(device, DeviceBuffer::Allocate(bytes, "a step's inputs"));
  return absl::OkStatus();
}

absl::Status UploadedStep::Block::Send(int64_t bytes, cudaStream_t stream) {
  RETURN_IF_ERROR(ToStatus(cudaMemcpyAsync(device.as<void>(), host.as<void>(), static_cast<size_t>(bytes),
                                           cudaMemcpyHostToDevice, stream),
                           "copying a step's inputs"));
  under_way = true;
  return ToStatus(cudaEventRecord(copied, stream), "copying a step's inputs");
}

absl::Status UploadedStep::Reserve(int64_t max_tokens, int64_t max_logit_rows) {
  Sizes sizes = capacity_;
  sizes.tokens = std::max(sizes.tokens, max_tokens);
  sizes.logit_rows = std::max(sizes.logit_rows, max_logit_rows);
  RETURN_IF_ERROR(inputs_.Wait());
  RETURN_IF_ERROR(tile_block_.Wait());
  RETURN_IF_ERROR(tile_block_.Allocate(sizes.tokens * static_cast<int64_t>(sizeof(PrefillTile))));
  return Allocate(sizes);
}

// Layout in 4-byte words: header | sampling | ids | positions | table_starts | decode_rows | logit_rows | tables.
absl::Status UploadedStep::Allocate(const Sizes& sizes) {
  const int64_t words = kHeaderInts + (kSamplingInts + 1) * sizes.logit_rows + 4 * sizes.tokens + sizes.tables;
  RETURN_IF_ERROR(inputs_.Allocate(words * 4));
  capacity_ = sizes;
  int32_t* const base = inputs_.device.as<int32_t>();
  device_.counts = reinterpret_cast<const StepCounts*>(base);
  device_.sampling = reinterpret_cast<const RowSampling*>(base + kHeaderInts);
  device_.ids = base + kHeaderInts + kSamplingInts * sizes.logit_rows;
  device_.positions = device_.ids + sizes.tokens;
  device_.table_starts = device_.positions + sizes.tokens;
  device_.decode_rows = device_.table_starts + sizes.tokens;
  device_.logit_rows = device_.decode_rows + sizes.tokens;
  device_.tables = device_.logit_rows + sizes.logit_rows;
  ++generation_;
  return absl::OkStatus();
}

absl::Status UploadedStep::Grow(const Sizes& sizes) {
  if (inputs_.device.bytes() > 0 && sizes.tokens <= capacity_.tokens && sizes.logit_rows <= capacity_.logit_rows &&
      sizes.tables <= capacity_.tables) {
    return absl::OkStatus();
  }
  // Doubled, so that steps that grow slowly do not grow it each time.
  Sizes larger;
  larger.tokens = std::max(capacity_.tokens, 2 * sizes.tokens);
  larger.logit_rows = std::max(capacity_.logit_rows, 2 * sizes.logit_rows);
  larger.tables = std::max(capacity_.tables, 2 * sizes.tables);
  return Allocate(larger);
}

absl::Status UploadedStep::Upload(const StepInputs& step, int32_t block_size, cudaStream_t stream) {
  RETURN_IF_ERROR(inputs_.Wait());
  Sizes sizes;
  sizes.tokens = static_cast<int64_t>(step.ids.size());
  for (const AttentionSlice& slice : step.slices) {
    sizes.tokens = std::max(sizes.tokens, slice.first_row + slice.num_tokens);
    sizes.tables += NumBlocks(slice, block_size);
  }
  sizes.logit_rows = static_cast<int64_t>(std::max(step.logit_rows.size(), step.sampling.size()));
  RETURN_IF_ERROR(Grow(sizes));

  int32_t* const host = inputs_.host.as<int32_t>();
  const auto host_of = [&](const int32_t* on_device) { return host + (on_device - inputs_.device.as<int32_t>()); };
  int32_t* const positions = host_of(device_.positions);
  int32_t* const table_starts = host_of(device_.table_starts);
  int32_t* const decode_rows = host_of(device_.decode_rows);
  int32_t* const tables = host_of(device_.tables);
  std::copy(step.sampling.begin(), step.sampling.end(), reinterpret_cast<RowSampling*>(host + kHeaderInts));
  std::copy(step.ids.begin(), step.ids.end(), host_of(device_.ids));
  std::copy(step.logit_rows.begin(), step.logit_rows.end(), host_of(device_.logit_rows));
  slices_.assign(step.slices.begin(), step.slices.end());
  num_tokens_ = sizes.tokens;
  num_decode_rows_ = longest_decode_ = tile_rows_ = 0;
  int32_t used = 0;
  for (const AttentionSlice& slice : step.slices) {
    for (int32_t t = 0; t < slice.num_tokens; ++t) {
      positions[slice.first_row + t] = slice.first_position + t;
      table_starts[slice.first_row + t] = used;
    }
    const int64_t blocks = NumBlocks(slice, block_size);
    std::copy(slice.block_table, slice.block_table + blocks, tables + used);
    used += static_cast<int32_t>(blocks);
    if (slice.num_tokens == 1) {
      decode_rows[num_decode_rows_++] = static_cast<int32_t>(slice.first_row);
      longest_decode_ = std::max(longest_decode_, slice.first_position);
    }
  }
  const StepCounts counts = {static_cast<int32_t>(sizes.tokens), static_cast<int32_t>(step.logit_rows.size()),
                             static_cast<int32_t>(num_decode_rows_), static_cast<int32_t>(step.sampling.size())};
  std::memcpy(host, &counts, sizeof(counts));
  // Only what is used: the tables lie last.
  const int64_t words = (device_.tables - inputs_.device.as<int32_t>()) + used;
  return inputs_.Send(words * 4, stream);
}

absl::Status UploadedStep::UploadTiles(int32_t tile_rows, bool all, cudaStream_t stream) {
  if (tile_rows == tile_rows_ && all == all_tiles_) return absl::OkStatus();
  tile_rows_ = tile_rows;
  all_tiles_ = all;
  std::vector<PrefillTile> tiles;
  for (const AttentionSlice& slice : slices_) {
    if (slice.num_tokens == 1 && !all) continue;
    for (int32_t t = 0; t < slice.num_tokens; t += tile_rows) {
      tiles.push_back({static_cast<int32_t>(slice.first_row) + t, std::min(tile_rows, slice.num_tokens - t)});
    }
  }
  num_tiles_ = static_cast<int64_t>(tiles.size());
  const int64_t bytes = num_tiles_ * static_cast<int64_t>(sizeof(PrefillTile));
  if (bytes == 0) return absl::OkStatus();
  RETURN_IF_ERROR(tile_block_.Wait());
  if (tile_block_.host.bytes() < bytes) RETURN_IF_ERROR(tile_block_.Allocate(2 * bytes));
  std::memcpy(tile_block_.host.as<void>(), tiles.data(), static_cast<size_t>(bytes));
  return tile_block_.Send(bytes, stream);
}

}  // namespace switchyard::cuda
