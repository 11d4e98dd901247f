// One MoE layer out of the backend's kernels or cuBLAS, on data of the benchmark's own.
#ifndef SWITCHYARD_TESTS_BENCH_GPU_MOE_LAYER_H_
#define SWITCHYARD_TESTS_BENCH_GPU_MOE_LAYER_H_

#include <cuda.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/backend/cuda/kernels.h"
#include "tests/bench/gpu/device.h"
#include "tests/bench/gpu/models.h"
#include "tests/bench/gpu/routing.h"

namespace switchyard::bench {

// A matrix [out, in] as the backend lays it out.
struct DenseMatrix {
  int64_t out = 0, in = 0;
  int64_t rows = 0;    // padded out
  int64_t stride = 0;  // padded in
  Array<uint16_t> data;

  DenseMatrix() = default;
  DenseMatrix(int64_t out_features, int64_t in_features, uint64_t seed);
  int64_t real_bytes() const { return out * in * 2; }
};

// out = in x weight^T, or out += : the native kernel with tiles of `tile_tokens`. in: bf16 [rows][weight.stride].
void RunDense(const DenseMatrix& weight, const uint16_t* in, int64_t rows, int tile_tokens, cuda::GemmOutput output,
              float* out);
// out: [rows][weight.rows].
void RunDenseCublas(const DenseMatrix& weight, const uint16_t* in, int64_t rows, float* out);

struct ExpertMatrices {
  int64_t hidden = 0, intermediate = 0;
  int64_t gate_up_rows = 0, hidden_stride = 0, down_rows = 0, intermediate_stride = 0;
  int32_t num_experts = 0;
  Array<uint16_t> gate_up;  // [experts][gate_up_rows][hidden_stride]
  Array<uint16_t> down;     // [experts][down_rows][intermediate_stride]
  Array<float> router;      // [experts][hidden]
  CUtensorMap gate_up_map, down_map;  // of a device that has wgmma

  ExpertMatrices() = default;
  ExpertMatrices(const Model& model, uint64_t seed);
  static int64_t Bytes(const Model& model);
};

// Makes the map of `weight` for LaunchWgmmaGemm; ends the program where the driver refuses. REQUIRES: a device with
// wgmma.
void MapWeight(const void* weight, int64_t rows, int64_t k, CUtensorMap* map);

// Which rows go where, for one draw of expert ids, on the device and in memory that both sides see.
class RoutedBatch {
 public:
  RoutedBatch(const Model& model, int64_t max_tokens);
  void Use(RoutingDraw draw);  // the ids that Group takes

  // Starts the grouping, with tiles of `tile_tokens`. Null counts: all of `tokens`.
  void Group(int tile_tokens, const int32_t* ids, int64_t tokens, const cuda::StepCounts* counts = nullptr);
  void Group(int tile_tokens) { Group(tile_tokens, ids_.get(), num_tokens()); }
  cuda::ExpertPlan Plan(int tile_tokens);

  const RoutingDraw& draw() const { return draw_; }
  int64_t num_tokens() const { return static_cast<int64_t>(draw_.ids.size()) / top_k_; }
  const float* weights() const { return weights_.get(); }
  const cuda::BatchArrays& device() const { return device_; }
  std::vector<int32_t> Offsets() const;  // waits

 private:
  struct PlanMemory {
    Array<cuda::ExpertTile> tiles;
    Array<int32_t> num_tiles;
    Array<unsigned long long> times;
  };
  int32_t num_experts_;
  int32_t top_k_;
  int64_t max_rows_;
  RoutingDraw draw_;
  Array<int32_t> ids_;
  Array<float> weights_;
  Array<int32_t> memory_;
  cuda::BatchArrays device_;
  std::map<int, PlanMemory> plans_;
};

// Room for the activations of one layer.
class MoeBuffers {
 public:
  MoeBuffers(const Model& model, int64_t max_tokens);
  void ResetX();    // x = x0
  void PoisonRows();

  Array<uint16_t> h;         // [tokens][hidden_stride], normal values
  Array<float> h_f32;        // the same
  Array<float> x0, x;        // [tokens][hidden]
  Array<uint16_t> product;   // [rows][intermediate_stride]
  Array<uint16_t> rows_out;  // [rows][hidden_stride]
  Array<char> router_scratch;
  cuda::RoutingArrays routing;  // what Route writes

 private:
  Array<float> routing_memory_;
  Array<double> squared_logsumexp_sum_;
};

void RunRoute(const Model& model, const ExpertMatrices& experts, int64_t tokens, MoeBuffers* buffers,
              const cuda::StepCounts* counts = nullptr);
enum class ExpertKernel { kNative, kWgmma };
void RunGateUp(const ExpertMatrices& experts, RoutedBatch* batch, int64_t max_rows, int tile_tokens,
               MoeBuffers* buffers, ExpertKernel kernel = ExpertKernel::kNative);
void RunDown(const ExpertMatrices& experts, RoutedBatch* batch, int64_t max_rows, int tile_tokens, MoeBuffers* buffers,
             ExpertKernel kernel = ExpertKernel::kNative);
void RunCombine(const Model& model, const RoutedBatch& batch, const float* weights, int64_t tokens,
                MoeBuffers* buffers, const cuda::StepCounts* counts = nullptr);

// rel-L2 of buffers.x against an fp32 reference of a few tokens of the batch; infinite where a row of rows_out was not
// written. REQUIRES: x was x0 before the one call that is checked, rows_out was poisoned.
double MoeError(const Model& model, const ExpertMatrices& experts, const RoutedBatch& batch, const MoeBuffers& buffers);

double RelativeL2(const std::vector<float>& values, const std::vector<float>& reference);

}  // namespace switchyard::bench

#endif  // SWITCHYARD_TESTS_BENCH_GPU_MOE_LAYER_H_
