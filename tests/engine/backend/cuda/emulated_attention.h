// What tests of attention on the emulated device share.
#ifndef SWITCHYARD_TESTS_ENGINE_BACKEND_CUDA_EMULATED_ATTENTION_H_
#define SWITCHYARD_TESTS_ENGINE_BACKEND_CUDA_EMULATED_ATTENTION_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "emulation.h"
#include "engine/backend/backend.h"
#include "tests/engine/backend/memory_reader.h"

namespace switchyard {

// Leaves the device as it was.
class EmulatedDeviceTest : public ::testing::Test {
 protected:
  void TearDown() override {
    cuda_emulation::SetSharedMemory(cuda_emulation::kMaxSharedMemory);
    cuda_emulation::SetThreadOrder(cuda_emulation::ThreadOrder::kForward);
    cuda_emulation::SetBlockOrder(cuda_emulation::BlockOrder::kForward);
  }
};

inline std::unique_ptr<Weight> LoadF32(Backend& backend, const MemoryReader& tensor, WeightUse use) {
  const TensorReader* const parts[] = {&tensor};
  return *backend.LoadWeight(parts, {}, DType::kF32, use);
}

// Attention in layer 0 of rows [first, first + rows) of `projected`, which the slices count from 0.
inline std::vector<float> AttendRows(Backend& backend, const AttentionShape& shape, const KvCache& cache,
                                     const std::vector<AttentionSlice>& slices, Matrix projected, int64_t first,
                                     int64_t rows) {
  const Matrix out = *backend.AllocateMatrix(rows, shape.out_size());
  const Matrix in = {static_cast<float*>(projected.data) + first * projected.cols, rows, projected.cols};
  backend.Attention(shape, slices, 0, cache, in, out);
  const absl::Status status = backend.Wait();
  EXPECT_TRUE(status.ok()) << status;
  const std::span<const float> view = backend.HostView(out);
  return {view.begin(), view.end()};
}

}  // namespace switchyard

#endif  // SWITCHYARD_TESTS_ENGINE_BACKEND_CUDA_EMULATED_ATTENTION_H_
