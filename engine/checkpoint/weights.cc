#include "engine/checkpoint/weights.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/json.h"
#include "engine/base/model_folder.h"
#include "engine/base/status_macros.h"
#include "engine/checkpoint/shard_set.h"
#include "engine/checkpoint/tensor_names.h"
#include "engine/checkpoint/weight_reader.h"
#include "engine/checkpoint/weight_table.h"

namespace switchyard {
namespace {

constexpr size_t kMaxLines = 50;

// What is wrong with the tensors of a checkpoint: a bounded number of lines.
class TensorProblems {
 public:
  // `line` is only called while there is room for what it makes.
  template <typename Line>
  void Add(const Line& line) {
    ++count_;
    if (lines_.size() < kMaxLines) lines_.push_back(line());
  }
  absl::Status ToStatus() const {
    if (count_ == 0) return absl::OkStatus();
    std::string text = absl::StrJoin(lines_, "\n");
    const size_t num_more = count_ - lines_.size();
    if (num_more > 0) absl::StrAppend(&text, "\nand ", num_more, " more");
    return absl::InvalidArgumentError(text);
  }

 private:
  std::vector<std::string> lines_;
  size_t count_ = 0;
};

std::string At(const ShardTensor& found) {
  return absl::StrCat(found.file->name(), ": tensor \"", Printable(found.tensor->name, 200), "\" at byte ",
                      found.tensor->begin);
}

// Joins the places of weights with what the files hold.
class WeightFinder {
 public:
  WeightFinder(const ModelConfig& config, const ShardSet& shards, TensorProblems* problems)
      : quantization_(config.quantization), shards_(shards), problems_(*problems), used_(shards.tensors().size()) {}

  const std::vector<bool>& used() const { return used_; }

  // Null: noted.
  const ShardTensor* FindTensor(const std::string& name, std::span<const int64_t> shape) {
    const int position = shards_.Find(name);
    if (position < 0) {
      problems_.Add([&] { return absl::StrCat("tensor \"", name, "\" is missing"); });
      return nullptr;
    }
    used_[static_cast<size_t>(position)] = true;
    const ShardTensor& found = shards_.tensors()[static_cast<size_t>(position)];
    const auto stored = found.tensor->shape();
    if (std::equal(stored.begin(), stored.end(), shape.begin(), shape.end())) return &found;
    problems_.Add([&] {
      return absl::StrCat(At(found), ": shape is [", absl::StrJoin(stored, ", "), "], but config.json calls for [",
                          absl::StrJoin(shape, ", "), "]");
    });
    return nullptr;
  }

  // Nothing: noted.
  std::optional<StoredElements> FindElements(const StoredPlace& place) {
    const ShardTensor* const found = FindTensor(place.tensor, place.shape);
    if (!place.scales.empty()) return FindMxfp4(place, found);
    if (found == nullptr) return std::nullopt;
    const StoredType& type = *found->tensor->type;
    if (type.is_readable) return StoredElements::Plain(found->file, *found->tensor);
    if (quantization_.fp8_blocks && std::string_view(type.name) == "F8_E4M3" && found->tensor->rank == 2) {
      return FindFp8(place, *found);
    }
    AddBadType(*found, "weights must be F32, F16 or BF16");
    return std::nullopt;
  }

 private:
  void AddBadType(const ShardTensor& found, const char* expected) {
    problems_.Add([&] { return absl::StrCat(At(found), ": type is ", found.tensor->type->name, "; ", expected); });
  }

  std::optional<StoredElements> FindFp8(const StoredPlace& place, const ShardTensor& found) {
    const int64_t rows = quantization_.block_rows, cols = quantization_.block_cols;
    const int64_t shape[] = {(found.tensor->dims[0] + rows - 1) / rows, (found.tensor->dims[1] + cols - 1) / cols};
    const ShardTensor* const scales = FindTensor(place.tensor + "_scale_inv", shape);
    if (scales == nullptr) return std::nullopt;
    if (scales->tensor->type->is_readable) {
      return StoredElements::Fp8Blocks(found.file, *found.tensor, scales->file, *scales->tensor, rows, cols);
    }
    AddBadType(*scales, "scales must be F32, F16 or BF16");
    return std::nullopt;
  }

  std::optional<StoredElements> FindMxfp4(const StoredPlace& place, const ShardTensor* blocks) {
    const ShardTensor* const scales = FindTensor(place.scales, place.scales_shape);
    if (blocks == nullptr || scales == nullptr) return std::nullopt;
    bool valid = true;
    for (const ShardTensor* part : {blocks, scales}) {
      if (std::string_view(part->tensor->type->name) == "U8") continue;
      AddBadType(*part, "blocks and scales of mxfp4 must be U8");
      valid = false;
    }
    if (!valid) return std::nullopt;
    return StoredElements::Mxfp4(blocks->file, *blocks->tensor, scales->file, *scales->tensor);
  }

  const Quantization quantization_;
  const ShardSet& shards_;
  TensorProblems& problems_;
  std::vector<bool> used_;
};

void AddLeftOvers(const ShardSet& shards, const std::vector<bool>& used, const TensorNames& names,
                  TensorProblems* problems) {
  for (size_t i = 0; i < used.size(); ++i) {
    const ShardTensor& found = shards.tensors()[i];
    if (used[i] || names.IsIgnored(found.tensor->name)) continue;
    problems->Add([&] { return absl::StrCat(At(found), ": is no tensor of this model"); });
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Weights>> OpenWeights(const ModelConfig& config, const std::string& model_dir) {
  ASSIGN_OR_RETURN(const ModelFolder folder, ModelFolder::Open(model_dir));
  ASSIGN_OR_RETURN(const std::shared_ptr<const ShardSet> shards, ShardSet::Open(folder));
  const TensorNames names(config, [&](const std::string& name) { return shards->Find(name) >= 0; });

  // What the readers read from and through.
  struct Source {
    std::shared_ptr<const ShardSet> shards;
    std::deque<StoredElements> tensors;  // stay where they are
    SourceCache cache;
  };
  auto source = std::make_shared<Source>();
  source->shards = shards;
  auto table = std::make_unique<WeightTable<WeightReader>>(config);
  table->Keep(source);
  TensorProblems problems;
  WeightFinder finder(config, *shards, &problems);
  absl::flat_hash_map<std::string, const StoredElements*> by_name;  // null: its problem is noted
  ForEachWeight(config, [&](const WeightSpec& spec) {
    const StoredPlace place = names.PlaceOf(spec);
    // The weights of a fused tensor follow each other, but gate, up and down take turns.
    const auto [found, is_new] = by_name.try_emplace(place.tensor, nullptr);
    if (is_new) {
      const std::optional<StoredElements> elements = finder.FindElements(place);
      if (elements.has_value()) found->second = &source->tensors.emplace_back(*elements);
    }
    if (found->second == nullptr) return;
    const WeightView view = {place.offset, static_cast<int32_t>(spec.rows), static_cast<int32_t>(spec.cols),
                             static_cast<int32_t>(place.row_pitch), static_cast<int32_t>(place.col_pitch)};
    table->Add(spec, WeightReader(found->second, &source->cache, view));
  });
  AddLeftOvers(*shards, finder.used(), names, &problems);
  RETURN_IF_ERROR(problems.ToStatus());
  return table;
}

}  // namespace switchyard
