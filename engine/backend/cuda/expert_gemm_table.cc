#include "engine/backend/cuda/expert_gemm_table.h"

#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/base/json.h"
#include "engine/base/model_folder.h"
#include "engine/base/status_macros.h"

namespace switchyard::cuda {
namespace {

using nlohmann::json;

constexpr JsonLimits kLimits = {.max_bytes = size_t{4} << 20, .max_depth = 16, .max_values = size_t{1} << 18};
constexpr size_t kMaxEntries = 1024;
constexpr size_t kMaxBuckets = 64;
constexpr size_t kMaxDeviceBytes = 256;   // of cudaDeviceProp::name
constexpr int64_t kMaxSize = 1 << 20;     // of a dimension; and tokens of a step, as --max-num-batched-tokens

absl::Status Invalid(const std::string& where, const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat(where, " ", problem));
}

// An object of known fields; `where` is its place for messages.
class Fields {
 public:
  static absl::StatusOr<Fields> Of(const json& value, const std::string& where,
                                   std::initializer_list<std::string_view> required, std::string_view optional = "") {
    if (!value.is_object()) return Invalid(where, "is not an object");
    for (const std::string_view name : required) {
      if (!value.contains(name)) return Invalid(where, absl::StrCat("has no \"", std::string(name), "\""));
    }
    for (const auto& [name, unused] : value.items()) {
      if (std::find(required.begin(), required.end(), name) != required.end() || name == optional) continue;
      return Invalid(where, absl::StrCat("has a field \"", Printable(name), "\", which is not known"));
    }
    return Fields(value, where);
  }

  const json& operator[](const char* name) const { return *value_.find(name); }
  std::string PlaceOf(const char* name) const { return absl::StrCat(where_, ".", name); }

  absl::StatusOr<int64_t> Integer(const char* name, int64_t min, int64_t max) const {
    const json& value = (*this)[name];
    // A number written with a fraction or beyond 64 bits is a float to the parser.
    if (value.is_number_integer() && value.get<int64_t>() >= min && value.get<int64_t>() <= max &&
        !(value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(max))) {
      return value.get<int64_t>();
    }
    return Invalid(PlaceOf(name),
                   absl::StrCat("is ", Printable(value.dump()), ", expected an integer from ", min, " to ", max));
  }

  absl::StatusOr<std::string> Text(const char* name, size_t max_bytes) const {
    const json& value = (*this)[name];
    if (!value.is_string()) return Invalid(PlaceOf(name), absl::StrCat("is ", Printable(value.dump()), ", not a text"));
    const std::string& text = value.get_ref<const std::string&>();
    if (text.empty() || text.size() > max_bytes) {
      return Invalid(PlaceOf(name), absl::StrCat("has ", text.size(), " bytes, expected 1 to ", max_bytes));
    }
    return text;
  }

  absl::StatusOr<std::span<const json>> List(const char* name, size_t max_size) const {
    const json& value = (*this)[name];
    if (!value.is_array()) return Invalid(PlaceOf(name), "is not an array");
    const auto& elements = value.get_ref<const json::array_t&>();
    if (elements.empty() || elements.size() > max_size) {
      return Invalid(PlaceOf(name), absl::StrCat("has ", elements.size(), " elements, expected 1 to ", max_size));
    }
    return std::span(elements);
  }

  // A provider that may serve all steps of `first` to `last` tokens.
  absl::StatusOr<const ExpertGemmKind*> Provider(const char* name, int64_t first, int64_t last) const {
    ASSIGN_OR_RETURN(const std::string text, Text(name, kMaxDeviceBytes));
    const ExpertGemmKind* const kind = FindExpertGemmKind(text);
    if (kind != nullptr && ServesTokens(*kind, first, last)) return kind;
    std::string choices;
    for (const ExpertGemmKind& other : kExpertGemmKinds) {
      if (ServesTokens(other, first, last)) absl::StrAppend(&choices, choices.empty() ? "" : ", ", other.name);
    }
    const std::string range =
        last == kAnyTokens ? "every number of tokens" : absl::StrCat(first, " to ", last, " tokens");
    return Invalid(PlaceOf(name), absl::StrCat("is \"", Printable(text), "\", which ",
                                               kind == nullptr ? "is no provider" : "cannot serve all such steps",
                                               "; for ", range, " use one of: ", choices));
  }

 private:
  Fields(const json& value, std::string where) : value_(value), where_(std::move(where)) {}

  const json& value_;
  std::string where_;
};

absl::StatusOr<DType> ReadDType(const Fields& fields) {
  ASSIGN_OR_RETURN(const std::string name, fields.Text("dtype", kMaxDeviceBytes));
  for (const DType dtype : {DType::kBF16, DType::kF32}) {
    if (name == DTypeName(dtype)) return dtype;
  }
  return Invalid(fields.PlaceOf("dtype"), absl::StrCat("is \"", Printable(name), "\"; use ", DTypeName(DType::kBF16),
                                                       " or ", DTypeName(DType::kF32)));
}

absl::StatusOr<const ExpertGemmKind*> ReadAlways(const Fields& fields) {
  ASSIGN_OR_RETURN(const ExpertGemmKind* const kind, fields.Provider("always", 1, kAnyTokens));
  if (kind->batch_invariant) return kind;
  return Invalid(fields.PlaceOf("always"),
                 absl::StrCat("is \"", kind->name, "\", with which the last bits of an answer depend on the batch"));
}

absl::StatusOr<std::vector<ExpertGemmBucket>> ReadBuckets(const Fields& entry) {
  ASSIGN_OR_RETURN(const std::span<const json> lines, entry.List("fastest", kMaxBuckets));
  std::vector<ExpertGemmBucket> buckets;
  int64_t covered = 0;
  for (const json& line : lines) {
    const std::string where = absl::StrCat(entry.PlaceOf("fastest"), "[", buckets.size(), "]");
    ASSIGN_OR_RETURN(const Fields fields, Fields::Of(line, where, {"max_tokens", "provider"}));
    ExpertGemmBucket bucket;
    ASSIGN_OR_RETURN(bucket.max_tokens, fields.Integer("max_tokens", 1, kMaxSize));
    if (bucket.max_tokens <= covered) {
      return Invalid(fields.PlaceOf("max_tokens"), absl::StrCat("is ", bucket.max_tokens, ", but the elements before ",
                                                                "serve up to ", covered, " tokens already"));
    }
    ASSIGN_OR_RETURN(bucket.provider, fields.Provider("provider", covered + 1, bucket.max_tokens));
    covered = bucket.max_tokens;
    buckets.push_back(bucket);
  }
  return buckets;
}

absl::StatusOr<ExpertGemmEntry> ReadEntry(const json& value, const std::string& where) {
  ASSIGN_OR_RETURN(const Fields fields,
                   Fields::Of(value, where,
                              {"device", "hidden", "intermediate", "experts", "top_k", "dtype", "always", "fastest"},
                              "measured"));
  ExpertGemmEntry entry;
  ASSIGN_OR_RETURN(entry.device, fields.Text("device", kMaxDeviceBytes));
  ASSIGN_OR_RETURN(entry.shape.hidden, fields.Integer("hidden", 1, kMaxSize));
  ASSIGN_OR_RETURN(entry.shape.intermediate, fields.Integer("intermediate", 1, kMaxSize));
  ASSIGN_OR_RETURN(entry.shape.num_experts, fields.Integer("experts", 1, kMaxExperts));
  ASSIGN_OR_RETURN(entry.shape.top_k, fields.Integer("top_k", 1, std::min<int64_t>(kMaxTopK, entry.shape.num_experts)));
  ASSIGN_OR_RETURN(entry.shape.dtype, ReadDType(fields));
  ASSIGN_OR_RETURN(entry.always, ReadAlways(fields));
  ASSIGN_OR_RETURN(entry.fastest, ReadBuckets(fields));
  return entry;
}

absl::StatusOr<std::vector<ExpertGemmEntry>> ReadEntries(const json& root, const std::string& what) {
  ASSIGN_OR_RETURN(const Fields fields, Fields::Of(root, what + ": the document", {"format", "entries"}));
  if (fields["format"] != kExpertGemmTableFormat) {
    return Invalid(what + ": format", absl::StrCat("is ", Printable(fields["format"].dump()), ", expected \"",
                                                   kExpertGemmTableFormat, "\""));
  }
  ASSIGN_OR_RETURN(const std::span<const json> values, fields.List("entries", kMaxEntries));
  std::vector<ExpertGemmEntry> entries;
  for (const json& value : values) {
    const std::string where = absl::StrCat(what, ": entries[", entries.size(), "]");
    ASSIGN_OR_RETURN(ExpertGemmEntry entry, ReadEntry(value, where));
    for (size_t i = 0; i < entries.size(); ++i) {
      if (entries[i].device == entry.device && entries[i].shape == entry.shape) {
        return Invalid(where, absl::StrCat("is for the device and shape of entries[", i, "]"));
      }
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

}  // namespace

absl::StatusOr<std::vector<ExpertGemmEntry>> ParseExpertGemmTable(std::string_view text, const std::string& what) {
  ASSIGN_OR_RETURN(const json root, ParseJson(text, kLimits, what));
  return ReadEntries(root, what);
}

absl::StatusOr<std::vector<ExpertGemmEntry>> ReadExpertGemmTable(const std::string& file) {
  const std::filesystem::path path(file);
  const std::string folder = path.parent_path().string();
  ASSIGN_OR_RETURN(const ModelFolder opened, ModelFolder::Open(folder.empty() ? "." : folder));
  ASSIGN_OR_RETURN(const std::string text, opened.ReadSmallFile(path.filename().string(), kLimits.max_bytes));
  return ParseExpertGemmTable(text, path.filename().string());
}

}  // namespace switchyard::cuda
