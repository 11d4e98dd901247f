// The frequencies of rotary position embedding, as a config asks for them.
//
// Pair m of a rotated width r turns by position * inv_freq[m]; without scaling inv_freq[m] = theta^(-2m/r). The kinds
// of scaling (`rope_scaling` of transformers 4, `rope_parameters` of 5) only change the frequencies once, at load:
//   linear   f / factor
//   llama3   long wavelengths divided by factor, short ones kept, those between blended
//   yarn     a ramp over m between the two, and cos and sin scaled by an attention factor (Peng et al., 2309.00071)
//   longrope one factor per pair, from a list for short sequences or one for long; a cache cannot hold both, so one
//            of them serves the engine's life: the long one if sequences may become longer than the original length
// `dynamic` depends on the length of each sequence and is not served.
#ifndef SWITCHYARD_ENGINE_CONFIG_ROPE_H_
#define SWITCHYARD_ENGINE_CONFIG_ROPE_H_

#include <vector>

#include "engine/config/config_reader.h"

namespace switchyard {

struct Rope {
  std::vector<float> inv_freq;    // [rotated_dim / 2]
  float attention_factor = 1.0f;  // multiplies cos and sin
  float softmax_factor = 1.0f;    // what DeepSeek's MLA multiplies the scale of the scores by: yarn's mscale, squared
};

struct RopeSpec {
  int rotated_dim = 0;              // even and >= 2
  const char* theta_key = "rope_theta";
  double default_theta = 0.0;
  const char* default_scaling = nullptr;  // JSON of the class's default; null: none
  int max_position_embeddings = 0;
  int max_model_len = 0;            // the longest sequence that the engine will serve
};

// Reads rope_theta, rope_scaling and rope_parameters. Problems are noted in the reader; the result is then of no use.
Rope ReadRope(const ConfigReader& config, const RopeSpec& spec);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CONFIG_ROPE_H_
