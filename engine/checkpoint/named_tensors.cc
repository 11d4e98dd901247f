#include "engine/checkpoint/named_tensors.h"

#include <deque>
#include <optional>
#include <utility>

#include "engine/base/model_folder.h"
#include "engine/checkpoint/shard_set.h"
#include "engine/checkpoint/tensor_finder.h"
#include "engine/checkpoint/tensor_map.h"
#include "engine/checkpoint/weight_reader.h"

namespace switchyard {

absl::StatusOr<std::unique_ptr<NamedTensors>> OpenNamedTensors(std::span<const TensorSpec> specs,
                                                               const std::string& model_dir) {
  ASSIGN_OR_RETURN(const ModelFolder folder, ModelFolder::Open(model_dir));
  // What the readers read from and through.
  struct Source {
    std::unique_ptr<ShardSet> shards;
    std::deque<StoredElements> tensors;  // stay where they are
    SourceCache cache;
  };
  auto source = std::make_shared<Source>();
  ASSIGN_OR_RETURN(source->shards, ShardSet::Open(folder));
  auto map = std::make_unique<TensorMap<WeightReader>>();
  map->Keep(source);
  TensorProblems problems;
  TensorFinder finder(Quantization{}, *source->shards, &problems);
  for (const TensorSpec& spec : specs) {
    StoredPlace place;
    place.tensor = spec.name;
    place.shape = spec.shape;
    const std::optional<StoredElements> elements = finder.FindElements(place);
    if (!elements.has_value()) continue;
    const WeightView view = {.rows = static_cast<int32_t>(spec.rows()),
                             .cols = static_cast<int32_t>(spec.cols()),
                             .row_pitch = static_cast<int32_t>(spec.cols())};
    map->Add(spec, WeightReader(&source->tensors.emplace_back(*elements), &source->cache, view));
  }
  finder.NoteLeftOvers([](const std::string&) { return false; });
  RETURN_IF_ERROR(problems.ToStatus());
  return map;
}

}  // namespace switchyard
