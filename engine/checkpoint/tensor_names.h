// Where a checkpoint keeps each weight: its tensor's name and shape, and the rows of it.
//
// Checkpoints of one family exist in several layouts, so the layout is decided by which names are there:
//   split        P mlp.experts.{e}.{gate,up,down}_proj.weight          one tensor per expert and matrix
//                P block_sparse_moe.experts.{e}.{w1,w3,w2}.weight      (w1 gate, w3 up, w2 down)
//   fused rows   P mlp.experts.gate_up_proj [E, 2I, H], gate rows first; P mlp.experts.down_proj [E, H, I]
//   fused columns       gate_up_proj [E, H, 2I], gate columns first; down_proj [E, I, H]               (Llama 4)
//   interleaved columns gate_up_proj [E, H, 2I], even columns gate, odd up; biases likewise            (gpt-oss)
//   mxfp4        gate_up_proj_blocks [E, 2I, H/32, 16], even rows gate, odd up; _scales; down likewise (gpt-oss)
//   stacked      w1 (gate), v1 (up), w2 (down), each [E * I, H]: w2 is [in, out]                       (DBRX)
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

// Element (r, c) of the weight is element offset + r * row_pitch + c * col_pitch of the tensor.
struct StoredPlace {
  std::string tensor;
  std::vector<int64_t> shape;  // of the whole tensor
  int64_t offset = 0;
  int64_t row_pitch = 0;
  int64_t col_pitch = 1;
  std::string scales;          // mxfp4: the tensor with one scale per block of `tensor`; else empty
  std::vector<int64_t> scales_shape;
};

enum class ExpertStorage : uint8_t { kSplit, kFusedRows, kFusedColumns, kInterleaved, kMxfp4, kStacked };

// What follows the layer's prefix.
struct ExpertNames {
  const char* block;
  ExpertStorage storage;
  const char* gate;  // fused: gate and up together
  const char* up;
  const char* down;
  const char* router;
};

struct Dialect;  // how a family spells the rest

class TensorNames {
 public:
  // `exists` tells whether the checkpoint has a tensor of a name. `config` outlives this.
  TensorNames(const ModelConfig& config, const std::function<bool(const std::string&)>& exists);

  StoredPlace PlaceOf(const WeightSpec& spec) const;

  // Tensors that may be left over: buffers that old exports contain, the output head where it is the embedding, layers
  // for speculation, and the parts of a model that are not text.
  bool IsIgnored(const std::string& tensor) const;

 private:
  std::string LayerPrefix(int layer) const;
  std::string ExpertTensor(int layer, int expert, const char* matrix) const;
  StoredPlace ExpertPlaceOf(const WeightSpec& spec) const;
  StoredPlace ExpertBiasPlaceOf(const WeightSpec& spec) const;
  StoredPlace StackedPlaceOf(const WeightSpec& spec, std::string tensor) const;
  const ExpertNames* FindLayout(const std::function<bool(const std::string&)>& exists);
  std::string FindRouter(const std::function<bool(const std::string&)>& exists) const;

  const ModelConfig& config_;
  const Dialect* const dialect_;
  std::string prefix_;  // before every name: "language_model." in a model of several parts
  const ExpertNames* experts_;
  std::string router_;  // after the layer's prefix, without its ending
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CHECKPOINT_TENSOR_NAMES_H_
