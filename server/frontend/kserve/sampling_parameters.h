// Sampling parameters by name: the same names as tensors, in the JSON of the tensor `sampling_parameters`, and among a
// request's parameters. They fill in a GenerateRequest, whose own checks then see to their ranges.
#ifndef SWITCHYARD_SERVER_FRONTEND_KSERVE_SAMPLING_PARAMETERS_H_
#define SWITCHYARD_SERVER_FRONTEND_KSERVE_SAMPLING_PARAMETERS_H_

#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "inference/grpc_service.pb.h"
#include "server/frontend/kserve/tensor.h"
#include "switchyard/v1/inference_service.pb.h"

namespace switchyard::kserve {

inline constexpr int kMaxSamplingJsonBytes = 64 << 10;

// One of them as an input tensor.
struct SamplingTensor {
  std::string_view name;
  std::string_view parameter;  // what it sets
  DataType type;
  int64_t size;  // its shape is [size]; -1: any
};
inline constexpr SamplingTensor kSamplingTensors[] = {
    {"max_tokens", "max_tokens", DataType::kInt32, 1},
    {"min_tokens", "min_tokens", DataType::kInt32, 1},
    {"temperature", "temperature", DataType::kFp32, 1},
    {"top_p", "top_p", DataType::kFp32, 1},
    {"top_k", "top_k", DataType::kInt32, 1},
    {"min_p", "min_p", DataType::kFp32, 1},
    {"repetition_penalty", "repetition_penalty", DataType::kFp32, 1},
    {"presence_penalty", "presence_penalty", DataType::kFp32, 1},
    {"frequency_penalty", "frequency_penalty", DataType::kFp32, 1},
    {"seed", "seed", DataType::kUint64, 1},
    {"random_seed", "seed", DataType::kUint64, 1},
    {"stop", "stop", DataType::kBytes, -1},
    {"stop_words", "stop", DataType::kBytes, -1},
    {"ignore_eos", "ignore_eos", DataType::kBool, 1},
};

// Fills in `request`, each parameter once. All errors are INVALID_ARGUMENT.
class SamplingParameters {
 public:
  explicit SamplingParameters(v1::GenerateRequest* request) : request_(request) {}

  absl::Status AddTensor(const SamplingTensor& kind, const Tensor& tensor);
  // A JSON object such as {"temperature": 0.7, "stop": ["\n"], "max_tokens": "64"}: numbers may be written as text,
  // null counts as absent. At most kMaxSamplingJsonBytes.
  absl::Status AddJson(std::string_view text);
  absl::Status AddParameter(const std::string& name, const inference::InferParameter& parameter);

 private:
  // `where` precedes the name in messages.
  absl::Status Set(const std::string& where, const std::string& name, const nlohmann::json& value);

  v1::GenerateRequest* const request_;
  std::set<std::string> seen_;
};

}  // namespace switchyard::kserve

#endif  // SWITCHYARD_SERVER_FRONTEND_KSERVE_SAMPLING_PARAMETERS_H_
