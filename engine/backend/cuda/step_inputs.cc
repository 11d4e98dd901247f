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

UploadedStep::~UploadedStep() {
  if (copied_ != nullptr) cudaEventDestroy(copied_);
}

absl::Status UploadedStep::WaitForLast() {
  if (!under_way_) return absl::OkStatus();
  under_way_ = false;
  return ToStatus(cudaEventSynchronize(copied_), "copying a step's inputs");
}

// Layout in 4-byte words: header | sampling | ids | positions | table_starts | decode_rows | logit_rows | tables.
absl::Status UploadedStep::Grow(const Sizes& sizes) {
  if (copied_ == nullptr) {
    RETURN_IF_ERROR(ToStatus(cudaEventCreateWithFlags(&copied_, cudaEventDefault), "cudaEventCreate"));
  }
  if (memory_.bytes() > 0 && sizes.tokens <= capacity_.tokens && sizes.logit_rows <= capacity_.logit_rows &&
      sizes.tables <= capacity_.tables) {
    return absl::OkStatus();
  }
  // Doubled, so that steps that grow slowly do not grow it each time.
  Sizes larger;
  larger.tokens = std::max(capacity_.tokens, 2 * sizes.tokens);
  larger.logit_rows = std::max(capacity_.logit_rows, 2 * sizes.logit_rows);
  larger.tables = std::max(capacity_.tables, 2 * sizes.tables);
  const int64_t words = kHeaderInts + (kSamplingInts + 1) * larger.logit_rows + 4 * larger.tokens + larger.tables;
  ASSIGN_OR_RETURN(host_, PinnedBuffer::Allocate(words * 4));
  ASSIGN_OR_RETURN(memory_, DeviceBuffer::Allocate(words * 4, "a step's inputs"));
  capacity_ = larger;
  int32_t* const base = memory_.as<int32_t>();
  device_.counts = reinterpret_cast<const StepCounts*>(base);
  device_.sampling = reinterpret_cast<const RowSampling*>(base + kHeaderInts);
  device_.ids = base + kHeaderInts + kSamplingInts * larger.logit_rows;
  device_.positions = device_.ids + larger.tokens;
  device_.table_starts = device_.positions + larger.tokens;
  device_.decode_rows = device_.table_starts + larger.tokens;
  device_.logit_rows = device_.decode_rows + larger.tokens;
  device_.tables = device_.logit_rows + larger.logit_rows;
  ++generation_;
  return absl::OkStatus();
}

absl::Status UploadedStep::Upload(const StepInputs& step, int32_t block_size, cudaStream_t stream) {
  RETURN_IF_ERROR(WaitForLast());
  Sizes sizes;
  sizes.tokens = static_cast<int64_t>(step.ids.size());
  for (const AttentionSlice& slice : step.slices) {
    sizes.tokens = std::max(sizes.tokens, slice.first_row + slice.num_tokens);
    sizes.tables += NumBlocks(slice, block_size);
  }
  sizes.logit_rows = static_cast<int64_t>(std::max(step.logit_rows.size(), step.sampling.size()));
  RETURN_IF_ERROR(Grow(sizes));

  int32_t* const host = host_.as<int32_t>();
  const auto host_of = [&](const int32_t* on_device) { return host + (on_device - memory_.as<int32_t>()); };
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
  const int64_t words = (device_.tables - memory_.as<int32_t>()) + used;
  RETURN_IF_ERROR(ToStatus(cudaMemcpyAsync(memory_.as<void>(), host, static_cast<size_t>(words) * 4,
                                           cudaMemcpyHostToDevice, stream),
                           "copying a step's inputs"));
  under_way_ = true;
  return ToStatus(cudaEventRecord(copied_, stream), "copying a step's inputs");
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
  RETURN_IF_ERROR(WaitForLast());
  if (tiles_host_.bytes() < bytes) {
    ASSIGN_OR_RETURN(tiles_host_, PinnedBuffer::Allocate(2 * bytes));
    ASSIGN_OR_RETURN(tiles_device_, DeviceBuffer::Allocate(2 * bytes, "a step's inputs"));
  }
  std::memcpy(tiles_host_.as<void>(), tiles.data(), static_cast<size_t>(bytes));
  RETURN_IF_ERROR(ToStatus(cudaMemcpyAsync(tiles_device_.as<void>(), tiles_host_.as<void>(),
                                           static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream),
                           "copying a step's inputs"));
  under_way_ = true;
  return ToStatus(cudaEventRecord(copied_, stream), "copying a step's inputs");
}

}  // namespace switchyard::cuda
