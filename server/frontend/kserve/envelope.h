// What requests for all kinds of models have around their tensors: version, id, and the parameters that the protocol
// itself knows.
#ifndef SWITCHYARD_SERVER_FRONTEND_KSERVE_ENVELOPE_H_
#define SWITCHYARD_SERVER_FRONTEND_KSERVE_ENVELOPE_H_

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "inference/grpc_service.pb.h"

namespace switchyard::kserve {

// The one version that every model here has.
inline constexpr char kModelVersion[] = "1";
// Of one request.
inline constexpr int kMaxParameters = 64;

struct Envelope {
  std::string id;  // as the caller wrote it
  std::optional<std::chrono::microseconds> timeout;
  std::optional<int64_t> priority;
  // The parameters that are the model's business. Points into the request.
  std::map<std::string, const inference::InferParameter*> parameters;
};

// NOT_FOUND: another version. INVALID_ARGUMENT: an id that is too long, or a parameter of the wrong type or that asks
// for what is not served (sequences).
absl::StatusOr<Envelope> ReadEnvelope(const inference::ModelInferRequest& request);

// NOT_FOUND for anything but "" and kModelVersion.
absl::Status CheckVersion(const std::string& version);

// Which of `known` the request wants, as positions in it and in the request's order; empty: it names none.
// INVALID_ARGUMENT: an unknown name, one that is there twice, or an output with parameters.
absl::StatusOr<std::vector<size_t>> ReadOutputs(const inference::ModelInferRequest& request,
                                                const std::vector<std::string>& known);

}  // namespace switchyard::kserve

#endif  // SWITCHYARD_SERVER_FRONTEND_KSERVE_ENVELOPE_H_
