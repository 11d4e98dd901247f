// Joins what a config calls for with what the weight files hold, and notes every disagreement.
#ifndef SWITCHYARD_ENGINE_CHECKPOINT_TENSOR_FINDER_H_
#define SWITCHYARD_ENGINE_CHECKPOINT_TENSOR_FINDER_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "engine/checkpoint/read_ahead.h"
#include "engine/checkpoint/shard_set.h"
#include "engine/checkpoint/stored_elements.h"
#include "engine/checkpoint/tensor_names.h"
#include "engine/config/model_config.h"

namespace switchyard {

// What is wrong with the tensors of a checkpoint: a bounded number of lines.
class TensorProblems {
 public:
  // `line` is only called while there is room for what it makes.
  template <typename Line>
  void Add(const Line& line) {
    ++count_;
    if (lines_.size() < kMaxLines) lines_.push_back(line());
  }
  // OK when there are none, else INVALID_ARGUMENT with all lines.
  absl::Status ToStatus() const;

 private:
  static constexpr size_t kMaxLines = 50;

  std::vector<std::string> lines_;
  size_t count_ = 0;
};

class TensorFinder {
 public:
  // `shards` and `problems` outlive this.
  TensorFinder(const Quantization& quantization, const ShardSet& shards, TensorProblems* problems)
      : quantization_(quantization), shards_(shards), problems_(*problems), used_(shards.tensors().size()) {}

  // The elements of the tensor at `place`, whose shape and type are as they must be. Nothing: noted.
  std::optional<StoredElements> FindElements(const StoredPlace& place);

  // Notes the tensors that nobody has asked for.
  void NoteLeftOvers(const std::function<bool(const std::string& name)>& is_ignored);

  // Where the tensors are that somebody has asked for: files in the order of their names, as checkpoints number them.
  std::vector<FileRange> UsedRanges() const;

 private:
  const ShardTensor* FindTensor(const std::string& name, std::span<const int64_t> shape);  // null: noted
  std::optional<StoredElements> FindFp8(const StoredPlace& place, const ShardTensor& found);
  std::optional<StoredElements> FindMxfp4(const StoredPlace& place, const ShardTensor* blocks);
  void AddBadType(const ShardTensor& found, const char* expected);

  const Quantization quantization_;
  const ShardSet& shards_;
  TensorProblems& problems_;
  std::vector<bool> used_;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CHECKPOINT_TENSOR_FINDER_H_
