#include "engine/checkpoint/safetensors.h"

#include <fcntl.h>

#include <algorithm>
#include <bit>
#include <optional>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/base/json.h"
#include "engine/base/status_macros.h"

namespace switchyard {
namespace {

constexpr int64_t kLengthBytes = 8;
constexpr size_t kMaxNameBytes = 4096;
constexpr uint64_t kMaxInteger = uint64_t{1} << 53;  // beyond, other parsers round
constexpr char kMetadataKey[] = "__metadata__";

constexpr StoredType kTypes[] = {
    {"F32", 32, true, DType::kF32},     {"F16", 16, true, DType::kF16},     {"BF16", 16, true, DType::kBF16},
    {"F64", 64, false, DType::kF32},    {"F8_E4M3", 8, false, DType::kF32}, {"F8_E5M2", 8, false, DType::kF32},
    {"F8_E8M0", 8, false, DType::kF32}, {"F6_E2M3", 6, false, DType::kF32}, {"F6_E3M2", 6, false, DType::kF32},
    {"F4", 4, false, DType::kF32},      {"I64", 64, false, DType::kF32},    {"U64", 64, false, DType::kF32},
    {"I32", 32, false, DType::kF32},    {"U32", 32, false, DType::kF32},    {"I16", 16, false, DType::kF32},
    {"U16", 16, false, DType::kF32},    {"I8", 8, false, DType::kF32},      {"U8", 8, false, DType::kF32},
    {"BOOL", 8, false, DType::kF32},    {"C64", 64, false, DType::kF32},
};

const StoredType* FindType(const std::string& name) {
  for (const StoredType& type : kTypes) {
    if (name == type.name) return &type;
  }
  return nullptr;
}

absl::Status Invalid(const std::string& problem) { return absl::InvalidArgumentError(problem); }

std::string Quoted(const std::string& tensor) { return absl::StrCat("tensor \"", Printable(tensor), "\""); }

// Collects the tensors while the header is read, offsets still relative to the data.
//
// Depth 1 is the header's object, depth 2 one tensor (or the metadata), depth 3 its shape or data_offsets.
class HeaderVisitor : public JsonVisitor {
 public:
  std::vector<StoredTensor> Take() { return std::move(tensors_); }

  absl::Status Null() override { return Unexpected("null"); }
  absl::Status Bool(bool) override { return Unexpected("a boolean"); }
  absl::Status Negative(int64_t value) override { return Unexpected(absl::StrCat("the negative number ", value)); }
  absl::Status Real(double) override { return Unexpected("a number with a fraction"); }

  absl::Status Unsigned(uint64_t value) override {
    if (depth_ != 3) return Unexpected("a number");
    if (value > kMaxInteger) return Unexpected("an integer above 2^53");
    const size_t capacity = field_ == Field::kShape ? StoredTensor::kMaxRank : 2;
    if (numbers_.size() == capacity) return Unexpected(absl::StrCat("more than ", capacity, " numbers"));
    numbers_.push_back(static_cast<int64_t>(value));
    return absl::OkStatus();
  }

  absl::Status String(std::string value) override {
    if (in_metadata_ && depth_ == 2) return absl::OkStatus();
    if (depth_ != 2 || field_ != Field::kDtype) return Unexpected("a string");
    tensors_.back().type = FindType(value);
    if (tensors_.back().type != nullptr) return absl::OkStatus();
    return Invalid(absl::StrCat(Where(), ": unknown dtype \"", Printable(value), "\""));
  }

  absl::Status BeginObject() override {
    if (depth_ > 1) return Unexpected("an object");
    if (++depth_ == 2 && !in_metadata_) return BeginTensor();
    return absl::OkStatus();
  }

  absl::Status Key(std::string key) override {
    if (depth_ == 1) return HeaderKey(std::move(key));
    return in_metadata_ ? MetadataKey(std::move(key)) : TensorKey(key);
  }

  absl::Status EndObject() override {
    if (depth_-- < 2) return absl::OkStatus();
    if (in_metadata_) {
      in_metadata_ = false;
      metadata_keys_.clear();
      return absl::OkStatus();
    }
    if (has_dtype_ && has_shape_ && has_offsets_) return absl::OkStatus();
    return Invalid(absl::StrCat(Where(), ": dtype, shape or data_offsets is missing"));
  }

  absl::Status BeginArray() override {
    const bool expected = depth_ == 2 && (field_ == Field::kShape || field_ == Field::kOffsets);
    if (!expected) return Unexpected("an array");
    ++depth_;
    numbers_.clear();
    return absl::OkStatus();
  }

  absl::Status EndArray() override {
    --depth_;
    StoredTensor& tensor = tensors_.back();
    if (field_ == Field::kShape) {
      tensor.rank = static_cast<int>(numbers_.size());
      std::copy(numbers_.begin(), numbers_.end(), tensor.dims.begin());
      return absl::OkStatus();
    }
    if (numbers_.size() != 2) return Invalid(absl::StrCat(Where(), ": data_offsets needs two numbers"));
    tensor.begin = numbers_[0];
    tensor.end = numbers_[1];
    return absl::OkStatus();
  }

 private:
  enum class Field : uint8_t { kNone, kDtype, kShape, kOffsets };

  absl::Status HeaderKey(std::string key) {
    if (key.size() > kMaxNameBytes)
      return Invalid(absl::StrCat("a tensor name has ", key.size(), " bytes; at most ", kMaxNameBytes, " are read"));
    if (!names_.insert(key).second) return Invalid(absl::StrCat("duplicate key \"", Printable(key), "\""));
    in_metadata_ = key == kMetadataKey;
    name_ = std::move(key);
    field_ = Field::kNone;
    return absl::OkStatus();
  }

  absl::Status MetadataKey(std::string key) {
    if (metadata_keys_.insert(std::move(key)).second) return absl::OkStatus();
    return Invalid("__metadata__: duplicate key");
  }

  absl::Status TensorKey(const std::string& key) {
    if (key == "dtype") return StartField(Field::kDtype, &has_dtype_);
    if (key == "shape") return StartField(Field::kShape, &has_shape_);
    if (key == "data_offsets") return StartField(Field::kOffsets, &has_offsets_);
    return Invalid(absl::StrCat(Where(), ": unknown key \"", Printable(key), "\""));
  }

  absl::Status StartField(Field field, bool* seen) {
    if (*seen) return Invalid(absl::StrCat(Where(), ": duplicate key"));
    *seen = true;
    field_ = field;
    return absl::OkStatus();
  }

  absl::Status BeginTensor() {
    if (tensors_.size() == kMaxTensors) return Invalid(absl::StrCat("more than ", kMaxTensors, " tensors"));
    has_dtype_ = has_shape_ = has_offsets_ = false;
    tensors_.emplace_back();
    tensors_.back().name = name_;
    return absl::OkStatus();
  }

  std::string Where() const { return in_metadata_ ? std::string(kMetadataKey) : Quoted(name_); }

  absl::Status Unexpected(const std::string& what) const {
    if (depth_ == 0) return Invalid(absl::StrCat("is ", what, ", not an object"));
    const char* const fields[] = {"", ".dtype", ".shape", ".data_offsets"};
    return Invalid(absl::StrCat(Where(), fields[static_cast<int>(field_)], ": ", what, " where none belongs"));
  }

  std::vector<StoredTensor> tensors_;
  absl::flat_hash_set<std::string> names_;
  absl::flat_hash_set<std::string> metadata_keys_;
  std::string name_;
  std::vector<int64_t> numbers_;
  Field field_ = Field::kNone;
  int depth_ = 0;
  bool in_metadata_ = false;
  bool has_dtype_ = false;
  bool has_shape_ = false;
  bool has_offsets_ = false;
};

// Nothing when the product overflows or does not fill whole bytes.
std::optional<uint64_t> BytesOf(const StoredTensor& tensor) {
  uint64_t bits = 1;
  for (const int64_t dim : tensor.shape()) {
    if (__builtin_mul_overflow(bits, static_cast<uint64_t>(dim), &bits)) return std::nullopt;
  }
  if (__builtin_mul_overflow(bits, static_cast<uint64_t>(tensor.type->bits), &bits)) return std::nullopt;
  if (bits % 8 != 0) return std::nullopt;
  return bits / 8;
}

absl::Status CheckSize(const StoredTensor& tensor) {
  const auto problem = [&](const std::string& text) {
    return Invalid(absl::StrCat(Quoted(tensor.name), ": shape [", absl::StrJoin(tensor.shape(), ", "), "] of ",
                                tensor.type->name, " ", text));
  };
  const std::optional<uint64_t> bytes = BytesOf(tensor);
  if (!bytes.has_value()) return problem("does not make a whole number of bytes below 2^61");
  const uint64_t stored = static_cast<uint64_t>(tensor.end - tensor.begin);
  if (*bytes == stored) return absl::OkStatus();
  return problem(absl::StrCat("needs ", *bytes, " bytes, but data_offsets span ", stored));
}

// Sorts by place and checks that the tensors tile [0, data_bytes).
absl::Status CheckTiling(int64_t data_bytes, std::vector<StoredTensor>* tensors) {
  std::sort(tensors->begin(), tensors->end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  int64_t covered = 0;
  for (const StoredTensor& tensor : *tensors) {
    if (tensor.begin > tensor.end)
      return Invalid(
          absl::StrCat(Quoted(tensor.name), ": data_offsets [", tensor.begin, ", ", tensor.end, "] run backwards"));
    if (tensor.begin != covered) {
      return Invalid(absl::StrCat(Quoted(tensor.name), ": begins at byte ", tensor.begin, " of the data, but byte ",
                                  covered, " is the next; tensors may leave no hole and not overlap"));
    }
    RETURN_IF_ERROR(CheckSize(tensor));
    covered = tensor.end;
  }
  if (covered == data_bytes) return absl::OkStatus();
  return Invalid(absl::StrCat("the tensors end at byte ", covered, " of the data, but the file holds ", data_bytes,
                              " bytes of it"));
}

absl::StatusOr<std::vector<StoredTensor>> ParseHeader(std::string_view header, const std::string& what,
                                                      int64_t data_bytes) {
  if (header.empty() || header[0] != '{') return Invalid(absl::StrCat(what, ": does not begin with '{'"));
  constexpr JsonLimits limits = {
      .max_bytes = static_cast<size_t>(kMaxHeaderBytes), .max_depth = 3, .max_values = kMaxTensors * 16};
  HeaderVisitor visitor;
  RETURN_IF_ERROR(VisitJson(header, limits, what, &visitor));
  std::vector<StoredTensor> tensors = visitor.Take();
  const absl::Status tiling = CheckTiling(data_bytes, &tensors);
  if (!tiling.ok()) return Invalid(absl::StrCat(what, ": ", tiling.message()));
  return tensors;
}

// Where the data begins. Checked before the header's bytes are allocated.
absl::StatusOr<int64_t> CheckHeaderLength(const std::string& name, uint64_t length, int64_t file_bytes) {
  if (length > static_cast<uint64_t>(kMaxHeaderBytes)) {
    return Invalid(absl::StrCat(name, ": byte 0: header length is ", length, "; it must be at most ", kMaxHeaderBytes));
  }
  const int64_t data_begin = kLengthBytes + static_cast<int64_t>(length);
  if (data_begin <= file_bytes) return data_begin;
  return Invalid(absl::StrCat(name, ": byte 0: the header ends at byte ", data_begin, ", but the file has ", file_bytes,
                              " bytes"));
}

}  // namespace

absl::StatusOr<std::vector<StoredTensor>> ParseSafetensorsHeader(std::string_view header, const std::string& file_name,
                                                                 int64_t data_begin, int64_t data_end) {
  ASSIGN_OR_RETURN(
      std::vector<StoredTensor> tensors,
      ParseHeader(header, absl::StrCat(file_name, ": header from byte ", kLengthBytes), data_end - data_begin));
  for (StoredTensor& tensor : tensors) {
    tensor.begin += data_begin;
    tensor.end += data_begin;
  }
  return tensors;
}

void SafetensorsFile::WillRead(int64_t offset, int64_t count) const {
  posix_fadvise(fd_.get(), offset, count, POSIX_FADV_WILLNEED);  // a hint: whether it is taken does not matter
}

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(const ModelFolder& folder,
                                                                       const std::string& name) {
  static_assert(std::endian::native == std::endian::little);
  ASSIGN_OR_RETURN(OpenedFile file, folder.OpenFile(name));
  if (file.size < kLengthBytes) {
    return Invalid(absl::StrCat(name, ": has ", file.size, " bytes; a safetensors file has at least ", kLengthBytes));
  }
  uint64_t length = 0;
  RETURN_IF_ERROR(ReadAt(file.fd, name, 0, kLengthBytes, &length));
  ASSIGN_OR_RETURN(const int64_t data_begin, CheckHeaderLength(name, length, file.size));
  std::string header(static_cast<size_t>(length), '\0');
  RETURN_IF_ERROR(ReadAt(file.fd, name, kLengthBytes, static_cast<int64_t>(length), header.data()));
  ASSIGN_OR_RETURN(std::vector<StoredTensor> tensors, ParseSafetensorsHeader(header, name, data_begin, file.size));
  // Advice only: doubles the kernel's read-ahead.
  posix_fadvise(file.fd.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  return std::unique_ptr<SafetensorsFile>(new SafetensorsFile(name, std::move(file.fd), std::move(tensors)));
}

}  // namespace switchyard
