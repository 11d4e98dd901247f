#include "engine/checkpoint/weights.h"

#include <deque>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "engine/base/model_folder.h"
#include "engine/base/status_macros.h"
#include "engine/checkpoint/read_ahead.h"
#include "engine/checkpoint/shard_set.h"
#include "engine/checkpoint/tensor_finder.h"
#include "engine/checkpoint/tensor_names.h"
#include "engine/checkpoint/weight_reader.h"
#include "engine/checkpoint/weight_table.h"

namespace switchyard {

absl::StatusOr<std::unique_ptr<Weights>> OpenWeights(const ModelConfig& config, const std::string& model_dir) {
  ASSIGN_OR_RETURN(const ModelFolder folder, ModelFolder::Open(model_dir));
  ASSIGN_OR_RETURN(const std::shared_ptr<const ShardSet> shards, ShardSet::Open(folder));
  const TensorNames names(config, [&](const std::string& name) { return shards->Find(name) >= 0; });

  // What the readers read from and through.
  struct Source {
    std::shared_ptr<const ShardSet> shards;
    std::deque<StoredElements> tensors;  // stay where they are
    SourceCache cache;
    std::optional<ReadAhead> read_ahead;
  };
  auto source = std::make_shared<Source>();
  source->shards = shards;
  auto table = std::make_unique<WeightTable<WeightReader>>(config);
  TensorProblems problems;
  TensorFinder finder(config.quantization, *shards, &problems);
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
  finder.NoteLeftOvers([&](const std::string& name) { return names.IsIgnored(name); });
  RETURN_IF_ERROR(problems.ToStatus());
  source->read_ahead.emplace(finder.UsedRanges());
  table->Keep(source, [reader = &*source->read_ahead] { reader->Start(); });
  return table;
}

}  // namespace switchyard
