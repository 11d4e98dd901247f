// Philox 4x32-10, a counter-based random number generator (Salmon et al., "Parallel random numbers: as easy as
// 1, 2, 3", SC 2011): the same (key, counter) gives the same numbers on every device, in any order of evaluation.
#ifndef SWITCHYARD_ENGINE_SAMPLING_PHILOX_H_
#define SWITCHYARD_ENGINE_SAMPLING_PHILOX_H_

#include <array>
#include <cstdint>

namespace switchyard {

inline std::array<uint32_t, 4> Philox4x32(uint64_t key, uint64_t counter) {
  constexpr uint64_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  uint32_t key0 = static_cast<uint32_t>(key), key1 = static_cast<uint32_t>(key >> 32);
  std::array<uint32_t, 4> x = {static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32), 0, 0};
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = kMultiplier0 * x[0], product1 = kMultiplier1 * x[2];
    x = {static_cast<uint32_t>(product1 >> 32) ^ x[1] ^ key0, static_cast<uint32_t>(product1),
         static_cast<uint32_t>(product0 >> 32) ^ x[3] ^ key1, static_cast<uint32_t>(product0)};
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  return x;
}

// Uniform in [0, 1) with 53 random bits, for the token at `position` of the sequence with `seed`.
inline double UniformAt(uint64_t seed, uint64_t position) {
  const std::array<uint32_t, 4> x = Philox4x32(seed, position);
  return static_cast<double>(((uint64_t{x[1]} << 32) | x[0]) >> 11) * 0x1p-53;
}

}  // namespace switchyard

#endif  // SWITCHYARD_ENGINE_SAMPLING_PHILOX_H_
