#include "engine/backend/cuda/weights.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/backend/cuda/kernels.h"
#include "engine/base/mutex.h"
#include "engine/base/status_macros.h"

namespace switchyard::cuda {
namespace {

constexpr int64_t kStagingBytes = 32 << 20;
constexpr int64_t kSegmentBytes = 1 << 20;

absl::Status CheckCols(const TensorReader& reader, int64_t rows, int64_t cols, const char* what) {
  if (reader.rows() == rows && reader.cols() == cols) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, " is [", reader.rows(), ", ", reader.cols(), "], expected [",
                                                 rows, ", ", cols, "]"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<WeightLoader>> WeightLoader::Create(WorkerPool* pool, cudaStream_t stream) {
  std::unique_ptr<WeightLoader> loader(new WeightLoader(pool, stream));
  for (int i = 0; i < 2; ++i) {
    ASSIGN_OR_RETURN(loader->staging_[i], PinnedBuffer::Allocate(kStagingBytes));
    RETURN_IF_ERROR(ToStatus(cudaEventCreateWithFlags(&loader->copied_[i], cudaEventDefault), "cudaEventCreate"));
  }
  ASSIGN_OR_RETURN(loader->nonfinite_, DeviceBuffer::Allocate(sizeof(unsigned long long), "loading"));
  return loader;
}

WeightLoader::~WeightLoader() {
  for (cudaEvent_t event : copied_) {
    if (event != nullptr) cudaEventDestroy(event);
  }
}

void WeightLoader::AddRows(const TensorReader* reader, DType dtype, int64_t target, std::vector<Segment>* segments) {
  const int64_t rows = std::max<int64_t>(1, kSegmentBytes / (reader->cols() * DTypeBytes(dtype)));
  for (int64_t first = 0; first < reader->rows(); first += rows) {
    segments->push_back({reader, first, std::min(rows, reader->rows() - first), target + first});
  }
}

absl::Status WeightLoader::ReadChunk(std::span<const Segment> chunk, int64_t row_bytes, DType dtype, char* staging) {
  Mutex mutex;
  absl::Status failure;
  pool_->ParallelFor(static_cast<int64_t>(chunk.size()), [&](int, int64_t i) {
    const Segment& segment = chunk[static_cast<size_t>(i)];
    char* const to = staging + (segment.target - chunk.front().target) * row_bytes;
    absl::Status status = segment.reader->ReadRows(segment.first, segment.count, dtype, to);
    if (status.ok()) return;
    MutexLock lock(&mutex);
    failure = std::move(status);
  });
  return failure;
}

absl::Status WeightLoader::Upload(std::span<const Segment> segments, int64_t cols, DType dtype, int64_t stride,
                                  void* to) {
  const int64_t row_bytes = cols * DTypeBytes(dtype);
  if (row_bytes > kStagingBytes) {
    return absl::InvalidArgumentError(absl::StrCat("a weight has rows of ", cols, " elements, too many for the GPU"));
  }
  int turn = 0;
  for (size_t first = 0; first < segments.size();) {
    // As many rows as fit that follow each other without a gap.
    size_t last = first;
    int64_t end = segments[first].target;
    while (last < segments.size() && segments[last].target == end &&
           (end + segments[last].count - segments[first].target) * row_bytes <= kStagingBytes) {
      end += segments[last++].count;
    }
    CHECK(last > first);
    char* const staging = staging_[turn].as<char>();
    RETURN_IF_ERROR(ToStatus(cudaEventSynchronize(copied_[turn]), "copying weights"));
    RETURN_IF_ERROR(ReadChunk(segments.subspan(first, last - first), row_bytes, dtype, staging));
    const int64_t target = segments[first].target;
    RETURN_IF_ERROR(ToStatus(
        cudaMemcpy2DAsync(static_cast<char*>(to) + target * stride * DTypeBytes(dtype), stride * DTypeBytes(dtype),
                          staging, row_bytes, row_bytes, end - target, cudaMemcpyHostToDevice, stream_),
        "copying weights"));
    RETURN_IF_ERROR(ToStatus(cudaEventRecord(copied_[turn], stream_), "copying weights"));
    turn ^= 1;
    first = last;
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> WeightLoader::CountNonfinite(const void* data, DType dtype, int64_t count) {
  auto* const total = nonfinite_.as<unsigned long long>();
  unsigned long long found = 0;
  RETURN_IF_ERROR(ToStatus(cudaMemsetAsync(total, 0, sizeof(found), stream_), "checking weights"));
  LaunchCountNonfinite(data, dtype == DType::kBF16, count, total, stream_);
  RETURN_IF_ERROR(ToStatus(cudaMemcpyAsync(&found, total, sizeof(found), cudaMemcpyDeviceToHost, stream_),
                           "checking weights"));
  RETURN_IF_ERROR(ToStatus(cudaStreamSynchronize(stream_), "loading weights"));
  return static_cast<int64_t>(found);
}

absl::StatusOr<std::unique_ptr<Weight>> WeightLoader::LoadWeight(std::span<const TensorReader* const> parts,
                                                                 std::span<const TensorReader* const> biases,
                                                                 DType dtype, WeightUse use) {
  auto weight = std::make_unique<CudaWeight>();
  const bool is_matrix = use == WeightUse::kLinear || use == WeightUse::kEmbedding;
  weight->dtype = is_matrix ? dtype : DType::kF32;
  weight->in = parts[0]->cols();
  std::vector<Segment> segments;
  bool has_bias = false;
  for (size_t i = 0; i < parts.size(); ++i) {
    RETURN_IF_ERROR(CheckCols(*parts[i], parts[i]->rows(), weight->in, "a part of a weight"));
    const TensorReader* const bias = i < biases.size() ? biases[i] : nullptr;
    if (bias != nullptr) {
      RETURN_IF_ERROR(CheckCols(*bias, 1, parts[i]->rows(), "a bias"));
      has_bias = true;
    }
    AddRows(parts[i], weight->dtype, weight->out, &segments);
    weight->out += parts[i]->rows();
  }
  const bool multiplied = use == WeightUse::kLinear;
  weight->rows = multiplied ? RoundUp(weight->out, kWideTileOut) : weight->out;
  weight->stride = multiplied ? RoundUp(weight->in, kTileK) : weight->in;
  const int64_t count = weight->rows * weight->stride;
  ASSIGN_OR_RETURN(weight->data, DeviceBuffer::Allocate(count * DTypeBytes(weight->dtype), "weights"));
  RETURN_IF_ERROR(Upload(segments, weight->in, weight->dtype, weight->stride, weight->data.as<void>()));
  ASSIGN_OR_RETURN(weight->nonfinite, CountNonfinite(weight->data.as<void>(), weight->dtype, count));
  if (!has_bias) return weight;

  ASSIGN_OR_RETURN(weight->bias, DeviceBuffer::Allocate(weight->rows * 4, "biases"));
  int64_t first = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (biases[i] != nullptr) {
      const Segment segment = {biases[i], 0, 1, 0};
      RETURN_IF_ERROR(Upload({&segment, 1}, biases[i]->cols(), DType::kF32, biases[i]->cols(),
                             weight->bias.as<float>() + first));
    }
    first += parts[i]->rows();
  }
  ASSIGN_OR_RETURN(const int64_t bad, CountNonfinite(weight->bias.as<void>(), DType::kF32, weight->out));
  weight->nonfinite += bad;
  return weight;
}

absl::StatusOr<DeviceBuffer> WeightLoader::CopyOf(const std::vector<float>& values) {
  ASSIGN_OR_RETURN(DeviceBuffer copy, DeviceBuffer::Allocate(static_cast<int64_t>(values.size()) * 4, "biases"));
  RETURN_IF_ERROR(ToStatus(
      cudaMemcpyAsync(copy.as<void>(), values.data(), values.size() * 4, cudaMemcpyHostToDevice, stream_),
      "copying biases"));
  RETURN_IF_ERROR(ToStatus(cudaStreamSynchronize(stream_), "copying biases"));
  return copy;
}

// Small next to the weights: put together on the host.
absl::Status WeightLoader::LoadExpertBiases(std::span<const ExpertReaders> experts, CudaExperts* weights) {
  std::vector<float> gate_up(static_cast<size_t>(weights->num_experts * weights->gate_up_rows));
  std::vector<float> down(static_cast<size_t>(weights->num_experts * weights->down_rows));
  std::vector<float> side(static_cast<size_t>(weights->intermediate));
  const bool gated = IsGated(weights->form.activation);
  for (int64_t e = 0; e < weights->num_experts; ++e) {
    const ExpertReaders& expert = experts[static_cast<size_t>(e)];
    if ((gated && expert.gate_bias == nullptr) || expert.up_bias == nullptr || expert.down_bias == nullptr) {
      return absl::InvalidArgumentError("an expert's bias is missing");
    }
    for (int up = gated ? 0 : 1; up < 2; ++up) {
      const TensorReader& bias = up == 0 ? *expert.gate_bias : *expert.up_bias;
      RETURN_IF_ERROR(CheckCols(bias, 1, weights->intermediate, "an expert's bias"));
      RETURN_IF_ERROR(bias.ReadRows(0, 1, DType::kF32, side.data()));
      for (int64_t f = 0; f < weights->intermediate; ++f) {
        const int64_t row = gated ? GateUpRow(f, up) : f;
        gate_up[static_cast<size_t>(e * weights->gate_up_rows + row)] = side[static_cast<size_t>(f)];
      }
    }
    RETURN_IF_ERROR(CheckCols(*expert.down_bias, 1, weights->hidden, "an expert's bias"));
    RETURN_IF_ERROR(expert.down_bias->ReadRows(0, 1, DType::kF32, &down[static_cast<size_t>(e * weights->down_rows)]));
  }
  ASSIGN_OR_RETURN(weights->gate_up_bias, CopyOf(gate_up));
  ASSIGN_OR_RETURN(weights->down_bias, CopyOf(down));
  for (const auto* values : {&gate_up, &down}) {
    weights->nonfinite += std::count_if(values->begin(), values->end(), [](float x) { return !std::isfinite(x); });
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<ExpertWeights>> WeightLoader::LoadExperts(std::span<const ExpertReaders> experts,
                                                                         DType dtype) {
  auto weights = std::make_unique<CudaExperts>();
  weights->dtype = dtype;
  weights->num_experts = static_cast<int64_t>(experts.size());
  weights->form = experts[0].form;
  const bool gated = IsGated(weights->form.activation);
  weights->hidden = experts[0].up->cols();
  weights->intermediate = experts[0].up->rows();
  weights->gate_up_rows = RoundUp(gated ? GateUpRows(weights->intermediate) : weights->intermediate, kWideTileOut);
  weights->hidden_stride = RoundUp(weights->hidden, kTileK);
  weights->down_rows = RoundUp(weights->hidden, kWideTileOut);
  weights->intermediate_stride = RoundUp(weights->intermediate, kTileK);

  std::vector<Segment> gate_up, down;
  for (int64_t e = 0; e < weights->num_experts; ++e) {
    const ExpertReaders& expert = experts[static_cast<size_t>(e)];
    if (gated) RETURN_IF_ERROR(CheckCols(*expert.gate, weights->intermediate, weights->hidden, "an expert's gate"));
    RETURN_IF_ERROR(CheckCols(*expert.up, weights->intermediate, weights->hidden, "an expert's up"));
    RETURN_IF_ERROR(CheckCols(*expert.down, weights->hidden, weights->intermediate, "an expert's down"));
    if (!gated) AddRows(expert.up, dtype, e * weights->gate_up_rows, &gate_up);
    for (int64_t f = 0; gated && f < weights->intermediate; f += kGateUpBlock) {
      const int64_t count = std::min<int64_t>(kGateUpBlock, weights->intermediate - f);
      for (const int up : {0, 1}) {
        gate_up.push_back({up == 0 ? expert.gate : expert.up, f, count, e * weights->gate_up_rows + GateUpRow(f, up)});
      }
    }
    AddRows(expert.down, dtype, e * weights->down_rows, &down);
  }
  const int64_t gate_up_count = weights->num_experts * weights->gate_up_rows * weights->hidden_stride;
  const int64_t down_count = weights->num_experts * weights->down_rows * weights->intermediate_stride;
  ASSIGN_OR_RETURN(weights->gate_up, DeviceBuffer::Allocate(gate_up_count * DTypeBytes(dtype), "experts"));
  ASSIGN_OR_RETURN(weights->down, DeviceBuffer::Allocate(down_count * DTypeBytes(dtype), "experts"));
  RETURN_IF_ERROR(Upload(gate_up, weights->hidden, dtype, weights->hidden_stride, weights->gate_up.as<void>()));
  RETURN_IF_ERROR(Upload(down, weights->intermediate, dtype, weights->intermediate_stride, weights->down.as<void>()));
  ASSIGN_OR_RETURN(const int64_t bad_gate_up, CountNonfinite(weights->gate_up.as<void>(), dtype, gate_up_count));
  ASSIGN_OR_RETURN(const int64_t bad_down, CountNonfinite(weights->down.as<void>(), dtype, down_count));
  weights->nonfinite = bad_gate_up + bad_down;
  if (weights->form.biases) RETURN_IF_ERROR(LoadExpertBiases(experts, weights.get()));
  return weights;
}

}  // namespace switchyard::cuda
