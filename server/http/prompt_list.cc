#include "server/http/prompt_list.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/base/status_macros.h"
#include "server/frontend/errors.h"
#include "server/frontend/request_validation.h"
#include "server/http/openai_request.h"

namespace switchyard::http {
namespace {

using Json = nlohmann::ordered_json;

absl::Status Wrong(const std::string& field, const std::string& problem) {
  return InvalidRequest(field, field + " " + problem);
}

// In memory, of what all prompts share, which is copied for each: more than what the checks of a request let pass.
constexpr size_t kMaxSharedBytes = 262'144;

std::string At(const std::string& field, size_t index) { return field + "[" + std::to_string(index) + "]"; }

absl::Status ReadTokens(const std::string& field, const Json& ids, v1::GenerateRequest* request) {
  auto* const list = request->mutable_token_ids()->mutable_ids();
  list->Reserve(static_cast<int>(ids.size()));
  for (size_t i = 0; i < ids.size(); ++i) {
    if (!ids[i].is_number_integer()) return Wrong(At(field, i), "is no token id");
    // What is beyond 63 bits comes out negative, and is refused as well.
    const auto id = ids[i].get<int64_t>();
    if (id < 0 || id > std::numeric_limits<int32_t>::max()) return Wrong(At(field, i), "is no token of this model");
    list->Add(static_cast<int32_t>(id));
  }
  return absl::OkStatus();
}

absl::Status ReadPrompt(const std::string& field, const Json& prompt, v1::GenerateRequest* request) {
  if (prompt.is_array()) return ReadTokens(field, prompt, request);
  if (!prompt.is_string()) return Wrong(field, "is neither text nor a list of token ids");
  request->set_text(prompt.get<std::string>());
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<v1::GenerateRequest>> ReadPrompts(const Json& prompt, const v1::GenerateRequest& base) {
  std::vector<v1::GenerateRequest> requests;
  const bool is_list = prompt.is_array() && !prompt.empty() && !prompt[0].is_number();
  if (!is_list) {
    RETURN_IF_ERROR(ReadPrompt("prompt", prompt, &requests.emplace_back(base)));
    return requests;
  }
  if (prompt.size() > kMaxPrompts) {
    return Wrong("prompt", "has " + WithCommas(static_cast<int64_t>(prompt.size())) + " prompts; use at most " +
                               std::to_string(kMaxPrompts));
  }
  const size_t num_shared_bytes = base.SpaceUsedLong();
  if (prompt.size() > 1 && num_shared_bytes > kMaxSharedBytes) {
    return Wrong("prompt", "has " + std::to_string(prompt.size()) + " prompts, whose other fields take " +
                               WithCommas(static_cast<int64_t>(num_shared_bytes)) + " bytes of memory; use at most " +
                               WithCommas(kMaxSharedBytes));
  }
  for (size_t i = 0; i < prompt.size(); ++i) {
    RETURN_IF_ERROR(ReadPrompt(At("prompt", i), prompt[i], &requests.emplace_back(base)));
  }
  return requests;
}

}  // namespace switchyard::http
