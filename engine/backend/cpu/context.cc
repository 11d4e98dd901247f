#include "engine/backend/cpu/context.h"

#include "engine/backend/cpu/expert_mlp.h"
#include "engine/base/status_macros.h"

namespace switchyard::cpu {

absl::Status Context::AllocateScratch(int32_t max_tokens) {
  constexpr int64_t kPage = 4096;
  const int num_threads = pool.num_threads();
  scratch.max_tokens = max_tokens;
  scratch.sizes = sizes;
  scratch.packed_bytes = PackedRowsElements(kChunkRows, sizes.linear_in) * 2 + kPage;
  ASSIGN_OR_RETURN(scratch.packed_rows,
                   Buffer::Allocate(scratch.packed_bytes * num_threads, "scratch for activations"));
  scratch.team_bytes = ExpertTeamScratchBytes(sizes);
  ASSIGN_OR_RETURN(scratch.team, Buffer::Allocate(scratch.team_bytes * num_threads, "scratch for experts"));
  ASSIGN_OR_RETURN(scratch.router_scores,
                   Buffer::Allocate(int64_t{max_tokens} * sizes.num_experts * 4, "scratch for the router"));
  ASSIGN_OR_RETURN(scratch.router_temp,
                   Buffer::Allocate(sizes.router_temp * num_threads * 4, "scratch for the router"));
  ASSIGN_OR_RETURN(scratch.weighed_in,
                   Buffer::Allocate(sizes.weighed_rows * sizes.expert_hidden * 4, "scratch for expert inputs"));
  ASSIGN_OR_RETURN(scratch.capacity, Buffer::Allocate(sizes.capacity * 4, "scratch for expert capacity"));
  const int64_t thread_bytes = kChunkRows * kPanelCols * 4 + kChunkRows * static_cast<int64_t>(sizeof(float*)) +
                               kChunkElements * 2 + AttentionScratchBytes(sizes.dim_pad);
  // A page between threads keeps prefetchers off the neighbour's lines.
  scratch.thread_bytes = CeilDiv(thread_bytes, kPage) * kPage + kPage;
  ASSIGN_OR_RETURN(scratch.thread, Buffer::Allocate(scratch.thread_bytes * num_threads, "scratch of the workers"));
  scratch.task_offsets.reserve(static_cast<size_t>(max_tokens) + 1);
  return absl::OkStatus();
}

}  // namespace switchyard::cpu
