// How the token that follows one row of logits is drawn: what travels to a device with the step. Plain data, also for
// kernels.
#ifndef SWITCHYARD_ENGINE_BACKEND_ROW_SAMPLING_H_
#define SWITCHYARD_ENGINE_BACKEND_ROW_SAMPLING_H_

#include <cstdint>

namespace switchyard {

// As SamplingParams, of which a device needs no more (NeedsHostSampler).
struct RowSampling {
  uint64_t seed = 0;
  int64_t position = 0;  // of the token to be drawn
  float temperature = 0.0f;
  float top_p = 1.0f;
  float min_p = 0.0f;
  int32_t top_k = 0;
};

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_BACKEND_ROW_SAMPLING_H_
