#include "engine/backend/cuda/served_blocks.h"

#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/backend/cuda/layout.h"

namespace switchyard::cuda {

absl::Status CheckServedByCuda(const LayerBlocks& blocks) {
  const AttentionShape& attention = *blocks.attention;
  // By name, so that a block which is new in the seam is refused until it is written here.
  static const std::set<std::string>* const served = new std::set<std::string>{
      "latent attention (MLA)", "mixture of attention heads", "layer norm", "bias on the experts' sum",
      "interleaved RoPE", "q/k norm after RoPE", "chunked attention", "query temperature",
      "attention sinks", "sigmoid router", "router that chooses by logits",
      "router weights other than the scores", "router weights normalised by a p-norm", "grouped router",
      "router choice bias", "router bias", "router weights on the experts' inputs", "clamped SwiGLU", "expert biases",
      "experts without a gate"};
  std::vector<std::string> missing = ExtraBlocks(blocks);
  std::erase_if(missing, [](const std::string& name) { return served->contains(name); });
  if (attention.latent_dim == 0 && attention.head_dim > kMaxHeadDim) {
    missing.push_back(absl::StrCat("heads of ", attention.head_dim, " (at most ", kMaxHeadDim, ")"));
  }
  if (attention.latent_dim > 0 &&
      (attention.latent_dim > kMaxLatentDim || attention.head_dim > kMaxLatentHeadDim ||
       attention.head_dim - attention.latent_dim > kMaxHeadDim || attention.num_heads > kMaxLatentHeads)) {
    missing.push_back(absl::StrCat(attention.num_heads, " heads on a latent of ", attention.latent_dim, " + ",
                                   attention.head_dim - attention.latent_dim, " (at most ", kMaxLatentHeads, " on ",
                                   kMaxLatentDim, " in ", kMaxLatentHeadDim, ")"));
  }
  if (blocks.attention_experts && blocks.router != nullptr && blocks.router->num_experts > kMaxParts) {
    missing.push_back(absl::StrCat("a mixture of attention heads of ", blocks.router->num_experts,
                                   " experts (at most ", kMaxParts, ")"));
  }
  if (attention.latent_dim == 0 && attention.num_kv_heads > 0 && attention.num_heads / attention.num_kv_heads > kMaxGroup) {
    missing.push_back(absl::StrCat(attention.num_heads / attention.num_kv_heads,
                                   " query heads on one KV head (at most ", kMaxGroup, ")"));
  }
  if (blocks.router != nullptr && (blocks.router->num_experts > kMaxExperts || blocks.router->top_k > kMaxTopK)) {
    missing.push_back(absl::StrCat(blocks.router->top_k, " of ", blocks.router->num_experts, " experts (at most ",
                                   kMaxTopK, " of ", kMaxExperts, ")"));
  }
  if (missing.empty()) return absl::OkStatus();
  return absl::UnimplementedError(
      absl::StrCat("the CUDA backend does not compute: ", absl::StrJoin(missing, ", "), "; use device cpu"));
}

}  // namespace switchyard::cuda
