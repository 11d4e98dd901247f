// The weight files of a model folder as one set of tensors, each name once.
//
// Either model.safetensors alone, or model.safetensors.index.json ({"weight_map": {tensor: file}}) and the files that
// it names. The index has to agree with the files: every tensor of every file is in it, with that file, and the
// reverse.
#ifndef SWITCHYARD_ENGINE_CHECKPOINT_SHARD_SET_H_
#define SWITCHYARD_ENGINE_CHECKPOINT_SHARD_SET_H_

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "engine/base/model_folder.h"
#include "engine/checkpoint/safetensors.h"

namespace switchyard {

struct ShardTensor {
  const SafetensorsFile* file = nullptr;
  const StoredTensor* tensor = nullptr;
};

class ShardSet {
 public:
  // NOT_FOUND: neither file is there. INVALID_ARGUMENT, DATA_LOSS: as SafetensorsFile::Open, or the index disagrees.
  static absl::StatusOr<std::unique_ptr<ShardSet>> Open(const ModelFolder& folder);

  const std::vector<ShardTensor>& tensors() const { return tensors_; }

  // Position in tensors(), or -1.
  int Find(const std::string& name) const;

 private:
  friend class ShardSetBuilder;

  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::vector<ShardTensor> tensors_;
  absl::flat_hash_map<std::string, int> by_name_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CHECKPOINT_SHARD_SET_H_
