#include "server/frontend/kserve/image_request.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "engine/base/status_macros.h"
#include "engine/vision/pixels.h"
#include "server/frontend/errors.h"
#include "server/frontend/kserve/envelope.h"
#include "server/frontend/kserve/tensor.h"
#include "server/frontend/request_validation.h"

namespace switchyard::kserve {
namespace {

constexpr int64_t kNumChannels = 3;

absl::Status CheckTensor(const Tensor& tensor, int64_t size, int64_t max_images) {
  if (tensor.name() == "text_input") {
    return ErrorWithReason(absl::StatusCode::kFailedPrecondition,
                           "tensor \"text_input\" is for a language model; this one classifies the tensor \"images\"",
                           "NO_TEXT");
  }
  if (tensor.name() != "images") {
    return TensorError(tensor, "name", "is unknown; this model takes \"images\" alone");
  }
  if (tensor.type != DataType::kFp32 && tensor.type != DataType::kUint8) {
    return TensorError(tensor, "datatype",
                       "has the datatype " + std::string(DataTypeName(tensor.type)) + "; use FP32 or UINT8");
  }
  const auto& shape = tensor.shape();
  const bool is_images =
      shape.size() == 4 && shape[0] > 0 && shape[1] == size && shape[2] == size && shape[3] == kNumChannels;
  if (!is_images) {
    const std::string side = std::to_string(size);
    return TensorError(tensor, "shape", "has the shape " + ShapeText(shape) + "; use [n," + side + "," + side + ",3]");
  }
  if (shape[0] <= max_images) return absl::OkStatus();
  return TensorError(tensor, "shape",
                     "has " + WithCommas(shape[0]) + " images, but only " + WithCommas(max_images) +
                         " requests may wait at this server; use at most that");
}

absl::Status ReadFloats(const Tensor& tensor, std::vector<float>* values) {
  values->resize(static_cast<size_t>(tensor.num_elements));
  if (tensor.is_raw) {
    std::memcpy(values->data(), tensor.raw.data(), tensor.raw.size());
  } else {
    const auto& contents = tensor.input->contents().fp32_contents();
    std::copy(contents.begin(), contents.end(), values->begin());
  }
  // Also finds what is no number.
  const auto outside =
      std::find_if(values->begin(), values->end(), [](float value) { return !(value >= -1.0f && value <= 1.0f); });
  if (outside == values->end()) return absl::OkStatus();
  return TensorError(
      tensor, "contents",
      "has a value outside -1 to 1 (element " + WithCommas(outside - values->begin()) + "); send bytes as UINT8");
}

absl::Status ReadBytes(const Tensor& tensor, std::vector<float>* values) {
  values->resize(static_cast<size_t>(tensor.num_elements));
  if (tensor.is_raw) {
    PixelsToUnitRange({reinterpret_cast<const uint8_t*>(tensor.raw.data()), tensor.raw.size()}, *values);
    return absl::OkStatus();
  }
  std::vector<uint8_t> pixels;
  for (const uint32_t value : tensor.input->contents().uint_contents()) {
    if (value > 255) {
      return TensorError(tensor, "contents", "has the element " + std::to_string(value) + "; UINT8 is 0 to 255");
    }
    pixels.push_back(static_cast<uint8_t>(value));
  }
  PixelsToUnitRange(pixels, *values);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ImageRequest> ReadImageRequest(const inference::ModelInferRequest& request, const ServedModel& model,
                                              int64_t max_images) {
  RETURN_IF_ERROR(CheckModelName(request.model_name(), model.limits));
  ASSIGN_OR_RETURN(Envelope envelope, ReadEnvelope(request));
  ASSIGN_OR_RETURN(const std::vector<Tensor> tensors, ReadTensors(request));
  for (const Tensor& tensor : tensors) RETURN_IF_ERROR(CheckTensor(tensor, model.facts.image_size, max_images));
  if (tensors.empty()) return InvalidRequest("inputs", "tensor \"images\" is missing");
  if (!envelope.parameters.empty()) {
    const std::string name = Sanitized(envelope.parameters.begin()->first);
    return InvalidRequest("parameters." + name, "parameter \"" + name + "\" is unknown to an image classifier");
  }
  const int64_t priority = envelope.priority.value_or(0);
  if (priority < -kMaxPriority || priority > kMaxPriority) {
    return InvalidRequest("parameters.priority", "parameter \"priority\" is " + std::to_string(priority) + "; use -" +
                                                     WithCommas(kMaxPriority) + " to " + WithCommas(kMaxPriority));
  }
  RETURN_IF_ERROR(ReadOutputs(request, {"logits"}).status());

  std::vector<float> values;
  const Tensor& images = tensors.front();
  RETURN_IF_ERROR(images.type == DataType::kFp32 ? ReadFloats(images, &values) : ReadBytes(images, &values));
  ImageRequest out;
  out.id = std::move(envelope.id);
  out.timeout = envelope.timeout;
  out.priority = static_cast<int32_t>(priority);
  const auto image_values = static_cast<std::ptrdiff_t>(images.num_elements / images.shape()[0]);
  for (auto begin = values.begin(); begin != values.end(); begin += image_values) {
    out.images.emplace_back(begin, begin + image_values);
  }
  return out;
}

inference::ModelInferResponse ToResponse(const Classification& classification) {
  inference::ModelInferResponse response;
  response.set_model_name(classification.model);
  response.set_model_version(kModelVersion);
  response.set_id(classification.id);
  auto* output = response.add_outputs();
  output->set_name("logits");
  output->set_datatype("FP32");
  output->add_shape(static_cast<int64_t>(classification.logits.size()) / classification.num_classes);
  output->add_shape(classification.num_classes);
  response.add_raw_output_contents(classification.logits.data(), classification.logits.size() * sizeof(float));
  return response;
}

void DescribeImageTensors(const ModelFacts& facts, inference::ModelMetadataResponse* metadata) {
  auto* images = metadata->add_inputs();
  images->set_name("images");
  images->set_datatype("FP32");
  for (const int64_t dimension : {int64_t{-1}, int64_t{facts.image_size}, int64_t{facts.image_size}, kNumChannels}) {
    images->add_shape(dimension);
  }
  auto* logits = metadata->add_outputs();
  logits->set_name("logits");
  logits->set_datatype("FP32");
  logits->add_shape(-1);
  logits->add_shape(facts.num_classes);
}

}  // namespace switchyard::kserve
