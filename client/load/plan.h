// What a load test sends and when, decided before it starts: the same shape, model and seed give the same plan.
//
//   rate 2/s, seed 0:   send_seconds   0, 0.31, 0.98, 1.02, ...   (Poisson: gaps are exponential with mean 1 / rate)
//   rate infinite:      send_seconds   0, 0, 0, 0, ...            (the number of open requests is the only brake)
#ifndef SWITCHYARD_CLIENT_LOAD_PLAN_H_
#define SWITCHYARD_CLIENT_LOAD_PLAN_H_

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace switchyard {

struct LoadShape {
  int num_prompts = 100;
  int input_len = 128;            // tokens of a random prompt
  int output_len = 128;           // max_tokens of a request
  double random_range_ratio = 0;  // lengths are uniform in len * (1 - ratio) to len * (1 + ratio); 0 to below 1
  int random_prefix_len = 0;      // tokens that all random prompts begin with, in addition to input_len
  double request_rate = std::numeric_limits<double>::infinity();  // requests per second; above 0
  uint64_t seed = 0;
};

// From where prompts come.
struct PromptSource {
  int32_t vocab_size = 0;                  // random ids are below it
  std::vector<int32_t> excluded_ids = {};  // and none of these (end and beginning of a sequence)
  std::vector<std::string> texts = {};     // if any: these, in an order drawn by the seed, instead of random ids
};

// One request of the plan. Exactly one of `token_ids` and `text` is set.
struct PlannedRequest {
  double send_seconds = 0;  // after the start of the test; never decreases
  std::vector<int32_t> token_ids;
  std::string text;
  int output_len = 0;
  uint64_t seed = 0;
};

// INVALID_ARGUMENT: a field of `shape` is out of its range, or the source has neither texts nor two usable ids.
absl::StatusOr<std::vector<PlannedRequest>> PlanRequests(const LoadShape& shape, const PromptSource& source);

}  // namespace switchyard

#endif  // SWITCHYARD_CLIENT_LOAD_PLAN_H_
