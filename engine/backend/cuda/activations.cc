#include "engine/backend/cuda/activations.h"

#include <algorithm>
#include <utility>

#include "engine/base/status_macros.h"

namespace switchyard::cuda {
namespace {

int64_t Stride(int64_t cols) { return RoundUp(cols, kTileK); }

}  // namespace

absl::StatusOr<Matrix> Activations::Allocate(int64_t rows, int64_t cols) {
  Allocation allocation;
  // Never empty, so that every matrix has an address of its own.
  ASSIGN_OR_RETURN(allocation.f32, DeviceBuffer::Allocate(std::max<int64_t>(1, rows * cols) * 4, "activations"));
  ASSIGN_OR_RETURN(allocation.bf16, DeviceBuffer::Allocate(rows * Stride(cols) * 2, "activations"));
  void* const data = allocation.f32.as<void>();
  allocations_[static_cast<const char*>(data)] = std::move(allocation);
  return Matrix{data, rows, cols};
}

Activations::Allocation& Activations::Find(Matrix matrix) {
  auto after = allocations_.upper_bound(static_cast<const char*>(matrix.data));
  CHECK(after != allocations_.begin());
  auto& [base, allocation] = *--after;
  CHECK(static_cast<const char*>(matrix.data) < base + allocation.f32.bytes());
  return allocation;
}

int64_t Activations::Capacity(Matrix matrix) const {
  const Allocation& allocation = Find(matrix);
  const int64_t offset = static_cast<float*>(matrix.data) - allocation.f32.as<float>();
  const int64_t f32_rows = (allocation.f32.bytes() / 4 - offset) / matrix.cols;
  const int64_t bf16_rows = allocation.bf16.bytes() / 2 / Stride(matrix.cols) - offset / matrix.cols;
  return std::min(f32_rows, bf16_rows);
}

uint16_t* Activations::Bf16Plane(const Allocation& allocation, Matrix matrix) {
  const int64_t first_row = (static_cast<float*>(matrix.data) - allocation.f32.as<float>()) / matrix.cols;
  return allocation.bf16.as<uint16_t>() + first_row * Stride(matrix.cols);
}

Planes Activations::Write(Matrix matrix, Written planes) {
  Allocation& allocation = Find(matrix);
  allocation.data = matrix.data;
  allocation.cols = matrix.cols;
  allocation.written = planes;
  Planes out;
  if ((planes & kF32) != 0) out.f32 = static_cast<float*>(matrix.data);
  if ((planes & kBf16) != 0) out.bf16 = Bf16Plane(allocation, matrix);
  out.stride = Stride(matrix.cols);
  return out;
}

float* Activations::ReadF32(Matrix matrix, int64_t rows) {
  const Allocation& allocation = Find(matrix);
  float* const data = static_cast<float*>(matrix.data);
  if (IsLastWrite(allocation, matrix) && (allocation.written & kF32) == 0) {
    LaunchToF32(Bf16Plane(allocation, matrix), Stride(matrix.cols), rows, matrix.cols, data, stream_);
  }
  return data;
}

Activations::Bf16View Activations::ReadBf16(Matrix matrix, int64_t rows) {
  const Allocation& allocation = Find(matrix);
  uint16_t* const plane = Bf16Plane(allocation, matrix);
  if (!IsLastWrite(allocation, matrix) || (allocation.written & kBf16) == 0) {
    LaunchToBf16(static_cast<const float*>(matrix.data), rows, matrix.cols, plane, Stride(matrix.cols), stream_);
  }
  return {plane, Stride(matrix.cols)};
}

bool Activations::HasBf16(Matrix matrix) const {
  const Allocation& allocation = Find(matrix);
  return IsLastWrite(allocation, matrix) && (allocation.written & kBf16) != 0;
}

}  // namespace switchyard::cuda
