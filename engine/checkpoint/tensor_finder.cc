#include "engine/checkpoint/tensor_finder.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/json.h"

namespace switchyard {
namespace {

std::string At(const ShardTensor& found) {
  return absl::StrCat(found.file->name(), ": tensor \"", Printable(found.tensor->name, 200), "\" at byte ",
                      found.tensor->begin);
}

}  // namespace

absl::Status TensorProblems::ToStatus() const {
  if (count_ == 0) return absl::OkStatus();
  std::string text = absl::StrJoin(lines_, "\n");
  const size_t num_more = count_ - lines_.size();
  if (num_more > 0) absl::StrAppend(&text, "\nand ", num_more, " more");
  return absl::InvalidArgumentError(text);
}

const ShardTensor* TensorFinder::FindTensor(const std::string& name, std::span<const int64_t> shape) {
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

std::optional<StoredElements> TensorFinder::FindElements(const StoredPlace& place) {
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

void TensorFinder::AddBadType(const ShardTensor& found, const char* expected) {
  problems_.Add([&] { return absl::StrCat(At(found), ": type is ", found.tensor->type->name, "; ", expected); });
}

std::optional<StoredElements> TensorFinder::FindFp8(const StoredPlace& place, const ShardTensor& found) {
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

std::optional<StoredElements> TensorFinder::FindMxfp4(const StoredPlace& place, const ShardTensor* blocks) {
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

void TensorFinder::NoteLeftOvers(const std::function<bool(const std::string&)>& is_ignored) {
  for (size_t i = 0; i < used_.size(); ++i) {
    const ShardTensor& found = shards_.tensors()[i];
    if (used_[i] || is_ignored(found.tensor->name)) continue;
    problems_.Add([&] { return absl::StrCat(At(found), ": is no tensor of this model"); });
  }
}

std::vector<FileRange> TensorFinder::UsedRanges() const {
  std::vector<FileRange> ranges;
  for (size_t i = 0; i < used_.size(); ++i) {
    const ShardTensor& found = shards_.tensors()[i];
    if (used_[i]) ranges.push_back({found.file, found.tensor->begin, found.tensor->end});
  }
  std::stable_sort(ranges.begin(), ranges.end(), [](const FileRange& a, const FileRange& b) {
    return a.file != b.file && a.file->name() < b.file->name();
  });
  return ranges;
}

}  // namespace switchyard
