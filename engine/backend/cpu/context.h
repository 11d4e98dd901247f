// What the CPU backend's operations share: threads, kernels, and scratch memory that is sized before the first step.
#ifndef SWITCHYARD_ENGINE_BACKEND_CPU_CONTEXT_H_
#define SWITCHYARD_ENGINE_BACKEND_CPU_CONTEXT_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/backend/cpu/kernels.h"
#include "engine/backend/cpu/memory.h"
#include "engine/base/worker_pool.h"

namespace switchyard::cpu {

// Rows that one pass over a weight's panels takes: their packed activations (1 MiB at hidden 2048) and one panel fit a
// 2 MiB L2 together. More rows take more passes; by then the work is bound by FLOP, not by reading weights again.
inline constexpr int64_t kChunkRows = 256;

// The widest operands seen while loading.
struct ScratchSizes {
  int64_t linear_in = 0;            // in_features of Linear weights in bfloat16
  int64_t expert_hidden = 0;
  int64_t expert_intermediate = 0;
  int64_t num_experts = 0;
  int32_t dim_pad = 0;              // of KV heads
  int64_t router_temp = 0;          // floats per thread, for routers that are not plain
  int64_t weighed_rows = 0;         // expert inputs of a step that router weights multiply
  int64_t capacity = 0;             // integers for choosing who is dropped
};

struct Scratch {
  int32_t max_tokens = 0;
  ScratchSizes sizes;               // what it was made for
  int64_t packed_bytes = 0;         // of one thread's part of `packed_rows`
  Buffer packed_rows;               // per thread: kChunkRows rows of linear_in
  int64_t team_bytes = 0;           // of one team's part of `team`; see expert_mlp.cc
  Buffer team;
  Buffer router_scores;             // [max_tokens, num_experts]
  Buffer router_temp;               // [num_threads, router_temp]
  Buffer weighed_in;                // [weighed_rows, expert_hidden]
  Buffer capacity;
  int64_t thread_bytes = 0;         // of one thread's part of `thread`
  Buffer thread;                    // per thread: panel results, row pointers, a chunk of weights, attention
  std::vector<int64_t> task_offsets;  // reserved: one per slice and one more
};

struct Context {
  Context(std::unique_ptr<WorkerPool> the_pool, const Kernels& the_kernels)
      : owned_pool(std::move(the_pool)), pool(*owned_pool), kernels(the_kernels) {}

  // RESOURCE_EXHAUSTED as Buffer::Allocate.
  absl::Status AllocateScratch(int32_t max_tokens);

  // A thread's own scratch.
  uint16_t* PackedRows(int thread) const {
    return reinterpret_cast<uint16_t*>(scratch.packed_rows.as<char>() + thread * scratch.packed_bytes);
  }
  float* RouterTemp(int thread) const { return scratch.router_temp.as<float>() + thread * sizes.router_temp; }
  float* PanelResults(int thread) const {  // [kChunkRows][kPanelCols]
    return reinterpret_cast<float*>(ThreadPart(thread));
  }
  const float** RowPointers(int thread) const {  // [kChunkRows]
    return reinterpret_cast<const float**>(ThreadPart(thread) + kChunkRows * kPanelCols * 4);
  }
  uint16_t* ExpandedChunk(int thread) const {  // [kChunkElements]
    return reinterpret_cast<uint16_t*>(ThreadPart(thread) + kChunkRows * kPanelCols * 4 +
                                       kChunkRows * static_cast<int64_t>(sizeof(float*)));
  }
  char* AttentionScratch(int thread) const {
    return reinterpret_cast<char*>(ExpandedChunk(thread)) + kChunkElements * 2;
  }

  const std::unique_ptr<WorkerPool> owned_pool;
  WorkerPool& pool;
  const Kernels& kernels;
  ScratchSizes sizes;
  Scratch scratch;

 private:
  char* ThreadPart(int thread) const { return scratch.thread.as<char>() + thread * scratch.thread_bytes; }
};

}  // namespace switchyard::cpu

#endif  // SWITCHYARD_ENGINE_BACKEND_CPU_CONTEXT_H_
