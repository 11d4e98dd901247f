// The frequencies of rotary position embedding, as a config asks for them.
//
// Pair m of a rotated width r turns by position * inv_freq[m]; without scaling inv_freq[m] = theta^(-2m/r). The kinds
// of scaling (`rope_scaling` of transformers 4, `rope_parameters` of 5) only change the frequencies once, at load:
//   linear   f / factor
//   llama3   long wavelengths divided by factor, short ones kept, those between blended
//   yarn     a ramp over m between the two, and cos and sin scaled by an attention factor (Peng et al., 2309.00071)
// `dynamic` and `longrope` depend on the length of the sequence and are not served.
#ifndef SWITCHYARD_ENGINE_CONFIG_ROPE_H_
#define SWITCHYARD_ENGINE_CONFIG_ROPE_H_

#include <vector>

#include "engine/config/config_reader.h"

namespace switchyard {

struct Rope {
  std::vector<float> inv_freq;    // [rotated_dim / 2]
  float attention_factor = 1.0f;  // multiplies cos and sin
};

// Reads rope_theta, rope_scaling and rope_parameters. Problems are noted in the reader; the result is then of no use.
// REQUIRES: rotated_dim is even and >= 2.
Rope ReadRope(const ConfigReader& config, int rotated_dim, double default_theta, int max_position_embeddings);

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_CONFIG_ROPE_H_
