// The prompt of /v1/completions: a text, a list of token ids, or a list of either.
#ifndef SWITCHYARD_SERVER_HTTP_PROMPT_LIST_H_
#define SWITCHYARD_SERVER_HTTP_PROMPT_LIST_H_

#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "absl/status/statusor.h"
#include "switchyard/v1/inference_service.pb.h"

namespace switchyard::http {

// One request per prompt, each a copy of `base` with that prompt.  INVALID_ARGUMENT: names the place, "prompt[1][7]".
absl::StatusOr<std::vector<v1::GenerateRequest>> ReadPrompts(const nlohmann::ordered_json& prompt,
                                                             const v1::GenerateRequest& base);

}  // namespace switchyard::http

#endif  // SWITCHYARD_SERVER_HTTP_PROMPT_LIST_H_
