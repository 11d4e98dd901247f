// NamedTensors over readers of one kind.
#ifndef SWITCHYARD_ENGINE_CHECKPOINT_TENSOR_MAP_H_
#define SWITCHYARD_ENGINE_CHECKPOINT_TENSOR_MAP_H_

#include <memory>
#include <string>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "engine/base/status_macros.h"
#include "engine/checkpoint/named_tensors.h"

namespace switchyard {

template <typename Reader>
class TensorMap final : public NamedTensors {
 public:
  // REQUIRES: the name was not added before.
  void Add(const TensorSpec& spec, Reader reader) {
    num_parameters_ += spec.rows() * spec.cols();
    CHECK(readers_.emplace(spec.name, std::make_unique<Reader>(std::move(reader))).second);
  }
  // What the readers read from.
  void Keep(std::shared_ptr<const void> source) { source_ = std::move(source); }

  const TensorReader& Get(const std::string& name) const override {
    const auto found = readers_.find(name);
    CHECK(found != readers_.end());
    return *found->second;
  }
  int64_t num_parameters() const override { return num_parameters_; }

 private:
  absl::flat_hash_map<std::string, std::unique_ptr<Reader>> readers_;
  std::shared_ptr<const void> source_;
  int64_t num_parameters_ = 0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CHECKPOINT_TENSOR_MAP_H_
