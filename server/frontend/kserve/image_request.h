// A ModelInferRequest for an image classifier.
//
//   images FP32 [n,S,S,3] from -1 to 1, or UINT8 [n,S,S,3]  --ReadImageRequest-->  n images of floats
//
// Rows of pixels from the top, RGB; UINT8 is taken to [-1, 1]. The answer is `logits` FP32 [n, classes]. Pure
// functions.
#ifndef SWITCHYARD_SERVER_FRONTEND_KSERVE_IMAGE_REQUEST_H_
#define SWITCHYARD_SERVER_FRONTEND_KSERVE_IMAGE_REQUEST_H_

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "inference/grpc_service.pb.h"
#include "server/frontend/frontend_parts.h"

namespace switchyard::kserve {

struct ImageRequest {
  std::string id;  // as the caller wrote it
  std::optional<std::chrono::microseconds> timeout;
  int32_t priority = 0;
  std::vector<std::vector<float>> images;  // at least one, each [S, S, 3]
};

// What came out.
struct Classification {
  std::string model;
  std::string id;
  int32_t num_classes = 0;
  std::vector<float> logits;  // [images, num_classes]
};

// INVALID_ARGUMENT: the first thing that is wrong. NOT_FOUND: another model or version. FAILED_PRECONDITION: it is a
// request for text. REQUIRES: `model` is a classifier.
absl::StatusOr<ImageRequest> ReadImageRequest(const inference::ModelInferRequest& request, const ServedModel& model,
                                              int64_t max_images);

inference::ModelInferResponse ToResponse(const Classification& classification);

// Adds the tensors of a classifier.
void DescribeImageTensors(const ModelFacts& facts, inference::ModelMetadataResponse* metadata);

}  // namespace switchyard::kserve

#endif  // SWITCHYARD_SERVER_FRONTEND_KSERVE_IMAGE_REQUEST_H_
