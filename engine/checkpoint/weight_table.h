// Which weights a config calls for, with their shapes; and a table that finds one in constant time.
#ifndef SWITCHYARD_ENGINE_CHECKPOINT_WEIGHT_TABLE_H_
#define SWITCHYARD_ENGINE_CHECKPOINT_WEIGHT_TABLE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "engine/base/tensor_reader.h"
#include "engine/checkpoint/weights.h"
#include "engine/config/model_config.h"

namespace switchyard {

struct WeightSpec {
  WeightName name = WeightName::kEmbedding;
  int layer = -1;
  int expert = -1;
  int64_t rows = 0;  // 1 for a vector
  int64_t cols = 0;
  bool is_vector = false;
};

// Calls `visit` for each weight of the model: the model's own, then layer by layer, experts last, each expert's gate,
// up and down in a row. A tied kLmHead is not visited.
void ForEachWeight(const ModelConfig& config, const std::function<void(const WeightSpec&)>& visit);

// Elements of a model's weights, scales of quantised ones not counted.
struct ParameterCounts {
  int64_t total = 0;
  int64_t active = 0;      // what one token meets: all but the experts that it does not choose
  int64_t in_experts = 0;  // all experts of all layers
  int64_t in_memory = 0;   // total, with a tied head counted twice: backends keep it in two layouts
};

ParameterCounts CountParameters(const ModelConfig& config);

// Gives every possible (name, layer, expert) of a config a number from 0 on.
class WeightSlots {
 public:
  explicit WeightSlots(const ModelConfig& config);

  int64_t count() const { return expert_base_.back(); }
  // -1 where the config has no such layer or expert.
  int64_t SlotOf(WeightName name, int layer, int expert) const;

 private:
  int64_t names_per_expert_ = 0;
  std::vector<int64_t> expert_base_;  // [num_layers + 1] first slot of each layer's experts
};

// Weights over readers of one kind.
template <typename Reader>
class WeightTable final : public Weights {
 public:
  explicit WeightTable(const ModelConfig& config)
      : slots_(config), readers_(static_cast<size_t>(slots_.count())), tied_(config.tie_word_embeddings) {}

  // REQUIRES: the config has this weight, and it was not added before.
  void Add(const WeightSpec& spec, Reader reader) {
    num_parameters_ += spec.rows * spec.cols;
    readers_[static_cast<size_t>(slots_.SlotOf(spec.name, spec.layer, spec.expert))] = std::move(reader);
  }
  // What the readers read from, and what StartReading calls.
  void Keep(std::shared_ptr<const void> source, std::function<void()> start_reading) {
    source_ = std::move(source);
    start_reading_ = std::move(start_reading);
  }

  const TensorReader* Find(WeightName name, int layer, int expert) const override {
    if (tied_ && name == WeightName::kLmHead) name = WeightName::kEmbedding;
    const int64_t slot = slots_.SlotOf(name, layer, expert);
    if (slot < 0 || readers_[static_cast<size_t>(slot)].cols() == 0) return nullptr;
    return &readers_[static_cast<size_t>(slot)];
  }
  int64_t num_parameters() const override { return num_parameters_; }
  void StartReading() const override {
    if (start_reading_) start_reading_();
  }

 private:
  WeightSlots slots_;
  std::vector<Reader> readers_;  // by slot; no columns where the model has none
  std::shared_ptr<const void> source_;
  std::function<void()> start_reading_;
  int64_t num_parameters_ = 0;
  bool tied_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CHECKPOINT_WEIGHT_TABLE_H_
