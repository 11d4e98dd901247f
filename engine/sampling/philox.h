// Philox 4x32-10, a counter-based random number generator (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011): the same (key, counter) gives the same numbers on every device, in any order of evaluation.
#ifndef SWITCHYARD_ENGINE_SAMPLING_PHILOX_H_
#define SWITCHYARD_ENGINE_SAMPLING_PHILOX_H_

#include <cstdint>

#include "engine/base/host_device.h"

namespace switchyard {

struct PhiloxNumbers {
  uint32_t x[4];
};

SWITCHYARD_HOST_DEVICE inline PhiloxNumbers Philox4x32(uint64_t key, uint64_t counter) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  uint32_t key0 = static_cast<uint32_t>(key), key1 = static_cast<uint32_t>(key >> 32);
  uint32_t x0 = static_cast<uint32_t>(counter), x1 = static_cast<uint32_t>(counter >> 32), x2 = 0, x3 = 0;
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = kMultiplier0 * x0, product1 = kMultiplier1 * x2;
    x0 = static_cast<uint32_t>(product1 >> 32) ^ x1 ^ key0;
    x1 = static_cast<uint32_t>(product1);
    x2 = static_cast<uint32_t>(product0 >> 32) ^ x3 ^ key1;
    x3 = static_cast<uint32_t>(product0);
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  return {{x0, x1, x2, x3}};
}

// 53 random bits, for the token at `position` of the sequence with `seed`: uniform in [0, 2^53).
SWITCHYARD_HOST_DEVICE inline uint64_t UniformBitsAt(uint64_t seed, uint64_t position) {
  const PhiloxNumbers numbers = Philox4x32(seed, position);
  return (static_cast<uint64_t>(numbers.x[1]) << 32 | numbers.x[0]) >> 11;
}

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_SAMPLING_PHILOX_H_
