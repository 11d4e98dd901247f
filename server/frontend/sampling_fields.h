// Sampling parameters by the names that vLLM made common, from JSON into a GenerateRequest, whose own checks then see
// to their ranges. For every protocol that spells them in JSON.
#ifndef SWITCHYARD_SERVER_FRONTEND_SAMPLING_FIELDS_H_
#define SWITCHYARD_SERVER_FRONTEND_SAMPLING_FIELDS_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "switchyard/v1/inference_service.pb.h"

namespace switchyard {

// A value and where it came from, for messages.
struct NamedJson {
  std::string field;
  const nlohmann::json& value;

  // INVALID_ARGUMENT: the field, then `problem`.
  absl::Status Error(const std::string& problem) const;
};

// A number, or text that is one and nothing else.
absl::StatusOr<int32_t> ReadInt32(const NamedJson& named);
// true or false, or text that says so.
absl::StatusOr<bool> ReadFlag(const NamedJson& named);

bool IsSamplingField(std::string_view name);

// `field` is how messages call it. REQUIRES: IsSamplingField(name), and the value is not null.
absl::Status SetSamplingField(const std::string& field, std::string_view name, const nlohmann::json& value,
                              v1::GenerateRequest* request);

}  // namespace switchyard

#endif  // SWITCHYARD_SERVER_FRONTEND_SAMPLING_FIELDS_H_
