#include "engine/checkpoint/weights.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/json.h"
#include "engine/base/model_folder.h"
#include "engine/base/status_macros.h"
#include "engine/checkpoint/convert.h"
#include "engine/checkpoint/shard_set.h"
#include "engine/checkpoint/tensor_names.h"
#include "engine/checkpoint/weight_table.h"

namespace switchyard {
namespace {

constexpr size_t kMaxLines = 50;

// Rows of a stored tensor.
class ShardReader final : public TensorReader {
 public:
  ShardReader() = default;
  ShardReader(const SafetensorsFile* file, DType dtype, int64_t begin, int64_t rows, int64_t cols)
      : file_(file), begin_(begin), rows_(rows), cols_(cols), dtype_(dtype) {}

  int64_t rows() const override { return rows_; }
  int64_t cols() const override { return cols_; }

  absl::Status ReadRows(int64_t first, int64_t count, DType as, void* out) const override {
    const int64_t offset = begin_ + first * cols_ * DTypeBytes(dtype_);
    if (as == dtype_) return file_->Read(offset, count * cols_ * DTypeBytes(dtype_), out);
    return ReadConverted(offset, count * cols_, as, static_cast<char*>(out));
  }

 private:
  // Through a buffer that stays in the core's own cache.
  absl::Status ReadConverted(int64_t offset, int64_t count, DType as, char* out) const {
    constexpr int64_t kBufferBytes = 128 << 10;
    alignas(64) char buffer[kBufferBytes];
    const int64_t max_elements = kBufferBytes / DTypeBytes(dtype_);
    while (count > 0) {
      const int64_t elements = std::min(count, max_elements);
      const int64_t bytes = elements * DTypeBytes(dtype_);
      RETURN_IF_ERROR(file_->Read(offset, bytes, buffer));
      ConvertElements(dtype_, buffer, as, out, elements);
      offset += bytes;
      out += elements * DTypeBytes(as);
      count -= elements;
    }
    return absl::OkStatus();
  }

  const SafetensorsFile* file_ = nullptr;
  int64_t begin_ = 0;
  int64_t rows_ = 0;
  int64_t cols_ = 0;
  DType dtype_ = DType::kF32;
};

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

// True when the tensor can serve as this weight.
bool CheckTensor(const ShardTensor& found, const StoredPlace& place, TensorProblems* problems) {
  const auto shape = found.tensor->shape();
  const bool same = std::equal(shape.begin(), shape.end(), place.shape.begin(), place.shape.end());
  if (!same && place.is_first_of_tensor) {
    problems->Add([&] {
      return absl::StrCat(At(found), ": shape is [", absl::StrJoin(shape, ", "), "], but config.json calls for [",
                          absl::StrJoin(place.shape, ", "), "]");
    });
  }
  const bool readable = found.tensor->type->is_readable;
  if (!readable && place.is_first_of_tensor) {
    problems->Add([&] {
      return absl::StrCat(At(found), ": type is ", found.tensor->type->name, "; weights must be F32, F16 or BF16");
    });
  }
  return same && readable;
}

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

  auto table = std::make_unique<WeightTable<ShardReader>>(config);
  table->Keep(shards);
  TensorProblems problems;
  std::vector<bool> used(shards->tensors().size());
  ForEachWeight(config, [&](const WeightSpec& spec) {
    const StoredPlace place = names.PlaceOf(spec);
    const int position = shards->Find(place.tensor);
    if (position < 0) {
      if (!place.is_first_of_tensor) return;
      return problems.Add([&] { return absl::StrCat("tensor \"", place.tensor, "\" is missing"); });
    }
    used[static_cast<size_t>(position)] = true;
    const ShardTensor& found = shards->tensors()[static_cast<size_t>(position)];
    if (!CheckTensor(found, place, &problems)) return;
    const DType dtype = found.tensor->type->dtype;
    const int64_t begin = found.tensor->begin + place.first_row * spec.cols * DTypeBytes(dtype);
    table->Add(spec, ShardReader(found.file, dtype, begin, spec.rows, spec.cols));
  });
  AddLeftOvers(*shards, used, names, &problems);
  RETURN_IF_ERROR(problems.ToStatus());
  return table;
}

}  // namespace switchyard
