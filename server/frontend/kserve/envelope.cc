#include "server/frontend/kserve/envelope.h"

#include <algorithm>
#include <limits>

#include "engine/base/status_macros.h"
#include "server/frontend/errors.h"
#include "server/frontend/request_validation.h"

namespace switchyard::kserve {
namespace {

using inference::InferParameter;

absl::Status ParameterError(const std::string& name, const std::string& problem) {
  const std::string shown = Sanitized(name);
  return InvalidRequest("parameters." + shown, "parameter \"" + shown + "\" " + problem);
}

absl::StatusOr<int64_t> Number(const std::string& name, const InferParameter& parameter) {
  if (parameter.has_int64_param()) return parameter.int64_param();
  if (!parameter.has_uint64_param()) return ParameterError(name, "is no whole number; use int64_param or uint64_param");
  if (parameter.uint64_param() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return ParameterError(name, "is " + std::to_string(parameter.uint64_param()) + "; use less than 2^63");
  }
  return static_cast<int64_t>(parameter.uint64_param());
}

absl::Status ReadParameter(const std::string& name, const InferParameter& parameter, Envelope* envelope) {
  if (name == "timeout") {
    ASSIGN_OR_RETURN(const int64_t micros, Number(name, parameter));
    if (micros < 1)
      return ParameterError(name, "is " + std::to_string(micros) + " us; use at least 1, or leave it out");
    // What is longer than a year is no limit, and must not overflow the clock.
    constexpr std::chrono::microseconds kYear = std::chrono::hours(24 * 365);
    envelope->timeout = std::min(std::chrono::microseconds(micros), kYear);
  } else if (name == "priority") {
    ASSIGN_OR_RETURN(envelope->priority, Number(name, parameter));
  } else if (name == "sequence_id" || name == "sequence_start" || name == "sequence_end") {
    return ParameterError(name, "is set, but this server keeps no state between requests; leave it out");
  } else if (name != "triton_enable_empty_final_response") {
    envelope->parameters[name] = &parameter;
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckVersion(const std::string& version) {
  if (version.empty() || version == kModelVersion) return absl::OkStatus();
  return ErrorWithReason(
      absl::StatusCode::kNotFound,
      "version \"" + Sanitized(version) + "\" is not served here; leave it empty or use \"" + kModelVersion + "\"",
      "MODEL_NOT_FOUND");
}

absl::StatusOr<Envelope> ReadEnvelope(const inference::ModelInferRequest& request) {
  RETURN_IF_ERROR(CheckVersion(request.model_version()));
  Envelope envelope;
  if (request.id().size() > static_cast<size_t>(kMaxRequestIdBytes)) {
    return InvalidRequest("id", "id has " + WithCommas(static_cast<int64_t>(request.id().size())) +
                                    " bytes; use at most " + std::to_string(kMaxRequestIdBytes));
  }
  envelope.id = request.id();
  const int64_t num_parameters = static_cast<int64_t>(request.parameters().size());
  if (num_parameters > kMaxParameters) {
    return InvalidRequest("parameters", "parameters has " + WithCommas(num_parameters) + " entries; use at most " +
                                            std::to_string(kMaxParameters));
  }
  for (const auto& [name, parameter] : request.parameters()) RETURN_IF_ERROR(ReadParameter(name, parameter, &envelope));
  return envelope;
}

absl::StatusOr<std::vector<size_t>> ReadOutputs(const inference::ModelInferRequest& request,
                                                const std::vector<std::string>& known) {
  std::vector<size_t> wanted;
  for (int i = 0; i < request.outputs_size(); ++i) {
    const auto& output = request.outputs(i);
    const std::string field = "outputs[" + std::to_string(i) + "]";
    const std::string shown = "output \"" + Sanitized(output.name()) + "\"";
    const auto found = std::find(known.begin(), known.end(), output.name());
    if (found == known.end()) {
      std::string names;
      for (const std::string& name : known) names += (names.empty() ? "" : ", ") + name;
      return InvalidRequest(field + ".name", shown + " is unknown; this model gives " + names);
    }
    if (!output.parameters().empty()) {
      return InvalidRequest(field + ".parameters", shown + " has the parameter \"" +
                                                       Sanitized(output.parameters().begin()->first) +
                                                       "\"; outputs travel in the message and have none");
    }
    const size_t position = static_cast<size_t>(found - known.begin());
    if (std::find(wanted.begin(), wanted.end(), position) != wanted.end()) {
      return InvalidRequest(field + ".name", shown + " is there twice");
    }
    wanted.push_back(position);
  }
  return wanted;
}

}  // namespace switchyard::kserve
