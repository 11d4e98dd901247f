// Any bytes as a ModelInferRequest: refused with a status, or a GenerateRequest that the usual checks can judge, or
// whole images. The bytes are taken as the message, and once more as the raw contents of each of its tensors.
#include <google/protobuf/stubs/logging.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "engine/base/status_macros.h"
#include "engine/tokenizer/utf8.h"
#include "server/frontend/kserve/image_request.h"
#include "server/frontend/kserve/tensor.h"
#include "server/frontend/kserve/text_request.h"
#include "server/frontend/request_validation.h"

namespace switchyard::kserve {
namespace {

void CheckCode(const absl::Status& status) {
  CHECK(status.ok() || absl::IsInvalidArgument(status) || absl::IsNotFound(status));
  CHECK(FindInvalidUtf8(std::string(status.message())) == std::string::npos);
  CHECK(status.message().size() < 4096);
}

// Whatever a tensor is, reading it as anything stays inside it.
void ReadAsEverything(const Tensor& tensor) {
  CheckCode(ReadBool(tensor).status());
  CheckCode(ReadInteger(tensor).status());
  CheckCode(ReadUnsigned(tensor).status());
  CheckCode(ReadReal(tensor).status());
  CheckCode(ReadText(tensor).status());
  const auto texts = ReadTexts(tensor);
  CheckCode(texts.status());
  if (!texts.ok()) return;
  CHECK(static_cast<int64_t>(texts->size()) == tensor.num_elements);
  size_t sum = 0;
  for (const std::string_view text : *texts) {
    for (const char byte : text) sum += static_cast<unsigned char>(byte);
  }
  CHECK(sum <= 255 * tensor.input->ByteSizeLong() + 255 * tensor.raw.size());
}

void JudgeImages(const inference::ModelInferRequest& request) {
  ServedModel model;
  model.facts.num_classes = 3;
  model.facts.image_size = 2;
  const auto images = ReadImageRequest(request, model, /*max_images=*/10);
  CHECK(images.ok() || absl::IsFailedPrecondition(images.status()) || absl::IsInvalidArgument(images.status()) ||
        absl::IsNotFound(images.status()));
  if (!images.ok()) return;
  CHECK(!images->images.empty() && images->images.size() <= 10);
  for (const auto& image : images->images) {
    CHECK(image.size() == 2 * 2 * 3);
    for (const float value : image) CHECK(value >= -1.0f && value <= 1.0f);
  }
}

void Judge(const inference::ModelInferRequest& request) {
  JudgeImages(request);
  const auto tensors = ReadTensors(request);
  CheckCode(tensors.status());
  if (tensors.ok()) {
    for (const Tensor& tensor : *tensors) ReadAsEverything(tensor);
  }
  const auto text = ReadTextRequest(request, int64_t{8} << 20);
  CheckCode(text.status());
  if (!text.ok()) return;
  CHECK(tensors.ok() && !text->generate.text().empty());
  RequestLimits limits;
  limits.served_model_name = "toy";
  limits.vocab_size = 257;
  limits.max_model_len = 1024;
  const auto spec = ValidateGenerateRequest(text->generate, limits);
  CheckCode(spec.status());
  CHECK(!spec.ok() || spec->n == text->reply.n);
  CHECK(!text->reply.outputs.empty());
}

}  // namespace
}  // namespace switchyard::kserve

// protobuf writes a line for each text that is not UTF-8.
extern "C" int LLVMFuzzerInitialize(int*, char***) {
  google::protobuf::SetLogHandler(nullptr);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
  inference::ModelInferRequest request;
  if (!request.ParseFromArray(bytes, static_cast<int>(size))) return 0;
  switchyard::kserve::Judge(request);
  if (request.inputs_size() == 0) return 0;
  for (auto& input : *request.mutable_inputs()) input.clear_contents();
  request.clear_raw_input_contents();
  for (int i = 0; i < request.inputs_size(); ++i) request.add_raw_input_contents(bytes, size);
  switchyard::kserve::Judge(request);
  return 0;
}
