// What a step leaves for the host, and how the host gets it.
#include "engine/backend/cuda/cuda_backend_impl.h"

#include <algorithm>
#include <cstring>

#include "engine/base/status_macros.h"

namespace switchyard::cuda {

int64_t PlaceRoutingResults(char* base, int32_t num_experts, RoutingArrays* arrays) {
  return PlaceArrays(base, std::pair(&arrays->probability_sums, int64_t{num_experts}),
                     std::pair(&arrays->squared_logsumexp_sum, int64_t{1}));
}

int64_t PlaceBatchResults(char* base, int32_t num_experts, BatchArrays* arrays, ExpertPlan* stamps) {
  return PlaceArrays(base, std::pair(&arrays->expert_offsets, int64_t{num_experts} + 1),
                     std::pair(&stamps->first_start, int64_t{num_experts}),
                     std::pair(&stamps->last_end, int64_t{num_experts}));
}

namespace {

// Of an expert's batch; 0 where it was not at work. The timer advances in steps of up to a microsecond: a short batch
// may begin and end in the same one.
float SecondsBetween(unsigned long long first_start, unsigned long long last_end) {
  if (last_end == 0) return 0.0f;
  return (last_end > first_start ? static_cast<float>(last_end - first_start) : 1.0f) * 1e-9f;
}

}  // namespace

// ---------------------------------------------------------------------------------------------------- load time

absl::Status CudaBackend::AllocateShared(const char* purpose, int64_t bytes, int64_t result_bytes,
                                         SharedArrays* arrays) {
  ASSIGN_OR_RETURN(arrays->device_memory, DeviceBuffer::Allocate(bytes, purpose));
  arrays->host_memory = std::make_unique<char[]>(static_cast<size_t>(bytes));
  arrays->bytes = bytes;
  arrays->results = results_.Reserve(result_bytes);
  arrays->host_results = std::make_unique<char[]>(static_cast<size_t>(result_bytes));
  arrays->result_bytes = result_bytes;
  return absl::OkStatus();
}

absl::StatusOr<const int32_t*> CudaBackend::AllocateSampledTokens(int64_t max_rows) {
  sampled_on_device_ = results_.Reserve(max_rows * 4);
  sampled_tokens_.resize(static_cast<size_t>(max_rows));
  max_logit_rows_ = max_rows;
  return sampled_tokens_.data();
}

absl::Status CudaBackend::AllocateResults() {
  max_timers_ = routings_.size();  // each is of one router's layer
  stamps_ = results_.Reserve(static_cast<int64_t>(2 * max_timers_ * sizeof(unsigned long long)));
  routing_record_ = 0;
  std::vector<RoutedLayer> layers;
  for (auto& [key, memory] : routings_) {
    memory.offset = static_cast<int32_t>(routing_record_);
    layers.push_back({memory.device.expert_ids, memory.device.expert_weights, memory.device.margins, memory.top_k,
                      memory.offset});
    routing_record_ += 2 * memory.top_k + 1;
  }
  collected_routing_ = results_.Reserve(max_logit_rows_ * routing_record_ * 4);
  RETURN_IF_ERROR(results_.Allocate());
  for (auto& [key, memory] : routings_) {
    PlaceRoutingResults(results_.device<char>(memory.results), memory.num_experts, &memory.device);
  }
  for (auto& [key, memory] : batches_) {
    memory.plan = tiles_;
    PlaceBatchResults(results_.device<char>(memory.results), memory.num_experts, &memory.device, &memory.plan);
  }
  step_.SetSampled(results_.device<int32_t>(sampled_on_device_));
  if (layers.empty()) return absl::OkStatus();
  const int64_t bytes = static_cast<int64_t>(layers.size() * sizeof(RoutedLayer));
  ASSIGN_OR_RETURN(routed_layers_, DeviceBuffer::Allocate(bytes, "routing"));
  RETURN_IF_ERROR(ToStatus(cudaMemcpyAsync(routed_layers_.as<void>(), layers.data(), static_cast<size_t>(bytes),
                                           cudaMemcpyHostToDevice, stream_),
                           "copying where routing lies"));
  return ToStatus(cudaStreamSynchronize(stream_), "copying where routing lies");
}

// ---------------------------------------------------------------------------------------------------- step time

void CudaBackend::Touch(Routing* routing, int64_t num_tokens) {
  routing->num_tokens = static_cast<int32_t>(num_tokens);
  touched().routings.emplace_back(routing, routing->num_tokens);
}

void CudaBackend::Touch(ExpertBatches* batches, int64_t num_rows) {
  batches->num_rows = static_cast<int32_t>(num_rows);
  touched().batches.emplace_back(batches, batches->num_rows);
}

void CudaBackend::SampleTokens(Matrix logits, int64_t num_ids, std::span<const RowSampling> sampling) {
  const bool announced =
      in_step_ && sampling.data() == announced_.sampling.data() && sampling.size() == announced_.sampling.size();
  if (!announced) {
    UploadSingle({.ids = {}, .slices = {}, .logit_rows = {}, .sampling = sampling}, kKvBlockUnit);
  }
  const int64_t rows = LaunchRows(logits);
  LaunchSampleTokens((announced ? step_ : single_).device(), activations_.ReadF32(logits, rows), rows, logits.cols,
                     num_ids, results_.device<int32_t>(sampled_on_device_), stream_);
}

void CudaBackend::StartTimer() {
  CHECK(touched().timers.size() < max_timers_);
  LaunchStamp(Stamp(2 * touched().timers.size()), stream_);
}

void CudaBackend::StopTimer(float* seconds) {
  LaunchStamp(Stamp(2 * touched().timers.size() + 1), stream_);
  touched().timers.push_back(seconds);
  if (recorder_.recording()) recorder_.OnRepeat([this, seconds](int64_t) { touched().timers.push_back(seconds); });
}

// Every operation of the step is in the stream: their results follow.
void CudaBackend::FinishStep() {
  const Touched& step = touched();
  const int64_t rows = static_cast<int64_t>(step.logit_rows.size());
  int64_t bytes = collected_routing_;
  if (step.explain_routing && rows > 0) {
    CHECK(rows <= max_logit_rows_);
    LaunchCollectRouting(step_.device(), routed_layers_.as<RoutedLayer>(), static_cast<int64_t>(routings_.size()),
                         routing_record_, rows, results_.device<float>(collected_routing_), stream_);
    bytes += rows * routing_record_ * 4;
  }
  if (failure_.ok()) Check(results_.Send(bytes, stream_));
  in_step_ = false;
  bucket_ = 0;
}

// ---------------------------------------------------------------------------------------------------- results

absl::Status CudaBackend::Wait() {
  Check(ToStatus(cudaPeekAtLastError(), "the GPU failed"));
  if (results_.in_flight() == 0) {
    Check(ToStatus(cudaStreamSynchronize(stream_), "the GPU failed"));
    if (failure_.ok()) Check(FetchAlone());
    return failure_;
  }
  const Touched& step = steps_[results_.oldest_slot()];
  Check(results_.Receive());
  RETURN_IF_ERROR(failure_);
  const char* const results = results_.host<char>(0);
  TakeResults(step, results);
  if (step.explain_routing) TakeCollectedRouting(step, results_.host<float>(collected_routing_));
  return absl::OkStatus();
}

absl::Status CudaBackend::CopyOut(const void* device, int64_t bytes, void* host) {
  RETURN_IF_ERROR(ToStatus(
      cudaMemcpyAsync(host, device, static_cast<size_t>(bytes), cudaMemcpyDeviceToHost, stream_), "copying results"));
  return ToStatus(cudaStreamSynchronize(stream_), "copying results");
}

// Operations outside of a step: all that they may have written, which no step can afford.
absl::Status CudaBackend::FetchAlone() {
  for (const auto& [routing, num_tokens] : alone_.routings) {
    const RoutingMemory& memory = routings_.at(routing->expert_ids);
    RETURN_IF_ERROR(CopyOut(memory.device_memory.as<void>(), memory.bytes, memory.host_memory.get()));
  }
  for (const auto& [batches, num_rows] : alone_.batches) {
    const BatchMemory& memory = batches_.at(batches->expert_offsets);
    RETURN_IF_ERROR(CopyOut(memory.device_memory.as<void>(), memory.bytes, memory.host_memory.get()));
  }
  if (collected_routing_ > 0) {
    std::vector<char> results(static_cast<size_t>(collected_routing_));
    RETURN_IF_ERROR(CopyOut(results_.device<void>(0), collected_routing_, results.data()));
    TakeResults(alone_, results.data());
  }
  alone_.Clear();
  return absl::OkStatus();
}

// `results`: the block up to collected_routing_.
void CudaBackend::TakeResults(const Touched& touched, const char* results) {
  const auto take = [results](const SharedArrays& arrays) {
    std::memcpy(arrays.host_results.get(), results + arrays.results, static_cast<size_t>(arrays.result_bytes));
  };
  for (const auto& [routing, num_tokens] : touched.routings) {
    routing->num_tokens = num_tokens;
    take(routings_.at(routing->expert_ids));
  }
  for (const auto& [batches, num_rows] : touched.batches) {
    batches->num_rows = num_rows;
    const BatchMemory& memory = batches_.at(batches->expert_offsets);
    take(memory);
    for (int32_t e = 0; e < memory.num_experts; ++e) {
      memory.seconds[e] = SecondsBetween(memory.host_stamps.first_start[e], memory.host_stamps.last_end[e]);
    }
  }
  const auto* const stamps = reinterpret_cast<const unsigned long long*>(results + stamps_);
  for (size_t i = 0; i < touched.timers.size(); ++i) {
    const unsigned long long start = stamps[2 * i], end = stamps[2 * i + 1];
    *touched.timers[i] = static_cast<float>(end > start ? end - start : 0) * 1e-9f;
  }
  const auto* const sampled = reinterpret_cast<const int32_t*>(results + sampled_on_device_);
  std::copy_n(sampled, sampled_tokens_.size(), sampled_tokens_.begin());
}

// `rows`: a record for each of the step's rows with logits.
void CudaBackend::TakeCollectedRouting(const Touched& touched, const float* rows) {
  for (const auto& [routing, num_tokens] : touched.routings) {
    const RoutingMemory& memory = routings_.at(routing->expert_ids);
    const size_t k = static_cast<size_t>(memory.top_k);
    for (size_t i = 0; i < touched.logit_rows.size(); ++i) {
      const float* const record = rows + static_cast<int64_t>(i) * routing_record_ + memory.offset;
      const int64_t row = touched.logit_rows[i];
      std::memcpy(memory.host.expert_ids + row * memory.top_k, record, k * sizeof(int32_t));
      std::memcpy(memory.host.expert_weights + row * memory.top_k, record + k, k * sizeof(float));
      memory.host.margins[row] = record[2 * k];
    }
  }
}

std::span<const float> CudaBackend::HostView(Matrix matrix) {
  CHECK(results_.in_flight() == 0);
  const int64_t count = matrix.rows * matrix.cols;
  if (host_view_.bytes() < count * 4) {
    absl::StatusOr<PinnedBuffer> larger = PinnedBuffer::Allocate(2 * count * 4);
    if (!larger.ok()) {
      Check(larger.status());
      return {};
    }
    host_view_ = *std::move(larger);
  }
  if (!failure_.ok()) return {};
  const float* const data = activations_.ReadF32(matrix, matrix.rows);
  Check(ToStatus(cudaMemcpyAsync(host_view_.as<void>(), data, static_cast<size_t>(count) * 4, cudaMemcpyDeviceToHost,
                                 stream_),
                 "copying results"));
  Check(ToStatus(cudaStreamSynchronize(stream_), "copying results"));
  if (!failure_.ok()) return {};
  return {host_view_.as<float>(), static_cast<size_t>(count)};
}

}  // namespace switchyard::cuda
