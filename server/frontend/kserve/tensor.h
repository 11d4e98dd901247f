// The input tensors of a ModelInferRequest, checked once: their elements are exactly as many as their shapes say, and
// whoever reads them stays inside the message.
//
//   ModelInferRequest --ReadTensors--> Tensor (a view) --ReadInteger, ReadText, ...--> values
//
// Elements lie in `contents`, in the list of their datatype, or in `raw_input_contents`: little-endian, row-major, a
// BYTES element as its length in 4 bytes and then its bytes. All errors are INVALID_ARGUMENT and name the tensor, what
// it has, and what may be there.
#ifndef SWITCHYARD_SERVER_FRONTEND_KSERVE_TENSOR_H_
#define SWITCHYARD_SERVER_FRONTEND_KSERVE_TENSOR_H_

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "inference/grpc_service.pb.h"

namespace switchyard::kserve {

inline constexpr int kMaxTensors = 32;
inline constexpr int kMaxDimensions = 8;
inline constexpr int64_t kMaxElements = int64_t{1} << 28;  // of one tensor; a message holds fewer of any type but BOOL

enum class DataType : uint8_t {
  kBool,
  kInt8,
  kInt16,
  kInt32,
  kInt64,
  kUint8,
  kUint16,
  kUint32,
  kUint64,
  kFp16,
  kBf16,
  kFp32,
  kFp64,
  kBytes
};

// "FP32". Static.
std::string_view DataTypeName(DataType type);

// A view of one input; valid as long as the request.
struct Tensor {
  const inference::ModelInferRequest::InferInputTensor* input = nullptr;
  int index = 0;  // in the request's inputs
  DataType type = DataType::kBytes;
  int64_t num_elements = 0;
  bool is_raw = false;
  std::string_view raw;  // set when is_raw

  const std::string& name() const { return input->name(); }
  const google::protobuf::RepeatedField<int64_t>& shape() const { return input->shape(); }
};

// All inputs, in order, with names that differ.
absl::StatusOr<std::vector<Tensor>> ReadTensors(const inference::ModelInferRequest& request);

// "[1,-3]", at most 8 dimensions of it.
std::string ShapeText(const google::protobuf::RepeatedField<int64_t>& shape);

// INVALID_ARGUMENT about one part ("shape", "datatype", "contents") of a tensor; `problem` goes on after its name.
absl::Status TensorError(const Tensor& tensor, const std::string& part, const std::string& problem);

// One element, of a shape [1] or [1,1].
absl::StatusOr<bool> ReadBool(const Tensor& tensor);              // BOOL
absl::StatusOr<int64_t> ReadInteger(const Tensor& tensor);        // INT32, INT64, UINT32, UINT64; below 2^63
absl::StatusOr<uint64_t> ReadUnsigned(const Tensor& tensor);      // the same, not negative
absl::StatusOr<double> ReadReal(const Tensor& tensor);            // FP32, FP64; may be anything, NaN too
absl::StatusOr<std::string_view> ReadText(const Tensor& tensor);  // BYTES

// All elements of a BYTES tensor of shape [k] or [1,k]. A view of the request.
absl::StatusOr<std::vector<std::string_view>> ReadTexts(const Tensor& tensor);

}  // namespace switchyard::kserve

#endif  // SWITCHYARD_SERVER_FRONTEND_KSERVE_TENSOR_H_
