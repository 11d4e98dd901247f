#include "server/frontend/kserve/tensor.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <set>

#include "engine/base/status_macros.h"
#include "server/frontend/errors.h"
#include "server/frontend/request_validation.h"

namespace switchyard::kserve {
namespace {

static_assert(std::endian::native == std::endian::little, "raw contents are little-endian");

using Input = inference::ModelInferRequest::InferInputTensor;
using Contents = inference::InferTensorContents;

constexpr size_t kLengthBytes = 4;  // before each raw BYTES element

struct TypeFacts {
  DataType type;
  std::string_view name;
  int64_t bytes;                       // of one element; 0: BYTES, where each element has its own
  int (Contents::*num_typed)() const;  // size of its list in `contents`; null: it has none
  std::string_view typed_list;
};

constexpr std::array<TypeFacts, 14> kTypes = {{
    {DataType::kBool, "BOOL", 1, &Contents::bool_contents_size, "bool_contents"},
    {DataType::kInt8, "INT8", 1, &Contents::int_contents_size, "int_contents"},
    {DataType::kInt16, "INT16", 2, &Contents::int_contents_size, "int_contents"},
    {DataType::kInt32, "INT32", 4, &Contents::int_contents_size, "int_contents"},
    {DataType::kInt64, "INT64", 8, &Contents::int64_contents_size, "int64_contents"},
    {DataType::kUint8, "UINT8", 1, &Contents::uint_contents_size, "uint_contents"},
    {DataType::kUint16, "UINT16", 2, &Contents::uint_contents_size, "uint_contents"},
    {DataType::kUint32, "UINT32", 4, &Contents::uint_contents_size, "uint_contents"},
    {DataType::kUint64, "UINT64", 8, &Contents::uint64_contents_size, "uint64_contents"},
    {DataType::kFp16, "FP16", 2, nullptr, ""},
    {DataType::kBf16, "BF16", 2, nullptr, ""},
    {DataType::kFp32, "FP32", 4, &Contents::fp32_contents_size, "fp32_contents"},
    {DataType::kFp64, "FP64", 8, &Contents::fp64_contents_size, "fp64_contents"},
    {DataType::kBytes, "BYTES", 0, &Contents::bytes_contents_size, "bytes_contents"},
}};

const TypeFacts& FactsOf(DataType type) { return kTypes[static_cast<size_t>(type)]; }

std::string Count(int64_t value, const std::string& noun) {
  return WithCommas(value) + " " + noun + (value == 1 ? "" : "s");
}

absl::Status ReadType(Tensor* tensor) {
  for (const TypeFacts& facts : kTypes) {
    if (facts.name != tensor->input->datatype()) continue;
    tensor->type = facts.type;
    return absl::OkStatus();
  }
  std::string known;
  for (const TypeFacts& facts : kTypes) known += (known.empty() ? "" : " ") + std::string(facts.name);
  return TensorError(*tensor, "datatype",
                     "has the datatype \"" + Sanitized(tensor->input->datatype()) + "\"; use one of " + known);
}

absl::Status CountElements(Tensor* tensor) {
  const auto& shape = tensor->shape();
  if (shape.size() > kMaxDimensions) {
    return TensorError(*tensor, "shape",
                       "has " + Count(shape.size(), "dimension") + "; use at most " + std::to_string(kMaxDimensions));
  }
  for (const int64_t dimension : shape) {
    if (dimension < 0) {
      return TensorError(*tensor, "shape", "has the shape " + ShapeText(shape) + "; no dimension may be negative");
    }
  }
  int64_t product = std::find(shape.begin(), shape.end(), 0) == shape.end() ? 1 : 0;
  for (const int64_t dimension : shape) {
    if (!__builtin_mul_overflow(product, dimension, &product) && product <= kMaxElements) continue;
    return TensorError(*tensor, "shape",
                       "has the shape " + ShapeText(shape) + ", more elements than the " + WithCommas(kMaxElements) +
                           " that a tensor may have");
  }
  tensor->num_elements = product;
  return absl::OkStatus();
}

// Each list is as long as the datatype wants it.
absl::Status CheckTypedContents(const Tensor& tensor) {
  const TypeFacts& facts = FactsOf(tensor.type);
  const Contents& contents = tensor.input->contents();
  if (facts.num_typed == nullptr) {
    return TensorError(tensor, "contents",
                       "has the datatype " + std::string(facts.name) + ", which needs raw_input_contents");
  }
  const int64_t found = (contents.*facts.num_typed)();
  if (found != tensor.num_elements) {
    return TensorError(tensor, "contents",
                       "has the shape " + ShapeText(tensor.shape()) + ", which is " +
                           Count(tensor.num_elements, "element") + ", but " + std::string(facts.typed_list) + " has " +
                           WithCommas(found));
  }
  for (const TypeFacts& other : kTypes) {
    if (other.num_typed == nullptr || other.typed_list == facts.typed_list || (contents.*other.num_typed)() == 0)
      continue;
    return TensorError(tensor, "contents",
                       "has the datatype " + std::string(facts.name) + ", but " + std::string(other.typed_list) +
                           " has elements; use " + std::string(facts.typed_list) + " alone");
  }
  return absl::OkStatus();
}

// Takes one element off the front; nullopt: its length, or as many bytes, are not there.
std::optional<std::string_view> TakeRawText(std::string_view* raw) {
  uint32_t length = 0;
  if (raw->size() < kLengthBytes) return std::nullopt;
  std::memcpy(&length, raw->data(), kLengthBytes);
  raw->remove_prefix(kLengthBytes);
  if (raw->size() < length) return std::nullopt;
  const std::string_view text = raw->substr(0, length);
  raw->remove_prefix(length);
  return text;
}

absl::Status CheckRawTexts(const Tensor& tensor) {
  std::string_view rest = tensor.raw;
  for (int64_t i = 0; i < tensor.num_elements; ++i) {
    if (TakeRawText(&rest)) continue;
    return TensorError(tensor, "contents",
                       "has the shape " + ShapeText(tensor.shape()) + ", which is " +
                           Count(tensor.num_elements, "element") + ", but its " +
                           Count(static_cast<int64_t>(tensor.raw.size()), "raw byte") + " end inside element " +
                           WithCommas(i));
  }
  if (rest.empty()) return absl::OkStatus();
  return TensorError(tensor, "contents",
                     "has " + Count(static_cast<int64_t>(rest.size()), "raw byte") + " after the last of the " +
                         Count(tensor.num_elements, "element") + " of its shape");
}

absl::Status CheckRawContents(const Tensor& tensor) {
  const TypeFacts& facts = FactsOf(tensor.type);
  if (tensor.input->contents().ByteSizeLong() > 0) {
    return TensorError(tensor, "contents", "has both contents and raw_input_contents; use one of them");
  }
  if (tensor.type == DataType::kBytes) return CheckRawTexts(tensor);
  const int64_t needed = tensor.num_elements * facts.bytes;
  if (static_cast<int64_t>(tensor.raw.size()) == needed) return absl::OkStatus();
  return TensorError(tensor, "contents",
                     "has the shape " + ShapeText(tensor.shape()) + " of " + std::string(facts.name) + ", which is " +
                         Count(needed, "byte") + ", but its raw contents have " +
                         WithCommas(static_cast<int64_t>(tensor.raw.size())));
}

absl::Status CheckScalar(const Tensor& tensor) {
  if (tensor.num_elements == 1 && tensor.shape().size() >= 1 && tensor.shape().size() <= 2) return absl::OkStatus();
  return TensorError(tensor, "shape", "has the shape " + ShapeText(tensor.shape()) + "; use [1] or [1,1]");
}

absl::Status WrongType(const Tensor& tensor, const std::string& wanted) {
  return TensorError(tensor, "datatype",
                     "has the datatype " + std::string(DataTypeName(tensor.type)) + "; use " + wanted);
}

// REQUIRES: one element of sizeof(Value) bytes.
template <typename Value>
Value RawElement(const Tensor& tensor) {
  Value value;
  std::memcpy(&value, tensor.raw.data(), sizeof(value));
  return value;
}

}  // namespace

std::string_view DataTypeName(DataType type) { return FactsOf(type).name; }

std::string ShapeText(const google::protobuf::RepeatedField<int64_t>& shape) {
  std::string text = "[";
  for (int i = 0; i < std::min(shape.size(), kMaxDimensions); ++i)
    text += (i > 0 ? "," : "") + std::to_string(shape[i]);
  return text + (shape.size() > kMaxDimensions ? ",...]" : "]");
}

absl::Status TensorError(const Tensor& tensor, const std::string& part, const std::string& problem) {
  return InvalidRequest("inputs[" + std::to_string(tensor.index) + "]." + part,
                        "tensor \"" + Sanitized(tensor.name()) + "\" " + problem);
}

absl::StatusOr<std::vector<Tensor>> ReadTensors(const inference::ModelInferRequest& request) {
  if (request.inputs_size() > kMaxTensors) {
    return InvalidRequest("inputs", "inputs has " + WithCommas(request.inputs_size()) + " tensors; use at most " +
                                        std::to_string(kMaxTensors));
  }
  const bool is_raw = request.raw_input_contents_size() > 0;
  if (is_raw && request.raw_input_contents_size() != request.inputs_size()) {
    return InvalidRequest("raw_input_contents", "raw_input_contents has " +
                                                    WithCommas(request.raw_input_contents_size()) + " entries for " +
                                                    Count(request.inputs_size(), "input") + "; use one for each");
  }
  std::vector<Tensor> tensors;
  std::set<std::string_view> names;
  for (int i = 0; i < request.inputs_size(); ++i) {
    Tensor tensor;
    tensor.input = &request.inputs(i);
    tensor.index = i;
    tensor.is_raw = is_raw;
    if (is_raw) tensor.raw = request.raw_input_contents(i);
    if (!names.insert(tensor.name()).second) return TensorError(tensor, "name", "is there twice");
    if (!tensor.input->parameters().empty()) {
      return TensorError(tensor, "parameters",
                         "has the parameter \"" + Sanitized(tensor.input->parameters().begin()->first) +
                             "\"; tensors travel in the message and have none");
    }
    RETURN_IF_ERROR(ReadType(&tensor));
    RETURN_IF_ERROR(CountElements(&tensor));
    RETURN_IF_ERROR(is_raw ? CheckRawContents(tensor) : CheckTypedContents(tensor));
    tensors.push_back(tensor);
  }
  return tensors;
}

absl::StatusOr<bool> ReadBool(const Tensor& tensor) {
  RETURN_IF_ERROR(CheckScalar(tensor));
  if (tensor.type != DataType::kBool) return WrongType(tensor, "BOOL");
  if (!tensor.is_raw) return tensor.input->contents().bool_contents(0);
  const uint8_t byte = RawElement<uint8_t>(tensor);
  if (byte > 1) return TensorError(tensor, "contents", "has the byte " + std::to_string(byte) + "; a BOOL is 0 or 1");
  return byte == 1;
}

absl::StatusOr<int64_t> ReadInteger(const Tensor& tensor) {
  if (tensor.type == DataType::kUint32 || tensor.type == DataType::kUint64) {
    ASSIGN_OR_RETURN(const uint64_t value, ReadUnsigned(tensor));
    if (value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return static_cast<int64_t>(value);
    return TensorError(tensor, "contents", "is " + std::to_string(value) + "; use less than 2^63");
  }
  RETURN_IF_ERROR(CheckScalar(tensor));
  const Contents& contents = tensor.input->contents();
  if (tensor.type == DataType::kInt32) return tensor.is_raw ? RawElement<int32_t>(tensor) : contents.int_contents(0);
  if (tensor.type == DataType::kInt64) return tensor.is_raw ? RawElement<int64_t>(tensor) : contents.int64_contents(0);
  return WrongType(tensor, "INT32, INT64, UINT32 or UINT64");
}

absl::StatusOr<uint64_t> ReadUnsigned(const Tensor& tensor) {
  RETURN_IF_ERROR(CheckScalar(tensor));
  const Contents& contents = tensor.input->contents();
  if (tensor.type == DataType::kUint32) return tensor.is_raw ? RawElement<uint32_t>(tensor) : contents.uint_contents(0);
  if (tensor.type == DataType::kUint64) {
    return tensor.is_raw ? RawElement<uint64_t>(tensor) : contents.uint64_contents(0);
  }
  ASSIGN_OR_RETURN(const int64_t value, ReadInteger(tensor));
  if (value >= 0) return static_cast<uint64_t>(value);
  return TensorError(tensor, "contents", "is " + std::to_string(value) + "; it may not be negative");
}

absl::StatusOr<double> ReadReal(const Tensor& tensor) {
  RETURN_IF_ERROR(CheckScalar(tensor));
  const Contents& contents = tensor.input->contents();
  if (tensor.type == DataType::kFp32) return tensor.is_raw ? RawElement<float>(tensor) : contents.fp32_contents(0);
  if (tensor.type == DataType::kFp64) return tensor.is_raw ? RawElement<double>(tensor) : contents.fp64_contents(0);
  return WrongType(tensor, "FP32 or FP64");
}

absl::StatusOr<std::string_view> ReadText(const Tensor& tensor) {
  RETURN_IF_ERROR(CheckScalar(tensor));
  ASSIGN_OR_RETURN(const std::vector<std::string_view> texts, ReadTexts(tensor));
  return texts.front();
}

absl::StatusOr<std::vector<std::string_view>> ReadTexts(const Tensor& tensor) {
  if (tensor.type != DataType::kBytes) return WrongType(tensor, "BYTES");
  const auto& shape = tensor.shape();
  if (shape.size() < 1 || shape.size() > 2 || (shape.size() == 2 && shape[0] != 1)) {
    return TensorError(tensor, "shape", "has the shape " + ShapeText(shape) + "; use [k] or [1,k]");
  }
  std::vector<std::string_view> texts;
  if (!tensor.is_raw) {
    const auto& contents = tensor.input->contents().bytes_contents();
    texts.assign(contents.begin(), contents.end());
    return texts;
  }
  std::string_view rest = tensor.raw;
  for (int64_t i = 0; i < tensor.num_elements; ++i) texts.push_back(*TakeRawText(&rest));
  return texts;
}

}  // namespace switchyard::kserve
