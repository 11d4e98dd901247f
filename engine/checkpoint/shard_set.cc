#include "engine/checkpoint/shard_set.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/json.h"
#include "engine/base/status_macros.h"

namespace switchyard {
namespace {

constexpr char kSingleFile[] = "model.safetensors";
constexpr char kIndexFile[] = "model.safetensors.index.json";
constexpr JsonLimits kIndexLimits = {.max_bytes = size_t{32} << 20, .max_depth = 8, .max_values = 4 * kMaxTensors};
constexpr size_t kMaxShards = 1024;

absl::Status IndexError(const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat(kIndexFile, ": ", problem));
}

std::string Quoted(const std::string& name) { return absl::StrCat("\"", Printable(name), "\""); }

// Keeps `weight_map`; everything else in the index is only walked over.
class IndexVisitor : public JsonVisitor {
 public:
  const std::map<std::string, int>& shards() const { return shards_; }
  absl::flat_hash_map<std::string, int>& shard_of() { return shard_of_; }
  bool has_weight_map() const { return has_weight_map_; }

  absl::Status Null() override { return NotAString(); }
  absl::Status Bool(bool) override { return NotAString(); }
  absl::Status Negative(int64_t) override { return NotAString(); }
  absl::Status Unsigned(uint64_t) override { return NotAString(); }
  absl::Status Real(double) override { return NotAString(); }
  absl::Status BeginArray() override {
    RETURN_IF_ERROR(NotAString());
    ++depth_;
    return absl::OkStatus();
  }
  absl::Status EndArray() override {
    --depth_;
    return absl::OkStatus();
  }

  absl::Status BeginObject() override {
    if (depth_ == 1 && key_ == "weight_map") {
      if (has_weight_map_) return absl::InvalidArgumentError("duplicate key \"weight_map\"");
      has_weight_map_ = in_weight_map_ = true;
    } else {
      RETURN_IF_ERROR(NotAString());
    }
    ++depth_;
    return absl::OkStatus();
  }
  absl::Status EndObject() override {
    if (--depth_ == 1) in_weight_map_ = false;
    return absl::OkStatus();
  }
  absl::Status Key(std::string key) override {
    key_ = std::move(key);
    return absl::OkStatus();
  }
  absl::Status String(std::string file) override {
    if (!in_weight_map_) return absl::OkStatus();
    if (shard_of_.size() == kMaxTensors)
      return absl::InvalidArgumentError(absl::StrCat("more than ", kMaxTensors, " tensors"));
    const int shard = shards_.try_emplace(std::move(file), static_cast<int>(shards_.size())).first->second;
    if (shards_.size() > kMaxShards)
      return absl::InvalidArgumentError(absl::StrCat("more than ", kMaxShards, " files"));
    if (shard_of_.try_emplace(std::move(key_), shard).second) return absl::OkStatus();
    return absl::InvalidArgumentError("a tensor is in weight_map twice");
  }

 private:
  absl::Status NotAString() const {
    if (!in_weight_map_) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat("weight_map: ", Quoted(key_), " is not a file name"));
  }

  std::map<std::string, int> shards_;  // file name -> number, in order of appearance
  absl::flat_hash_map<std::string, int> shard_of_;
  std::string key_;
  int depth_ = 0;
  bool in_weight_map_ = false;
  bool has_weight_map_ = false;
};

}  // namespace

// Fills a ShardSet file by file.
class ShardSetBuilder {
 public:
  explicit ShardSetBuilder(const ModelFolder& folder) : folder_(folder), set_(new ShardSet) {}

  absl::Status AddFile(const std::string& name) {
    ASSIGN_OR_RETURN(std::unique_ptr<SafetensorsFile> file, SafetensorsFile::Open(folder_, name));
    for (const StoredTensor& tensor : file->tensors()) {
      if (set_->tensors_.size() == kMaxTensors) {
        return absl::InvalidArgumentError(
            absl::StrCat(name, ": the files together hold more than ", kMaxTensors, " tensors"));
      }
      const int position = static_cast<int>(set_->tensors_.size());
      const auto [place, is_new] = set_->by_name_.try_emplace(tensor.name, position);
      if (!is_new) {
        const std::string& other = set_->tensors_[static_cast<size_t>(place->second)].file->name();
        return absl::InvalidArgumentError(
            absl::StrCat(name, ": tensor ", Quoted(tensor.name), " is in ", Printable(other), " too"));
      }
      set_->tensors_.push_back({file.get(), &tensor});
    }
    set_->files_.push_back(std::move(file));
    return absl::OkStatus();
  }

  absl::Status AddIndexedFiles(const std::string& index) {
    IndexVisitor visitor;
    RETURN_IF_ERROR(VisitJson(index, kIndexLimits, kIndexFile, &visitor));
    if (!visitor.has_weight_map()) return IndexError("weight_map is missing");
    std::vector<std::string> names(visitor.shards().size());
    for (const auto& [name, shard] : visitor.shards()) names[static_cast<size_t>(shard)] = name;
    for (const std::string& name : names) {
      const absl::Status added = AddFile(name);
      if (absl::IsNotFound(added))
        return IndexError(absl::StrCat("weight_map names the file ", Quoted(name), ", which is not there"));
      RETURN_IF_ERROR(added);
    }
    return CheckAgainst(visitor.shard_of(), names);
  }

  std::unique_ptr<ShardSet> Take() { return std::move(set_); }

 private:
  absl::Status CheckAgainst(absl::flat_hash_map<std::string, int>& shard_of, const std::vector<std::string>& names) {
    for (const ShardTensor& found : set_->tensors_) {
      const std::string& name = found.tensor->name;
      const auto entry = shard_of.find(name);
      if (entry == shard_of.end()) {
        return IndexError(
            absl::StrCat("weight_map lacks the tensor ", Quoted(name), " of ", Quoted(found.file->name())));
      }
      const std::string& expected = names[static_cast<size_t>(entry->second)];
      if (expected != found.file->name()) {
        return IndexError(absl::StrCat("weight_map puts the tensor ", Quoted(name), " into ", Quoted(expected),
                                       ", but it is in ", Quoted(found.file->name())));
      }
      shard_of.erase(entry);
    }
    if (shard_of.empty()) return absl::OkStatus();
    const auto& [name, shard] = *shard_of.begin();
    return IndexError(absl::StrCat("weight_map puts the tensor ", Quoted(name), " into ",
                                   Quoted(names[static_cast<size_t>(shard)]), ", which does not hold it"));
  }

  const ModelFolder& folder_;
  std::unique_ptr<ShardSet> set_;
};

absl::StatusOr<std::unique_ptr<ShardSet>> ShardSet::Open(const ModelFolder& folder) {
  ShardSetBuilder builder(folder);
  const absl::Status single = builder.AddFile(kSingleFile);
  if (single.ok()) return builder.Take();
  if (!absl::IsNotFound(single)) return single;

  const absl::StatusOr<std::string> index = folder.ReadSmallFile(kIndexFile, kIndexLimits.max_bytes);
  if (absl::IsNotFound(index.status())) {
    return absl::NotFoundError(absl::StrCat("the model folder has neither ", kSingleFile, " nor ", kIndexFile));
  }
  RETURN_IF_ERROR(index.status());
  RETURN_IF_ERROR(builder.AddIndexedFiles(*index));
  return builder.Take();
}

int ShardSet::Find(const std::string& name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? -1 : found->second;
}

}  // namespace switchyard
