// The weights of a model whose checkpoints have our own layout: every weight is one tensor, read under its stored name.
//
// Families that others publish go through weights.h, which finds the same weight under many names.
#ifndef SWITCHYARD_ENGINE_CHECKPOINT_NAMED_TENSORS_H_
#define SWITCHYARD_ENGINE_CHECKPOINT_NAMED_TENSORS_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/base/tensor_reader.h"

namespace switchyard {

struct TensorSpec {
  std::string name;
  std::vector<int64_t> shape;  // of rank 1 or 2
  double dummy_deviation = 0.0;  // of dummy values around 0; 0: all of them are 1, as a norm's

  int64_t rows() const { return shape.size() == 2 ? shape[0] : 1; }
  int64_t cols() const { return shape.back(); }
};

class NamedTensors {
 public:
  virtual ~NamedTensors() = default;

  // Lives as long as this object. REQUIRES: one of the specs has this name.
  virtual const TensorReader& Get(const std::string& name) const = 0;

  virtual int64_t num_parameters() const = 0;
};

// The tensors of the folder's model.safetensors, or of its index and shards: all of `specs` with their shapes, and no
// others. INVALID_ARGUMENT, NOT_FOUND: as OpenWeights.
absl::StatusOr<std::unique_ptr<NamedTensors>> OpenNamedTensors(std::span<const TensorSpec> specs,
                                                               const std::string& model_dir);

// Random values as each spec says; value i of a tensor depends on (seed, name, i) only.
std::unique_ptr<NamedTensors> MakeDummyTensors(std::span<const TensorSpec> specs, uint64_t seed);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CHECKPOINT_NAMED_TENSORS_H_
