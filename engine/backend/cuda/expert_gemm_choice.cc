#include "engine/backend/cuda/expert_gemm_choice.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "engine/backend/cuda/recorder.h"
#include "engine/base/status_macros.h"

namespace switchyard::cuda {
namespace {

constexpr size_t kNative = 0;

absl::StatusOr<std::unique_ptr<ExpertGemm>> Make(const ExpertGemmKind& kind, const cudaDeviceProp& device,
                                                 cudaStream_t stream) {
  const std::string_view name = kind.name;
  if (name == "wgmma") return MakeWgmmaExpertGemm(device, stream);
  if (name == "cublas_grouped") return MakeCublasGroupedExpertGemm(stream);
  if (name == "cublas_padded") return MakeCublasPaddedExpertGemm(stream);
  CHECK(name == kNativeExpertGemm.name);
  return MakeNativeExpertGemm(device.multiProcessorCount, stream);
}

absl::Status UnknownName(const std::string& name) {
  std::string choices = "auto, fastest";
  for (const ExpertGemmKind& kind : kExpertGemmKinds) absl::StrAppend(&choices, ", ", kind.name);
  return absl::InvalidArgumentError(absl::StrCat("expert_gemm is '", name, "'; use one of: ", choices));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ExpertGemmChoice>> ExpertGemmChoice::Create(const BackendOptions& options,
                                                                           const cudaDeviceProp& device,
                                                                           cudaStream_t stream) {
  std::unique_ptr<ExpertGemmChoice> choice(new ExpertGemmChoice);
  RETURN_IF_ERROR(choice->Add(kNativeExpertGemm, device, stream).status());
  if (options.expert_gemm == "auto" || options.expert_gemm == "fastest") {
    RETURN_IF_ERROR(choice->AddTable(options, device, stream));
    return choice;
  }
  const ExpertGemmKind* const kind = FindExpertGemmKind(options.expert_gemm);
  if (kind == nullptr) return UnknownName(options.expert_gemm);
  ASSIGN_OR_RETURN(choice->default_, choice->Add(*kind, device, stream));
  choice->recordable_ = kind->recordable;
  choice->description_ = absl::StrCat(kind->name, " experts");
  return choice;
}

absl::StatusOr<size_t> ExpertGemmChoice::Add(const ExpertGemmKind& kind, const cudaDeviceProp& device,
                                             cudaStream_t stream) {
  for (size_t i = 0; i < counts_.size(); ++i) {
    if (counts_[i].provider == kind.name) return i;
  }
  ASSIGN_OR_RETURN(std::unique_ptr<ExpertGemm> provider, Make(kind, device, stream));
  providers_.push_back(std::move(provider));
  counts_.push_back({kind.name, 0});
  return counts_.size() - 1;
}

absl::Status ExpertGemmChoice::AddTable(const BackendOptions& options, const cudaDeviceProp& device,
                                        cudaStream_t stream) {
  const bool fastest = options.expert_gemm == "fastest";
  if (options.expert_gemm_table.empty()) {
    if (fastest) return absl::InvalidArgumentError("expert_gemm is 'fastest', which needs an expert_gemm_table");
    description_ = "native experts";
    return absl::OkStatus();
  }
  absl::StatusOr<std::vector<ExpertGemmEntry>> table = ReadExpertGemmTable(options.expert_gemm_table);
  if (!table.ok()) {
    return absl::Status(table.status().code(), absl::StrCat("expert_gemm_table: ", table.status().message()));
  }
  for (const ExpertGemmEntry& read : *table) {
    if (read.device != device.name) continue;
    Entry entry;
    entry.shape = read.shape;
    if (fastest) {
      for (const ExpertGemmBucket& bucket : read.fastest) {
        ASSIGN_OR_RETURN(const size_t provider, Add(*bucket.provider, device, stream));
        entry.buckets.emplace_back(bucket.max_tokens, provider);
      }
    } else {
      ASSIGN_OR_RETURN(const size_t provider, Add(*read.always, device, stream));
      entry.buckets.emplace_back(kAnyTokens, provider);
    }
    entries_.push_back(std::move(entry));
  }
  description_ = entries_.empty() ? "native experts: the table is of other devices"
                                  : absl::StrCat("experts: ", options.expert_gemm, " by table");
  return absl::OkStatus();
}

int64_t ExpertGemmChoice::ScratchBytes(const ExpertSizes& experts, int64_t tokens, int64_t max_rows) const {
  int64_t bytes = 0;
  for (const auto& provider : providers_) bytes = std::max(bytes, provider->ScratchBytes(experts, tokens, max_rows));
  return bytes;
}

size_t ExpertGemmChoice::Choose(const ExpertSizes& experts, const ExpertBatch& batch) const {
  const size_t wanted = Wanted(experts, batch);
  return providers_[wanted]->Takes(experts, batch) ? wanted : kNative;
}

size_t ExpertGemmChoice::Wanted(const ExpertSizes& experts, const ExpertBatch& batch) const {
  if (entries_.empty() || batch.tokens == 0) return default_;
  const ExpertGemmShape shape = {experts.hidden, experts.intermediate, experts.num_experts,
                                 batch.max_rows / batch.tokens, experts.dtype};
  const int64_t tokens = std::max(RowBucket(batch.tokens), batch.tokens);
  for (const Entry& entry : entries_) {
    if (!(entry.shape == shape)) continue;
    for (const auto& [max_tokens, provider] : entry.buckets) {
      if (tokens <= max_tokens) return provider;
    }
  }
  return kNative;
}

int ExpertGemmChoice::TileTokens(std::span<const ExpertSizes> layers, int64_t num_experts,
                                 const ExpertBatch& batch) const {
  int least = providers_[kNative]->TileTokens(batch.max_rows, num_experts);
  bool is_first = true;
  for (const ExpertSizes& experts : layers) {
    if (experts.num_experts != num_experts) continue;
    const int tile_tokens = providers_[Choose(experts, batch)]->TileTokens(batch.max_rows, num_experts);
    least = is_first ? tile_tokens : std::min(least, tile_tokens);
    is_first = false;
  }
  return least;
}

int ExpertGemmChoice::SmallestTileTokens() const {
  int least = providers_[kNative]->TileTokens(0, 1);
  for (const auto& provider : providers_) least = std::min(least, provider->TileTokens(0, 1));
  return least;
}

absl::Status ExpertGemmChoice::Run(size_t provider, const CudaExperts& experts, const ExpertBatch& batch,
                                   void* scratch) {
  if (batch.tokens > 0) Count(provider);
  return providers_[provider]->Run(experts, batch, scratch);
}

}  // namespace switchyard::cuda
