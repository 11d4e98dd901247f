// Where a checkpoint keeps each weight: its tensor's name and shape, and the rows of it.
//
// Checkpoints of one family exist in several layouts, so the layout is decided by which names are there:
//   split   P mlp.experts.{e}.{gate,up,down}_proj.weight                       one tensor per expert and matrix
//           P block_sparse_moe.experts.{e}.{w1,w3,w2}.weight                   (w1 gate, w3 up, w2 down)
//   fused   P mlp.experts.gate_up_proj [E, 2I, H], gate rows first; P mlp.experts.down_proj [E, H, I]
// with P = model.layers.{l}. and either name of the block before either form.
#ifndef SWITCHYARD_ENGINE_CHECKPOINT_TENSOR_NAMES_H_
#define SWITCHYARD_ENGINE_CHECKPOINT_TENSOR_NAMES_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine/checkpoint/weight_table.h"
#include "engine/config/model_config.h"

namespace switchyard {

struct StoredPlace {
  std::string tensor;
  std::vector<int64_t> shape;      // of the whole tensor
  int64_t first_row = 0;           // of its rows, all but the last dimension flattened
  bool is_first_of_tensor = true;  // fused: the place that reports what is wrong with the tensor
};

struct ExpertNames {
  const char* block;
  bool fused;
  const char* gate;  // fused: gate and up together
  const char* up;
  const char* down;
};

class TensorNames {
 public:
  // `exists` tells whether the checkpoint has a tensor of a name. `config` outlives this.
  TensorNames(const ModelConfig& config, const std::function<bool(const std::string&)>& exists);

  StoredPlace PlaceOf(const WeightSpec& spec) const;

  // Tensors that may be left over: buffers that old exports contain, and the output head where it is the embedding.
  bool IsIgnored(const std::string& tensor) const;

 private:
  StoredPlace FusedPlaceOf(const WeightSpec& spec) const;
  std::string NameOf(const WeightSpec& spec) const;

  const ModelConfig& config_;
  const ExpertNames* experts_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CHECKPOINT_TENSOR_NAMES_H_
