// JSON of a request whose keys keep their order: chat templates show tools as the client wrote them.
#ifndef SWITCHYARD_SERVER_HTTP_ORDERED_JSON_H_
#define SWITCHYARD_SERVER_HTTP_ORDERED_JSON_H_

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "engine/base/json.h"

namespace switchyard::http {

// As ParseJson (engine/base/json.h), strict in the same way: no key twice, no number that a double cannot hold. Linear
// in the text whatever it holds.
absl::StatusOr<nlohmann::ordered_json> ParseOrderedJson(std::string_view text, const JsonLimits& limits,
                                                        const std::string& what);

// Valid UTF-8 whatever `value` holds.
std::string ToText(const nlohmann::ordered_json& value);

}  // namespace switchyard::http

#endif  // SWITCHYARD_SERVER_HTTP_ORDERED_JSON_H_
